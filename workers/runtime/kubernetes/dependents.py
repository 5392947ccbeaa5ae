"""The objects that a session's Deployment owns: Secret, Service, Ingress, another Ingress while ports are opened, and,
with KEDA, a ScaledObject.

The pod waits for the Secret only. The others do not depend on one another, so they are applied at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress

from app.core.access.agent_credentials import AgentCredentials
from app.core.sessions.model import Identity
from workers.runtime.kubernetes import names, objects
from workers.runtime.kubernetes.api_server import ApiServer, Conflict, NotFound
from workers.runtime.kubernetes.cluster_objects import going
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.names import Object
from workers.runtime.kubernetes.scalers import Scaler

RENEWED_AT_ONCE = 500
"""A few seconds' work: ten thousand sessions have their new Ingress after 20 rounds."""

CHECK_INTERVAL = 3_600.0
"""s between checks that find nothing; the API server scans all Ingresses for each."""

REQUESTS_AT_ONCE = 3
"""One for each kind but the Secret; a worker process runs one task at a time."""

PUTS = 2
"""How often a Secret is written before the whole decision is repeated: twice, as others may create or delete it."""


class Dependents:
    """Keeps these objects up to date. Raises like `ApiServer`."""

    def __init__(self, cluster: ApiServer, scaler: Scaler, config: KubernetesConfig, secrets: AgentCredentials) -> None:
        self._cluster = cluster
        self._secrets = secrets
        self._scaler = scaler
        self._config = config
        self._look_at = 0.0
        self._keeps_other_hosts = False
        # Its threads start with the first request, in the process that makes it.
        self._executor = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="beside")

    def complete(self, identity: Identity, deployment: Object) -> None:
        """Create what is missing except the Secret, and undo foreign changes."""
        wanted = [
            ("services", objects.service(identity, deployment, self._config)),
            ("ingresses", objects.ingress(identity, deployment, self._config)),
        ]
        if (scaled := self._scaler.object(identity, deployment)) is not None:
            wanted.append((self._scaler.kind, scaled))
        running = [self._executor.submit(self._cluster.apply, kind, body) for kind, body in wanted]
        wait(running)
        for each in running:
            each.result()

    def keep_other_hosts(self, *, again: bool = True) -> None:
        """Lead the hosts of sessions without objects to forward auth and the waking page. If not `again`, this process
        does so once."""
        if self._keeps_other_hosts and not again:
            return
        self._cluster.apply("services", objects.nowhere())
        self._cluster.apply("ingresses", objects.other_hosts(self._config))
        self._keeps_other_hosts = True

    def lead_ports(self, identity: Identity, deployment: Object, ports: Iterable[int], version: str = "") -> None:
        """Have the Ingress of ports lead to these, which is none without any; of that `version`, unless it is ""."""
        wanted = objects.port_ingress(identity, deployment, ports, self._config)
        if not wanted["spec"]["rules"]:
            self._cluster.delete("ingresses", wanted["metadata"]["name"], version=version)
            return
        if version:
            wanted["metadata"]["resourceVersion"] = version
        self._cluster.apply("ingresses", wanted)

    def withhold(self, uuid: str) -> None:
        """Keep KEDA from scaling the session up until `complete` is called again."""
        if self._scaler.kind:
            self._cluster.delete(self._scaler.kind, names.scaler(uuid))

    def renew_addresses(self) -> None:
        """Apply `RENEWED_AT_ONCE` of the Ingresses that other settings made: nothing else updates them while a session
        sleeps, and the request that is to wake it must pass forward auth. When none is outdated the next check is after
        `CHECK_INTERVAL`: only a process with older settings could make another."""
        if time.monotonic() < self._look_at:
            return
        outdated = f"{names.SELECTOR},{names.ADDRESS}!={objects.address(self._config)}"
        found, _ = self._cluster.list("ingresses", outdated, RENEWED_AT_ONCE)
        if not found:
            self._look_at = time.monotonic() + CHECK_INTERVAL
        for metadata in [each["metadata"] for each in found[:RENEWED_AT_ONCE]]:
            owners, user = metadata.get("ownerReferences"), metadata.get("annotations", {}).get(names.USER)
            if owners and user and "deletionTimestamp" not in metadata:
                identity = Identity(uuid=metadata["labels"][names.UUID_LABEL], user_id=user, created_at=0.0)
                self._renew_address(identity, {"metadata": owners[0]}, metadata)

    def _renew_address(self, identity: Identity, deployment: Object, metadata: Object) -> None:
        """Apply an Ingress again that has this metadata."""
        if (ports := objects.ports_of(metadata)) is None:
            self._cluster.apply("ingresses", objects.ingress(identity, deployment, self._config))
            return
        with suppress(Conflict, NotFound):  # another call has led to other ports meanwhile
            self.lead_ports(identity, deployment, ports, metadata["resourceVersion"])

    def delete(self, uuid: str) -> None:
        """Delete what a Deployment that someone else deleted may have left."""
        name = names.workspace(uuid)
        for kind in ("ingresses", "services", "secrets"):
            self._cluster.delete(kind, name)
        self._cluster.delete("ingresses", names.ports(uuid))
        if self._scaler.kind:
            self._cluster.delete(self._scaler.kind, names.scaler(uuid))

    def keep_secret(self, identity: Identity, deployment: Object, epoch: int) -> None:
        """Write the Secret of the session's agent and editor, where there is a SECRET_KEY. It is written without being
        read, which no worker may do (manifests/base/workspaces/access.yaml): the old one may be of another epoch, key
        or Deployment. Raises `Conflict` when others create and delete it all the time."""
        if self._config.agent is None:
            return
        uuid = identity.uuid
        token, editor = self._secrets.token_file(uuid, epoch), self._secrets.editor_file(uuid)
        wanted = objects.secret(identity, deployment, token, editor)
        for _ in range(PUTS):
            try:
                # A Secret that is being deleted is gone after this PUT, which removes its finalizers.
                if not going(self._cluster.replace("secrets", wanted)):
                    return
            except NotFound:
                with suppress(Conflict):
                    self._cluster.create("secrets", wanted)
                    return
        raise Conflict(f"Others keep creating and deleting the Secret of workspace {uuid}.")
