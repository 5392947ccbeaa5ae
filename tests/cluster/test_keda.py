"""Two who scale, one state: our runtime beside a real KEDA operator.

The operator must be able to reach the tests' Redis on loopback, as it can where it runs beside the
cluster in the same network namespace.
"""

from __future__ import annotations

import base64
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from threading import Event, Thread

import pytest
import redis

from app.settings import Settings
from tests.conftest import REDIS_PASSWORD
from tests.contract.cluster import TIMEOUT, settings_for
from tests.contract.runtimes import PATIENCE, identity, watching
from workers.runtime import cluster, names
from workers.runtime.cluster import Cluster, wait_for
from workers.runtime.kubernetes import KubernetesRuntime

A = "aaaa0001"
CYCLES = int(os.environ.get("KEDA_CYCLES", "20"))
COOLDOWN = 5


@pytest.fixture
def api(namespace: str, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The namespace, with what KEDA reads the password from."""
    monkeypatch.setattr(cluster, "KINDS", {**cluster.KINDS, "triggerauthentications": "/apis/keda.sh/v1alpha1"})
    api = Cluster(namespace, TIMEOUT)
    password = {"password": base64.b64encode(REDIS_PASSWORD.encode()).decode()}
    api.apply("secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "redis"}, "data": password})
    reference = {"parameter": "password", "name": "redis", "key": "password"}
    api.apply(
        "triggerauthentications",
        {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "TriggerAuthentication",
            "metadata": {"name": "redis"},
            "spec": {"secretTargetRef": [reference]},
        },
    )
    return api


@pytest.fixture
def runtime(api: Cluster, namespace: str, settings: Settings, redis_client: redis.Redis) -> Iterator[KubernetesRuntime]:
    chosen = replace(settings_for(settings, namespace), scaler="keda", keda_polling_interval=1, keda_cooldown=COOLDOWN)
    made = KubernetesRuntime(chosen, redis_client, api)
    yield made
    made.remove(A, 1_000_000)


def known_to_keda(api: Cluster) -> None:
    """Until the operator has taken the ScaledObject up."""

    def ready() -> bool:
        scaled = api.get("scaledobjects", names.scaler(A)) or {}
        conditions = (scaled.get("status") or {}).get("conditions") or []
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    wait_for(ready, PATIENCE, "KEDA did not take the ScaledObject up")


def replicas(api: Cluster) -> int:
    deployment = api.get("deployments", names.workspace(A))
    assert deployment is not None
    return int(deployment["spec"]["replicas"])


def test_a_prompt_wakes_a_session_without_us_and_its_end_puts_it_down(
    runtime: KubernetesRuntime, api: Cluster, redis_client: redis.Redis
) -> None:
    """No worker is there to do it; and the intent that is noted stays the one we carried out last."""
    runtime.provision(identity(A), 1)
    with watching(runtime) as seen:
        known_to_keda(api)
        redis_client.rpush(f"queue:{A}", '{"id": 1}')
        woken = seen.until(lambda each: each.ready)
        assert woken.generation == 1
        redis_client.delete(f"queue:{A}")
        down = seen.until(lambda each: not each.running)
    assert (down.generation, down.failure) == (1, "")


def test_a_session_that_is_up_stays_up_beyond_the_cooldown(runtime: KubernetesRuntime, api: Cluster) -> None:
    """The marker holds it; KEDA's own idea of idleness is not ours."""
    runtime.provision(identity(A), 1)
    known_to_keda(api)
    with watching(runtime) as seen:
        runtime.start(A, 2)
        seen.until(lambda each: each.ready)
        Event().wait(2 * COOLDOWN)
        assert replicas(api) == 1


def test_racing_keda_ends_in_the_state_asked_for(runtime: KubernetesRuntime, api: Cluster) -> None:
    """Wake and sleep at any moment of its polling, with no pod more than was asked for."""
    runtime.provision(identity(A), 1)
    known_to_keda(api)
    pods: set[str] = set()
    _, version = api.list("pods", names.SELECTOR)
    following = api.watch("pods", names.SELECTOR, version, 600)

    def follow() -> None:
        for event in following:
            if event["type"] != "BOOKMARK":
                pods.add(event["object"]["metadata"]["name"])

    thread = Thread(target=follow, daemon=True)
    thread.start()
    choice = random.Random(4)
    for cycle in range(CYCLES):
        generation = 2 + 2 * cycle
        runtime.start(A, generation)
        wait_for(lambda: any(pod.ready for pod in runtime._pods(A)), PATIENCE, "it did not start")
        Event().wait(choice.uniform(0, 1.2))
        runtime.stop(A, generation + 1)
        Event().wait(choice.uniform(0, 1.2))
        assert replicas(api) == 0
    following.close()
    thread.join(PATIENCE)
    following.release()
    assert len(pods) == CYCLES
