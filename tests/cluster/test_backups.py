"""Backups by Jobs of a real cluster: of a workspace in use, and where no backup can be made."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from app.core.errors import BackupIncomplete, PermanentError, RetryableError, Superseded
from app.process.settings import Settings
from tests.contract.cluster import KubernetesHarness
from tests.contract.runtimes import A, identity, unused_backup_name, watching
from workers.runtime.kubernetes import job_objects, names
from workers.runtime.kubernetes.driver import KubernetesRuntime


@pytest.fixture
def harness(settings: Settings, redis_client: redis.Redis, namespace: str) -> KubernetesHarness:
    return KubernetesHarness(settings, redis_client, namespace)


def jobs(harness: KubernetesHarness) -> list[object]:
    return list(harness.cluster.list("jobs", names.selector(A, names.BACKUP))[0])


def test_a_running_workspace_is_backed_up_and_runs_on(harness: KubernetesHarness) -> None:
    """On its own node, where the volume is; the pod doesn't notice, and no Job is left."""
    harness.runtime.provision(identity(A), 1)
    with watching(harness.again()) as seen:
        harness.runtime.start(A, 2)
        before = seen.until(lambda each: each.ready)
        harness.write(A, "file", b"content")
        summary = harness.runtime.backup(A, unused_backup_name(A))
    assert (summary.files, summary.content_bytes) == (1, 7)
    assert harness.runtime.observe(A) == before
    assert jobs(harness) == []
    harness.runtime.remove(A, 3)


LARGE = """
import os
os.makedirs("/workspace/app", exist_ok=True)
with open("/workspace/app/large", "wb") as file:
    for _ in range(400):
        file.write(os.urandom(1_000_000))
"""
"""More than a Job has done before it is told to end."""

ODD = """
import os
os.makedirs("/workspace/app", exist_ok=True)
for name in ("mine", "hole"):
    open("/workspace/app/" + name, "w").close()
os.chmod("/workspace/app/mine", 0)
os.truncate("/workspace/app/hole", 2 << 40)
"""

LEFT = """
import os
found = os.listdir("/workspace") + os.listdir("/backups")
left = [name for name in found if name.startswith((".app-", ".restoring-", ".replacing-"))]
open("/dev/termination-log", "w").write(" ".join(sorted(left)) or "nothing")
"""


class Overtaken:
    """A check that finds the work no longer wanted once its Job's pod has run for a while."""

    def __init__(self, harness: KubernetesHarness, action: str, backup: str) -> None:
        self.harness = harness
        self.selector = f"batch.kubernetes.io/job-name={names.backup_job(action, A, backup)}"
        self.looks = 0

    def __call__(self) -> None:
        pods, _ = self.harness.cluster.list("pods", self.selector)
        states = [each["state"] for pod in pods for each in pod["status"].get("containerStatuses") or []]
        assert not any("terminated" in state for state in states), "it was done before it was broken off"
        self.looks += any("running" in state for state in states)
        if self.looks == 3:
            raise Superseded("Intent 1 was overtaken by 2.")


def test_work_that_is_broken_off_while_its_job_writes_leaves_nothing_on_the_volumes(
    harness: KubernetesHarness,
) -> None:
    """Neither in the store nor beside the files; no Job and no pod is left."""
    name = unused_backup_name(A)
    harness.runtime.provision(identity(A), 1)
    harness.run(A, LARGE)
    with pytest.raises(Superseded):
        harness.runtime.backup(A, name, check=Overtaken(harness, "backup", name))
    assert (harness.leftovers(), harness.run(A, LEFT, backups=True)) == ([], "nothing")
    assert harness.runtime.backup(A, name).content_bytes == 400_000_000
    with pytest.raises(Superseded):
        harness.runtime.restore(identity(A, restore_from=name), 2, check=Overtaken(harness, "restore", name))
    assert (harness.leftovers(), harness.run(A, LEFT, backups=True)) == ([], "nothing")
    harness.runtime.remove(A, 3)


def test_what_may_not_be_read_and_what_could_not_be_restored(harness: KubernetesHarness) -> None:
    """A Job tells both as they are told on one machine; holes don't count."""
    name = unused_backup_name(A)
    harness.runtime.provision(identity(A), 1)
    harness.run(A, ODD)
    with pytest.raises(BackupIncomplete, match="1 .“mine”."):
        harness.runtime.backup(A, name)
    summary = harness.runtime.backup(A, name, partial=True)
    assert (summary.unreadable, summary.unreadable_count, summary.content_bytes) == (("mine",), 1, 0)
    harness.write(A, "file", b"12345")
    tight = KubernetesRuntime(replace(harness.settings, restore_max_bytes=4), harness.client)
    with pytest.raises(PermanentError, match="5 bytes in 3 files"):
        tight.backup(A, unused_backup_name(A), partial=True)
    assert harness.run(A, LEFT, backups=True) == "nothing"
    harness.runtime.remove(A, 2)


def test_a_backup_that_can_not_be_made_leaves_the_volume(
    harness: KubernetesHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says why, and takes its Job away; the lifecycle then deletes nothing."""
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"precious")
    monkeypatch.setattr(job_objects, "BACKUP_CLAIM", "no-such-claim")
    nowhere = replace(harness.settings, progress_timeout=3.0)
    with pytest.raises(RetryableError, match='did not start.*"no-such-claim" not found'):
        KubernetesRuntime(nowhere, harness.client).backup(A, unused_backup_name(A))
    assert jobs(harness) == []
    assert harness.read(A, "file") == b"precious"
    harness.runtime.remove(A, 2)
