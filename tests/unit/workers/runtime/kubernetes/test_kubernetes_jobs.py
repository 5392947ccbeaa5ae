"""Backup Jobs, and volumes that someone else has deleted: their claims stay while a pod has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any
from unittest.mock import Mock

import pytest

from app.core.errors import (
    BackupIncomplete,
    FilesGoing,
    PermanentError,
    RetryableError,
    Superseded,
)
from app.core.storage.archive_keys import ArchiveKeys, SessionKeys, new_key
from app.core.storage.credential import Credential
from tests.contract.runtimes import order, watching
from tests.unit.fake_api import FakeApi
from tests.unit.workers.runtime.kubernetes.samples import (
    ADA,
    BACKUP,
    GOING,
    NAME,
    OTHERS_BACKUP,
    OVERTAKEN,
    READY,
    SUMMARY,
    A,
    MakeRuntime,
    job_pod,
    pod,
    replicas,
    result,
    started,
)
from workers.runtime.base import PointSummary, Proof, ProofOrder
from workers.runtime.kubernetes import jobs, names, s3_credentials
from workers.runtime.kubernetes.driver import KubernetesRuntime
from workers.runtime.kubernetes.job_access import Access, making, reading

KEY = new_key()
KILLED = Mock(side_effect=KeyboardInterrupt)

Work = Callable[[KubernetesRuntime, Callable[[], None]], object]

WORKS: dict[str, Work] = {
    "backup": lambda runtime, check: runtime.backup(A, BACKUP, check=check),
    "restore": lambda runtime, check: runtime.restore(replace(ADA, restore_from=OTHERS_BACKUP), 2, check=check),
    "point": lambda runtime, check: runtime.make_point(A, order(A), check=check),
}


@pytest.fixture
def keyed(make_runtime: MakeRuntime) -> KubernetesRuntime:
    """Where stored backups are encrypted; with a session."""
    runtime = make_runtime(archive_key=KEY)
    runtime.provision(ADA, 1)
    return runtime


def proof_order() -> ProofOrder:
    return ProofOrder(uuid=A, id=order(A).id, files=1, size=2)


# Volumes that are being deleted


def test_a_workspace_is_neither_stopped_nor_replaced_while_its_files_end_with_it(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    started(runtime)
    api.change("persistentvolumeclaims", NAME, GOING)
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
    api.change("persistentvolumeclaims", NAME, GOING)
    made: list[dict[str, Any]] = []

    def ended() -> None:
        (job,) = api.named("jobs")
        made.append(api.get("jobs", job))
        api.drop("jobs", job)

    # The first look at Jobs is for those of others.
    api.before["GET jobs"] = lambda: api.before.update({"GET jobs": ended})
    with pytest.raises(RetryableError, match="deleted by something else"):
        runtime.backup(A, BACKUP)
    assert made[0]["spec"]["template"]["spec"]["nodeName"] == "node-1"


@pytest.mark.slow
def test_a_volume_that_is_being_deleted_is_told(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Also by a watch that begins later; and no more once the workspace has another."""
    started(runtime)
    api.put("pods", pod(READY))
    with watching(runtime) as seen:
        assert seen.snapshot().workspaces[0].ready
        api.change("persistentvolumeclaims", NAME, GOING)
        assert "is being deleted by someone else" in seen.until(lambda each: bool(each.failure)).failure
    with watching(runtime) as seen:
        assert "is being deleted by someone else" in seen.snapshot().workspaces[0].failure
        api.drop("persistentvolumeclaims", NAME)
        seen.until(lambda each: each.ready)


# Work that comes to no end


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
@pytest.mark.slow
def test_work_that_is_broken_off_ends_its_job_and_its_pod(keyed: KubernetesRuntime, api: FakeApi, work: Work) -> None:
    """What asked for it goes on only then."""
    looks: list[Callable[[], None]] = [lambda: job_pod(api), OVERTAKEN]
    with pytest.raises(Superseded):
        work(keyed, lambda: looks.pop(0)())
    assert api.named("jobs", "pods") == []
    assert names.RESTORED not in api.get("persistentvolumeclaims", NAME)["metadata"]["annotations"]


def test_a_pod_that_does_not_end_keeps_nobody(
    runtime: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node may be away; what is wanted now is tried all the same."""
    monkeypatch.setattr(jobs, "END_LIMIT", 0.0)
    runtime.provision(ADA, 1)

    def check() -> None:
        job_pod(api, name="stays", owned=False, finalizers=["the.kubelet/is-away"])
        OVERTAKEN()

    with pytest.raises(Superseded):
        runtime.backup(A, BACKUP, check=check)
    assert api.named("jobs", "pods") == ["stays"]


@pytest.mark.parametrize("end", ["check", "removal"])
@pytest.mark.slow
def test_a_job_that_ends_takes_its_pod_with_it_at_once(runtime: KubernetesRuntime, api: FakeApi, end: str) -> None:
    """No garbage collector is waited for: in that time the pod would do what nobody wants any more."""
    runtime.provision(ADA, 1)

    def check() -> None:
        job_pod(api, owned=False)
        if end == "removal":
            runtime.remove(A, 2, force=True)
        OVERTAKEN()

    with pytest.raises(Superseded):
        runtime.backup(A, BACKUP, check=check)
    assert api.named("jobs", "pods") == []


def test_a_backup_ends_the_job_of_one_whose_worker_was_killed(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """A restore that goes on is none of its business."""
    runtime.provision(ADA, 1)
    for name in ("backup", "restore"):
        with pytest.raises(KeyboardInterrupt):
            WORKS[name](runtime, KILLED)
    backup, restore = api.named("jobs")
    assert (backup.partition("-")[0], restore.partition("-")[0]) == ("backup", "restore")
    # The restore was called off.
    runtime.provision(ADA, 2)
    with pytest.raises(Superseded):
        runtime.backup(A, f"app-{A}-20260101-000001.zip", check=OVERTAKEN)
    assert api.named("jobs") == [restore]


def test_a_job_is_not_told_the_end_of_one_that_had_its_name_before(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Whose pod is still there for a moment, as after a try that failed."""
    runtime.provision(ADA, 1)
    failed = result(error="temporarily_unavailable", text="The store is away.")
    with pytest.raises(RetryableError, match="away"):
        runtime.backup(A, BACKUP, check=lambda: job_pod(api, failed, owned=False))
    done = result(summary=asdict(SUMMARY))
    assert runtime.backup(A, BACKUP, check=lambda: job_pod(api, done)) == SUMMARY


def test_another_ones_partial_backup_does_not_pass_for_a_whole_one(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """The Job of that name may have been made for less."""
    runtime.provision(ADA, 1)
    summary = replace(SUMMARY, unreadable=("mine",), unreadable_count=1)
    done = result(summary=asdict(summary))
    assert runtime.backup(A, BACKUP, partial=True, check=lambda: job_pod(api, done)) == summary
    with pytest.raises(BackupIncomplete, match="1 .“mine”."):
        runtime.backup(A, BACKUP, check=lambda: job_pod(api, done))


def test_a_job_that_is_given_no_pod_keeps_its_worker_no_longer_than_a_start_may_take(
    make_runtime: MakeRuntime, api: FakeApi
) -> None:
    """As where a quota or the LimitRange refuses the pod; the Job's own deadline is 54 minutes."""
    with pytest.raises(RetryableError, match="no pod"):
        make_runtime(archive_key=KEY, progress_timeout=0.01).prove_point(A, proof_order())
    assert api.named("jobs", "secrets") == []


# Keys and credentials


@pytest.mark.parametrize(
    ("work", "access", "uuid"),
    [
        (WORKS["backup"], making(A), A),
        (WORKS["restore"], reading(OTHERS_BACKUP), "bbbb0002"),
        (WORKS["point"], making(A), A),
    ],
    ids=WORKS,
)
def test_a_job_has_a_secret_with_the_keys_and_a_credential_of_what_it_works_on_as_long_as_it_runs(
    make_runtime: MakeRuntime,
    api: FakeApi,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    work: Work,
    access: Access,
    uuid: str,
) -> None:
    """They are in the Secret alone, which goes with the Job. Each try has a new credential. A restore's keys are those
    of the session that was backed up."""
    caplog.set_level("INFO")
    scoped = make_runtime(archive_key=KEY, backup_url="s3://bucket/kept", backup_role="arn:aws:iam::1:role/r")
    asked: list[tuple[object, ...]] = []
    held: list[str] = []

    def issue(role: str, bucket: str, root: str, session: str, access: Access, duration: int) -> Credential:
        asked.append((bucket, root, session, access))
        return Credential({"AWS_SESSION_TOKEN": f"canary-{len(asked)}"}, 1.0)

    def check() -> None:
        (name,) = api.named("jobs")
        secret = api.get("secrets", name)
        (owner,) = secret["metadata"]["ownerReferences"]
        assert owner["uid"] == api.get("jobs", name)["metadata"]["uid"]
        assert SessionKeys.from_text(secret["stringData"]["keys"]) == ArchiveKeys(KEY).session(uuid)
        held.append(Credential.from_text(secret["stringData"]["credential"]).variables["AWS_SESSION_TOKEN"])
        assert "canary" not in json.dumps([item for (kind, _), item in api.objects.items() if kind != "secrets"])
        OVERTAKEN()

    monkeypatch.setattr(s3_credentials, "issue", issue)
    scoped.provision(ADA, 1)
    for _ in range(2):
        with pytest.raises(Superseded):
            work(scoped, check)
    assert asked == 2 * [("bucket", "kept", f"session-{A}", access)]
    assert held == ["canary-1", "canary-2"]
    assert set(api.named("secrets")) <= {NAME}
    left = json.dumps([*api.objects.values()])
    assert "canary" not in left + caplog.text
    assert KEY not in left


def test_a_job_that_takes_the_name_of_another_gets_a_secret_of_its_own(keyed: KubernetesRuntime, api: FakeApi) -> None:
    """That of the other is about to be collected."""
    owners: list[str] = []

    def check() -> None:
        (name,) = api.named("jobs")
        owners.append(api.get("secrets", name)["metadata"]["ownerReferences"][0]["uid"])
        api.drop("jobs", name)
        KILLED()

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            keyed.backup(A, BACKUP, check=check)
    assert owners[0] != owners[1]


def test_without_a_credential_no_job_is_started(
    make_runtime: MakeRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_credentials, "issue", Mock(side_effect=RetryableError("STS gave no credential.")))
    runtime = make_runtime(backup_url="s3://bucket", backup_role="arn:aws:iam::1:role/r")
    runtime.provision(ADA, 1)
    with pytest.raises(RetryableError, match="no credential"):
        runtime.backup(A, BACKUP)
    assert api.named("jobs") == []


# Restore points


def job_tells(api: FakeApi, **told: Any) -> list[str]:
    """Have the next Job's pod tell this and end; whose keys are in its Secret then, is in what this answers."""
    uuids: list[str] = []

    def ended() -> None:
        secrets = [item for (kind, name), item in api.objects.items() if kind == "secrets" and name != NAME]
        uuids.extend(json.loads(each["stringData"]["keys"])["uuid"] for each in secrets)
        job_pod(api, result(**told))

    api.before["GET pods"] = lambda: api.before.update({"GET pods": ended})
    return uuids


def test_a_restore_point_is_made_by_a_job_with_the_sessions_keys_which_goes_afterwards(
    keyed: KubernetesRuntime, api: FakeApi
) -> None:
    keyed.start(A, 2)
    wanted = order(A)
    made = PointSummary(
        id=wanted.id, created_at=wanted.at, files=1, size=2, stored=3, fingerprint="f", repository=1, broken=("b",)
    )
    uuids = job_tells(api, point=asdict(made))
    assert keyed.make_point(A, wanted) == made
    assert uuids == [A]
    assert api.named("jobs", "secrets") == [NAME]


def test_a_restore_point_is_proven_by_a_job_without_a_workspace(make_runtime: MakeRuntime, api: FakeApi) -> None:
    """Of an archived session nothing is in the cluster."""
    wanted = proof_order()
    found = Proof(id=wanted.id, different=3, differences=("app/file: another content",), files=1, size=2)
    uuids = job_tells(api, proof=asdict(found))
    assert make_runtime(archive_key=KEY).prove_point(A, wanted) == found
    assert uuids == [A]
    assert api.named("jobs", "secrets") == []


def test_without_an_archive_key_there_are_no_restore_points(runtime: KubernetesRuntime) -> None:
    started(runtime)
    with pytest.raises(PermanentError, match="ARCHIVE_KEY"):
        runtime.prove_point(A, proof_order())
    with pytest.raises(PermanentError, match="ARCHIVE_KEY"):
        runtime.make_point(A, order(A))
