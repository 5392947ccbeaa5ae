"""Backup Jobs, and volumes that someone else has deleted: their claims stay while a pod has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from app.core.errors import (
    BackupIncomplete,
    FilesGoing,
    RetryableError,
    Superseded,
)
from tests.contract.runtimes import watching
from tests.unit.fake_api import FakeApi
from tests.unit.workers.runtime.kubernetes.samples import (
    ADA,
    CRASHED,
    NAME,
    READY,
    A,
    pod,
    replicas,
    started,
)
from workers.runtime.base import BackupSummary
from workers.runtime.kubernetes import jobs, names
from workers.runtime.kubernetes.driver import KubernetesRuntime


def delete_claim(api: FakeApi) -> None:
    claim = api.get("persistentvolumeclaims", NAME)
    api.put("persistentvolumeclaims", {**claim, "metadata": {**claim["metadata"], "deletionTimestamp": "now"}})


def test_a_workspace_is_neither_stopped_nor_replaced_while_its_files_end_with_it(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    started(runtime)
    delete_claim(api)
    for act in (runtime.stop, runtime.start):
        with pytest.raises(FilesGoing):
            act(A, 3)
    assert replicas(api) == 1


def test_files_that_are_going_are_backed_up_on_their_node_past_the_scheduler(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """Which has no place for a pod whose claim is being deleted."""
    started(runtime)
    api.put("pods", pod(READY))
    delete_claim(api)
    made: list[dict[str, Any]] = []

    def ended() -> None:
        made.extend(item for (kind, _), item in api.objects.items() if kind == "jobs")
        for kind, name in api.names():
            if kind == "jobs":
                api.drop(kind, name)

    # The first look at Jobs is for those of others.
    api.before["GET jobs"] = lambda: api.before.update({"GET jobs": ended})
    with pytest.raises(RetryableError, match="deleted by something else"):
        runtime.backup(A, "app-aaaa0001-20260101-000000.zip")
    assert made[0]["spec"]["template"]["spec"]["nodeName"] == "node-1"


# Backups and restores that come to no end


BACKUP = "app-aaaa0001-20260101-000000.zip"


def overtaken() -> None:
    raise Superseded("Intent 1 was overtaken by 2.")


def job_pod(api: FakeApi, *, owned: bool = True, message: str = "") -> None:
    """The pod of the one Job there is, as its controller would make it; it has ended when it has a message."""
    ((_, name),) = (key for key in api.names() if key[0] == "jobs")
    uid = api.get("jobs", name)["metadata"]["uid"]
    state = {"terminated": {"message": message, "exitCode": 0}} if message else {"running": {}}
    made = pod({"containerStatuses": [{"state": state}]}, f"pod-{uid}")
    template = api.get("jobs", name)["spec"]["template"]["metadata"]
    made["metadata"]["labels"] = {**template["labels"], "batch.kubernetes.io/controller-uid": uid}
    if owned:
        made["metadata"]["ownerReferences"] = [{"uid": uid}]
    api.put("pods", made)


def backups_and_restores(runtime: KubernetesRuntime) -> list[Callable[[Callable[[], None]], object]]:
    return [
        lambda check: runtime.backup(A, BACKUP, check=check),
        lambda check: runtime.restore(replace(ADA, restore_from=BACKUP), 2, check=check),
    ]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.slow
def test_work_that_is_broken_off_ends_its_job_and_its_pod(runtime: KubernetesRuntime, api: FakeApi, which: int) -> None:
    """What asked for it goes on only then."""
    runtime.provision(ADA, 1)
    looks = []

    def check() -> None:
        looks.append(1)
        if len(looks) == 1:
            job_pod(api)
        else:
            overtaken()

    with pytest.raises(Superseded):
        backups_and_restores(runtime)[which](check)
    assert not [name for kind, name in api.names() if kind in ("jobs", "pods")]
    claim = api.get("persistentvolumeclaims", NAME)
    assert names.RESTORED not in claim["metadata"]["annotations"]


def test_a_pod_that_does_not_end_keeps_nobody(
    runtime: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node may be away; what is wanted now is tried all the same."""
    monkeypatch.setattr(jobs, "END_LIMIT", 0.0)
    runtime.provision(ADA, 1)

    def check() -> None:
        job_pod(api, owned=False)
        ((_, name),) = (key for key in api.names() if key[0] == "pods")
        api.get("pods", name)["metadata"]["finalizers"] = ["the.kubelet/is-away"]
        overtaken()

    with pytest.raises(Superseded):
        runtime.backup(A, BACKUP, check=check)
    assert [kind for kind, name in api.names() if kind in ("jobs", "pods")] == ["pods"]


@pytest.mark.parametrize("end", ["check", "removal"])
@pytest.mark.slow
def test_a_job_that_ends_takes_its_pod_with_it_at_once(runtime: KubernetesRuntime, api: FakeApi, end: str) -> None:
    """No garbage collector is waited for: in that time the pod would do what nobody wants any more."""
    runtime.provision(ADA, 1)

    def check() -> None:
        job_pod(api, owned=False)
        if end == "removal":
            runtime.remove(A, 2, force=True)
        overtaken()

    with pytest.raises(Superseded):
        runtime.backup(A, BACKUP, check=check)
    assert not [name for kind, name in api.names() if kind in ("jobs", "pods")]


def test_a_backup_ends_the_job_of_one_whose_worker_was_killed(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """A restore that goes on is none of its business."""
    runtime.provision(ADA, 1)

    def killed() -> None:
        raise KeyboardInterrupt

    for work in backups_and_restores(runtime):
        with pytest.raises(KeyboardInterrupt):
            work(killed)
    left = {name for kind, name in api.names() if kind == "jobs"}
    assert len(left) == 2
    with pytest.raises(Superseded):
        runtime.backup(A, "app-aaaa0001-20260101-000001.zip", check=overtaken)
    assert {name for kind, name in api.names() if kind == "jobs"} == {each for each in left if "restore" in each}


def test_a_job_is_not_told_the_end_of_one_that_had_its_name_before(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Whose pod is still there for a moment, as after a try that failed."""
    runtime.provision(ADA, 1)
    failed = json.dumps({"error": "temporarily_unavailable", "text": "The store is away."})
    with pytest.raises(RetryableError, match="away"):
        runtime.backup(A, BACKUP, check=lambda: job_pod(api, owned=False, message=failed))
    summary = BackupSummary(created_at=1.0, size=2, files=3, content_bytes=4, sha256="5")
    message = json.dumps({"summary": asdict(summary)})
    assert runtime.backup(A, BACKUP, check=lambda: job_pod(api, message=message)) == summary


@pytest.mark.parametrize("partial", [False, True])
def test_another_ones_partial_backup_does_not_pass_for_a_whole_one(
    runtime: KubernetesRuntime, api: FakeApi, partial: bool
) -> None:
    """The Job of that name may have been made for less."""
    runtime.provision(ADA, 1)
    summary = BackupSummary(
        created_at=1.0, size=2, files=3, content_bytes=4, sha256="5", unreadable=("mine",), unreadable_count=1
    )
    message = json.dumps({"summary": asdict(summary)})

    def back_up() -> BackupSummary:
        return runtime.backup(A, BACKUP, partial=partial, check=lambda: job_pod(api, message=message))

    if partial:
        assert back_up() == summary
    else:
        with pytest.raises(BackupIncomplete, match="1 .“mine”."):
            back_up()


def test_a_start_tells_whether_it_began_anything(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Also when its decision was overtaken after it had begun, and when it replaced a pod."""
    runtime.provision(ADA, 1)
    api.before["PATCH persistentvolumeclaims"] = lambda: api.put(
        "persistentvolumeclaims", api.get("persistentvolumeclaims", NAME)
    )
    assert runtime.start(A, 2) is False
    assert api.requests.count("PATCH persistentvolumeclaims") > 1
    api.put("pods", pod(READY))
    assert runtime.start(A, 3) is True
    api.put("pods", pod(CRASHED))
    assert runtime.start(A, 4) is False


@pytest.mark.slow
def test_a_volume_that_is_being_deleted_is_told(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Also by a watch that begins later; and no more once the workspace has another."""
    started(runtime)
    api.put("pods", pod(READY))
    with watching(runtime) as seen:
        assert seen.snapshot().workspaces[0].ready
        delete_claim(api)
        assert "is being deleted by someone else" in seen.until(lambda each: bool(each.failure)).failure
    with watching(runtime) as seen:
        assert "is being deleted by someone else" in seen.snapshot().workspaces[0].failure
        api.drop("persistentvolumeclaims", NAME)
        seen.until(lambda each: each.ready)
