"""The claim and the Deployment of a session, which both carry its identity and its last intent.

Every change names the version it was decided on, so that one of two concurrent changes is a `Conflict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.core.errors import FilesGoing, RetryableError, WorkspaceConflict
from app.core.sessions.model import Identity
from workers.runtime.kubernetes import names, objects, status
from workers.runtime.kubernetes.api_server import ApiServer
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.names import Object
from workers.runtime.kubernetes.objects import generation_of, identity_of


@dataclass(frozen=True)
class SessionObjects:
    """The claim and the Deployment of a session as they were read, None for a missing one."""

    claim: Object | None
    deployment: Object | None

    @property
    def generation(self) -> int:
        return max((generation_of(each["metadata"]) for each in (self.claim, self.deployment) if each), default=0)

    @property
    def identity(self) -> Identity | None:
        """The identity noted on the claim, else on the Deployment."""
        found = (identity_of(each["metadata"]) for each in (self.claim, self.deployment) if each)
        return next((identity for identity in found if identity is not None), None)

    def refuse_losing_files(self) -> None:
        """Raises `FilesGoing` when stopping the pod would delete its files: a claim that is being deleted is kept while
        a pod uses it."""
        if going(self.claim) and self.deployment is not None and replicas_of(self.deployment):
            raise FilesGoing()

    def refuse_going(self) -> None:
        """Raises `RetryableError` while an object is being deleted: it is soon gone and can be created again."""
        if going(self.claim) or going(self.deployment):
            raise RetryableError("The workspace's old objects are still being deleted; try again.")

    @property
    def users(self) -> set[str]:
        """The user ids noted on the objects; more than one is a conflict."""
        return {annotations_of(each).get(names.USER, "") for each in (self.claim, self.deployment) if each}


class ClusterObjects:
    """The claims and Deployments of one namespace."""

    def __init__(self, cluster: ApiServer, config: KubernetesConfig) -> None:
        self._cluster = cluster
        self._config = config

    def read(self, uuid: str, volume: int | None = None) -> SessionObjects:
        """Both objects; the claim of this `volume`, or of the one that the Deployment notes. `WorkspaceConflict` when
        the Deployment is not this session's."""
        deployment = self.deployment(uuid)
        if volume is None:
            identity = identity_of(deployment["metadata"]) if deployment else None
            volume = identity.volume if identity else 0
        claim = self._cluster.get("persistentvolumeclaims", names.claim(uuid, volume))
        if claim is not None and kept(claim):
            # The Deployment is gone, which knew the newest.
            claim = next(iter(self._cluster.list("persistentvolumeclaims", names.selector(uuid))[0]), None)
        return SessionObjects(claim, deployment)

    def keep_aside(self, claim: Object) -> None:
        """Label a claim as none of the workspace any more."""
        metadata = claim["metadata"]
        body = {
            "metadata": {"resourceVersion": metadata["resourceVersion"], "labels": {names.APP_LABEL: names.KEPT}},
        }
        self._cluster.patch("persistentvolumeclaims", metadata["name"], body)

    def deployment(self, uuid: str) -> Object | None:
        """The Deployment, None when it does not exist. `WorkspaceConflict` when it is not this session's."""
        deployment = self._cluster.get("deployments", names.workspace(uuid))
        if deployment and status.uuid_of(deployment) != uuid:
            raise WorkspaceConflict(f"The Deployment {names.workspace(uuid)} exists and belongs to something else.")
        return deployment

    def create_claim(self, identity: Identity, generation: int) -> Object:
        """Create the claim; `Conflict` when it exists."""
        return self._cluster.create("persistentvolumeclaims", objects.claim(identity, generation, self._config))

    def create_deployment(self, identity: Identity, notes: Mapping[str, str] | None = None) -> Object:
        """Create the Deployment with 0 replicas. Not forced: one that appeared meanwhile and was started keeps its
        replicas, as a patch set them, which conflicts."""
        wanted = objects.deployment(identity, self._config, 0)
        wanted["metadata"]["annotations"] |= notes or {}
        return self._cluster.apply("deployments", wanted, force=False)

    def update(self, identity: Identity, deployment: Object) -> Object:
        """Update a sleeping workspace's pod template to this release and its settings."""
        wanted = objects.deployment(identity, self._config, 0)
        if annotations_of(deployment).get(names.TEMPLATE) == wanted["metadata"]["annotations"][names.TEMPLATE]:
            return deployment
        # Apply removes fields that the creation applied and this does not.
        wanted["metadata"]["annotations"] |= notes_of(generation_of(deployment["metadata"]), identity)
        wanted["metadata"]["resourceVersion"] = deployment["metadata"]["resourceVersion"]
        return self._cluster.apply("deployments", wanted)

    def note(
        self,
        deployment: Object,
        claim: Object | None,
        generation: int,
        *,
        identity: Identity | None = None,
        replicas: int | None = None,
        epoch: int = 0,
    ) -> Object:
        """Note an intent on the Deployment, with its replicas, and then on the claim, with the epoch unless that is
        0."""
        deployment = self.note_deployment(deployment, generation, identity=identity, replicas=replicas)
        if claim is not None:
            self.note_claim(claim, generation, identity=identity, epoch=epoch)
        return deployment

    def note_deployment(
        self, deployment: Object, generation: int, *, identity: Identity | None = None, replicas: int | None = None
    ) -> Object:
        """Note an intent on the Deployment, and set its replicas when they are given; the Deployment as it is then."""
        notes = notes_of(generation, identity)
        same = replicas is None or replicas_of(deployment) == replicas
        if same and notes.items() <= annotations_of(deployment).items():
            return deployment
        metadata = deployment["metadata"]
        body: Object = {"metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": notes}}
        if replicas is not None:
            body["spec"] = {"replicas": replicas}
        return self._cluster.patch("deployments", metadata["name"], body)

    def note_claim(
        self, claim: Object, generation: int, *, identity: Identity | None = None, restored: str = "", epoch: int = 0
    ) -> None:
        """Note an intent on the claim; `restored` marks the restore whose files it holds, `epoch` is the epoch of the
        token in the Secret."""
        notes = notes_of(generation, identity) | ({names.RESTORED: restored} if restored else {})
        notes |= {names.EPOCH: str(epoch)} if epoch else {}
        if notes.items() <= annotations_of(claim).items():
            return
        metadata = claim["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": notes}}
        self._cluster.patch("persistentvolumeclaims", metadata["name"], body)


def kept(claim: Object) -> bool:
    """Whether the claim was replaced."""
    return (claim["metadata"].get("labels") or {}).get(names.APP_LABEL) == names.KEPT


def going(item: Object | None) -> bool:
    """Whether the object is being deleted."""
    return item is not None and "deletionTimestamp" in item["metadata"]


def notes_of(generation: int, identity: Identity | None) -> dict[str, str]:
    """The annotations for an intent, and for the identity when that may have changed."""
    notes = {names.GENERATION: str(generation)}
    if identity is not None:
        notes[names.IDENTITY] = objects.identity_text(identity)
    return notes


def annotations_of(item: Object) -> Mapping[str, str]:
    """The annotations of an object."""
    return item["metadata"].get("annotations") or {}


def replicas_of(deployment: Object) -> int:
    """The replicas that a Deployment asks for; Kubernetes' default is 1."""
    return int(deployment["spec"].get("replicas", 1))
