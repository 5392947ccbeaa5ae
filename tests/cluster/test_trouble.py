"""What a real cluster does to a workspace: trouble is told in a user's words and clears, a loss is made good."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis
from kubernetes import client

from app.process.settings import Settings
from tests.contract.cluster import TIMEOUT, own_namespace, settings_for
from tests.contract.runtimes import SECRET_KEY, identity, stop, watching
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.api_server import ApiServer, find_cluster
from workers.runtime.kubernetes.driver import KubernetesRuntime

A = "aaaa0001"
NO_REGISTRY = "127.0.0.1:1/image:1"
"""Of a registry that does not answer: no word about the image is known."""

HUGE = json.dumps(dict.fromkeys(("small", "standard", "large"), ["500", "500", "1Gi", "1Gi"]))


@pytest.fixture
def chosen(namespace: str, settings: Settings) -> Settings:
    return replace(settings_for(settings, namespace), secret_key=SECRET_KEY)


@pytest.fixture
def runtime(chosen: Settings, redis_client: redis.Redis) -> Iterator[KubernetesRuntime]:
    made = KubernetesRuntime(chosen, redis_client)
    yield made
    made.remove(A, 1_000_000)


@pytest.mark.parametrize(
    ("wrong", "told", "code"),
    [
        ({"workspace_image": NO_REGISTRY}, "The workspace's image cannot be pulled: ", "image_unavailable"),
        ({"workspace_sizes": HUGE}, "No machine of the cluster has room for the workspace: ", "no_capacity"),
    ],
)
def test_a_workspace_that_can_not_start_says_why_and_starts_when_it_can(
    runtime: KubernetesRuntime,
    chosen: Settings,
    redis_client: redis.Redis,
    wrong: dict[str, str],
    told: str,
    code: str,
) -> None:
    """It waits for either: a registry may answer later, and a machine be added. The next wake after the settings were
    put right is all it takes."""
    mistaken = KubernetesRuntime(replace(chosen, **wrong), redis_client)  # type: ignore[arg-type]
    mistaken.provision(identity(A), 1)
    with watching(runtime) as seen:
        mistaken.start(A, 2)
        waits = seen.until(lambda each: bool(each.waiting or each.failure))
        assert (waits.running, waits.failure, waits.code) == (True, "", code)
        assert waits.waiting.startswith(told)
        stop(runtime, A, 3)
        runtime.start(A, 4)
        seen.until(lambda each: each.ready and each.generation == 4)


def test_what_waits_for_too_long_has_failed_and_what_is_hopeless_at_once(
    chosen: Settings, redis_client: redis.Redis
) -> None:
    """Where nothing goes on any more, and where the kubelet's word leaves no doubt."""
    hopeless = {"No machine": {"workspace_sizes": HUGE}, "The workspace's image": {"workspace_image": ":::"}}
    for generation, (told, wrong) in enumerate(hopeless.items()):
        settings = replace(chosen, progress_timeout=8.0, **wrong)  # type: ignore[arg-type]
        mistaken = KubernetesRuntime(settings, redis_client)
        mistaken.provision(identity(A), 10 * generation + 1)
        with watching(mistaken) as seen:
            mistaken.start(A, 10 * generation + 2)
            assert seen.until(lambda each: bool(each.failure)).failure.startswith(told)
        mistaken.remove(A, 10 * generation + 3)


def test_a_quota_is_told_and_clears_by_itself(settings: Settings, redis_client: redis.Redis) -> None:
    """Without another wake: the cluster goes on trying."""
    with own_namespace() as namespace:
        core = client.CoreV1Api(client.ApiClient(find_cluster()))
        metadata, spec = client.V1ObjectMeta(name="tight"), client.V1ResourceQuotaSpec(hard={"pods": "0"})
        quota = client.V1ResourceQuota(metadata=metadata, spec=spec)
        core.create_namespaced_resource_quota(namespace, quota, _request_timeout=TIMEOUT)
        runtime = KubernetesRuntime(settings_for(settings, namespace), redis_client)
        runtime.provision(identity(A), 1)
        with watching(runtime) as seen:
            runtime.start(A, 2)
            failed = seen.until(lambda each: bool(each.failure))
            assert failed.failure.startswith("The cluster's quota for workspaces is used up: tight")
            core.delete_namespaced_resource_quota("tight", namespace, _request_timeout=TIMEOUT)
            seen.until(lambda each: each.ready)
        runtime.remove(A, 3)


@pytest.mark.parametrize("kind", ["deployments", "services", "ingresses", "secrets", "pods"])
def test_what_someone_deletes_is_made_again(runtime: KubernetesRuntime, namespace: str, kind: str) -> None:
    """At the next wake at the latest; a pod at once."""
    cluster = ApiServer(namespace, TIMEOUT)
    runtime.provision(identity(A), 1)
    with watching(runtime) as seen:
        runtime.start(A, 2)
        first = seen.until(lambda each: each.ready)
        cluster.delete(kind, first.pod_name if kind == "pods" else names.workspace(A))
        if kind == "pods":
            seen.until(lambda each: each.ready and each.pod_name != first.pod_name)
        else:
            stop(runtime, A, 3)
            runtime.start(A, 4)
            seen.until(lambda each: each.ready and each.generation == 4)
            assert cluster.get(kind, names.workspace(A)) is not None
