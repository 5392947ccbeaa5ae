"""Who else scales a workspace: nobody, or KEDA.

KEDA brings a Deployment up while the list `queue:{uuid}` has something in it, and down when it has been
empty for the cooldown; a target that was scaled up from outside while its list is empty it takes down
at its next look. So one marker stands in the list for as long as the session should be up. It is put
there before the Deployment is scaled up and taken away before that is scaled down: KEDA never sees a
Deployment that disagrees with its list. But it acts a moment after it looked, and on what it saw: see `SETTLE`.
"""

from __future__ import annotations

import time
from typing import Any, Protocol
from urllib.parse import urlsplit

import redis

from app.sessions import keys
from app.sessions.inbox import MARKER
from app.sessions.model import Identity
from app.sessions.redis_errors import redis_errors
from app.settings import Settings
from workers.runtime import names
from workers.runtime.cluster import Cluster, Expired, NotFound
from workers.runtime.objects import owner_reference

Object = dict[str, Any]

SETTLE = 0.5
"""s between the marker's end and the Deployment's. KEDA reads the list, then the replicas, and brings up a target at 0
whose list had something in it (pkg/scaling/executor/scale_scaledobjects.go, 2.20). Without a pause 1 of 100 sleeps
fell between the two, with KEDA looking each second on two busy cores, and a pod was started that nobody asked for."""


class Scaler(Protocol):
    """What a scaler needs to know of a session's life. `kind` is that of its own objects, "" when it has none.
    Raises `StateUnavailable` when Redis is away."""

    kind: str

    def before_start(self, uuid: str) -> None:
        """The session is about to be scaled up."""

    def before_stop(self, uuid: str) -> None:
        """It is about to be scaled down, or removed. May take a moment, in which the session may change."""

    def forget(self, uuid: str) -> None:
        """It is not up, whatever was said before."""

    def object(self, identity: Identity, owner: Object) -> Object | None:
        """What has to be in the cluster beside the Deployment `owner`."""


class Direct:
    """Only we scale. The marker is kept all the same: where KEDA scaled before, its objects outlive the change of the
    setting by a minute, and would contradict us."""

    kind = ""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def before_start(self, uuid: str) -> None:
        key = keys.INBOX.format(uuid=uuid)
        with redis_errors(), self._client.pipeline(transaction=True) as both:
            # One of them at most, and at the head, before the prompts.
            both.lrem(key, 0, MARKER)
            both.lpush(key, MARKER)
            both.execute()

    def before_stop(self, uuid: str) -> None:
        self._remove_marker(uuid)

    def forget(self, uuid: str) -> None:
        self._remove_marker(uuid)

    def object(self, identity: Identity, owner: Object) -> Object | None:
        return None

    def _remove_marker(self, uuid: str) -> bool:
        """Whether there was one."""
        with redis_errors():
            return bool(self._client.lrem(keys.INBOX.format(uuid=uuid), 0, MARKER))


class Keda(Direct):
    """KEDA scales as well, and wakes a session when nobody of us can."""

    kind = "scaledobjects"

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        super().__init__(client)
        self._settings = settings

    def before_stop(self, uuid: str) -> None:
        if self._remove_marker(uuid):
            time.sleep(SETTLE)

    def object(self, identity: Identity, owner: Object) -> Object | None:
        return scaled_object(identity, owner, self._settings)


def make(settings: Settings, client: redis.Redis) -> Scaler:
    """The scaler that the settings name."""
    return Keda(settings, client) if settings.scaler == "keda" else Direct(client)


def withdraw(cluster: Cluster) -> None:
    """Take from KEDA what it was told of the sessions while it scaled them. A cluster without KEDA knows no such
    objects; a list that is too old by its last page is read again by whoever asks next."""
    try:
        items, _ = cluster.list("scaledobjects", names.SELECTOR)
    except (NotFound, Expired):
        return
    for item in items:
        cluster.delete("scaledobjects", item["metadata"]["name"])


def scaled_object(identity: Identity, owner: Object, settings: Settings) -> Object:
    """The session's ScaledObject (keda.sh/v1alpha1, redis list trigger). User, password and the
    certificate of who signed Redis' come with the TriggerAuthentication, so that no secret is written down here."""
    url = urlsplit(settings.redis_url)
    uuid = identity.uuid
    trigger = {
        "type": "redis",
        "metadata": {
            "address": f"{url.hostname or '127.0.0.1'}:{url.port or 6379}",
            "databaseIndex": url.path.strip("/") or "0",
            "enableTLS": "true" if url.scheme == "rediss" else "false",
            "unsafeSsl": "false",
            "listName": keys.INBOX.format(uuid=uuid),
            "listLength": "1",
            "activationListLength": "0",
        },
        "authenticationRef": {"name": settings.keda_authentication},
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {
            "name": names.scaler(uuid),
            "labels": {
                names.APP_LABEL: names.WORKSPACE,
                names.UUID_LABEL: uuid,
                names.USER_LABEL: names.label_value(identity.user_id),
            },
            "annotations": {names.USER: identity.user_id},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {
            "scaleTargetRef": {"name": names.workspace(uuid)},
            "pollingInterval": settings.keda_polling_interval,
            "cooldownPeriod": settings.keda_cooldown,
            "minReplicaCount": 0,
            "maxReplicaCount": 1,
            "triggers": [trigger],
        },
    }
