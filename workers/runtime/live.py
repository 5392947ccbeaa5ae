"""The two objects of a session that carry its identity and its intent: read together, made, and noted on.

Every change names the version it was decided on, so of two that race one is a `Conflict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.sessions.errors import FilesGoing, RetryableError, WorkspaceConflict
from app.sessions.model import Identity
from workers.runtime import names, objects, views
from workers.runtime.choices import Choices
from workers.runtime.cluster import Cluster
from workers.runtime.objects import generation_of, identity_of

Object = dict[str, Any]


@dataclass(frozen=True)
class Live:
    """The two objects of a session that carry its identity and intent, as they were read."""

    claim: Object | None
    deployment: Object | None

    @property
    def generation(self) -> int:
        return max((generation_of(each["metadata"]) for each in (self.claim, self.deployment) if each), default=0)

    @property
    def identity(self) -> Identity | None:
        """The claim's, else what the Deployment knows."""
        found = (identity_of(each["metadata"]) for each in (self.claim, self.deployment) if each)
        return next((identity for identity in found if identity is not None), None)

    def refuse_losing_files(self) -> None:
        """Raises `FilesGoing` when the end of the pod would be the end of its files: a claim that is being
        deleted is kept for as long as a pod has it."""
        if going(self.claim) and self.deployment is not None and replicas_of(self.deployment):
            raise FilesGoing()

    def refuse_going(self) -> None:
        """Raises `RetryableError`: what is being deleted can't be kept; it is soon gone and can be made anew."""
        if going(self.claim) or going(self.deployment):
            raise RetryableError("The workspace's old objects are still being deleted.")

    @property
    def users(self) -> set[str]:
        """Whose it is, by either object."""
        return {annotations_of(each).get(names.USER, "") for each in (self.claim, self.deployment) if each}


class LiveObjects:
    """The claims and Deployments of one namespace."""

    def __init__(self, cluster: Cluster, choices: Choices) -> None:
        self._cluster = cluster
        self._choices = choices

    def read(self, uuid: str) -> Live:
        """Both, or None for what is missing. `WorkspaceConflict` when the Deployment is somebody else's."""
        name = names.workspace(uuid)
        return Live(self._cluster.get("persistentvolumeclaims", name), self.deployment(uuid))

    def deployment(self, uuid: str) -> Object | None:
        """The Deployment, None when there is none. `WorkspaceConflict` when it is somebody else's."""
        deployment = self._cluster.get("deployments", names.workspace(uuid))
        if deployment and views.uuid_of(deployment) != uuid:
            raise WorkspaceConflict(f"A Deployment called {names.workspace(uuid)} is not this session's.")
        return deployment

    def create_claim(self, identity: Identity, generation: int) -> Object:
        """A claim; `Conflict` where there is one."""
        return self._cluster.create("persistentvolumeclaims", objects.claim(identity, generation, self._choices))

    def create_deployment(self, identity: Identity, notes: Mapping[str, str] | None = None) -> Object:
        """A Deployment at 0. It must not be forced: one that appeared meanwhile and was started stays so, as
        its replicas were then set by a patch, which conflicts."""
        wanted = objects.deployment(identity, self._choices, 0)
        wanted["metadata"]["annotations"] |= notes or {}
        return self._cluster.apply("deployments", wanted, force=False)

    def update(self, identity: Identity, deployment: Object) -> Object:
        """Bring a sleeping workspace's pod template up to date with this release and its settings."""
        wanted = objects.deployment(identity, self._choices, 0)
        if annotations_of(deployment).get(names.TEMPLATE) == wanted["metadata"]["annotations"][names.TEMPLATE]:
            return deployment
        # What was applied with the creation and isn't any more would be taken away.
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
        """Note an intent, and what it makes of the replicas, with the Deployment and then with the claim; with that the
        epoch too, unless it is 0."""
        deployment = self.note_deployment(deployment, generation, identity=identity, replicas=replicas)
        if claim is not None:
            self.note_claim(claim, generation, identity=identity, epoch=epoch)
        return deployment

    def note_deployment(
        self, deployment: Object, generation: int, *, identity: Identity | None = None, replicas: int | None = None
    ) -> Object:
        """The Deployment with the notes, and these replicas when they are given."""
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
        """The same for the claim; `restored` names the backup whose files are now on it, `epoch` is that of the
        token in its Secret."""
        notes = notes_of(generation, identity) | ({names.RESTORED: restored} if restored else {})
        notes |= {names.EPOCH: str(epoch)} if epoch else {}
        if notes.items() <= annotations_of(claim).items():
            return
        metadata = claim["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": notes}}
        self._cluster.patch("persistentvolumeclaims", metadata["name"], body)


def going(item: Object | None) -> bool:
    """Whether it is being deleted."""
    return item is not None and "deletionTimestamp" in item["metadata"]


def notes_of(generation: int, identity: Identity | None) -> dict[str, str]:
    """The annotations that say an intent, and whose workspace it is when that may have changed."""
    notes = {names.GENERATION: str(generation)}
    if identity is not None:
        notes[names.IDENTITY] = objects.identity_text(identity)
    return notes


def annotations_of(item: Object) -> Mapping[str, str]:
    """What is noted on it."""
    return item["metadata"].get("annotations") or {}


def replicas_of(deployment: Object) -> int:
    """How many pods it wants, which is 1 where it does not say."""
    return int(deployment["spec"].get("replicas", 1))
