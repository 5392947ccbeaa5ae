"""What is asked of the API server while a sleep, a start or a Job waits for a pod: one pod by name, seldom a list.

For a list the server compares the labels of all pods of the namespace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import pytest

from app.core.errors import RuntimeUnavailable, StillEnding
from tests.unit.fake_api import LONG_AGO, FakeApi
from tests.unit.workers.runtime.kubernetes.samples import (
    ADA,
    BACKUP,
    NAME,
    READY,
    SUMMARY,
    A,
    job_pod,
    pod,
    replicas,
    result,
    started,
)
from tests.waiting import PATIENCE
from workers.runtime.kubernetes import driver, jobs, scheduling
from workers.runtime.kubernetes.driver import KubernetesRuntime

LONG = 10
"""Looks that a pod takes to get where it is waited for."""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other at once, so that a test counts them and not the time."""
    monkeypatch.setattr(driver, "POLL", 0.0)
    monkeypatch.setattr(jobs, "POLL", 0.0)
    for name in ("PAUSE", "LIST_PAUSE", "KUBELET_LOOK"):
        monkeypatch.setattr(scheduling, name, 0.0)


class Looks:
    """Counts the requests for pods from now on, and does something before some of them; the first is number 1."""

    def __init__(self, api: FakeApi, acts: Mapping[int, Callable[[], object]]) -> None:
        self._api, self._acts, self._listed = api, acts, api.lists.count("pods")
        self.count = 0
        api.before["GET pods"] = self._look

    def _look(self) -> None:
        self._api.before["GET pods"] = self._look
        self.count += 1
        if (act := self._acts.get(self.count)) is not None:
            act()

    @property
    def lists(self) -> int:
        return self._api.lists.count("pods") - self._listed


def put(api: FakeApi, name: str, status: dict[str, Any] | None = None, node: str = "node-1") -> Callable[[], object]:
    """A controller, the scheduler or a kubelet writes this pod."""
    made = pod(READY if status is None else status, name)
    made["spec"] = {"nodeName": node} if node else {}
    return lambda: api.put("pods", made)


def fail(api: FakeApi, code: int) -> Callable[[], object]:
    """From now on the server answers every request for pods so."""
    return lambda: api.answers.update({"GET pods": (code, "")})


# A sleep


@pytest.fixture
def up(runtime: KubernetesRuntime, api: FakeApi) -> KubernetesRuntime:
    """A runtime with one workspace, whose pod runs."""
    started(runtime)
    put(api, "pod-1")()
    return runtime


def test_a_sleep_lists_pods_twice_however_long_a_pod_takes(up: KubernetesRuntime, api: FakeApi) -> None:
    """Whether the pod goes, or ends and stays for a while."""
    ends = {"gone": lambda: api.drop("pods", "pod-1"), "ended": put(api, "pod-1", {"phase": "Succeeded"})}
    for generation, (how, end) in enumerate(ends.items(), start=3):
        put(api, "pod-1")()
        looks = Looks(api, {LONG: end})
        up.stop(A, generation, PATIENCE)
        assert (how, looks.count, looks.lists) == (how, LONG + 1, 2)


def test_a_sleep_without_a_pod_lists_once(runtime: KubernetesRuntime, api: FakeApi) -> None:
    started(runtime)
    looks = Looks(api, {})
    runtime.stop(A, 3)
    assert (looks.count, looks.lists) == (1, 1)


def test_a_sleep_waits_for_a_pod_that_came_after_its_first_look(up: KubernetesRuntime, api: FakeApi) -> None:
    """KEDA scaled the workspace up again, and the cluster made another pod: two must never share a volume."""

    def scaled_up() -> None:
        api.change("deployments", NAME, {"spec": {"replicas": 1}})
        put(api, "pod-2")()

    looks = Looks(api, {2: scaled_up, 4: lambda: api.drop("pods", "pod-1"), LONG: lambda: api.drop("pods", "pod-2")})
    up.stop(A, 3, PATIENCE)
    assert (looks.count, looks.lists) == (LONG + 1, 3)
    assert replicas(api) == 0


def test_a_sleep_whose_second_pod_runs_is_not_done(up: KubernetesRuntime, api: FakeApi) -> None:
    """Only a list says that all have ended."""
    Looks(api, {2: put(api, "pod-2"), 3: lambda: api.drop("pods", "pod-1")})
    with pytest.raises(StillEnding):
        up.stop(A, 3, patience=0.2)
    assert ("pods", "pod-2") in api.names()


def test_a_sleep_waits_for_each_of_two_pods(up: KubernetesRuntime, api: FakeApi) -> None:
    """As when one is on a machine that is silent."""
    put(api, "pod-2")()
    looks = Looks(api, {5: lambda: api.drop("pods", "pod-2"), LONG: lambda: api.drop("pods", "pod-1")})
    up.stop(A, 3, PATIENCE)
    assert looks.lists == 2


@pytest.mark.parametrize("at", [1, 2, LONG + 1])
def test_a_sleep_ends_when_the_server_can_not_say_whether_a_pod_runs(
    up: KubernetesRuntime, api: FakeApi, at: int
) -> None:
    """At its first list, between, and at its last one. It is tried again later."""
    Looks(api, {at: fail(api, 503), LONG: lambda: api.drop("pods", "pod-1")})
    with pytest.raises(RuntimeUnavailable):
        up.stop(A, 3, PATIENCE)


def test_a_list_that_expired_is_read_again(up: KubernetesRuntime, api: FakeApi) -> None:
    """The sleep goes on."""
    looks = Looks(
        api, {1: fail(api, 410), 2: lambda: api.answers.pop("GET pods"), LONG: lambda: api.drop("pods", "pod-1")}
    )
    up.stop(A, 3, PATIENCE)
    assert looks.lists == 3


def test_a_discard_lists_pods_twice(up: KubernetesRuntime, api: FakeApi) -> None:
    """The claim is not asked for with another list either."""
    looks = Looks(api, {LONG: lambda: api.drop("pods", "pod-1")})
    up.discard(ADA, 3)
    assert (looks.count, looks.lists) == (LONG + 1, 2)


def test_a_deleted_deployment_is_made_again_only_when_its_old_pod_has_gone(up: KubernetesRuntime, api: FakeApi) -> None:
    """Two pods must never share a volume. The start waits for the pod by name, as a stop does: each try again counts as
    a delivery. Its third list is of the decision that is made anew."""
    api.drop("deployments", NAME)
    made: list[str] = []

    def goes() -> None:
        made.extend(api.named("deployments"))
        api.drop("pods", "pod-1")

    looks = Looks(api, {LONG: goes})
    up.start(A, 3)
    assert made == []
    assert (looks.count, looks.lists) == (LONG + 2, 3)
    assert replicas(api) == 1


# A start


@pytest.fixture
def asleep(runtime: KubernetesRuntime, monkeypatch: pytest.MonkeyPatch) -> KubernetesRuntime:
    """A runtime with one workspace, whose start waits for its pod's node."""
    runtime.provision(ADA, 1)
    monkeypatch.setattr(scheduling, "LIMIT", PATIENCE)
    return runtime


def test_a_start_lists_pods_once_however_long_its_pod_takes_to_get_a_node(
    asleep: KubernetesRuntime, api: FakeApi
) -> None:
    looks = Looks(api, {1: put(api, "pod-1", {}, node=""), LONG: put(api, "pod-1", {})})
    asleep.start(A, 2)
    assert (looks.count, looks.lists) == (LONG, 1)


def test_a_start_does_not_take_a_pod_that_ends_for_its_own(asleep: KubernetesRuntime, api: FakeApi) -> None:
    """Nor one that was evicted and stays."""
    put(api, "evicted", {"phase": "Failed"})()
    api.put("pods", pod(READY, "going", deletionTimestamp=LONG_AGO))
    looks = Looks(api, {3: put(api, "pod-1", {}, node=""), LONG: put(api, "pod-1", {})})
    asleep.start(A, 2)
    assert (looks.count, looks.lists) == (LONG, 3)


def test_a_start_with_two_pods_looks_at_both(asleep: KubernetesRuntime, api: FakeApi) -> None:
    """A deletion of one of them may not have begun yet."""
    for name in ("pod-1", "pod-2"):
        put(api, name, {}, node="")()
    looks = Looks(api, {3: put(api, "pod-1", {})})
    asleep.start(A, 2)
    assert looks.count == 3


@pytest.mark.parametrize("goes", [True, False])
def test_a_start_turns_to_the_pod_that_takes_the_place_of_its_own(
    asleep: KubernetesRuntime, api: FakeApi, goes: bool
) -> None:
    """The first was deleted, or failed, before it had a node."""
    ends = {True: lambda: api.drop("pods", "pod-1"), False: put(api, "pod-1", {"phase": "Failed"}, node="")}
    acts = {1: put(api, "pod-1", {}, node=""), 3: lambda: (ends[goes](), put(api, "pod-2", {}, node="")())}
    looks = Looks(api, {**acts, LONG: put(api, "pod-2", {})})
    asleep.start(A, 2)
    assert (looks.count, looks.lists) == (LONG, 2)


def test_a_start_without_a_pod_lists_seldom_and_not_for_long(
    asleep: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until there is a pod it has no name: a quota may forbid it."""
    monkeypatch.setattr(scheduling, "LIMIT", 0.06)
    monkeypatch.setattr(scheduling, "LIST_PAUSE", 0.02)
    looks = Looks(api, {})
    asleep.start(A, 2)
    assert looks.count == looks.lists
    assert 1 <= looks.lists <= 3
    assert replicas(api) == 1


def test_a_start_whose_pod_gets_no_node_goes_on(
    asleep: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine may have to be added first."""
    monkeypatch.setattr(scheduling, "LIMIT", 0.05)
    api.drop("services", NAME)
    looks = Looks(api, {1: put(api, "pod-1", {}, node="")})
    assert asleep.start(A, 2) is False
    assert looks.lists == 1
    assert ("services", NAME) in api.names()


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("code", [403, 503])
def test_a_start_does_not_fail_with_its_wait(
    asleep: KubernetesRuntime, api: FakeApi, caplog: pytest.LogCaptureFixture, code: int, at: int
) -> None:
    """At its list, and at its pod. What stands beside the pod is made all the same."""
    api.drop("services", NAME)
    Looks(api, {1: put(api, "pod-1", {}, node="")} | {at: fail(api, code)})
    assert asleep.start(A, 2) is False
    assert ("services", NAME) in api.names()
    assert "goes on without waiting for its pod" in caplog.text


# A Job


def test_a_job_lists_its_pods_until_it_has_one_and_then_asks_for_that(up: KubernetesRuntime, api: FakeApi) -> None:
    """The first list of all finds the node of the workspace."""
    end = result(summary=asdict(SUMMARY))
    looks = Looks(api, {3: lambda: job_pod(api), LONG: lambda: job_pod(api, end)})
    assert up.backup(A, BACKUP) == SUMMARY
    assert (looks.count, looks.lists) == (LONG, 3)


def test_a_job_whose_pod_is_deleted_is_told_of_another(up: KubernetesRuntime, api: FakeApi) -> None:
    """A machine that is drained deletes it, and it may take a while to end."""
    end = result(summary=asdict(SUMMARY))
    Looks(
        api,
        {
            2: lambda: job_pod(api),
            4: lambda: job_pod(api, deletionTimestamp=LONG_AGO),
            LONG: lambda: job_pod(api, end, "other-pod"),
        },
    )
    assert up.backup(A, BACKUP) == SUMMARY
