"""Backups by Jobs of a real cluster: of a workspace in use, and where no backup can be made."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from app.sessions.backup_files import backup_name
from app.sessions.errors import RetryableError
from app.settings import Settings
from tests.contract.cluster import KubernetesHarness
from tests.contract.runtimes import identity, watching
from workers.runtime import names
from workers.runtime.kubernetes import KubernetesRuntime

A = "aaaa0001"


@pytest.fixture
def harness(settings: Settings, redis_client: redis.Redis, namespace: str) -> KubernetesHarness:
    return KubernetesHarness(settings, redis_client, namespace)


def jobs(harness: KubernetesHarness) -> list[object]:
    return list(harness.cluster.list("jobs", names.selector(A, names.ARCHIVE))[0])


def test_a_running_workspace_is_backed_up_and_runs_on(harness: KubernetesHarness) -> None:
    """On its own node, where the volume is; the pod doesn't notice, and no Job is left."""
    harness.runtime.provision(identity(A), 1)
    with watching(harness.again()) as seen:
        harness.runtime.start(A, 2)
        before = seen.until(lambda each: each.ready)
        harness.write(A, "file", b"content")
        summary = harness.runtime.backup(A, backup_name(A, 1_763_625_601.0))
    assert (summary.files, summary.content_bytes) == (1, 7)
    assert harness.runtime.observe(A) == before
    assert jobs(harness) == []
    harness.runtime.remove(A, 3)


def test_a_backup_that_can_not_be_made_leaves_the_volume(harness: KubernetesHarness) -> None:
    """It says why, and takes its Job away; the lifecycle then deletes nothing."""
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"precious")
    nowhere = replace(harness.settings, backup_pvc="no-such-claim", start_timeout=3.0)
    with pytest.raises(RetryableError, match='did not start.*"no-such-claim" not found'):
        KubernetesRuntime(nowhere, harness.client).backup(A, backup_name(A, 1_763_625_602.0))
    assert jobs(harness) == []
    assert harness.read(A, "file") == b"precious"
    harness.runtime.remove(A, 2)
