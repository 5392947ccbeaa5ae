"""Runs workspaces on Kubernetes: each is a Deployment of one pod or none, and a volume claim.

There is no lock. Every change of a Deployment or a claim names the version it was decided on, so that
of two that race one fails (409), reads again, and sees whether its intent is still the newest. What is
missing is made again by whatever intent comes next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Event
from typing import Any, TypeVar

import redis

from app.sessions import keys
from app.sessions.errors import FilesGoing, FilesGone, RetryableError, StillEnding, Superseded, WorkspaceConflict
from app.sessions.model import Identity
from app.sessions.redis_errors import redis_errors
from app.sessions.secrets import SessionSecrets
from app.settings import Settings
from workers.archive.terms import incomplete
from workers.runtime import binding, job_objects, names, scalers, views
from workers.runtime.base import PATIENCE, BackupSummary, Check, Observation, Snapshot, never
from workers.runtime.beside import Beside
from workers.runtime.choices import Choices
from workers.runtime.cluster import Cluster, Conflict, Expired, NotFound, came_true, timestamp, wait_for
from workers.runtime.jobs import ArchiveJobs
from workers.runtime.live import Live, LiveObjects, annotations_of, going, notes_of, replicas_of
from workers.runtime.objects import generation_of, identity_of
from workers.runtime.watches import ClusterWatch

log = logging.getLogger(__name__)

Object = dict[str, Any]
Done = TypeVar("Done")

TRIES, PAUSE = 10, 0.05
"""How often a change is decided anew when it was overtaken, and s between; the cluster itself changes a
Deployment some five times while it starts."""

GOING_LIMIT = 30.0
"""s beyond the grace period for the cluster's garbage collector to be done with what was deleted."""


class KubernetesRuntime:
    """`Runtime` for one namespace. `client` is the service's Redis, `clock` gives seconds since the epoch."""

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis,
        cluster: Cluster | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._choices = Choices.of(settings)
        self._redis = client
        self._cluster = cluster or Cluster(settings.workspace_namespace, settings.kube_timeout)
        self._live = LiveObjects(self._cluster, self._choices)
        self._scaler = scalers.make(settings, client)
        secrets = SessionSecrets(settings.secret_keys())
        self._beside = Beside(self._cluster, self._scaler, self._choices, secrets)
        self._jobs = ArchiveJobs(self._cluster, settings.progress_timeout, clock)
        self._clock = clock

    def ping(self) -> None:
        """See `Runtime.ping`. A watch that is open looks the same whether the server lives or hangs."""
        self._cluster.version("deployments")

    def provision(self, identity: Identity, generation: int, *, starting: bool = False) -> None:
        """See `Runtime.provision`. What stands beside the Deployment is left to a start, but for the Secret: ingress
        controllers and KEDA are busy with it for as long as the pod needs to come up."""
        self._decided(lambda: self._provision(identity, generation, starting))
        buried = self._buried(identity.uuid)
        if buried > generation:
            # It was removed between our look and our change: what we made is nobody's.
            self.remove(identity.uuid, buried)
            raise Superseded(f"Intent {generation} was overtaken by {buried}.")

    def start(self, uuid: str, generation: int) -> bool:
        """See `Runtime.start`. One that fails, or has hung since its start, is replaced."""
        began: list[bool] = []
        self._decided(lambda: self._start(uuid, generation, began))
        return not any(began)

    def stop(self, uuid: str, generation: int, patience: float = PATIENCE) -> None:
        """See `Runtime.stop`. 0.5 s normally."""
        self._decided(lambda: self._scale_down(uuid, generation))

        def gone() -> bool:
            if self._all_ended(uuid):
                return True
            deployment = self._live.deployment(uuid)
            if deployment is not None and replicas_of(deployment):
                # Someone else scaled it up again in between; if that was a newer intent, we are told.
                self._decided(lambda: self._scale_down(uuid, generation))
            return False

        if not came_true(gone, patience):
            raise StillEnding(uuid)

    def remove(self, uuid: str, generation: int, *, force: bool = False) -> None:
        """See `Runtime.remove`. What the Deployment owns goes with it. A backup that runs ends with its Job, in any
        case: the volume goes when nobody reads it any more."""
        self._decided(lambda: self._delete(uuid, generation))
        limit = self._settings.stop_grace + GOING_LIMIT
        wait_for(lambda: self._nothing_left(uuid), limit, f"The objects of workspace {uuid} were not all deleted")

    def backup(self, uuid: str, name: str, *, partial: bool = False, check: Check = never) -> BackupSummary:
        """See `Runtime.backup`. A Job does it, on the node of the workspace when that runs."""
        live = self._live.read(uuid)
        identity = live.identity
        if live.claim is None or identity is None:
            raise FilesGone(uuid)
        node = next((pod.node for pod in self._pods(uuid) if pod.node), "")
        job = job_objects.archive_job("backup", identity, name, self._clock(), self._choices, node, partial=partial)
        if node and going(live.claim):
            job_objects.place(job, node)
        self._jobs.end_others(uuid, job)
        summary = self._jobs.run(job, name, check)
        if summary is None:
            raise RetryableError(f"The archive Job of {name} did not say what it wrote.")
        if summary.unreadable_count and not partial:
            # Another's Job of this name, which was asked for less.
            raise incomplete(summary.unreadable_count, summary.unreadable)
        return summary

    def restore(self, identity: Identity, generation: int, *, check: Check = never) -> None:
        """See `Runtime.restore`. Done already: nothing happens, so that a repeated task takes no later work back."""
        uuid, name = identity.uuid, identity.restore_from
        self.provision(identity, generation)
        live = self._live.read(uuid)
        if live.claim is None or has_files(identity, live):
            return
        # Whatever else may scale it up: files that a workspace has begun to work on must not be replaced under it.
        self._beside.withhold(uuid)
        self.stop(uuid, generation)
        self._jobs.run(job_objects.archive_job("restore", identity, name, self._clock(), self._choices), name, check)
        self._decided(lambda: self._note_restored(uuid, generation, name))
        self.provision(replace(identity, restore_from=""), generation)

    def observe(self, uuid: str) -> Observation | None:
        """See `Runtime.observe`."""
        live = self._live.read(uuid)
        if live.claim is None:
            return None
        view = views.deployment_view(live.deployment) if live.deployment else None
        return self._observation(live.claim, view, self._pods(uuid) if view and view.up else [])

    def observe_all(self) -> Iterator[Observation]:
        """See `Runtime.observe_all`. A claim whose identity can't be read is logged and left out."""
        claims = self._list("persistentvolumeclaims", names.SELECTOR)
        deployments = {uuid: view for uuid, view in self._deployments() if view.up}
        pods: dict[str, list[views.PodView]] = {}
        for item in self._list("pods", names.SELECTOR) if deployments else []:
            pods.setdefault(views.uuid_of(item), []).append(views.pod_view(item))
        for claim in claims:
            uuid = views.uuid_of(claim)
            seen = self._observation(claim, deployments.get(uuid), pods.get(uuid, []))
            if seen is not None:
                yield seen

    def watch(self, stop: Event, alive: Callable[[], None] = never) -> Iterator[Snapshot | Observation]:
        """See `Runtime.watch`."""
        timeout = self._settings.progress_timeout
        return ClusterWatch(self._cluster, self._choices.agent_at, timeout, self._clock).run(stop, alive)

    def tidy(self) -> None:
        """See `Runtime.tidy`. Where KEDA scales no more, its objects go; a session gets one when it is next started
        where KEDA is to scale. Addresses of other settings are made again."""
        self._beside.renew_addresses()
        if self._settings.scaler != "keda":
            scalers.withdraw(self._cluster)

    # One decision each: read, refuse, change. A `Conflict` means: again.

    def _provision(self, identity: Identity, generation: int, starting: bool) -> None:
        uuid = identity.uuid
        live = self._live.read(uuid)
        self._refuse_older(uuid, live, generation)
        if live.users - {identity.user_id}:
            raise WorkspaceConflict(f"The workspace {uuid} that is here belongs to another user.")
        live.refuse_going()
        if live.claim is None and live.deployment is None:
            deployment = self._create(identity, generation)
        else:
            deployment = self._adopt(identity, generation, live)
        if not starting and has_files(identity, live):
            self._beside.keep_secret(identity, deployment)
            self._beside.complete(identity, deployment)

    def _create(self, identity: Identity, generation: int) -> Object:
        """A claim and a Deployment at 0 where there was neither. That the claim is ours says that no other intent
        has come this far, so the Deployment is made with its notes: nobody's newer ones can be overwritten,
        as those were patched in, which conflicts."""
        self._live.create_claim(identity, generation)
        return self._live.create_deployment(identity, notes_of(generation, identity))

    def _adopt(self, identity: Identity, generation: int, live: Live) -> Object:
        """Make what is missing of the two, and note the intent with both."""
        claim = live.claim or self._live.create_claim(identity, generation)
        if identity.restore_from and annotations_of(claim).get(names.RESTORED) == identity.restore_from:
            identity = replace(identity, restore_from="")
        deployment = live.deployment or self._live.create_deployment(identity)
        return self._live.note(deployment, claim, generation, identity=identity)

    def _start(self, uuid: str, generation: int, began: list[bool]) -> None:
        """`began` is told whether this begins anything, before it does: it may have to be decided again."""
        live = self._live.read(uuid)
        self._refuse_older(uuid, live, generation)
        identity = live.identity
        if live.claim is None or identity is None:
            raise FilesGone(uuid)
        live.refuse_losing_files()
        live.refuse_going()
        if live.deployment is None and not self._all_ended(uuid):
            # A new Deployment knows nothing of a deleted one's pod, and two must never share the volume.
            if not came_true(lambda: self._all_ended(uuid), PATIENCE):
                raise StillEnding(uuid)
            self._start(uuid, generation, began)
            return
        deployment = live.deployment or self._live.create_deployment(identity)
        asleep = not replicas_of(deployment)
        began.append(asleep)
        # Its pod can't begin without the Secret and the claim; and whoever else scales the updated Deployment up must
        # find all in the Secret that it mounts.
        self._beside.keep_secret(identity, deployment)
        if asleep:
            deployment = self._live.update(identity, deployment)
        claim = binding.let_claim_bind(self._cluster, live.claim)
        self._scaler.before_start(uuid)
        try:
            deployment = self._live.note(deployment, claim, generation, identity=identity, replicas=1)
        except Conflict:
            self._agree(uuid)
            raise
        if asleep:
            binding.let_pod_begin(lambda: self._pods(uuid))
        else:
            began.append(self._replace_broken(uuid, deployment))
        self._beside.complete(identity, deployment)

    def _scale_down(self, uuid: str, generation: int) -> None:
        self._read_to_stop(uuid, generation)
        self._scaler.before_stop(uuid)
        try:
            live = self._read_to_stop(uuid, generation)
            if live.deployment is not None:
                self._live.note(live.deployment, live.claim, generation, replicas=0)
            elif live.claim is not None:
                self._live.note_claim(live.claim, generation)
        except (Conflict, Superseded, FilesGoing):
            self._agree(uuid)
            raise

    def _read_to_stop(self, uuid: str, generation: int) -> Live:
        live = self._live.read(uuid)
        self._refuse_older(uuid, live, generation)
        live.refuse_losing_files()
        return live

    def _delete(self, uuid: str, generation: int) -> None:
        live = self._live.read(uuid)
        self._refuse_older(uuid, live, generation)
        with redis_errors():
            # Before anything goes, so that whoever finds nothing here also finds this.
            self._redis.set(keys.REMOVED.format(uuid=uuid), generation, ex=max(1, round(self._settings.tombstone_ttl)))
        self._scaler.before_stop(uuid)
        self._jobs.remove(uuid)
        if live.deployment is not None:
            version = live.deployment["metadata"]["resourceVersion"]
            self._cluster.delete("deployments", names.workspace(uuid), propagation="Foreground", version=version)
        else:
            self._beside.delete(uuid)
        if live.claim is not None:
            version = live.claim["metadata"]["resourceVersion"]
            self._cluster.delete("persistentvolumeclaims", names.workspace(uuid), version=version)

    def _note_restored(self, uuid: str, generation: int, name: str) -> None:
        live = self._live.read(uuid)
        self._refuse_older(uuid, live, generation)
        identity = live.identity
        if live.claim is None or live.deployment is None or identity is None:
            raise Superseded(f"The workspace {uuid} was removed while it was being restored.")
        identity = replace(identity, restore_from="")
        # The Deployment first: the claim's word is what counts, so it comes when all is done.
        self._live.note_deployment(live.deployment, generation, identity=identity)
        self._live.note_claim(live.claim, generation, identity=identity, restored=name)

    # What decisions are made of

    def _decided(self, decide: Callable[[], Done]) -> Done:
        """Decide and change, again while someone else changes the same. `RetryableError` when that has no end."""
        for attempt in range(TRIES):
            try:
                return decide()
            except (Conflict, NotFound, Expired) as error:
                log.info("deciding again: %s", error)
                time.sleep(PAUSE * attempt)
        raise RetryableError("The workspace's objects keep changing, or their namespace is missing.")

    def _refuse_older(self, uuid: str, live: Live, generation: int) -> None:
        newest = max(live.generation, self._buried(uuid))
        if generation < newest:
            raise Superseded(f"Intent {generation} was overtaken by {newest}.")

    def _buried(self, uuid: str) -> int:
        with redis_errors():
            return int(self._redis.get(keys.REMOVED.format(uuid=uuid)) or 0)

    def _replace_broken(self, uuid: str, deployment: Object) -> bool:
        """Delete the pod of a workspace that should be up and does not work: its successor starts afresh. Whether
        there was one. A pod that waits for room is none of these: its successor would only wait behind all others."""
        view = views.deployment_view(deployment)
        pods = self._pods(uuid)
        pod = views.current(pods)
        if pod is None or pod.ready or not pod.placed:
            return False
        now, limit = self._clock(), self._settings.start_timeout if pod.began else self._settings.progress_timeout
        overdue = now - (pod.began or pod.placed) > limit
        broken = pod.problem is not None and now >= pod.problem.told_at
        if not view.up or not (overdue or broken):
            return False
        log.info("replacing a pod that does not work", extra={"uuid": uuid, "pod": pod.name})
        return self._cluster.delete("pods", pod.name)

    def _agree(self, uuid: str) -> None:
        """Our change was overtaken after the scaler was told of it: let it agree with what there is."""
        deployment = self._live.deployment(uuid)
        if deployment and replicas_of(deployment):
            self._scaler.before_start(uuid)
        else:
            self._scaler.forget(uuid)

    def _nothing_left(self, uuid: str) -> bool:
        live = self._live.read(uuid)
        return live.claim is None and live.deployment is None and not self._pods(uuid)

    def _all_ended(self, uuid: str) -> bool:
        return all(pod.ended for pod in self._pods(uuid))

    def _pods(self, uuid: str) -> list[views.PodView]:
        return [views.pod_view(item) for item in self._list("pods", names.selector(uuid))]

    def _deployments(self) -> Iterator[tuple[str, views.DeploymentView]]:
        for item in self._list("deployments", names.SELECTOR):
            view = views.deployment_view(item)
            yield view.uuid, view

    def _list(self, kind: str, selector: str) -> list[Object]:
        """Read a list, once more if the server had forgotten its first page before the last."""
        return self._decided(lambda: self._cluster.list(kind, selector)[0])

    def _observation(
        self, claim: Object, view: views.DeploymentView | None, pods: list[views.PodView]
    ) -> Observation | None:
        metadata = claim["metadata"]
        identity = identity_of(metadata)
        if identity is None:
            log.error("workspace left aside: its claim does not say whose it is", extra={"claim": metadata["name"]})
            return None
        return views.observation(
            identity,
            view,
            pods,
            None,
            self._clock(),
            generation=generation_of(metadata),
            created_at=timestamp(metadata.get("creationTimestamp")),
            agent_at=self._choices.agent_at,
        )


def has_files(identity: Identity, live: Live) -> bool:
    """Whether the workspace has the files that it is to begin with, as its claim says."""
    noted = annotations_of(live.claim).get(names.RESTORED) if live.claim else None
    return identity.restore_from in ("", noted)
