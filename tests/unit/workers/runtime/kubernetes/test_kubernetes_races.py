"""The Kubernetes runtime beside others who change the same objects, and where it dies."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import RetryableError, Superseded
from tests.unit.fake_api import FakeApi
from tests.unit.workers.runtime.kubernetes.samples import ADA, ALL_KINDS, NAME, A, MakeRuntime, replicas
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.driver import KubernetesRuntime


def test_a_change_decided_on_an_old_look_is_decided_again(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """The cluster writes to a Deployment all the time."""
    runtime.provision(ADA, 1)
    api.before["PATCH deployments"] = lambda: api.change("deployments", NAME, {})
    runtime.start(A, 2)
    assert replicas(api) == 1


def test_an_intent_that_is_overtaken_between_its_look_and_its_change_is_refused(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """The moment no lease can close."""
    runtime.provision(ADA, 1)
    api.before["PATCH deployments"] = lambda: runtime.stop(A, 3)
    with pytest.raises(Superseded):
        runtime.start(A, 2)
    assert replicas(api) == 0


def test_a_deployment_made_and_started_meanwhile_is_not_stopped(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Two workers may both find none; the later one must not set the replicas back."""

    def other() -> None:
        runtime.provision(ADA, 2)
        runtime.start(A, 3)

    api.before["PATCH deployments"] = other
    with pytest.raises(Superseded):
        runtime.provision(ADA, 1)
    assert replicas(api) == 1


def test_notes_made_with_a_deployment_overwrite_no_newer_ones(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """A newer intent may come between the making of the claim and that of the Deployment."""
    api.before["PATCH deployments"] = lambda: runtime.provision(ADA, 2)
    with pytest.raises(Superseded):
        runtime.provision(ADA, 1)
    assert api.get("deployments", NAME)["metadata"]["annotations"][names.GENERATION] == "2"


def test_an_update_keeps_what_the_deployment_was_made_with(
    runtime: KubernetesRuntime, make_runtime: MakeRuntime, api: FakeApi
) -> None:
    """Server-side apply takes away what it applied before and doesn't apply again."""
    runtime.provision(ADA, 1)
    made = api.get("deployments", NAME)["metadata"]["annotations"]
    make_runtime(workspace_image="workspace:2").start(A, 2)
    updated = next(body for body in api.applied if body["kind"] == "Deployment")
    assert updated["metadata"]["annotations"].keys() >= made.keys()


def test_what_is_made_while_it_is_being_removed_goes_as_well(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Nobody would own it."""
    api.before["POST persistentvolumeclaims"] = lambda: runtime.remove(A, 5)
    with pytest.raises(Superseded):
        runtime.provision(ADA, 1)
    assert api.names() == set()


def test_a_change_that_is_overtaken_for_ever_ends(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """With an error that has the task tried again later."""
    runtime.provision(ADA, 1)
    api.answers["PATCH deployments"] = (409, "modified")
    with pytest.raises(RetryableError):
        runtime.start(A, 2)


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("call", ["provision", "start", "stop", "remove"])
@pytest.mark.slow
def test_a_worker_may_die_at_any_request(keda: KubernetesRuntime, api: FakeApi, call: str, done: bool) -> None:
    """Before the server did it or after: the same intent, tried again, ends where it would have ended."""
    for step in range(1, 40):
        keda.provision(ADA, 1)
        keda.start(A, 2)
        if call == "provision":
            keda.remove(A, 3)
        elif call == "start":
            api.drop("deployments", NAME)
        subject: Any = ADA if call == "provision" else A
        api.lose = (step, done)
        try:
            getattr(keda, call)(subject, 4)
        except RetryableError:
            getattr(keda, call)(subject, 4)
        survived, api.lose = api.lose[0] > 0, (0, False)
        if call == "remove":
            assert api.names() == set()
        else:
            assert api.kinds() == ALL_KINDS
            assert replicas(api) == (1 if call == "start" else 0)
            keda.remove(A, 5)
        keda._redis.flushall()
        if survived:
            assert step > 5
            return
    raise AssertionError("it takes more requests than it should")
