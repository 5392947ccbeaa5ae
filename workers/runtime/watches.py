"""Sees what becomes of all workspaces of the cluster: one list and watch for each kind, never one for each session.

Each kind has a thread that reads raw JSON, keeps what `views` makes of it, and passes that on through
one queue; the caller's thread puts it together. A watch that ends is opened again where it was; one
that starts too long ago (410) is listed anew, and only what differs is told.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from threading import Event, Thread
from typing import Any

from app.sessions.errors import RetryableError, SessionError
from app.sessions.model import Identity
from workers.runtime import binding, names, views
from workers.runtime.base import Observation, Snapshot, never
from workers.runtime.cluster import Cluster, Conflict, Expired, NotFound, Watching
from workers.runtime.views import DeploymentView, PodView, Warned

log = logging.getLogger(__name__)

TICK = 0.1
"""s between two looks whether to end, and at problems that may have lasted long enough; changes wait for none."""

WATCH_SECONDS = 240
"""After so long the API server ends a watch, and the next is opened; its own choice is 30 to 60 minutes."""

FIRST_LIST = 60.0
"""s for the first lists; 10,000 Deployments take about 1."""

LONGEST_STEP = 1.0
"""s between two looks that count towards `PROGRESS_TIMEOUT`: a watcher that was held up, or whose clock jumped, has
yet to hear what went on in the rest."""

END_LIMIT = 1.0
"""s a feed that was asked to end is waited for; one that hangs in a request is left to end with that."""

LOOKS = 3
"""How often a kubelet is asked to look at one pod again."""

TRIES, PAUSE = 4, 0.25
"""How often a feed is opened again without having heard anything, and s between, doubling: after 4 s of
silence the whole watch ends, and whoever leads says so by its own silence."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a feed has to say: all of its kind when `listed`, else one, gone or not."""

    kind: str
    items: tuple[Any, ...]
    listed: bool = False
    gone: bool = False
    error: SessionError | None = None


class Feed:
    """Follows one kind in a thread of its own. `view` makes of a raw object what is kept, or None."""

    def __init__(
        self, cluster: Cluster, kind: str, selector: str, view: Callable[[Any], Any], changes: queue.Queue[Change]
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._selector = selector
        self._view = view
        self._changes = changes
        self._stop = Event()
        self._watching: Watching | None = None
        self._thread = Thread(target=self._run, name=f"feed-{kind}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask_to_end(self) -> None:
        """Returns at once; `join` waits."""
        self._stop.set()
        if (watching := self._watching) is not None:
            watching.close()

    def join(self, seconds: float) -> None:
        """Wait for the end; one that hangs in a request ends with that, it has a time limit of its own."""
        self._thread.join(seconds)

    def _run(self) -> None:
        version, failures = "", 0
        while not self._stop.is_set():
            try:
                version = version or self._list()
                for reached in self._follow(version):
                    version, failures = reached, 0
                failures = 0
                self._stop.wait(PAUSE)
            except Expired:
                log.info("listing %s anew", self._kind)
                version = ""
            except (RetryableError, Conflict, NotFound) as error:
                failures += 1
                if failures >= TRIES:
                    self._give_up(str(error))
                    return
                self._stop.wait(PAUSE * 2**failures)
            except SessionError as error:
                self._give_up(str(error))
                return

    def _list(self) -> str:
        if not self._selector:
            # Of events only those to come: old ones tell of what is long mended.
            version = self._cluster.version(self._kind)
            self._changes.put(Change(self._kind, (), listed=True))
            return version
        items, version = self._cluster.list(self._kind, self._selector)
        self._changes.put(Change(self._kind, tuple(map(self._view, items)), listed=True))
        return version

    def _follow(self, version: str) -> Iterator[str]:
        """Pass the changes since `version` on; yields the version that was reached."""
        self._watching = watching = self._cluster.watch(self._kind, self._selector, version, WATCH_SECONDS)
        try:
            if self._stop.is_set():
                return
            for event in watching:
                item = event["object"]
                if event["type"] != "BOOKMARK" and (seen := self._view(item)) is not None:
                    self._changes.put(Change(self._kind, (seen,), gone=event["type"] == "DELETED"))
                yield item["metadata"]["resourceVersion"]
        finally:
            self._watching = None
            watching.release()

    def _give_up(self, why: str) -> None:
        if not self._stop.is_set():
            self._changes.put(Change(self._kind, (), error=RetryableError(f"Watching {self._kind} ended: {why}")))


class ClusterWatch:
    """One pass of `KubernetesRuntime.watch`. `agent_at` gives an agent's URL by the address of its pod.

    A start that has not come as far as its editor's process has failed when nothing went on with it for
    `progress_timeout` s of this watch. What went on before the watch began, or in a gap of it, nobody saw: the time
    counts anew from there. `_progress` is when something last went on, in the time that was `_watched`."""

    def __init__(
        self,
        cluster: Cluster,
        agent_at: Callable[[str], str],
        progress_timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._progress_timeout = progress_timeout
        self._agent_at = agent_at
        self._clock = clock
        self._changes: queue.Queue[Change] = queue.Queue()
        self._feeds = [
            Feed(cluster, "deployments", names.SELECTOR, views.deployment_view, self._changes),
            Feed(cluster, "persistentvolumeclaims", names.SELECTOR, views.claim_view, self._changes),
            Feed(cluster, "pods", names.SELECTOR, views.pod_view, self._changes),
            Feed(cluster, "events", "", views.warned, self._changes),
        ]
        self._deployments: dict[str, DeploymentView] = {}
        self._pods: dict[str, dict[str, PodView]] = {}
        self._warnings: dict[str, Warned] = {}
        self._steps: dict[str, dict[str, float]] = {}
        self._looks: dict[str, int] = {}
        self._going: set[str] = set()
        self._told: dict[str, Observation] = {}
        self._watched, self._looked_at = 0.0, clock()
        self._progress: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def run(self, stop: Event, alive: Callable[[], None] = never) -> Iterator[Snapshot | Observation]:
        """See `Runtime.watch`."""
        for feed in self._feeds:
            feed.start()
        try:
            if not self._first_lists(stop, alive):
                return
            for uuid in self._deployments:
                self._look(uuid)
            yield Snapshot(tuple(self._told.values()))
            while not stop.is_set():
                alive()
                touched = self._next(TICK) | self._now_due()
                for uuid in touched:
                    seen = self._look(uuid)
                    if seen is not None:
                        yield seen
        finally:
            for feed in self._feeds:
                feed.ask_to_end()
            for feed in self._feeds:
                feed.join(END_LIMIT)

    def _first_lists(self, stop: Event, alive: Callable[[], None]) -> bool:
        """Whether all kinds were listed; False when told to end before."""
        missing = {"deployments", "persistentvolumeclaims", "pods", "events"}
        deadline = time.monotonic() + FIRST_LIST
        while missing:
            alive()
            if stop.is_set():
                return False
            if time.monotonic() > deadline:
                raise RetryableError("The API server took too long to list the workspaces.")
            try:
                change = self._changes.get(timeout=TICK)
            except queue.Empty:
                continue
            self._take(change)
            missing.discard(change.kind)
        return True

    def _now_due(self) -> set[str]:
        """The workspaces of which there is something to tell by now, without another word of the cluster."""
        now = self._clock()
        self._watched += min(max(0.0, now - self._looked_at), LONGEST_STEP)
        self._looked_at = now
        return {uuid for uuid, due in self._due.items() if due <= now}

    def _next(self, wait: float) -> set[str]:
        """The workspaces that the next change is about."""
        try:
            return self._take(self._changes.get(timeout=wait))
        except queue.Empty:
            return set()

    def _take(self, change: Change) -> set[str]:
        if change.error is not None:
            raise change.error
        if change.kind == "deployments":
            return self._take_deployments(change)
        if change.kind == "persistentvolumeclaims":
            return self._take_claims(change)
        if change.kind == "pods":
            return self._take_pods(change)
        return self._take_events(change)

    def _take_deployments(self, change: Change) -> set[str]:
        touched = {each.uuid for each in change.items}
        if change.listed:
            touched |= set(self._deployments)
            self._deployments = {each.uuid: each for each in change.items}
            return touched
        for each in change.items:
            known = self._deployments.get(each.uuid)
            if known is not None and known.generation != each.generation:
                # It is asked for anew.
                self._progress.pop(each.uuid, None)
            if change.gone:
                self._deployments.pop(each.uuid, None)
            else:
                self._deployments[each.uuid] = each
        return touched

    def _take_claims(self, change: Change) -> set[str]:
        """Keeps only those that are on their way out."""
        before = set(self._going)
        if change.listed:
            self._going.clear()
        for each in change.items:
            if each.going and not change.gone:
                self._going.add(each.uuid)
            else:
                self._going.discard(each.uuid)
        return before ^ self._going

    def _take_pods(self, change: Change) -> set[str]:
        touched = {each.uuid for each in change.items}
        if change.listed:
            touched |= set(self._pods)
            self._pods = {}
            self._progress.clear()
        for each in change.items:
            pods = self._pods.setdefault(each.uuid, {})
            if change.gone:
                pods.pop(each.name, None)
            else:
                if not change.listed:
                    self._note_steps(each, pods)
                pods[each.name] = each
            if not pods:
                del self._pods[each.uuid]
        return touched

    def _take_events(self, change: Change) -> set[str]:
        if change.listed:
            self._progress.clear()
        for each in change.items:
            if each.uuid not in self._pods:
                continue
            if each.reason in views.TROUBLES:
                self._warnings[each.uuid] = each
                self._help(each)
            elif each.subject in self._pods[each.uuid]:
                self._goes_on(each.uuid, views.EVENT_STEPS.get(each.reason, each.reason))
                # A warning is about volumes or the sandbox, and those are there by now.
                self._warnings.pop(each.uuid, None)
        return {each.uuid for each in change.items}

    def _help(self, warned: Warned) -> None:
        """A pod whose kubelet came too early is looked at again, a few times."""
        looks = self._looks.get(warned.uuid, 0)
        if binding.came_too_early(warned.text) and warned.subject in self._pods[warned.uuid] and looks < LOOKS:
            self._looks[warned.uuid] = looks + 1
            binding.look_again(self._cluster, warned.subject, self._clock())

    def _note_steps(self, pod: PodView, known: Mapping[str, PodView]) -> None:
        """When each step of a start was seen; the API's own times are whole seconds."""
        if pod.gone:
            return
        if pod.name not in known:
            self._steps[pod.uuid] = {}
            self._looks.pop(pod.uuid, None)
            self._progress.pop(pod.uuid, None)
        for step in pod.steps:
            self._goes_on(pod.uuid, step)

    def _goes_on(self, uuid: str, step: str) -> None:
        """A start came further. Each step, or event of a kind, counts once for each pod: a start has an end."""
        steps = self._steps.setdefault(uuid, {})
        if step not in steps:
            steps[step], self._progress[uuid] = self._clock(), self._watched

    def _look(self, uuid: str) -> Observation | None:
        """The workspace as it is now, if that differs from what was told of it."""
        told = self._told.get(uuid)
        deployment = self._deployments.get(uuid)
        identity = (deployment.identity if deployment else None) or (told.identity if told else None)
        self._due.pop(uuid, None)
        if identity is None:
            return None
        seen = self._seen(identity, uuid, deployment, told.generation if told else 0)
        if seen == told and (seen.ready or seen.phases == told.phases):
            return None
        if seen.running or seen.failure:
            self._told[uuid] = seen
            return seen
        self._forget(uuid)
        if told is None:
            return None
        return replace(seen, deleted=True) if deployment is None or deployment.going else seen

    def _seen(self, identity: Identity, uuid: str, deployment: DeploymentView | None, generation: int) -> Observation:
        pods = tuple(self._pods.get(uuid, {}).values())
        pod = views.current(pods)
        if pod is not None and pod.ready:
            self._warnings.pop(uuid, None)
        warning, now = self._warnings.get(uuid), self._clock()
        left = self._progress.setdefault(uuid, self._watched) + self._progress_timeout - self._watched
        seen = views.observation(
            identity,
            deployment,
            pods,
            warning,
            now,
            generation=generation if deployment is None else 0,
            phases=views.steps_in_order(self._steps.get(uuid, {})),
            files_going=uuid in self._going,
            agent_at=self._agent_at,
            overdue=left <= 0,
        )
        if seen.running and deployment is not None:
            problem = views.problem_of(deployment, pod, warning)
            due = [problem.told_at] if problem else []
            due += [] if views.begun(pod) else [now + left]
            if later := [each for each in due if each > now]:
                self._due[uuid] = min(later)
        return seen

    def _forget(self, uuid: str) -> None:
        """A workspace that is down costs no more than its Deployment's view."""
        for known in (self._told, self._warnings, self._steps, self._looks, self._progress):
            known.pop(uuid, None)
