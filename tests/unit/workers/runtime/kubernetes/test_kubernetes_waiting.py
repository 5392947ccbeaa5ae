"""What a start waits for in a cluster: told as its reason, and a failure only when nothing goes on for long."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from app.core.sessions.model import PHASES
from app.process.settings import Settings
from tests.contract.runtimes import watching
from tests.unit.fake_api import FakeApi
from tests.unit.workers.runtime.kubernetes.samples import (
    CRASHED,
    NAME,
    PLACED,
    POD,
    READY,
    A,
    conditions,
    pod,
    started,
    waiting,
)
from workers.runtime.base import Observation
from workers.runtime.kubernetes import status as kubernetes_status
from workers.runtime.kubernetes.driver import KubernetesRuntime
from workers.runtime.kubernetes.informer import LONGEST_STEP, Change, Informer
from workers.runtime.kubernetes.status import BINDING_PATIENCE, MOUNT_PATIENCE, NO_PROGRESS, SCHEDULING_PATIENCE

FULL = (
    "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found."
)
NO_ROOM = f"No machine of the cluster has room for the workspace: {FULL}"
RUNNING = {**PLACED, "containerStatuses": [{"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}


class Stage:
    """A workspace that is started, on a clock of its own."""

    def __init__(self, settings: Settings, client: redis.Redis, api: FakeApi) -> None:
        self.now = float(round(time.time()))
        self.api, self.settings, self.client = api, settings, client
        self.patience = settings.progress_timeout
        self.runtime = KubernetesRuntime(settings, client, api.cluster(), self.clock)
        started(self.runtime)
        self.watch = self.begin()

    def clock(self) -> float:
        return self.now

    def timestamp(self) -> str:
        return datetime.fromtimestamp(self.now, UTC).isoformat()

    def pod(self, status: dict[str, Any], name: str = POD) -> dict[str, Any]:
        """The pod as the cluster shows it now; one that the scheduler found no node for has none."""
        made = pod(status, name, creationTimestamp=self.timestamp())
        if any(each.get("reason") == "Unschedulable" for each in status.get("conditions", [])):
            made["spec"] = {}
        return made

    def unschedulable(self, message: str = FULL) -> dict[str, Any]:
        found = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        return {"conditions": [found | {"lastTransitionTime": self.timestamp()}]}

    # The watch without its threads: what a feed says, and what is seen then.

    def begin(self) -> Informer:
        """A watch that begins now; it has heard of the Deployment."""
        self.watch = Informer(self.api.cluster(), lambda address: "", self.patience, self.clock)
        self.deployment()
        return self.watch

    def deployment(self) -> None:
        self.take("deployments", kubernetes_status.deployment_view(self.api.get("deployments", NAME)))

    def shows(self, status: dict[str, Any], name: str = POD) -> None:
        self.take("pods", kubernetes_status.pod_view(self.pod(status, name)))

    def tells(self, reason: str, message: str = "") -> None:
        """An event about the pod."""
        event = {"involvedObject": {"kind": "Pod", "name": POD}, "reason": reason, "message": message}
        self.take("events", kubernetes_status.warned(event))

    def take(self, kind: str, *items: Any, listed: bool = False) -> None:
        self.watch._take(Change(kind, items, listed=listed))

    def look(self) -> Observation:
        self.watch._changed(A)
        return self.watch._reported[A]

    def after(self, seconds: float) -> Observation:
        """How it is after that much of the watch. What is told then is told without another word of the cluster."""
        seen = self.look()
        for _ in range(round(seconds / LONGEST_STEP)):
            self.now += LONGEST_STEP
            due = A in self.watch._now_due()
            before, seen = seen, self.look()
            assert due or seen == before
        return seen

    def failure_after(self, seconds: float) -> str:
        """The failure after that much of the watch; a second before there was none."""
        assert self.after(seconds - 1).failure == ""
        return self.after(1).failure


@pytest.fixture
def stage(on_cluster: Settings, redis_client: redis.Redis, api: FakeApi) -> Stage:
    return Stage(on_cluster, redis_client, api)


def test_no_room_is_what_it_waits_for_and_a_failure_only_after_its_patience(stage: Stage) -> None:
    """Longer than an editor has to answer. And when room comes after all, it goes on by itself."""
    stage.shows(stage.unschedulable())
    told = stage.after(SCHEDULING_PATIENCE - 1)
    assert (told.running, told.waiting) == (True, ""), "room may just be about to be made"
    told = stage.after(1)
    assert (told.running, told.began, told.waiting, told.code) == (True, 0.0, NO_ROOM, "no_capacity")
    told = stage.after(stage.patience - SCHEDULING_PATIENCE - 1)
    assert (told.failure, told.waiting) == ("", NO_ROOM)
    told = stage.after(1)
    assert (told.running, told.failure, told.waiting, told.code) == (False, NO_ROOM, NO_ROOM, "no_capacity")
    stage.shows(READY)
    ready = stage.look()
    assert (ready.ready, ready.failure, ready.waiting, ready.code) == (True, "", "", "")


@pytest.mark.slow
def test_a_watch_tells_of_it_by_itself(stage: Stage, api: FakeApi) -> None:
    """Nothing new comes from the cluster meanwhile."""
    stage.patience = 3.0
    on_cluster = replace(stage.settings, progress_timeout=stage.patience)
    runtime = KubernetesRuntime(on_cluster, stage.client, api.cluster(), lambda: time.time() + stage.now - began)
    began = stage.now = float(round(time.time()))
    with watching(runtime) as seen:
        seen.snapshot()
        api.put("pods", stage.pod(stage.unschedulable()))
        stage.now += SCHEDULING_PATIENCE
        assert seen.until(lambda each: bool(each.waiting)).running
        assert seen.until(lambda each: bool(each.failure)).code == "no_capacity"
        api.put("pods", stage.pod(READY))
        assert seen.until(lambda each: each.ready).failure == ""


def test_a_observer_that_was_held_up_holds_nothing_against_a_start(stage: Stage) -> None:
    """What went on meanwhile is still to be heard when it looks again; nor does a clock that jumps make time pass."""
    stage.shows(stage.unschedulable())
    stage.look()
    stage.now += 10 * stage.patience
    assert A in stage.watch._now_due()
    assert stage.look().failure == ""
    stage.tells("TriggeredScaleUp")
    assert stage.failure_after(stage.patience) == NO_ROOM


def test_room_that_comes_takes_the_reason_away(stage: Stage) -> None:
    stage.shows(stage.unschedulable())
    assert stage.after(100).waiting == NO_ROOM
    stage.shows(PLACED)
    went_on = stage.look()
    assert (went_on.running, went_on.waiting, went_on.code) == (True, "", "")


@pytest.mark.parametrize("sign", ["TriggeredScaleUp", "Nominated", "SuccessfulAttachVolume", "Pulling"])
def test_patience_counts_from_the_last_sign_of_progress(stage: Stage, sign: str) -> None:
    """Of each kind once for a pod: a start that goes round in circles has an end."""
    stage.shows(stage.unschedulable())
    assert stage.after(stage.patience - 10).failure == ""
    stage.tells(sign)
    assert stage.after(stage.patience - 10).failure == ""
    stage.tells(sign)
    assert stage.failure_after(10) == NO_ROOM


def test_each_step_of_a_start_is_progress(stage: Stage) -> None:
    """A node that had to be added first, its image, and the volume: each takes its time."""
    ready_to_start = conditions(PodScheduled="True", PodReadyToStartContainers="True")
    for status in (stage.unschedulable(), PLACED, {"conditions": ready_to_start}):
        stage.shows(status)
        assert stage.after(stage.patience - 1).failure == ""
    assert stage.after(1).failure == NO_PROGRESS


def test_another_pod_begins_anew(stage: Stage) -> None:
    """A node was drained before its kubelet began."""
    for name in (POD, f"{NAME}-y"):
        stage.shows(stage.unschedulable(), name)
        assert stage.after(stage.patience - 1).failure == ""


def test_a_watch_holds_nothing_against_a_start_that_it_did_not_see(stage: Stage) -> None:
    """The observer was away: what went on meanwhile, nobody heard."""
    status = stage.unschedulable()
    stage.shows(status)
    stage.look()
    stage.now += 10 * stage.patience
    stage.begin()
    stage.take("pods", kubernetes_status.pod_view(stage.pod(status)), listed=True)
    assert (stage.look().failure, stage.look().waiting) == ("", NO_ROOM)
    assert stage.failure_after(stage.patience) == NO_ROOM


@pytest.mark.parametrize("kind", ["pods", "events"])
def test_a_gap_in_the_watch_is_not_held_against_a_start(stage: Stage, kind: str) -> None:
    """A feed that can't go on where it was lists anew: the events of between are lost."""
    seen = kubernetes_status.pod_view(stage.pod(stage.unschedulable()))
    stage.take("pods", seen)
    assert stage.after(stage.patience - 1).failure == ""
    stage.take(kind, *([seen] if kind == "pods" else []), listed=True)
    assert stage.failure_after(stage.patience) == NO_ROOM


def test_a_start_that_is_asked_for_again_has_its_time_and_keeps_its_place(stage: Stage, api: FakeApi) -> None:
    """A new pod would begin behind all others that wait for room."""
    asked = stage.pod(stage.unschedulable())
    api.put("pods", asked)
    stage.take("pods", kubernetes_status.pod_view(asked))
    assert stage.after(stage.patience).failure == NO_ROOM
    assert stage.runtime.start(A, 3) is True
    assert ("pods", POD) in api.names()
    stage.deployment()
    assert (stage.look().generation, stage.look().failure) == (3, "")
    assert stage.failure_after(stage.patience) == NO_ROOM


@pytest.mark.parametrize(("status", "limit"), [(PLACED, "progress_timeout"), (RUNNING, "start_timeout")])
def test_a_pod_on_a_node_is_replaced_by_a_start_only_when_its_time_is_over(
    stage: Stage, api: FakeApi, on_cluster: Settings, status: dict[str, Any], limit: str
) -> None:
    """One whose image takes long to come would only have to begin again."""
    stage.now = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    api.put("pods", stage.pod(status))
    stage.now += getattr(on_cluster, limit)
    assert stage.runtime.start(A, 3) is True
    stage.now += 1
    assert stage.runtime.start(A, 4) is False


def test_a_warning_about_volumes_is_told_after_a_while_and_is_a_failure_when_nothing_goes_on(stage: Stage) -> None:
    """Only events know of it. However long the pod waited for its node: attaching begins there."""
    stage.shows(stage.unschedulable())
    stage.after(stage.patience - 1)
    stage.shows(PLACED)
    stage.tells("FailedAttachVolume", "the disk is still attached elsewhere")
    assert stage.after(MOUNT_PATIENCE - 1).waiting == ""
    told = stage.after(1)
    text = "The workspace's volume cannot be mounted: the disk is still attached elsewhere"
    assert (told.running, told.waiting, told.code) == (True, text, "volume_unavailable")
    assert stage.after(stage.patience - MOUNT_PATIENCE).failure == text


def test_a_pull_that_may_succeed_later_is_waited_for(stage: Stage) -> None:
    """A registry that is busy, or the network of a node that is new."""
    text = "The workspace's image cannot be pulled: dial tcp: i/o timeout"
    stage.shows({**PLACED, **waiting("ErrImagePull", "dial tcp: i/o timeout")})
    assert (stage.look().running, stage.look().waiting) == (True, text)
    failed = stage.after(stage.patience)
    assert (failed.failure, failed.code) == (text, "image_unavailable")


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("InvalidImageName", 'couldn\'t parse image name ":::": invalid reference format'),
        ("ErrImageNeverPull", "is not present with pull policy of Never"),
        ("ErrImagePull", "failed to resolve reference: registry.example/none:1: not found"),
        ("ErrImagePull", "pull access denied, repository does not exist or may require authorization"),
    ],
)
def test_an_image_that_can_not_be_had_is_a_failure_at_once(stage: Stage, reason: str, message: str) -> None:
    stage.shows({**PLACED, **waiting(reason, message)})
    assert stage.look().failure == f"The workspace's image cannot be pulled: {message}"


def test_a_start_of_which_nothing_is_heard_has_an_end(stage: Stage) -> None:
    """As when the cluster makes no pod."""
    assert stage.failure_after(stage.patience) == NO_PROGRESS


@pytest.mark.parametrize(
    "between",
    [
        {"state": {"terminated": {"exitCode": 137}}},
        {"state": {"waiting": {"reason": "PodInitializing"}}, "lastState": {"terminated": {"exitCode": 137}}},
    ],
)
def test_an_editor_between_two_lives_is_not_one_that_never_began(stage: Stage, between: dict[str, Any]) -> None:
    """It ran for hours, and the kubelet starts it again at once; one that keeps dying has failed."""
    stage.shows(READY)
    stage.after(10 * stage.patience)
    stage.shows({**PLACED, "containerStatuses": [between]})
    assert (stage.look().running, stage.look().failure) == (True, "")
    stage.shows({**PLACED, **CRASHED})
    assert stage.look().failure.startswith("The editor ended unexpectedly")


def test_an_editor_that_runs_has_no_such_patience(stage: Stage) -> None:
    """It answers within `START_TIMEOUT`, which counts from its beginning, or has failed: the sweep judges that."""
    stage.shows(RUNNING)
    told = stage.after(2 * stage.patience)
    began = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert (told.running, told.failure, told.waiting, told.began) == (True, "", "", began)


CAPACITY = ("no_capacity", "No machine of the cluster has room", SCHEDULING_PATIENCE)
VOLUME = ("volume_unavailable", "The workspace's volume is not available", SCHEDULING_PATIENCE)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (FULL, CAPACITY),
        ("0/2 nodes are available: 1 Insufficient memory, 1 Too many pods.", CAPACITY),
        ("no nodes available to schedule pods", CAPACITY),
        ("0/1 nodes are available: 1 node(s) had untolerated taint {a: b}.", CAPACITY),
        ("0/1 nodes are available: 1 node(s) were unschedulable.", CAPACITY),
        ("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had volume node affinity conflict.", CAPACITY),
        ("0/2 nodes are available: 2 node(s) had volume node affinity conflict.", VOLUME),
        ('0/1 nodes are available: persistentvolumeclaim "x" not found.', VOLUME),
        ("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.", (*VOLUME[:2], BINDING_PATIENCE)),
    ],
)
def test_the_schedulers_words_are_told_apart(stage: Stage, message: str, told: tuple[str, str, float]) -> None:
    """None of them is for good. A cloud takes up to 15 s for a disk, which is not worth a word."""
    code, text, patience = told
    problem = kubernetes_status.pod_problem(stage.pod(stage.unschedulable(message)))
    assert problem is not None
    assert (problem.waits, problem.code, problem.patience) == (True, code, patience)
    assert problem.text.startswith(text)


def test_progress_is_told_in_steps_alone(stage: Stage) -> None:
    """Other signs of it are no phases of a start."""
    stage.shows(stage.unschedulable())
    stage.tells("TriggeredScaleUp")
    stage.shows(PLACED)
    assert set(stage.look().phases) <= set(PHASES)
