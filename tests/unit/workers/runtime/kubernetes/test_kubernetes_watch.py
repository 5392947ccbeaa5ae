"""What is seen of workspaces while they start, run and fail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event
from typing import Any

import pytest

from app.core.errors import RetryableError
from app.core.sessions.model import PHASES
from tests.contract.runtimes import Seen, watching
from tests.unit.fake_api import LONG_AGO, FakeApi
from tests.unit.workers.runtime.kubernetes.samples import (
    ADA,
    CRASHED,
    NAME,
    PLACED,
    POD,
    READY,
    A,
    conditions,
    observed,
    pod,
    started,
    waiting,
)
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.driver import KubernetesRuntime
from workers.runtime.kubernetes.informer import LOOKS

B = "bbbb0002"


@pytest.fixture
def seen(runtime: KubernetesRuntime) -> Iterator[Seen]:
    """What a watch tells that began before there was a workspace."""
    with watching(runtime) as seen:
        seen.snapshot()
        yield seen


def event(api: FakeApi, reason: str, message: str = "", name: str = POD, **about: str) -> None:
    """An event about a pod."""
    metadata = {"name": f"event-{api.version}"}
    involved = {"kind": "Pod", "name": name, **about}
    api.put("events", {"metadata": metadata, "involvedObject": involved, "reason": reason, "message": message})


def young_pod(api: FakeApi) -> None:
    """A pod that just got its node."""
    api.put("pods", pod(PLACED, POD, creationTimestamp=datetime.now(UTC).isoformat()))


def test_the_steps_of_a_start_are_told(runtime: KubernetesRuntime, api: FakeApi, seen: Seen) -> None:
    """When each was seen: the API's own times are whole seconds."""
    started(runtime)
    api.put("pods", pod(PLACED, POD))
    seen.until(lambda each: each.pod_name == POD)
    event(api, "Pulled")
    api.put("pods", pod({"containerStatuses": [{"state": {"running": {}}}], **READY}, POD))
    ready = seen.until(lambda each: each.ready)
    assert list(ready.phases) == list(PHASES[1:])
    assert list(ready.phases.values()) == sorted(ready.phases.values())


def test_a_step_that_was_seen_tells_of_those_before_it(runtime: KubernetesRuntime, api: FakeApi, seen: Seen) -> None:
    """The kubelet tells of an image at once, and of the volumes only when it looks again."""
    started(runtime)
    api.put("pods", pod(PLACED, POD))
    seen.until(lambda each: "scheduled" in each.phases)
    event(api, "Pulled")
    pulled = seen.until(lambda each: "image" in each.phases)
    assert pulled.phases["scheduled"] < pulled.phases["volume"] == pulled.phases["image"]
    event(api, "Started")
    begun = seen.until(lambda each: "started" in each.phases)
    assert not begun.ready
    assert begun.phases.items() > pulled.phases.items()


def test_a_step_that_is_seen_before_its_start_is_told(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Pods and Deployments come by watches of their own, in no order between them."""
    runtime.provision(replace(ADA, uuid=B), 1)
    runtime.start(B, 2)
    with watching(runtime) as seen:
        seen.snapshot()
        api.put("pods", pod(PLACED, POD))
        api.put("pods", pod(PLACED, "pod-of-b", B))
        seen.until(lambda each: each.identity.uuid == B and "scheduled" in each.phases)
        started(runtime)
        assert "scheduled" in seen.until(lambda each: each.identity.uuid == A and each.running).phases


@pytest.mark.parametrize(
    ("others", "own"),
    [
        ({"fieldPath": "spec.containers{agent}"}, {"fieldPath": "spec.containers{editor}"}),
        ({"name": f"{NAME}-old"}, {}),
    ],
    ids=["of the agent", "of another pod"],
)
def test_the_events_of_others_are_no_steps_of_a_start(
    runtime: KubernetesRuntime, api: FakeApi, seen: Seen, others: dict[str, str], own: dict[str, str]
) -> None:
    """An agent is there before the editor, and users wait for that; a pod that is going may still have something to
    say."""
    started(runtime)
    api.put("pods", pod(PLACED, POD))
    seen.until(lambda each: "scheduled" in each.phases)
    event(api, "Started", **others)
    event(api, "Pulled", **own)
    assert "started" not in seen.until(lambda each: "image" in each.phases).phases


def container_status(name: str, *, ready: bool, **more: Any) -> dict[str, Any]:
    return {"name": name, "ready": ready, "state": {"running": {}}, **more}


LOOPING: dict[str, Any] = {
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}},
    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
}
AGENT_DOWN = {
    "podIP": "10.1.2.3",
    "conditions": conditions(PodScheduled="True", ContainersReady="False", Ready="False"),
    "containerStatuses": [container_status("agent", ready=False, **LOOPING), container_status("editor", ready=True)],
}


@pytest.mark.slow
def test_an_agent_that_keeps_dying_is_told_with_its_address_and_fails_nothing(
    runtime: KubernetesRuntime, api: FakeApi, seen: Seen
) -> None:
    """The pod isn't ready then, by the cluster's rules; the editor works, and its users go on. An agent whose call was
    lost is found by its address."""
    started(runtime)
    api.put("pods", pod(AGENT_DOWN))
    down = seen.until(lambda each: bool(each.trouble))
    assert (down.ready, down.failure, down.agent) == (True, "", "http://10.1.2.3:1111")
    assert down.trouble.startswith("The agent ended unexpectedly (it needed more memory")
    both = [container_status("agent", ready=True), container_status("editor", ready=True)]
    api.put("pods", pod({"podIP": "10.1.2.3", "containerStatuses": both, **READY}))
    up = seen.until(lambda each: not each.trouble)
    assert (up.ready, up.agent, observed(runtime).agent) == (True, *["http://10.1.2.3:1111"] * 2)


def test_scaling_by_others_is_seen(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """With the intent that was carried out last, which tells it from one of ours."""
    runtime.provision(ADA, 1)
    with watching(runtime) as seen:
        seen.snapshot()
        for wanted in (1, 0):
            api.change("deployments", NAME, {"spec": {"replicas": wanted}})
            told = seen.until(lambda each, up=bool(wanted): each.running is up)  # type: ignore[misc]
            assert (told.generation, told.deleted) == (1, False)


def test_a_deleted_deployment_is_a_workspace_that_is_down(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """With the intent it last carried out, and told from one that was put down."""
    started(runtime)
    with watching(runtime) as seen:
        assert len(seen.snapshot().workspaces) == 1
        api.drop("deployments", NAME)
        down = seen.until(lambda each: not each.running)
    assert (down.generation, down.failure, down.deleted) == (2, "", True)


@pytest.mark.parametrize("forget", [False, True])
@pytest.mark.slow
def test_a_watch_that_is_cut_misses_nothing(runtime: KubernetesRuntime, api: FakeApi, forget: bool) -> None:
    """It goes on where it was; and lists anew when that is too long ago (410)."""
    started(runtime)
    with watching(runtime) as seen:
        seen.snapshot()
        api.cut(forget=forget)
        api.put("pods", pod(READY))
        assert seen.until(lambda each: each.ready).pod_name == "pod-1"


def test_a_watch_that_can_not_go_on_says_so(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Its silence would pass for nothing having happened."""
    api.answers["GET events"] = (403, "forbidden")
    with pytest.raises(RetryableError, match="events"):
        next(runtime.watch(Event()))


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (CRASHED, "killed by SIGKILL.*\none\ntwo$"),
        # The two are told apart by name: the cluster lists them in an order of its own.
        (
            {
                **AGENT_DOWN,
                "containerStatuses": [
                    container_status("agent", ready=True),
                    container_status("editor", ready=False, **LOOPING),
                ],
            },
            "^The editor ended unexpectedly.*needed more memory",
        ),
        (waiting("ErrImagePull", "manifest unknown"), "image cannot be pulled: manifest unknown"),
        (waiting("CreateContainerConfigError", "oh"), "cannot be started: oh"),
        (
            {
                "conditions": conditions(Ready="False", ContainersReady="True"),
                "containerStatuses": [{"ready": True, "state": {"running": {}}}],
            },
            "machine that runs the workspace does not respond",
        ),
    ],
    ids=["crash", "memory, beside an agent that works", "image", "configuration", "node"],
)
def test_trouble_is_told_and_clears_by_itself(
    runtime: KubernetesRuntime, api: FakeApi, seen: Seen, status: dict[str, Any], text: str
) -> None:
    """In words a user understands; and when its cause is gone, so is the failure."""
    started(runtime)
    api.put("pods", pod(status))
    failed = seen.until(lambda each: bool(each.failure))
    assert (failed.running, failed.ready, failed.generation) == (False, False, 2)
    assert re.search(text, failed.failure, re.DOTALL), failed.failure
    api.put("pods", pod(READY))
    assert seen.until(lambda each: each.ready).failure == ""


def test_a_kubelet_that_came_too_early_is_asked_to_look_again(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """It would wait for 10 to 15 s. Not for ever: what is refused for another reason stays refused. The observer only
    reads: a worker asks."""
    started(runtime)
    young_pod(api)
    refused = 'persistentvolumeclaims "x" is forbidden: no relationship found between node "n" and this object'
    asked: list[str] = []
    with watching(runtime, asked.append) as seen:
        seen.snapshot()
        for _ in range(LOOKS + 2):
            event(api, "FailedMount", refused)
        event(api, "Pulled")
        seen.until(lambda each: "image" in each.phases)
    assert asked == [A] * LOOKS
    assert "PATCH pods" not in api.requests
    runtime.look_again(A)
    assert names.LOOK_AGAIN in api.get("pods", POD)["metadata"]["annotations"]


def test_no_workspace_is_none_to_look_at_again(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """The message may come late, or twice."""
    runtime.look_again(A)
    assert api.changes() == []


def test_a_volume_that_was_mounted_after_all_is_no_trouble(
    runtime: KubernetesRuntime, api: FakeApi, seen: Seen
) -> None:
    """On a busy cluster the first try often comes too early, and what follows may take long for other reasons."""
    started(runtime)
    young_pod(api)
    seen.until(lambda each: "scheduled" in each.phases)
    event(api, "FailedMount", "no")
    event(api, "Pulled", "no")
    seen.until(lambda each: "image" in each.phases)
    # Old enough by now for a warning to be told.
    api.put("pods", pod(PLACED, POD))
    api.put("pods", pod(PLACED, f"{NAME}-y"))
    later = seen.until(lambda each: bool(each.waiting) or each.pod_name == f"{NAME}-y")
    assert later.waiting == ""


def test_a_pod_that_is_refused_is_told(runtime: KubernetesRuntime, api: FakeApi, seen: Seen) -> None:
    """There is no pod to ask then: the Deployment knows."""
    started(runtime)
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "message": 'pods "x" is forbidden: exceeded quota: workspaces, limited: pods=1',
        "lastTransitionTime": LONG_AGO,
    }
    api.change("deployments", NAME, {"status": {"conditions": [condition]}})
    failed = seen.until(lambda each: bool(each.failure))
    assert failed.failure == "The cluster's quota for workspaces is used up: workspaces, limited: pods=1."
