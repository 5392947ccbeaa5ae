"""What scales a workspace besides the workers: nothing, or KEDA.

KEDA scales a Deployment up while the list `queue:{uuid}` is not empty, and down when it has been empty for the
cooldown; at its next poll it scales down a target that was scaled up from outside while its list is empty. So the list
holds one marker as long as the session should be up. The marker is pushed before the Deployment is scaled up and
removed before it is scaled down: KEDA never sees a Deployment that contradicts its list. But KEDA acts a moment after
its poll: see `SETTLE`.
"""

from __future__ import annotations

import time
from typing import Protocol
from urllib.parse import urlsplit

import redis

from app.core.prompts.inbox import MARKER
from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.sessions.model import Identity
from app.process.settings import Settings
from workers.runtime.kubernetes import names, pods
from workers.runtime.kubernetes.api_server import ApiServer, Expired, NotFound
from workers.runtime.kubernetes.names import Object
from workers.runtime.kubernetes.objects import owner_reference

AUTHENTICATION = "redis"
"""The TriggerAuthentication with Redis' password: that of manifests/components/keda."""

COOLDOWN = 300
"""s a workspace's list is empty before KEDA scales it down, which a worker has normally done long before."""

SETTLE = 0.5
"""s between removing the marker and scaling down. KEDA reads the list, then the replicas, and scales up a target at 0
whose list was not empty (pkg/scaling/executor/scale_scaledobjects.go, 2.20). Without a pause 1 of 100 sleeps fell
between the two, with KEDA polling each second on two busy cores, and a pod was started that nobody asked for."""


class Scaler(Protocol):
    """Follows when a session is scaled. `kind` is that of its own objects, "" when it has none. Raises
    `StateUnavailable` when Redis is unavailable."""

    kind: str

    def before_start(self, uuid: str) -> None:
        """The session is about to be scaled up."""

    def before_stop(self, uuid: str) -> None:
        """The session is about to be scaled down or removed. May take a moment, in which the session may change."""

    def forget(self, uuid: str) -> None:
        """The session is down, despite an earlier `before_start`."""

    def object(self, identity: Identity, owner: Object) -> Object | None:
        """The scaler's object for the Deployment `owner`, None where it has none."""


class Direct:
    """Only the workers scale. The marker is kept all the same: after a change from KEDA its objects stay for a minute,
    and would scale the session down."""

    kind = ""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    @redis_errors
    def before_start(self, uuid: str) -> None:
        key = keys.INBOX.format(uuid=uuid)
        with self._client.pipeline(transaction=True) as both:
            # At most one marker, at the head, before the prompts.
            both.lrem(key, 0, MARKER)
            both.lpush(key, MARKER)
            both.execute()

    def before_stop(self, uuid: str) -> None:
        self._remove_marker(uuid)

    def forget(self, uuid: str) -> None:
        self._remove_marker(uuid)

    def object(self, identity: Identity, owner: Object) -> Object | None:
        return None

    @redis_errors
    def _remove_marker(self, uuid: str) -> bool:
        """Remove the marker; whether there was one."""
        return bool(self._client.lrem(keys.INBOX.format(uuid=uuid), 0, MARKER))


class Keda(Direct):
    """KEDA scales as well, and wakes a session when no worker can."""

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


def withdraw(cluster: ApiServer) -> None:
    """Delete the ScaledObjects of all sessions. A cluster without KEDA has no such kind; if the list expires, the next
    call tries again."""
    try:
        items, _ = cluster.list("scaledobjects", names.SELECTOR)
    except (NotFound, Expired):
        return
    for item in items:
        cluster.delete("scaledobjects", item["metadata"]["name"])


def scaled_object(identity: Identity, owner: Object, settings: Settings) -> Object:
    """The session's ScaledObject (keda.sh/v1alpha1, redis list trigger). The TriggerAuthentication provides user,
    password and CA certificate, so the object holds no secret."""
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
        "authenticationRef": {"name": AUTHENTICATION},
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {
            "name": names.scaler(uuid),
            "labels": pods.labels(identity, names.WORKSPACE),
            "annotations": {names.USER: identity.user_id},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {
            "scaleTargetRef": {"name": names.workspace(uuid)},
            "pollingInterval": settings.keda_polling_interval,
            "cooldownPeriod": COOLDOWN,
            "minReplicaCount": 0,
            "maxReplicaCount": 1,
            "triggers": [trigger],
        },
    }
