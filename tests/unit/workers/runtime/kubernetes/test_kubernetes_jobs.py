"""Backup Jobs, and volumes that someone else has deleted: their claims stay while a pod has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import redis

from app.core.errors import (
    BackupIncomplete,
    FilesGoing,
    PermanentError,
    RetryableError,
    Superseded,
)
from app.core.storage.archive_keys import ArchiveKeys, SessionKeys, new_key
from app.core.storage.credential import Credential
from app.process.settings import Settings
from tests.contract.runtimes import order, watching
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
from workers.runtime.base import BackupSummary, PointSummary, Proof, ProofOrder
from workers.runtime.kubernetes import jobs, names, s3_credentials
from workers.runtime.kubernetes.driver import KubernetesRuntime
from workers.runtime.kubernetes.job_access import Access, making, reading


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
KEY = new_key()


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
    # The restore was called off.
    runtime.provision(ADA, 2)
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


@pytest.fixture
def keyed(on_cluster: Settings, redis_client: redis.Redis, api: FakeApi) -> KubernetesRuntime:
    """Where stored backups are encrypted."""
    return KubernetesRuntime(replace(on_cluster, archive_key=KEY), redis_client, api.cluster())


@pytest.mark.parametrize("which", [0, 1])
def test_a_job_has_a_secret_with_the_keys_of_its_session_as_long_as_it_runs(
    keyed: KubernetesRuntime, api: FakeApi, which: int
) -> None:
    """A restore's are those of the session that was backed up."""
    keyed.provision(ADA, 1)
    seen: list[tuple[str, SessionKeys]] = []

    def check() -> None:
        ((_, name),) = (key for key in api.names() if key[0] == "jobs")
        secret = api.get("secrets", name)
        (owner,) = secret["metadata"]["ownerReferences"]
        assert owner["uid"] == api.get("jobs", name)["metadata"]["uid"]
        seen.append((name, SessionKeys.from_text(secret["stringData"]["keys"])))
        overtaken()

    backup = f"app-bbbb0002-{BACKUP[13:]}" if which else BACKUP
    with pytest.raises(Superseded):
        if which:
            keyed.restore(replace(ADA, restore_from=backup), 2, check=check)
        else:
            keyed.backup(A, backup, check=check)
    ((name, keys),) = seen
    assert keys == ArchiveKeys(KEY).session(backup[4:12])
    assert ("secrets", name) not in api.names()
    assert KEY not in json.dumps([*api.objects.values()])


def test_a_job_that_takes_the_name_of_another_gets_a_secret_of_its_own(keyed: KubernetesRuntime, api: FakeApi) -> None:
    """That of the other is about to be collected."""
    keyed.provision(ADA, 1)
    owners: list[str] = []

    def killed() -> None:
        ((_, name),) = (key for key in api.names() if key[0] == "jobs")
        owners.append(api.get("secrets", name)["metadata"]["ownerReferences"][0]["uid"])
        api.drop("jobs", name)
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            keyed.backup(A, BACKUP, check=killed)
    assert owners[0] != owners[1]


@pytest.mark.parametrize("work", ["backup", "restore", "point"])
def test_a_job_has_a_credential_for_what_it_works_on_as_long_as_it_runs(
    on_cluster: Settings,
    redis_client: redis.Redis,
    api: FakeApi,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    work: str,
) -> None:
    """It is in the Secret alone, which goes with the Job. Each try has a new one."""
    caplog.set_level("INFO")
    scoped = replace(on_cluster, archive_key=KEY, backup_url="s3://bucket/kept", backup_role="arn:aws:iam::1:role/r")
    runtime = KubernetesRuntime(scoped, redis_client, api.cluster())
    asked: list[Access] = []
    held: list[str] = []

    def issue(role: str, bucket: str, root: str, session: str, access: Access, duration: int) -> Credential:
        assert (bucket, root, session) == ("bucket", "kept", f"session-{A}")
        asked.append(access)
        return Credential({"AWS_SESSION_TOKEN": f"canary-{len(asked)}"}, 1.0)

    def check() -> None:
        ((_, name),) = (key for key in api.names() if key[0] == "jobs")
        secret = api.get("secrets", name)["stringData"]["credential"]
        held.append(Credential.from_text(secret).variables["AWS_SESSION_TOKEN"])
        assert "canary" not in json.dumps([item for (kind, _), item in api.objects.items() if kind != "secrets"])
        overtaken()

    monkeypatch.setattr(s3_credentials, "issue", issue)
    runtime.provision(ADA, 1)
    backup = f"app-bbbb0002-{BACKUP[13:]}"
    for _ in range(2):
        with pytest.raises(Superseded):
            if work == "restore":
                runtime.restore(replace(ADA, restore_from=backup), 2, check=check)
            elif work == "backup":
                runtime.backup(A, BACKUP, check=check)
            else:
                runtime.make_point(A, order(A), check=check)
    assert asked == 2 * [reading(backup) if work == "restore" else making(A)]
    assert held == ["canary-1", "canary-2"]
    assert "canary" not in json.dumps([*api.objects.values()]) + caplog.text


def test_without_a_credential_no_job_is_started(
    on_cluster: Settings, redis_client: redis.Redis, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def issue(*_: object) -> Credential:
        raise RetryableError("STS gave no credential.")

    monkeypatch.setattr(s3_credentials, "issue", issue)
    scoped = replace(on_cluster, backup_url="s3://bucket", backup_role="arn:aws:iam::1:role/r")
    runtime = KubernetesRuntime(scoped, redis_client, api.cluster())
    runtime.provision(ADA, 1)
    with pytest.raises(RetryableError, match="no credential"):
        runtime.backup(A, BACKUP)
    assert not [name for kind, name in api.names() if kind == "jobs"]


# Restore points


def test_a_restore_point_is_made_by_a_job_with_the_sessions_keys_which_goes_afterwards(
    keyed: KubernetesRuntime, api: FakeApi
) -> None:
    started(keyed)
    wanted = order(A)
    made = PointSummary(
        id=wanted.id, created_at=wanted.at, files=1, size=2, stored=3, fingerprint="f", repository=1, broken=("b",)
    )
    secrets: list[dict[str, Any]] = []

    def ended() -> None:
        secrets.extend(item for (kind, name), item in api.objects.items() if kind == "secrets" and name != NAME)
        job_pod(api, message=json.dumps({"point": asdict(made)}))

    api.before["GET pods"] = lambda: api.before.update({"GET pods": ended})
    assert keyed.make_point(A, wanted) == made
    assert [json.loads(each["stringData"]["keys"])["uuid"] for each in secrets] == [A]
    assert not [name for kind, name in api.names() if kind in ("jobs", "secrets") and name != NAME]


def test_a_restore_point_is_proven_by_a_job_without_a_workspace(keyed: KubernetesRuntime, api: FakeApi) -> None:
    """Of an archived session nothing is in the cluster."""
    wanted = ProofOrder(uuid=A, id=order(A).id, files=1, size=2)
    found = Proof(id=wanted.id, different=3, differences=("app/file: another content",), files=1, size=2)
    secrets: list[dict[str, Any]] = []

    def ended() -> None:
        secrets.extend(item for (kind, _), item in api.objects.items() if kind == "secrets")
        job_pod(api, message=json.dumps({"proof": asdict(found)}))

    api.before["GET pods"] = lambda: api.before.update({"GET pods": ended})
    assert keyed.prove_point(A, wanted) == found
    assert [json.loads(each["stringData"]["keys"])["uuid"] for each in secrets] == [A]
    assert not [name for kind, name in api.names() if kind in ("jobs", "secrets")]


def test_a_job_that_is_given_no_pod_keeps_its_worker_no_longer_than_a_start_may_take(
    on_cluster: Settings, redis_client: redis.Redis, api: FakeApi
) -> None:
    """As where a quota or the LimitRange refuses the pod; the Job's own deadline is 54 minutes."""
    hurried = replace(on_cluster, archive_key=KEY, progress_timeout=0.01)
    keyed = KubernetesRuntime(hurried, redis_client, api.cluster())
    with pytest.raises(RetryableError, match="no pod"):
        keyed.prove_point(A, ProofOrder(uuid=A, id=order(A).id, files=1, size=2))
    assert not [name for kind, name in api.names() if kind in ("jobs", "secrets")]


def test_without_an_archive_key_there_are_no_restore_points(runtime: KubernetesRuntime) -> None:
    started(runtime)
    with pytest.raises(PermanentError, match="ARCHIVE_KEY"):
        runtime.prove_point(A, ProofOrder(uuid=A, id=order(A).id, files=1, size=2))
    with pytest.raises(PermanentError, match="ARCHIVE_KEY"):
        runtime.make_point(A, order(A))


@pytest.mark.slow
def test_a_restore_point_nobody_wants_ends_its_job_and_its_pod(keyed: KubernetesRuntime, api: FakeApi) -> None:
    """As a wake, which needs the volume."""
    started(keyed)
    with pytest.raises(Superseded):
        keyed.make_point(A, order(A), check=overtaken)
    assert not [name for kind, name in api.names() if kind == "jobs"]
