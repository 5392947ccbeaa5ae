"""A workspace's token in the cluster: in its Secret, and its epoch on the claim, which outlives everything else."""

from __future__ import annotations

import base64

import redis

from app.core.access.agent_credentials import AgentCredentials
from app.process.settings import Settings
from tests.unit.fake_api import FakeApi
from tests.unit.workers.runtime.kubernetes.samples import ADA, NAME, READY, SECRET_KEY, A, pod, started
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.driver import KubernetesRuntime


def secret_of(api: FakeApi) -> str:
    return base64.b64decode(api.get("secrets", NAME)["data"]["token"]).decode()


def noted(api: FakeApi) -> str | None:
    annotations: dict[str, str] = api.get("persistentvolumeclaims", NAME)["metadata"]["annotations"]
    return annotations.get(names.EPOCH)


def file_of(epoch: int) -> str:
    return AgentCredentials([SECRET_KEY]).token_file(A, epoch)


def test_a_start_writes_the_token_of_its_epoch_and_notes_that_in_the_same_request(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """A wake pays nothing for it."""
    runtime.provision(ADA, 1)
    before = len(api.requests)
    runtime.start(A, 2)
    without = sorted(each for each in api.requests[before:] if not each.startswith("GET"))
    runtime.stop(A, 3)
    runtime.renew(A, 3)
    before = len(api.requests)
    runtime.start(A, 4, 3)
    asked = sorted(each for each in api.requests[before:] if not each.startswith("GET"))
    assert set(asked) <= set(without)
    assert asked.count("PATCH persistentvolumeclaims") == 1
    assert (secret_of(api), noted(api)) == (file_of(3), "3")


def test_a_sleep_leaves_the_token_of_the_next_start_for_whoever_makes_it(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """KEDA patches the replicas and nothing else."""
    started(runtime)
    runtime.stop(A, 3)
    runtime.renew(A, 2)
    assert (secret_of(api), noted(api)) == (file_of(2), "2")
    before, version = len(api.requests), api.version
    runtime.renew(A, 2)
    assert [each for each in api.requests[before:] if not each.startswith("GET")] == ["PUT secrets"]
    assert api.version == version


def test_a_kubelet_is_told_to_hand_a_pod_that_runs_its_new_token(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Changed Secrets it looks at once a minute; a changed pod at once."""
    started(runtime)
    api.put("pods", pod({"podIP": "10.1.2.3", **READY}))
    runtime.renew(A, 2)
    assert secret_of(api) == file_of(2)
    assert names.LOOK_AGAIN in api.get("pods", "pod-1")["metadata"]["annotations"]
    assert names.GENERATION not in api.get("pods", "pod-1")["metadata"]["annotations"]


def test_a_renewal_is_of_no_intent(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """It neither scales, nor makes an older intent pass, nor a newer one look carried out."""
    started(runtime)
    runtime.renew(A, 2)
    seen = runtime.observe(A)
    assert seen is not None
    assert (seen.generation, seen.running, seen.epoch) == (2, True, 2)


def test_a_workspace_that_is_being_deleted_is_left_alone(runtime: KubernetesRuntime, api: FakeApi) -> None:
    started(runtime)
    deployment = api.get("deployments", NAME)
    deployment["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    api.put("deployments", deployment)
    secret = secret_of(api)
    runtime.renew(A, 2)
    assert (secret_of(api), noted(api)) == (secret, None)


def test_a_deployment_that_is_made_again_has_the_token_of_the_noted_epoch(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """Someone deleted it, and the Secret with it; whoever starts it again may not know the epoch."""
    runtime.provision(ADA, 1)
    runtime.start(A, 2, 4)
    api.drop("deployments", NAME)
    api.drop("secrets", NAME)
    runtime.start(A, 3)
    assert secret_of(api) == file_of(4)


def test_the_epoch_comes_back_from_the_claim(
    runtime: KubernetesRuntime, api: FakeApi, on_cluster: Settings, redis_client: redis.Redis
) -> None:
    """Redis may have lost it; nobody reads a Secret for it."""
    runtime.provision(ADA, 1)
    runtime.start(A, 2, 4)
    before = len(api.requests)
    later = KubernetesRuntime(on_cluster, redis_client, api.cluster())
    assert [each.epoch for each in later.observe_all()] == [4]
    assert [each for each in api.requests[before:] if "secrets" in each] == []
