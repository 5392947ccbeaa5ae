"""What is seen of workspaces while they start, run and fail."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event
from typing import Any

import pytest

from app.core.errors import (
    RetryableError,
)
from app.core.sessions.model import PHASES
from tests.contract.runtimes import watching
from tests.unit.fake_api import FakeApi
from tests.unit.workers.runtime.kubernetes.samples import (
    ADA,
    CRASHED,
    NAME,
    READY,
    A,
    conditions,
    pod,
    replicas,
    started,
)
from tests.waiting import wait_for
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.driver import KubernetesRuntime
from workers.runtime.kubernetes.informer import LOOKS

B = "bbbb0002"


def test_the_steps_of_a_start_are_told(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """When each was seen: the API's own times are whole seconds."""
    with watching(runtime) as seen:
        seen.snapshot()
        started(runtime)
        api.put("pods", pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-x"))
        about = {"kind": "Pod", "name": f"{NAME}-x"}
        seen.until(lambda each: each.pod_name == f"{NAME}-x")
        api.put("events", {"metadata": {"name": "e"}, "involvedObject": about, "reason": "Pulled", "message": ""})
        api.put("pods", pod({"containerStatuses": [{"state": {"running": {}}}], **READY}, f"{NAME}-x"))
        ready = seen.until(lambda each: each.ready)
    assert list(ready.phases) == list(PHASES[1:])
    assert list(ready.phases.values()) == sorted(ready.phases.values())


def test_a_step_that_was_seen_tells_of_those_before_it(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """The kubelet tells of an image at once, and of the volumes only when it looks again."""
    with watching(runtime) as seen:
        seen.snapshot()
        started(runtime)
        api.put("pods", pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-x"))
        seen.until(lambda each: "scheduled" in each.phases)
        about = {"kind": "Pod", "name": f"{NAME}-x"}
        api.put("events", {"metadata": {"name": "e"}, "involvedObject": about, "reason": "Pulled", "message": ""})
        pulled = seen.until(lambda each: "image" in each.phases)
        assert pulled.phases["scheduled"] < pulled.phases["volume"] == pulled.phases["image"]
        api.put("events", {"metadata": {"name": "f"}, "involvedObject": about, "reason": "Started", "message": ""})
        begun = seen.until(lambda each: "started" in each.phases)
    assert not begun.ready
    assert begun.phases.items() > pulled.phases.items()


def test_a_step_that_is_seen_before_its_start_is_told(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Pods and Deployments come by watches of their own, in no order between them."""
    runtime.provision(replace(ADA, uuid=B), 1)
    runtime.start(B, 2)
    scheduled = {"conditions": conditions(PodScheduled="True")}
    with watching(runtime) as seen:
        seen.snapshot()
        api.put("pods", pod(scheduled, f"{NAME}-x"))
        api.put("pods", pod(scheduled, "pod-of-b", B))
        seen.until(lambda each: each.identity.uuid == B and "scheduled" in each.phases)
        started(runtime)
        assert "scheduled" in seen.until(lambda each: each.identity.uuid == A and each.running).phases


def test_the_agents_events_are_no_steps_of_a_start(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """It is there before the editor, and users wait for that."""
    with watching(runtime) as seen:
        seen.snapshot()
        started(runtime)
        api.put("pods", pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-x"))
        seen.until(lambda each: "scheduled" in each.phases)
        for container, reason in (("agent", "Started"), ("editor", "Pulled")):
            about = {"kind": "Pod", "name": f"{NAME}-x", "fieldPath": f"spec.containers{{{container}}}"}
            event = {"metadata": {"name": container}, "involvedObject": about, "reason": reason, "message": ""}
            api.put("events", event)
        pulled = seen.until(lambda each: "image" in each.phases)
    assert "started" not in pulled.phases


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
def test_an_agent_that_keeps_dying_is_told_and_fails_nothing(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """The pod isn't ready then, by the cluster's rules; the editor works, and its users go on."""
    started(runtime)
    with watching(runtime) as seen:
        seen.snapshot()
        api.put("pods", pod(AGENT_DOWN))
        down = seen.until(lambda each: bool(each.trouble))
        assert (down.ready, down.failure, down.agent) == (True, "", "http://10.1.2.3:1111")
        assert down.trouble.startswith("The agent ended unexpectedly (it needed more memory")
        both = [container_status("agent", ready=True), container_status("editor", ready=True)]
        api.put("pods", pod({"podIP": "10.1.2.3", "containerStatuses": both, **READY}))
        up = seen.until(lambda each: not each.trouble)
    assert (up.ready, up.agent) == (True, "http://10.1.2.3:1111")


def test_an_editor_that_keeps_dying_has_failed_whatever_its_agent_does(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """The two are told apart by name: the cluster lists them in an order of its own."""
    started(runtime)
    statuses = [container_status("agent", ready=True), container_status("editor", ready=False, **LOOPING)]
    with watching(runtime) as seen:
        seen.snapshot()
        api.put("pods", pod({**AGENT_DOWN, "containerStatuses": statuses}))
        failed = seen.until(lambda each: bool(each.failure))
    assert failed.failure.startswith("The editor ended unexpectedly")


def test_an_agent_is_told_of_as_soon_as_its_pod_has_an_address(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """So that one whose call was lost is found."""
    started(runtime)
    with watching(runtime) as seen:
        seen.snapshot()
        api.put("pods", pod({"podIP": "10.1.2.3", **READY}))
        assert seen.until(lambda each: each.ready).agent == "http://10.1.2.3:1111"
    observed = runtime.observe(A)
    assert observed is not None
    assert observed.agent == "http://10.1.2.3:1111"


def test_another_pods_events_are_no_steps_of_this_ones(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """One that is going may still have something to say."""
    with watching(runtime) as seen:
        seen.snapshot()
        started(runtime)
        api.put("pods", pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-new"))
        seen.until(lambda each: "scheduled" in each.phases)
        for number, name in enumerate((f"{NAME}-old", f"{NAME}-new")):
            about = {"kind": "Pod", "name": name}
            reason = ("Started", "Pulled")[number]
            event = {"metadata": {"name": f"e{number}"}, "involvedObject": about, "reason": reason, "message": ""}
            api.put("events", event)
        pulled = seen.until(lambda each: "image" in each.phases)
    assert "started" not in pulled.phases


def test_scaling_by_others_is_seen(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """With the intent that was carried out last, which tells it from one of ours."""
    runtime.provision(ADA, 1)
    with watching(runtime) as seen:
        seen.snapshot()
        for wanted in (1, 0):
            deployment = api.get("deployments", NAME)
            api.put("deployments", {**deployment, "spec": {**deployment["spec"], "replicas": wanted}})
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


@pytest.mark.slow
def test_a_deleted_deployment_is_not_made_again_beside_its_old_pod(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Two pods must never share a volume. The start waits, as a stop does: each try again counts as a delivery."""
    started(runtime)
    api.put("pods", pod(READY))
    api.drop("deployments", NAME)
    api.requests.clear()
    with ThreadPoolExecutor(1) as pool:
        start = pool.submit(runtime.start, A, 3)
        try:
            wait_for(lambda: api.requests.count("GET pods") > 2, "the start to look for the old pod again")
            assert "POST deployments" not in api.requests
        finally:
            api.drop("pods", "pod-1")
        start.result()
    assert replicas(api) == 1


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


TROUBLES: dict[str, tuple[dict[str, Any], str]] = {
    "crash": (CRASHED, "killed by SIGKILL.*\none\ntwo$"),
    "memory": (
        {
            "containerStatuses": [
                {
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                }
            ]
        },
        "needed more memory",
    ),
    "image": (
        {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "manifest unknown"}}}]},
        "image cannot be pulled: manifest unknown",
    ),
    "configuration": (
        {"containerStatuses": [{"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "oh"}}}]},
        "cannot be started: oh",
    ),
    "node": (
        {
            "conditions": conditions(Ready="False", ContainersReady="True"),
            "containerStatuses": [{"ready": True, "state": {"running": {}}}],
        },
        "machine that runs the workspace does not respond",
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_is_told_and_clears_by_itself(runtime: KubernetesRuntime, api: FakeApi, trouble: str) -> None:
    """In words a user understands; and when its cause is gone, so is the failure."""
    status, text = TROUBLES[trouble]
    started(runtime)
    with watching(runtime) as seen:
        seen.snapshot()
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
    name = f"{NAME}-x"
    young = pod({"conditions": conditions(PodScheduled="True")}, name)
    young["metadata"]["creationTimestamp"] = datetime.now(UTC).isoformat()
    api.put("pods", young)
    about = {"kind": "Pod", "name": name}
    refused = 'persistentvolumeclaims "x" is forbidden: no relationship found between node "n" and this object'

    asked: list[str] = []

    with watching(runtime, asked.append) as seen:
        seen.snapshot()
        for number in range(LOOKS + 2):
            event = {"metadata": {"name": f"e{number}"}, "involvedObject": about, "reason": "FailedMount"}
            api.put("events", event | {"message": refused})
        api.put("events", {"metadata": {"name": "last"}, "involvedObject": about, "reason": "Pulled", "message": ""})
        seen.until(lambda each: "image" in each.phases)
    assert asked == [A] * LOOKS
    assert "PATCH pods" not in api.requests
    runtime.look_again(A)
    assert names.LOOK_AGAIN in api.get("pods", name)["metadata"]["annotations"]


def test_no_workspace_is_none_to_look_at_again(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """The message may come late, or twice."""
    runtime.look_again(A)
    assert [each for each in api.requests if not each.startswith("GET")] == []


def test_a_volume_that_was_mounted_after_all_is_no_trouble(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """On a busy cluster the first try often comes too early, and what follows may take long for other reasons."""
    started(runtime)
    young = pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-x")
    young["metadata"]["creationTimestamp"] = datetime.now(UTC).isoformat()
    api.put("pods", young)
    about = {"kind": "Pod", "name": f"{NAME}-x"}
    with watching(runtime) as seen:
        seen.snapshot()
        for number, reason in enumerate(("FailedMount", "Pulled")):
            event = {"metadata": {"name": f"e{number}"}, "involvedObject": about, "reason": reason, "message": "no"}
            api.put("events", event)
        seen.until(lambda each: "image" in each.phases)
        # Old enough by now for a warning to be told.
        api.put("pods", pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-x"))
        api.put("pods", pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-y"))
        later = seen.until(lambda each: bool(each.waiting) or each.pod_name == f"{NAME}-y")
    assert later.waiting == ""


def test_a_pod_that_is_refused_is_told(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """There is no pod to ask then: the Deployment knows."""
    started(runtime)
    with watching(runtime) as seen:
        seen.snapshot()
        condition = {
            "type": "ReplicaFailure",
            "status": "True",
            "message": 'pods "x" is forbidden: exceeded quota: workspaces, limited: pods=1',
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        api.put("deployments", {**api.get("deployments", NAME), "status": {"conditions": [condition]}})
        failed = seen.until(lambda each: bool(each.failure))
    assert failed.failure == "The cluster's quota for workspaces is used up: workspaces, limited: pods=1."
