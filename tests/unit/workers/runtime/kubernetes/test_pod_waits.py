"""What is asked of the API server while a sleep, a start or a Job waits for a pod: one pod by name, seldom a list.

For a list the server compares the labels of all pods of the namespace."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import pytest

from app.core.errors import RuntimeUnavailable, StillEnding
from tests.unit.fake_api import FakeApi
from tests.unit.workers.runtime.kubernetes.samples import ADA, NAME, READY, A, pod, replicas, started
from tests.waiting import PATIENCE
from workers.runtime.base import BackupSummary
from workers.runtime.kubernetes import driver, jobs, scheduling
from workers.runtime.kubernetes.driver import KubernetesRuntime

LONG = 10
"""Looks that a pod takes to get where it is waited for."""

BACKUP = f"app-{A}-20260101-000000.zip"


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


def drop(api: FakeApi, name: str) -> Callable[[], object]:
    return lambda: api.drop("pods", name)


def fail(api: FakeApi, code: int) -> Callable[[], object]:
    """From now on the server answers every request for pods so."""
    return lambda: api.answers.update({"GET pods": (code, "")})


def mend(api: FakeApi) -> Callable[[], object]:
    return lambda: api.answers.pop("GET pods")


# A sleep


@pytest.fixture
def up(runtime: KubernetesRuntime, api: FakeApi) -> KubernetesRuntime:
    """A runtime with one workspace, whose pod runs."""
    started(runtime)
    put(api, "pod-1")()
    return runtime


def test_a_sleep_lists_pods_twice_however_long_a_pod_takes(up: KubernetesRuntime, api: FakeApi) -> None:
    """Whether the pod goes, or ends and stays for a while."""
    ends = {"gone": drop(api, "pod-1"), "ended": put(api, "pod-1", {"phase": "Succeeded"})}
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
        deployment = api.get("deployments", NAME)
        api.put("deployments", {**deployment, "spec": {**deployment["spec"], "replicas": 1}})
        put(api, "pod-2")()

    looks = Looks(api, {2: scaled_up, 4: drop(api, "pod-1"), LONG: drop(api, "pod-2")})
    up.stop(A, 3, PATIENCE)
    assert (looks.count, looks.lists) == (LONG + 1, 3)
    assert replicas(api) == 0


def test_a_sleep_whose_second_pod_runs_is_not_done(up: KubernetesRuntime, api: FakeApi) -> None:
    """Only a list says that all have ended."""
    Looks(api, {2: put(api, "pod-2"), 3: drop(api, "pod-1")})
    with pytest.raises(StillEnding):
        up.stop(A, 3, patience=0.2)
    assert ("pods", "pod-2") in api.names()


def test_a_sleep_waits_for_each_of_two_pods(up: KubernetesRuntime, api: FakeApi) -> None:
    """As when one is on a machine that is silent."""
    put(api, "pod-2")()
    looks = Looks(api, {5: drop(api, "pod-2"), LONG: drop(api, "pod-1")})
    up.stop(A, 3, PATIENCE)
    assert looks.lists == 2


@pytest.mark.parametrize("at", [1, 2, LONG + 1])
def test_a_sleep_ends_when_the_server_can_not_say_whether_a_pod_runs(
    up: KubernetesRuntime, api: FakeApi, at: int
) -> None:
    """At its first list, between, and at its last one. It is tried again later."""
    Looks(api, {at: fail(api, 503), LONG: drop(api, "pod-1")})
    with pytest.raises(RuntimeUnavailable):
        up.stop(A, 3, PATIENCE)


def test_a_list_that_expired_is_read_again(up: KubernetesRuntime, api: FakeApi) -> None:
    """The sleep goes on."""
    looks = Looks(api, {1: fail(api, 410), 2: mend(api), LONG: drop(api, "pod-1")})
    up.stop(A, 3, PATIENCE)
    assert looks.lists == 3


def test_a_discard_lists_pods_twice(up: KubernetesRuntime, api: FakeApi) -> None:
    """The claim is not asked for with another list either."""
    looks = Looks(api, {LONG: drop(api, "pod-1")})
    up.discard(ADA, 3)
    assert (looks.count, looks.lists) == (LONG + 1, 2)


def test_a_start_waits_for_the_pod_of_a_deleted_deployment_by_name(up: KubernetesRuntime, api: FakeApi) -> None:
    """Its third list is of the decision that is made anew."""
    api.drop("deployments", NAME)
    looks = Looks(api, {LONG: drop(api, "pod-1")})
    up.start(A, 3)
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
    going = pod(READY, "going")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    api.put("pods", going)
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
    end = drop(api, "pod-1") if goes else put(api, "pod-1", {"phase": "Failed"}, node="")
    acts = {1: put(api, "pod-1", {}, node=""), 3: lambda: (end(), put(api, "pod-2", {}, node="")())}
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


def write_job_pod(api: FakeApi, name: str, state: dict[str, Any], **metadata: str) -> None:
    """The pod of the one Job there is."""
    ((_, job),) = (key for key in api.names() if key[0] == "jobs")
    uid = api.get("jobs", job)["metadata"]["uid"]
    made = pod({"containerStatuses": [{"state": state}]}, name)
    made["metadata"] |= {"labels": {"batch.kubernetes.io/controller-uid": uid}, **metadata}
    api.put("pods", made)


def test_a_job_lists_its_pods_until_it_has_one_and_then_asks_for_that(up: KubernetesRuntime, api: FakeApi) -> None:
    """The first list of all finds the node of the workspace."""
    summary = BackupSummary(created_at=1.0, size=2, files=3, content_bytes=4, sha256="5")
    end = {"terminated": {"message": json.dumps({"summary": asdict(summary)}), "exitCode": 0}}
    looks = Looks(
        api,
        {3: lambda: write_job_pod(api, "job-pod", {"running": {}}), LONG: lambda: write_job_pod(api, "job-pod", end)},
    )
    assert up.backup(A, BACKUP) == summary
    assert (looks.count, looks.lists) == (LONG, 3)


def test_a_job_whose_pod_is_deleted_is_told_of_another(up: KubernetesRuntime, api: FakeApi) -> None:
    """A machine that is drained deletes it, and it may take a while to end."""
    summary = BackupSummary(created_at=1.0, size=2, files=3, content_bytes=4, sha256="5")
    end = {"terminated": {"message": json.dumps({"summary": asdict(summary)}), "exitCode": 0}}
    going = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    Looks(
        api,
        {
            2: lambda: write_job_pod(api, "job-pod", {"running": {}}),
            4: lambda: write_job_pod(api, "job-pod", {"running": {}}, **going),
            LONG: lambda: write_job_pod(api, "other-pod", end),
        },
    )
    assert up.backup(A, BACKUP) == summary
