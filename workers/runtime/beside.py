"""What stands beside a session's Deployment and goes with it: Secret, Service, Ingress and, with KEDA, a ScaledObject.

Only the Secret is waited for by anyone; the others don't depend on one another, so they are made at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from typing import Any

from app.sessions.model import Identity
from app.sessions.secrets import SessionSecrets
from workers.runtime import names, objects
from workers.runtime.choices import Choices
from workers.runtime.cluster import Cluster
from workers.runtime.scalers import Scaler

Object = dict[str, Any]

RENEWED_AT_ONCE = 500
"""A few seconds' work: of ten thousand sessions the last has its new address after 20 times."""

LOOKS_APART = 3_600.0
"""s between looks that find nothing; the API server goes through all Ingresses for each."""

REQUESTS_AT_ONCE = 3
"""One for each kind but the Secret; a worker process carries out one task at a time."""


class Beside:
    """Keeps these objects as they should be. Raises as `Cluster` does."""

    def __init__(self, cluster: Cluster, scaler: Scaler, choices: Choices, secrets: SessionSecrets) -> None:
        self._cluster = cluster
        self._secrets = secrets
        self._scaler = scaler
        self._choices = choices
        self._look_at = 0.0
        # Its threads are begun by the first request, in whatever process makes it, and end with that.
        self._executor = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="beside")

    def complete(self, identity: Identity, deployment: Object) -> None:
        """Make what is missing but the Secret, and make right again what was changed."""
        steps = [
            lambda: self._apply("services", objects.service(identity, deployment, self._choices)),
            lambda: self._apply("ingresses", objects.ingress(identity, deployment, self._choices)),
        ]
        scaled = self._scaler.object(identity, deployment)
        if scaled is not None:
            steps.append(lambda: self._apply(self._scaler.kind, scaled))
        all_at_once(self._executor, steps)

    def withhold(self, uuid: str) -> None:
        """Nobody else scales the session up until it is completed again."""
        if self._scaler.kind:
            self._cluster.delete(self._scaler.kind, names.scaler(uuid))

    def renew_addresses(self) -> None:
        """Make the Ingresses again that other settings or an earlier release made, `RENEWED_AT_ONCE` of them: a session
        that sleeps gets no other, and the visit that is to wake it has to find the door. When there is none it is long
        until the next look: settings don't change while a process lives, only another of before may still be about."""
        if time.monotonic() < self._look_at:
            return
        outdated = f"{names.SELECTOR},{names.ADDRESS}!={objects.address(self._choices)}"
        found, _ = self._cluster.list("ingresses", outdated, RENEWED_AT_ONCE)
        if not found:
            self._look_at = time.monotonic() + LOOKS_APART
        for metadata in [each["metadata"] for each in found[:RENEWED_AT_ONCE]]:
            owners, user = metadata.get("ownerReferences"), metadata.get("annotations", {}).get(names.USER)
            if owners and user and "deletionTimestamp" not in metadata:
                identity = Identity(uuid=metadata["labels"][names.UUID_LABEL], user_id=user, created_at=0.0)
                self._apply("ingresses", objects.ingress(identity, {"metadata": owners[0]}, self._choices))

    def delete(self, uuid: str) -> None:
        """Delete what a Deployment that someone deleted may have left."""
        name = names.workspace(uuid)
        for kind in ("ingresses", "services", "secrets"):
            self._cluster.delete(kind, name)
        if self._scaler.kind:
            self._cluster.delete(self._scaler.kind, names.scaler(uuid))

    def keep_secret(self, identity: Identity, deployment: Object) -> None:
        """Make the Secret of the session's agent and editor, where there is a key for one. Another value comes with
        another SECRET_KEY, or from an earlier release; another owner is a Deployment that was made anew."""
        if self._choices.agent is None:
            return
        uuid, name = identity.uuid, names.workspace(identity.uuid)
        wanted = objects.secret(identity, deployment, self._secrets.token_file(uuid), self._secrets.editor_file(uuid))
        there = self._cluster.get("secrets", name)
        if there is None:
            self._cluster.create("secrets", wanted)
            return
        owners, data = wanted["metadata"]["ownerReferences"], wanted["data"]
        owned = [each.get("uid") for each in there["metadata"].get("ownerReferences") or []] == [owners[0]["uid"]]
        if not owned or not data.items() <= (there.get("data") or {}).items():
            self._cluster.patch("secrets", name, {"metadata": {"ownerReferences": owners}, "data": data})

    def _apply(self, kind: str, body: Object) -> None:
        self._cluster.apply(kind, body)


def all_at_once(executor: Executor, steps: list[Callable[[], None]]) -> None:
    """Do all of them and return when each has ended; raises the error of the first that failed."""
    running = [executor.submit(step) for step in steps]
    wait(running)
    for each in running:
        each.result()
