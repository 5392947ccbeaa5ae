"""Who gives a workspace its pod: KEDA or the runtime itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import redis

from app.core.errors import Superseded
from app.core.prompts.inbox import MARKER
from tests.unit.fake_api import FakeApi
from tests.unit.workers.runtime.kubernetes.samples import (
    ADA,
    ALL_KINDS,
    KINDS,
    NAME,
    A,
    MakeRuntime,
    pod,
    replicas,
    started,
)
from workers.runtime.kubernetes import scalers, scheduling
from workers.runtime.kubernetes.driver import KubernetesRuntime


def listed(client: redis.Redis) -> Any:
    """What KEDA reads."""
    return client.lrange(f"queue:{A}", 0, -1)


def test_the_marker_comes_before_the_replicas_and_goes_before_them(
    keda: KubernetesRuntime, api: FakeApi, redis_client: redis.Redis
) -> None:
    """Else KEDA would see a Deployment that disagrees with its list, and act on it."""
    keda.provision(ADA, 1)
    seen = []
    for call, generation in ((keda.start, 2), (keda.start, 3), (keda.stop, 4)):
        api.before["PATCH deployments"] = lambda: seen.append((listed(redis_client), replicas(api)))
        call(A, generation)
    assert seen == [([MARKER], 0), ([MARKER], 1), ([], 1)]


def test_prompts_stay_when_the_marker_goes(keda: KubernetesRuntime, redis_client: redis.Redis) -> None:
    """They are a user's; and they will wake the session."""
    keda.provision(ADA, 1)
    redis_client.rpush(f"queue:{A}", '{"id": 1}')
    keda.start(A, 2)
    keda.stop(A, 3)
    assert listed(redis_client) == ['{"id": 1}']


def test_an_overtaken_start_leaves_no_marker(keda: KubernetesRuntime, api: FakeApi, redis_client: redis.Redis) -> None:
    """KEDA would wake a session that is asleep on purpose."""
    keda.provision(ADA, 1)
    api.before["PATCH deployments"] = lambda: keda.stop(A, 3)
    with pytest.raises(Superseded):
        keda.start(A, 2)
    assert listed(redis_client) == []


def test_an_overtaken_stop_leaves_the_marker(keda: KubernetesRuntime, api: FakeApi, redis_client: redis.Redis) -> None:
    """KEDA would put a session down that someone works in."""
    started(keda)
    api.before["PATCH deployments"] = lambda: keda.start(A, 4)
    with pytest.raises(Superseded):
        keda.stop(A, 3)
    assert listed(redis_client) == [MARKER]


@pytest.mark.parametrize(
    ("annotations", "asked"),
    [({"volume.kubernetes.io/storage-provisioner": "local"}, [0, 0, 0]), ({}, [0])],
    ids=["provisioner", "none"],
)
@pytest.mark.slow
def test_a_pod_is_wanted_once_its_claim_has_a_volume(
    runtime: KubernetesRuntime,
    api: FakeApi,
    monkeypatch: pytest.MonkeyPatch,
    annotations: dict[str, str],
    asked: list[int],
) -> None:
    """Unless the class makes volumes for pods only: then nobody is named in the claim who would make one."""
    monkeypatch.setattr(scheduling, "LIMIT", 5.0)
    monkeypatch.setattr(scheduling, "NAMING_LIMIT", 0.0)
    runtime.provision(ADA, 1)
    pending = {"metadata": {"annotations": annotations}, "status": {"phase": "Pending"}}
    api.change("persistentvolumeclaims", NAME, pending)
    wanted: list[int] = []

    def look() -> None:
        wanted.append(replicas(api))
        if len(wanted) == 3:
            api.change("persistentvolumeclaims", NAME, {"status": {"phase": "Bound"}})
        else:
            api.before["GET persistentvolumeclaims"] = look

    api.before["GET persistentvolumeclaims"] = look
    api.before["GET pods"] = lambda: api.put("pods", pod({}))
    runtime.start(A, 2)
    assert (replicas(api), wanted) == (1, asked)


def test_what_stands_beside_a_pod_is_made_when_that_has_its_node(
    keda: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the Secret, which the pod needs: a busy API server refuses a kubelet what it asks for first."""
    monkeypatch.setattr(scheduling, "LIMIT", 5.0)
    keda.provision(ADA, 1, starting=True)
    looks: list[set[str]] = []

    def look() -> None:
        looks.append(api.kinds())
        if len(looks) == 2:
            api.put("pods", pod({}))
        else:
            api.before["GET pods"] = look

    api.before["GET pods"] = look
    keda.start(A, 2)
    assert looks == [{"persistentvolumeclaims", "deployments", "secrets"}] * 2
    assert api.kinds() - {"pods"} == ALL_KINDS


def test_a_start_that_was_overtaken_keeps_no_moment_for_keda(
    keda: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins again at once: nothing was put down."""
    keda.provision(ADA, 1)
    pauses: list[float] = []
    monkeypatch.setattr(scalers, "SETTLE", 0.5)
    monkeypatch.setattr(scalers, "time", SimpleNamespace(sleep=pauses.append))
    api.before["PATCH deployments"] = lambda: api.change("deployments", NAME, {})
    keda.start(A, 2)
    assert (replicas(api), max(pauses, default=0.0)) == (1, 0.0)


def test_a_stop_lets_keda_act_on_what_it_saw_before(
    keda: KubernetesRuntime, api: FakeApi, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marker is gone and the replicas are still there meanwhile: one look at the list from before does nothing."""
    started(keda)
    pauses: list[tuple[float, list[str], int]] = []

    def pause(seconds: float) -> None:
        pauses.append((seconds, listed(redis_client), replicas(api)))

    monkeypatch.setattr(scalers, "SETTLE", 0.5)
    monkeypatch.setattr(scalers, "time", SimpleNamespace(sleep=pause))
    keda.stop(A, 3)
    keda.stop(A, 4)
    assert pauses == [(0.5, [], 1)]


def test_a_wake_during_that_moment_keeps_its_marker(
    keda: KubernetesRuntime, api: FakeApi, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two put its hand on the marker last."""
    started(keda)

    def woken(_: float) -> None:
        keda.start(A, 4)
        redis_client.delete(f"queue:{A}")

    monkeypatch.setattr(scalers, "time", SimpleNamespace(sleep=woken))
    with pytest.raises(Superseded):
        keda.stop(A, 3)
    assert (listed(redis_client), replicas(api)) == ([MARKER], 1)


def test_where_keda_scales_no_more_its_objects_go_and_are_no_danger_until_then(
    keda: KubernetesRuntime, runtime: KubernetesRuntime, api: FakeApi, redis_client: redis.Redis
) -> None:
    """The marker agrees with the replicas, whoever scales. They would go with the Deployment."""
    keda.provision(ADA, 1)
    keda.tidy()
    owners = api.get("scaledobjects", f"{NAME}-scaler")["metadata"]["ownerReferences"]
    assert [owner["name"] for owner in owners] == [NAME]
    runtime.start(A, 2)
    assert listed(redis_client) == [MARKER]
    runtime.stop(A, 3)
    assert redis_client.exists(f"queue:{A}") == 0
    runtime.tidy()
    assert api.kinds() == KINDS


def test_a_sleeping_session_gets_the_address_of_the_settings_of_now(
    runtime: KubernetesRuntime, make_runtime: MakeRuntime, api: FakeApi
) -> None:
    """With its owner and its user, and once. A visit that is to wake it finds the forward auth of then."""
    started(runtime)
    runtime.stop(A, 3)
    before = api.get("ingresses", NAME)["metadata"]
    later = make_runtime(ingress_forward_auth='{"door": "closed"}', api_host="api.example.com", ingress_class="traefik")
    later.tidy()
    changed = api.get("ingresses", NAME)
    after = changed["metadata"]
    assert (after["annotations"]["door"], len(changed["spec"]["rules"])) == ("closed", 2)
    assert (after["ownerReferences"], after["name"]) == (before["ownerReferences"], before["name"])
    assert after["annotations"].items() >= before["annotations"].items()
    later.tidy()
    assert api.get("ingresses", NAME)["metadata"]["resourceVersion"] == after["resourceVersion"]
    api.answers["GET ingresses"] = (500, "nobody needs to ask again so soon")
    later.tidy()


def test_a_cluster_without_keda_is_tidy(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """It knows no such kind."""
    runtime.provision(ADA, 1)
    before = api.names()
    api.answers["GET scaledobjects"] = (404, "the server could not find the requested resource")
    runtime.tidy()
    assert api.requests[-1] == "GET scaledobjects"
    assert api.names() == before
