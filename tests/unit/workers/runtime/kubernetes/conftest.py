"""The Kubernetes runtime, on an API server in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from app.process.settings import Settings
from tests.unit import fake_api
from tests.unit.fake_api import FakeApi
from tests.unit.workers.runtime.kubernetes.samples import SECRET_KEY, MakeRuntime
from workers.runtime.kubernetes import driver, informer, scalers, scheduling
from workers.runtime.kubernetes.driver import KubernetesRuntime


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api.serving() as served:
        yield served


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decided again is so without a pause, and a watch ends soon; the fake gives no pod a node, so none is
    waited for."""
    monkeypatch.setattr(driver, "PAUSE", 0.0)
    monkeypatch.setattr(informer, "TICK", 0.01)
    monkeypatch.setattr(scheduling, "LIMIT", 0.0)


@pytest.fixture
def on_cluster(settings: Settings) -> Settings:
    return replace(
        settings, runtime="kubernetes", workspace_image="workspace:1", start_timeout=60.0, secret_key=SECRET_KEY
    )


@pytest.fixture
def make_runtime(on_cluster: Settings, redis_client: redis.Redis, api: FakeApi) -> MakeRuntime:
    """Makes a runtime with other settings, as another process would."""

    def make(**changes: Any) -> KubernetesRuntime:
        return KubernetesRuntime(replace(on_cluster, **changes), redis_client, api.cluster())

    return make


@pytest.fixture
def runtime(make_runtime: MakeRuntime) -> KubernetesRuntime:
    return make_runtime()


@pytest.fixture
def keda(make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch) -> KubernetesRuntime:
    monkeypatch.setattr(scalers, "SETTLE", 0.0)
    return make_runtime(scaler="keda")
