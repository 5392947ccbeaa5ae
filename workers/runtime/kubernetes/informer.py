"""Observes all workspaces of the cluster with one list and one watch for each kind, never one for each session.

Each kind has a thread that reads raw JSON, turns it into views (workers/runtime/kubernetes/status.py), and puts those
into one queue; the caller's thread combines them. A watch that ends is reopened at its last version; when that is too
old (410) the kind is listed again, and only differences are reported.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from threading import Event, Thread
from typing import Any

from app.core.errors import RetryableError, SessionError
from app.core.sessions.model import Identity
from workers.runtime.base import Observation, Snapshot, never, nobody
from workers.runtime.kubernetes import names, scheduling, status
from workers.runtime.kubernetes.api_server import ApiServer, Conflict, Expired, NotFound, WatchStream
from workers.runtime.kubernetes.status import DeploymentView, PodView, Warned

log = logging.getLogger(__name__)

TICK = 0.1
"""s between two checks whether to stop, and whether a problem is due to be reported; changes are handled at once."""

WATCH_SECONDS = 240
"""s after which the API server ends a watch and the next is opened; its default is 30 to 60 minutes."""

FIRST_LIST = 60.0
"""s for the first lists; 10,000 Deployments take about 1."""

LONGEST_STEP = 1.0
"""s between two rounds that count towards `PROGRESS_TIMEOUT` at most: an observer that was held up, or whose clock
jumped, has not read the changes of the rest yet."""

END_LIMIT = 1.0
"""s that stopping waits for a feed; one that hangs in a request ends with the request."""

LOOKS = 3
"""How often a kubelet is asked to retry one pod."""

TRIES, PAUSE = 4, 0.25
"""How often a feed is reopened without having received anything, and s between, doubling: after 4 s the whole watch
ends, and the observer's heartbeat stops."""


@dataclass(frozen=True, slots=True)
class Change:
    """A message of a feed: all objects of its kind when `listed`, else one, which is deleted when `gone`."""

    kind: str
    items: tuple[Any, ...]
    listed: bool = False
    gone: bool = False
    error: SessionError | None = None


class Feed:
    """Follows one kind in a thread of its own. `view` turns a raw object into its view, or None to drop it."""

    def __init__(
        self, cluster: ApiServer, kind: str, selector: str, view: Callable[[Any], Any], changes: queue.Queue[Change]
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._selector = selector
        self._view = view
        self._changes = changes
        self._stop = Event()
        self._watching: WatchStream | None = None
        self._thread = Thread(target=self._run, name=f"feed-{kind}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask_to_end(self) -> None:
        """Ask the thread to end; returns at once."""
        self._stop.set()
        if (watching := self._watching) is not None:
            watching.close()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread for at most `seconds`."""
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
                log.info("listing %s again: the watch expired", self._kind)
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
            # Only new events: old ones report problems that are long solved.
            version = self._cluster.version(self._kind)
            self._changes.put(Change(self._kind, (), listed=True))
            return version
        items, version = self._cluster.list(self._kind, self._selector)
        self._changes.put(Change(self._kind, tuple(map(self._view, items)), listed=True))
        return version

    def _follow(self, version: str) -> Iterator[str]:
        """Put the changes since `version` into the queue; yields each version reached."""
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
            self._changes.put(Change(self._kind, (), error=RetryableError(f"The watch of {self._kind} failed: {why}")))


class Informer:
    """One run of `KubernetesRuntime.watch`. `agent_at` gives an agent's URL by the address of its pod.

    A start whose editor has no process yet has failed when it made no progress for `progress_timeout` s of this watch.
    Progress before the watch, or in a gap of it, was not seen: the time starts again from there. `_progress` is the
    time of the last progress, on the clock `_watched`."""

    def __init__(
        self,
        cluster: ApiServer,
        agent_at: Callable[[str], str],
        progress_timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._progress_timeout = progress_timeout
        self._agent_at = agent_at
        self._clock = clock
        self._changes: queue.Queue[Change] = queue.Queue()
        self._feeds = [
            Feed(cluster, "deployments", names.SELECTOR, status.deployment_view, self._changes),
            Feed(cluster, "persistentvolumeclaims", names.SELECTOR, status.claim_view, self._changes),
            Feed(cluster, "pods", names.SELECTOR, status.pod_view, self._changes),
            Feed(cluster, "events", "", status.warned, self._changes),
        ]
        self._deployments: dict[str, DeploymentView] = {}
        self._pods: dict[str, dict[str, PodView]] = {}
        self._warnings: dict[str, Warned] = {}
        self._steps: dict[str, dict[str, float]] = {}
        """By pod: a step can be seen before the Deployment that asked for it, as each kind has a watch of its own."""
        self._looks: dict[str, int] = {}
        self._look_again: Callable[[str], None] = nobody
        self._going: set[str] = set()
        self._reported: dict[str, Observation] = {}
        self._watched, self._looked_at = 0.0, clock()
        self._progress: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def run(
        self, stop: Event, alive: Callable[[], None] = never, look_again: Callable[[str], None] = nobody
    ) -> Iterator[Snapshot | Observation]:
        """See `Runtime.watch`."""
        self._look_again = look_again
        for feed in self._feeds:
            feed.start()
        try:
            if not self._first_lists(stop, alive):
                return
            for uuid in self._deployments:
                self._changed(uuid)
            yield Snapshot(tuple(self._reported.values()))
            while not stop.is_set():
                alive()
                touched = self._next(TICK) | self._now_due()
                for uuid in touched:
                    seen = self._changed(uuid)
                    if seen is not None:
                        yield seen
        finally:
            for feed in self._feeds:
                feed.ask_to_end()
            for feed in self._feeds:
                feed.join(END_LIMIT)

    def _first_lists(self, stop: Event, alive: Callable[[], None]) -> bool:
        """Wait until all kinds are listed; False when `stop` was set before."""
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
        """The workspaces with a problem that is due to be reported now, without another change."""
        now = self._clock()
        self._watched += min(max(0.0, now - self._looked_at), LONGEST_STEP)
        self._looked_at = now
        return {uuid for uuid, due in self._due.items() if due <= now}

    def _next(self, wait: float) -> set[str]:
        """The workspaces affected by the next change."""
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
                # A new intent: the time for progress starts again.
                self._progress.pop(each.uuid, None)
            if change.gone:
                self._deployments.pop(each.uuid, None)
            else:
                self._deployments[each.uuid] = each
        return touched

    def _take_claims(self, change: Change) -> set[str]:
        """Keeps only claims that are being deleted."""
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
            self._steps = {each.name: self._steps.get(each.name, {}) for each in change.items}
            self._progress.clear()
        for each in change.items:
            pods = self._pods.setdefault(each.uuid, {})
            if change.gone:
                pods.pop(each.name, None)
                self._steps.pop(each.name, None)
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
            if each.reason in status.TROUBLES:
                self._warnings[each.uuid] = each
                self._retry_early(each)
            elif each.subject in self._pods[each.uuid]:
                self._note_progress(each.uuid, each.subject, status.EVENT_STEPS.get(each.reason, each.reason))
                # A warning is about volumes or the sandbox, which this event shows to exist.
                self._warnings.pop(each.uuid, None)
        return {each.uuid for each in change.items}

    def _retry_early(self, warned: Warned) -> None:
        """Have the kubelet retry a pod for which it came too early, a few times."""
        looks = self._looks.get(warned.uuid, 0)
        if scheduling.came_too_early(warned.text) and warned.subject in self._pods[warned.uuid] and looks < LOOKS:
            self._looks[warned.uuid] = looks + 1
            self._look_again(warned.uuid)

    def _note_steps(self, pod: PodView, known: Mapping[str, PodView]) -> None:
        """Note when each phase of a start was seen; the API's own times are whole seconds."""
        if pod.gone:
            return
        if pod.name not in known:
            self._looks.pop(pod.uuid, None)
            self._progress.pop(pod.uuid, None)
        for step in pod.steps:
            self._note_progress(pod.uuid, pod.name, step)

    def _note_progress(self, uuid: str, pod: str, step: str) -> None:
        """Note progress of a start. Each phase, or kind of event, counts once for each pod, so that a start must
        end."""
        steps = self._steps.setdefault(pod, {})
        if step not in steps:
            steps[step], self._progress[uuid] = self._clock(), self._watched

    def _changed(self, uuid: str) -> Observation | None:
        """The workspace as it is now, if that differs from what was last reported."""
        reported = self._reported.get(uuid)
        deployment = self._deployments.get(uuid)
        identity = (deployment.identity if deployment else None) or (reported.identity if reported else None)
        self._due.pop(uuid, None)
        if identity is None:
            return None
        seen = self._seen(identity, uuid, deployment, reported.generation if reported else 0)
        if seen == reported and (seen.ready or seen.phases == reported.phases):
            return None
        if seen.running or seen.failure:
            self._reported[uuid] = seen
            return seen
        self._forget(uuid)
        if reported is None:
            return None
        return replace(seen, deleted=True) if deployment is None or deployment.going else seen

    def _seen(self, identity: Identity, uuid: str, deployment: DeploymentView | None, generation: int) -> Observation:
        pods = tuple(self._pods.get(uuid, {}).values())
        pod = status.current(pods)
        if pod is not None and pod.ready:
            self._warnings.pop(uuid, None)
        warning, now = self._warnings.get(uuid), self._clock()
        left = self._progress.setdefault(uuid, self._watched) + self._progress_timeout - self._watched
        seen = status.observation(
            identity,
            deployment,
            pods,
            warning,
            now,
            generation=generation if deployment is None else 0,
            phases=status.steps_in_order(self._steps.get(pod.name, {})) if pod else {},
            files_going=uuid in self._going,
            agent_at=self._agent_at,
            overdue=left <= 0,
        )
        if seen.running and deployment is not None:
            problem = status.problem_of(deployment, pod, warning)
            due = [problem.reported_at] if problem else []
            due += [] if status.begun(pod) else [now + left]
            if later := [each for each in due if each > now]:
                self._due[uuid] = min(later)
        return seen

    def _forget(self, uuid: str) -> None:
        """Drop everything about a workspace that is down except the views of its Deployment and pods."""
        for known in (self._reported, self._warnings, self._looks, self._progress):
            known.pop(uuid, None)
