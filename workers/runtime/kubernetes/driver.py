"""Runs workspaces on Kubernetes: each is a volume claim, and a Deployment with one replica or none.

There is no lock. Every change of a Deployment or a claim names the version it was decided on: of two concurrent changes
one fails (409), reads again, and checks whether its intent is still the newest. The next intent creates what is
missing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from threading import Event
from typing import TypeVar

import redis

from app.core.access.agent_credentials import AgentCredentials
from app.core.errors import (
    FilesGoing,
    FilesGone,
    PermanentError,
    RetryableError,
    StillEnding,
    Superseded,
    WorkspaceConflict,
)
from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.sessions.change import TOMBSTONE_TTL
from app.core.sessions.model import Identity
from app.core.storage.archive_keys import ArchiveKeys
from app.process.settings import Settings
from workers.archive.terms import incomplete
from workers.runtime.base import (
    PATIENCE,
    BackupSummary,
    Check,
    Observation,
    PointOrder,
    PointSummary,
    Proof,
    ProofOrder,
    RestoredPoint,
    Snapshot,
    never,
    nobody,
    refuse_unrestored,
)
from workers.runtime.kubernetes import job_access, job_objects, names, scalers, scheduling, status
from workers.runtime.kubernetes.api_server import (
    ApiServer,
    Conflict,
    Expired,
    NotFound,
    timestamp,
    wait_for,
)
from workers.runtime.kubernetes.cluster_objects import (
    ClusterObjects,
    SessionObjects,
    annotations_of,
    going,
    notes_of,
    replicas_of,
)
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.dependents import Dependents
from workers.runtime.kubernetes.informer import Informer
from workers.runtime.kubernetes.job_credentials import JobCredentials
from workers.runtime.kubernetes.jobs import BackupJobs
from workers.runtime.kubernetes.names import Object
from workers.runtime.kubernetes.objects import epoch_of, generation_of, identity_of
from workers.runtime.kubernetes.pod_waits import EndOfPods, SinglePod
from workers.runtime.polling import wait_until

log = logging.getLogger(__name__)
Done = TypeVar("Done")

TRIES, PAUSE = 10, 0.05
"""How often a conflicting change is decided again, and s between (times the attempt); the cluster itself changes a
Deployment some five times while it starts."""

GOING_LIMIT = 30.0
"""s beyond the grace period that the cluster's garbage collector has to finish a deletion."""

POLL = 0.1
"""s between two looks whether a pod has ended."""


class KubernetesRuntime:
    """`Runtime` for one namespace. `client` is the service's Redis, `clock` gives seconds since the epoch."""

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis,
        cluster: ApiServer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._config = KubernetesConfig.of(settings)
        self._redis = client
        self._cluster = cluster or ApiServer(settings.workspace_namespace)
        self._objects = ClusterObjects(self._cluster, self._config)
        self._scaler = scalers.make(settings, client)
        secrets = AgentCredentials(settings.secret_keys())
        self._dependents = Dependents(self._cluster, self._scaler, self._config, secrets)
        self._jobs = BackupJobs(self._cluster, settings.progress_timeout, clock)
        self._keys = ArchiveKeys(settings.archive_key)
        self._credentials = JobCredentials(self._config)
        self._clock = clock

    def ping(self) -> None:
        """See `Runtime.ping`. An open watch does not show that the server hangs."""
        self._cluster.version("deployments")

    def place(self) -> str:
        """See `Runtime.place`."""
        return self._cluster.namespace_uid()

    def provision(self, identity: Identity, generation: int, *, starting: bool = False) -> None:
        """See `Runtime.provision`. With `starting`, the dependents are left to the start: ingress controllers and KEDA
        would be busy with them while the pod comes up. Until then one route of all hosts leads its visitors to the
        waking page; the first session of an installation comes before the first sweep."""
        self._retry(lambda: self._provision(identity, generation, starting))
        try:
            self._retry(lambda: self._dependents.keep_other_hosts(again=False))
        except (RetryableError, PermanentError) as error:
            log.warning("the route of sessions without one is left to the next sweep: %s", error)
        removed = self._removed_generation(identity.uuid)
        if removed > generation:
            # A removal came between our read and our change: what we created is to be removed as well.
            self.remove(identity.uuid, removed)
            raise Superseded(f"Intent {generation} was superseded by intent {removed}.")

    def start(self, uuid: str, generation: int, epoch: int = 0) -> bool:
        """See `Runtime.start`. Replaces a pod that fails or has hung since its start."""
        began: list[bool] = []
        self._retry(lambda: self._start(uuid, generation, epoch, began))
        return not any(began)

    def stop(self, uuid: str, generation: int, patience: float = PATIENCE) -> None:
        """See `Runtime.stop`. Takes 0.5 s normally."""
        self._retry(lambda: self._scale_down(uuid, generation))
        end = self._end_of_pods(uuid)

        def gone() -> bool:
            if end.reached():
                return True
            deployment = self._objects.deployment(uuid)
            if deployment is not None and replicas_of(deployment):
                # Something else scaled it up meanwhile; if that was a newer intent, this raises `Superseded`.
                self._retry(lambda: self._scale_down(uuid, generation))
            return False

        if not wait_until(gone, patience, POLL):
            raise StillEnding(uuid)

    def discard(self, identity: Identity, generation: int) -> str:
        """See `Runtime.discard`. A claim that is being deleted goes with its last pod."""
        uuid = identity.uuid
        aside = self._retry(lambda: self._discard(identity, generation))
        for pod in self._pods(uuid) if aside else ():
            # Its machine may be silent, and it uses the old volume.
            self._cluster.delete("pods", pod.name, now=True)
        end = self._end_of_pods(uuid)

        def gone() -> bool:
            return not going(self._objects.read(uuid, identity.volume).claim) and end.reached()

        if not wait_until(gone, PATIENCE, POLL):
            raise StillEnding(uuid)
        return aside

    def renew(self, uuid: str, epoch: int) -> None:
        """See `Runtime.renew`. A kubelet takes up to a minute to update a Secret in a pod, but does so at once when the
        pod changes too."""
        self._retry(lambda: self._renew(uuid, epoch))
        self.look_again(uuid)

    def look_again(self, uuid: str) -> None:
        """See `Runtime.look_again`."""
        for pod in self._pods(uuid):
            if not pod.ended:
                scheduling.look_again(self._cluster, pod.name, self._clock())

    def lead_ports(self, uuid: str, ports: Sequence[int]) -> None:
        """See `Runtime.lead_ports`. An Ingress of their own names each; it goes with the Deployment."""
        self._retry(lambda: self._lead_ports(uuid, ports))

    def remove(self, uuid: str, generation: int, *, force: bool = False) -> None:
        """See `Runtime.remove`. Deletes the Deployment and what it owns. A running backup always ends, as its Job is
        deleted: the volume goes only when no pod uses it."""
        self._retry(lambda: self._delete(uuid, generation))
        limit = self._settings.stop_grace + GOING_LIMIT
        wait_for(lambda: self._nothing_left(uuid), limit, f"Some objects of workspace {uuid} were not deleted")

    def backup(self, uuid: str, name: str, *, partial: bool = False, check: Check = never) -> BackupSummary:
        """See `Runtime.backup`. Runs a Job, on the node of the workspace's pod if there is one."""
        found = self._objects.read(uuid)
        identity = found.identity
        if found.claim is None or identity is None:
            raise FilesGone(uuid)
        refuse_unrestored(identity)
        node, keys = self._node(uuid), self._keys.session(uuid)
        job = job_objects.backup_job(
            "backup", identity, name, self._clock(), self._config, node, partial=partial, keyed=bool(keys)
        )
        if node and going(found.claim):
            job_objects.place(job, node)
        self._jobs.end_others(uuid, job)
        credential = self._credentials.issue(uuid, job_access.making(uuid))
        summary = self._jobs.run(job, name, keys, credential, check)
        if not isinstance(summary, BackupSummary):
            raise RetryableError(f"The backup Job of {name} reported no result.")
        if summary.unreadable_count and not partial:
            # The Job was started by a call that asked for a partial backup.
            raise incomplete(summary.unreadable_count, summary.unreadable)
        return summary

    def make_point(self, uuid: str, order: PointOrder, *, check: Check = never) -> PointSummary:
        """See `Runtime.make_point`. Runs a Job, on the node of the workspace's pod if there is one."""
        found, keys = self._objects.read(uuid), self._keys.session(uuid)
        if found.claim is None or found.identity is None:
            raise FilesGone(uuid)
        refuse_unrestored(found.identity)
        if not keys:
            raise PermanentError("There are no restore points without an ARCHIVE_KEY.")
        node = self._node(uuid)
        job = job_objects.point_job(order, found.identity, self._config, node)
        if node and going(found.claim):
            job_objects.place(job, node)
        self._jobs.end_others(uuid, job)
        credential = self._credentials.issue(uuid, job_access.making(uuid))
        made = self._jobs.run(job, order.id, keys, credential, check)
        if not isinstance(made, PointSummary):
            raise RetryableError(f"The Job of restore point {order.id} reported no result.")
        return made

    def prove_point(self, uuid: str, order: ProofOrder, *, check: Check = never) -> Proof:
        """See `Runtime.prove_point`. Runs a Job without the volume, on any node."""
        if not (keys := self._keys.session(uuid)):
            raise PermanentError("There are no restore points without an ARCHIVE_KEY.")
        job = job_objects.drill_job(order, self._config)
        self._jobs.end_others(uuid, job)
        credential = self._credentials.issue(uuid, job_access.proving(uuid))
        proof = self._jobs.run(job, order.id, keys, credential, check)
        if not isinstance(proof, Proof):
            raise RetryableError(f"The drill of restore point {order.id} reported no result.")
        return proof

    def restore(
        self,
        identity: Identity,
        generation: int,
        *,
        newer_than: float = 0.0,
        going_back: bool = False,
        check: Check = never,
    ) -> RestoredPoint | None:
        """See `Runtime.restore`. Does nothing when it was done before: a repeated task must not undo later work."""
        uuid, name = identity.uuid, identity.restore_from
        self.provision(identity, generation)
        found = self._objects.read(uuid)
        if found.claim is None or has_files(identity, found):
            return None
        # KEDA must not start the workspace now: its files are about to be replaced.
        self._dependents.withhold(uuid)
        self.stop(uuid, generation)
        keys = self._keys.session(job_objects.source_of(name))
        job = job_objects.backup_job(
            "restore",
            identity,
            name,
            self._clock(),
            self._config,
            newer_than=newer_than,
            going_back=going_back,
            keyed=bool(keys),
        )
        credential = self._credentials.issue(uuid, job_access.reading(name))
        result = self._jobs.run(job, name, keys, credential, check)
        self._retry(lambda: self._note_restored(uuid, generation, identity.restore_mark))
        self.provision(replace(identity, restore_from=""), generation)
        return result if isinstance(result, RestoredPoint) else None

    def observe(self, uuid: str) -> Observation | None:
        """See `Runtime.observe`."""
        found = self._objects.read(uuid)
        if found.claim is None:
            return None
        view = status.deployment_view(found.deployment) if found.deployment else None
        return self._observation(found.claim, view, self._pods(uuid) if view and view.up else [])

    def observe_all(self) -> Iterator[Observation]:
        """See `Runtime.observe_all`. A claim without a readable identity is logged and skipped."""
        claims = self._list("persistentvolumeclaims", names.SELECTOR)
        deployments = {uuid: view for uuid, view in self._deployments() if view.up}
        pods: dict[str, list[status.PodView]] = {}
        for item in self._list("pods", names.SELECTOR) if deployments else []:
            pods.setdefault(status.uuid_of(item), []).append(status.pod_view(item))
        for claim in claims:
            uuid = status.uuid_of(claim)
            seen = self._observation(claim, deployments.get(uuid), pods.get(uuid, []))
            if seen is not None:
                yield seen

    def watch(
        self, stop: Event, alive: Callable[[], None] = never, look_again: Callable[[str], None] = nobody
    ) -> Iterator[Snapshot | Observation]:
        """See `Runtime.watch`."""
        timeout = self._settings.progress_timeout
        return Informer(self._cluster, self._config.agent_at, timeout, self._clock).run(stop, alive, look_again)

    def tidy(self) -> None:
        """See `Runtime.tidy`. Updates Ingresses of other settings, keeps the one of all other hosts, and deletes the
        ScaledObjects where KEDA no longer scales. Where it does, a session gets its ScaledObject at its next start."""
        self._dependents.renew_addresses()
        self._dependents.keep_other_hosts()
        if self._settings.scaler != "keda":
            scalers.withdraw(self._cluster)

    # One decision each: read, refuse, change. After a `Conflict` it is repeated.

    def _provision(self, identity: Identity, generation: int, starting: bool) -> None:
        uuid = identity.uuid
        found = self._objects.read(uuid, identity.volume)
        self._refuse_older(uuid, found, generation)
        if found.users - {identity.user_id}:
            raise WorkspaceConflict(f"Workspace {uuid} already exists and belongs to another user.")
        found.refuse_going()
        if found.claim is None and found.deployment is None:
            deployment = self._create(identity, generation)
        else:
            deployment = self._adopt(identity, generation, found)
        if not starting and has_files(identity, found):
            self._dependents.keep_secret(identity, deployment, _epoch_of(found))
            self._dependents.complete(identity, deployment)

    def _create(self, identity: Identity, generation: int) -> Object:
        """Create the claim and the Deployment with 0 replicas. The claim is new, so no other intent has come this far,
        and the Deployment is created with its notes: they cannot overwrite newer ones, which are patched in and
        conflict."""
        self._objects.create_claim(identity, generation)
        return self._objects.create_deployment(identity, notes_of(generation, identity))

    def _adopt(self, identity: Identity, generation: int, found: SessionObjects) -> Object:
        """Create the missing one of the two, and note the intent on both."""
        claim = found.claim or self._objects.create_claim(identity, generation)
        if identity.restore_from and annotations_of(claim).get(names.RESTORED) == identity.restore_mark:
            identity = replace(identity, restore_from="")
        deployment = found.deployment or self._objects.create_deployment(identity)
        return self._objects.note(deployment, claim, generation, identity=identity)

    def _start(self, uuid: str, generation: int, epoch: int, began: list[bool]) -> None:
        """`began` gets True before this starts a pod, as the decision may be repeated."""
        found = self._objects.read(uuid)
        self._refuse_older(uuid, found, generation)
        identity = found.identity
        if found.claim is None or identity is None or status.is_lost(found.claim):
            raise FilesGone(uuid)
        found.refuse_losing_files()
        found.refuse_going()
        end = self._end_of_pods(uuid)
        if found.deployment is None and not end.reached():
            # A new Deployment does not know the pod of a deleted one, and two pods must never share the volume.
            if not wait_until(end.reached, PATIENCE, POLL):
                raise StillEnding(uuid)
            self._start(uuid, generation, epoch, began)
            return
        deployment = found.deployment or self._objects.create_deployment(identity)
        asleep = not replicas_of(deployment)
        began.append(asleep)
        # The pod cannot start without the Secret; and KEDA may scale the updated Deployment up, which mounts all its
        # keys.
        self._dependents.keep_secret(identity, deployment, epoch or _epoch_of(found))
        if asleep:
            deployment = self._objects.update(identity, deployment)
        claim = scheduling.let_claim_bind(self._cluster, found.claim)
        self._scaler.before_start(uuid)
        try:
            deployment = self._objects.note(deployment, claim, generation, identity=identity, replicas=1, epoch=epoch)
        except Conflict:
            self._resync_scaler(uuid)
            raise
        if asleep:
            scheduling.let_pod_begin(SinglePod(self._cluster, lambda: self._pod_list(uuid)))
        else:
            began.append(self._replace_broken(uuid, deployment))
        self._dependents.complete(identity, deployment)

    def _renew(self, uuid: str, epoch: int) -> None:
        found = self._objects.read(uuid)
        identity = found.identity
        if found.claim is None or found.deployment is None or identity is None or going(found.deployment):
            return
        self._dependents.keep_secret(identity, found.deployment, epoch)
        self._objects.note_claim(found.claim, generation_of(found.claim["metadata"]), epoch=epoch)

    def _lead_ports(self, uuid: str, ports: Sequence[int]) -> None:
        deployment = self._objects.deployment(uuid)
        identity = identity_of(deployment["metadata"]) if deployment else None
        if deployment is None or identity is None or going(deployment):
            return
        self._dependents.lead_ports(identity, deployment, ports)

    def _scale_down(self, uuid: str, generation: int) -> None:
        self._read_to_stop(uuid, generation)
        self._scaler.before_stop(uuid)
        try:
            found = self._read_to_stop(uuid, generation)
            if found.deployment is not None:
                self._objects.note(found.deployment, found.claim, generation, replicas=0)
            elif found.claim is not None:
                self._objects.note_claim(found.claim, generation)
        except (Conflict, Superseded, FilesGoing):
            self._resync_scaler(uuid)
            raise

    def _read_to_stop(self, uuid: str, generation: int) -> SessionObjects:
        found = self._objects.read(uuid)
        self._refuse_older(uuid, found, generation)
        found.refuse_losing_files()
        return found

    def _delete(self, uuid: str, generation: int) -> None:
        found = self._objects.read(uuid)
        self._refuse_older(uuid, found, generation)
        with redis_errors:
            # Before anything is deleted: a call that finds no objects must find this.
            self._redis.set(keys.REMOVED.format(uuid=uuid), generation, ex=TOMBSTONE_TTL)
        self._scaler.before_stop(uuid)
        self._jobs.remove(uuid)
        if found.deployment is not None:
            version = found.deployment["metadata"]["resourceVersion"]
            self._cluster.delete("deployments", names.workspace(uuid), propagation="Foreground", version=version)
        else:
            self._dependents.delete(uuid)
        if found.claim is not None:
            metadata = found.claim["metadata"]
            self._cluster.delete("persistentvolumeclaims", metadata["name"], version=metadata["resourceVersion"])

    def _discard(self, identity: Identity, generation: int) -> str:
        """The name of a claim that was set aside, "" for none."""
        uuid = identity.uuid
        found = self._objects.read(uuid)
        self._refuse_older(uuid, found, generation)
        if found.deployment is not None and replicas_of(found.deployment):
            self._scaler.before_stop(uuid)
            self._objects.note_deployment(found.deployment, generation, replicas=0)
        if found.claim is None or going(found.claim):
            return ""
        name = str(found.claim["metadata"]["name"])
        if name != names.claim(uuid, identity.volume):
            self._objects.keep_aside(found.claim)
            return name
        if status.is_lost(found.claim):
            version = found.claim["metadata"]["resourceVersion"]
            self._cluster.delete("persistentvolumeclaims", name, version=version)
        return ""

    def _note_restored(self, uuid: str, generation: int, mark: str) -> None:
        found = self._objects.read(uuid)
        self._refuse_older(uuid, found, generation)
        identity = found.identity
        if found.claim is None or found.deployment is None or identity is None:
            raise Superseded(f"Workspace {uuid} was removed while it was being restored.")
        identity = replace(identity, restore_from="")
        # The Deployment first: the claim's note is what counts, so it is written last.
        self._objects.note_deployment(found.deployment, generation, identity=identity)
        self._objects.note_claim(found.claim, generation, identity=identity, restored=mark)

    # Parts of decisions

    def _node(self, uuid: str) -> str:
        """Where the workspace's pod runs, "" for nowhere: a volume mounted there can be mounted nowhere else."""
        return next((pod.node for pod in self._pods(uuid) if pod.node), "")

    def _retry(self, decide: Callable[[], Done]) -> Done:
        """Decide and change; again after a concurrent change. `RetryableError` after `TRIES` attempts."""
        for attempt in range(TRIES):
            try:
                return decide()
            except (Conflict, NotFound, Expired) as error:
                log.info("retrying after a concurrent change: %s", error)
                time.sleep(PAUSE * attempt)
        raise RetryableError("The workspace's objects keep changing, or their namespace does not exist.")

    def _refuse_older(self, uuid: str, found: SessionObjects, generation: int) -> None:
        newest = max(found.generation, self._removed_generation(uuid))
        if generation < newest:
            raise Superseded(f"Intent {generation} was superseded by intent {newest}.")

    @redis_errors
    def _removed_generation(self, uuid: str) -> int:
        return int(self._redis.get(keys.REMOVED.format(uuid=uuid)) or 0)

    def _replace_broken(self, uuid: str, deployment: Object) -> bool:
        """Delete the pod of a workspace that should be up and does not work, so that a new one starts; whether it did.
        A pod that waits for a node is kept: its successor would wait behind all others."""
        view = status.deployment_view(deployment)
        pods = self._pods(uuid)
        pod = status.current(pods)
        if pod is None or pod.ready or not pod.placed:
            return False
        now, limit = self._clock(), self._settings.start_timeout if pod.began else self._settings.progress_timeout
        overdue = now - (pod.began or pod.placed) > limit
        broken = pod.problem is not None and now >= pod.problem.reported_at
        if not view.up or not (overdue or broken):
            return False
        log.info("replacing a broken pod", extra={"uuid": uuid, "pod": pod.name})
        return self._cluster.delete("pods", pod.name)

    def _resync_scaler(self, uuid: str) -> None:
        """The change conflicted after the scaler's marker was set: set that to what the Deployment says."""
        deployment = self._objects.deployment(uuid)
        if deployment and replicas_of(deployment):
            self._scaler.before_start(uuid)
        else:
            self._scaler.forget(uuid)

    def _nothing_left(self, uuid: str) -> bool:
        found = self._objects.read(uuid)
        return found.claim is None and found.deployment is None and not self._pods(uuid)

    def _end_of_pods(self, uuid: str) -> EndOfPods:
        return EndOfPods(self._cluster, lambda: self._pod_list(uuid))

    def _pods(self, uuid: str) -> list[status.PodView]:
        return [status.pod_view(item) for item in self._pod_list(uuid)]

    def _pod_list(self, uuid: str) -> list[Object]:
        return self._list("pods", names.selector(uuid))

    def _deployments(self) -> Iterator[tuple[str, status.DeploymentView]]:
        for item in self._list("deployments", names.SELECTOR):
            view = status.deployment_view(item)
            yield view.uuid, view

    def _list(self, kind: str, selector: str) -> list[Object]:
        """Read a list, again if its continuation expired."""
        return self._retry(lambda: self._cluster.list(kind, selector)[0])

    def _observation(
        self, claim: Object, view: status.DeploymentView | None, pods: list[status.PodView]
    ) -> Observation | None:
        metadata = claim["metadata"]
        identity = identity_of(metadata)
        if identity is None:
            log.error("skipping a workspace: its claim has no readable identity", extra={"claim": metadata["name"]})
            return None
        seen = status.observation(
            identity,
            view,
            pods,
            None,
            self._clock(),
            generation=generation_of(metadata),
            created_at=timestamp(metadata.get("creationTimestamp")),
            files_going=going(claim),
            agent_at=self._config.agent_at,
        )
        seen = replace(seen, files_deleted_at=timestamp(metadata.get("deletionTimestamp")))
        if status.is_lost(claim):
            seen = replace(seen, running=False, ready=False, failure=str(FilesGone(identity.uuid)), code=FilesGone.code)
        return replace(seen, epoch=epoch_of(metadata))


def _epoch_of(found: SessionObjects) -> int:
    return epoch_of(found.claim["metadata"]) if found.claim else 0


def has_files(identity: Identity, found: SessionObjects) -> bool:
    """Whether the files of the backup to restore, if any, are on the volume, as the claim notes."""
    noted = annotations_of(found.claim).get(names.RESTORED) if found.claim else None
    return identity.restore_mark in ("", noted)
