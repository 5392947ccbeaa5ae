"""Nobody works on files that a restore is about to replace, whoever else scales workspaces."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import pytest
import redis

from app.core.errors import RetryableError, Superseded
from tests.unit.fake_api import FakeApi
from tests.unit.workers.runtime.kubernetes.samples import ADA, BACKUP, NAME, OVERTAKEN, A, replicas, started
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.driver import KubernetesRuntime

FROM_BACKUP = replace(ADA, restore_from=BACKUP)


def seen_by_keda(api: FakeApi) -> bool:
    return ("scaledobjects", names.scaler(A)) in api.names()


def broken_off(runtime: KubernetesRuntime, api: FakeApi, generation: int) -> tuple[bool, int]:
    """What KEDA sees, and how many pods are wanted, while the Job runs; the restore is broken off then."""
    seen: list[tuple[bool, int]] = []

    def check() -> None:
        seen.append((seen_by_keda(api), replicas(api)))
        OVERTAKEN()

    with pytest.raises(Superseded):
        runtime.restore(FROM_BACKUP, generation, check=check)
    return seen[0]


def test_keda_is_told_of_a_session_when_its_files_are_there(
    keda: KubernetesRuntime, api: FakeApi, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the prompts that wait, and would begin to work on files that are replaced a moment later."""
    redis_client.rpush(f"queue:{A}", "a prompt")
    assert broken_off(keda, api, 1) == (False, 0)
    assert not seen_by_keda(api)
    monkeypatch.setattr(keda._jobs, "run", lambda *_: None)
    keda.restore(FROM_BACKUP, 2)
    assert seen_by_keda(api)
    assert api.get("persistentvolumeclaims", NAME)["metadata"]["annotations"][names.RESTORED] == BACKUP


def test_keda_is_told_though_the_worker_died_right_after_the_restore(
    keda: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    dies = Mock(side_effect=RetryableError("The worker died."))
    monkeypatch.setattr(keda._jobs, "run", lambda *_: None)
    api.before["POST scaledobjects"] = api.before["PATCH scaledobjects"] = dies
    with pytest.raises(RetryableError):
        keda.restore(FROM_BACKUP, 1)
    api.before.clear()
    keda.restore(FROM_BACKUP, 1)
    assert seen_by_keda(api)


def test_one_that_someone_else_started_is_stopped_before_its_files_are_replaced(
    keda: KubernetesRuntime, api: FakeApi
) -> None:
    """As one whose files were lost, whose newest backup is brought back."""
    started(keda)
    assert (seen_by_keda(api), replicas(api)) == (True, 1)
    assert broken_off(keda, api, 3) == (False, 0)
