"""Jobs with short-lived credentials, at an S3 server that enforces their policies: each does its own work, and nothing
beyond. The Jobs are run as in a cluster: another process, which has only the credential that the worker got for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import requests
from botocore.exceptions import ClientError
from botocore.session import get_session

from app.core.backups.index import identity_fields
from app.core.backups.store import BackupStore, backup_name
from app.core.errors import ArchiveError, RetryableError
from app.core.restore_points.names import new_id, reference
from app.core.sessions.model import Identity
from app.core.storage.archive_keys import ArchiveKeys, new_key
from app.core.storage.credential import Credential
from app.process.settings import Settings
from scripts.cluster import programs
from scripts.cluster.errors import ClusterError
from tests.integration import minio
from tests.integration.minio import BUCKET
from tests.ports import free_port
from tests.waiting import wait_for
from workers.job import program
from workers.job.download_server import digest
from workers.runtime.base import BackupSummary, PointOrder, PointSummary, Proof, RestoredPoint
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.job_access import Access, making, proving, reading
from workers.runtime.kubernetes.job_credentials import JobCredentials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]
"""MinIO is built once, which takes minutes."""

ROLE = "arn:aws:iam::123456789012:role/archive"
NOW = 1_763_625_600.0
MINE, OTHERS = "abcd1234", "abcd1235"
LARGE = 6 * 1024 * 1024
"""Bytes of a file that no client sends in one piece."""

LIMITS = ("--max-bytes", "1000000000", "--max-entries", "1000")


@dataclass(frozen=True)
class Jobs:
    """Runs Jobs, each with a folder of its own for its files."""

    settings: Settings
    keys: ArchiveKeys
    folder: Path

    @property
    def url(self) -> str:
        return self.settings.backup_url

    def credential(self, access: Access, uuid: str = MINE) -> Credential:
        issued = JobCredentials(KubernetesConfig.of(self.settings)).issue(uuid, access)
        assert issued is not None
        return issued

    def volume(self, uuid: str, content: str) -> Path:
        """A volume with a small file and a large one."""
        volume = self.folder / f"volume-{uuid}"
        (volume / "app").mkdir(parents=True, exist_ok=True)
        (volume / "app/file").write_text(content)
        (volume / "app/large").write_bytes(os.urandom(LARGE))
        return volume

    def run(self, action: str, name: str, volume: Path | None, keys_of: str, credential: Credential, *more: str) -> Any:
        """What the worker reads of the Job's outcome, or the error it raises."""
        (self.folder / "credential").write_text(credential.to_text())
        (self.folder / "keys").write_text(self.keys.session(keys_of).to_text())
        arguments = [action, "--name", name, "--url", self.url, *more]
        if volume:
            arguments += ["--files", str(volume / "app")]
        for each in ("keys", "credential"):
            arguments += [f"--{each}-file", str(self.folder / each)]
        arguments += ["--message", str(self.folder / "message")]
        done = subprocess.run(
            [sys.executable, "-m", "workers.job.entry", *arguments],
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        secrets = [value for name, value in credential.variables.items() if name != "AWS_DEFAULT_REGION"]
        secrets = [value for value in secrets if not value.startswith("http")]
        assert not [each for each in secrets if each in done.stdout + done.stderr]
        assert done.returncode in (0, program.FAILED), done.stderr
        return program.read_outcome((self.folder / "message").read_text(), name)

    def back_up(self, uuid: str, volume: Path, credential: Credential, at: float = NOW) -> BackupSummary:
        identity = json.dumps(identity_fields(Identity(uuid=uuid, user_id="ann@example.org", created_at=NOW)))
        made = ("--identity", identity, "--at", str(at), *LIMITS)
        summary: BackupSummary = self.run("backup", backup_name(uuid, at), volume, uuid, credential, *made)
        return summary

    def point(self, uuid: str, volume: Path, credential: Credential, **given: Any) -> PointSummary:
        order = PointOrder(
            uuid=uuid,
            id=new_id(),
            at=time.time(),
            trigger="api",
            keep=(3, 24, 7, 4),
            max_bytes=10**9,
            max_entries=1_000,
            identity={"user_id": "ann@example.org"},
        )
        told = json.dumps(asdict(replace(order, **given)))
        made: PointSummary = self.run("point", reference(uuid, order.id), volume, uuid, credential, "--order", told)
        return made


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        programs.find_go()
    except ClusterError as error:
        pytest.skip(str(error))
    with minio.running(tmp_path_factory.mktemp("store")) as url:
        yield url


@pytest.fixture
def jobs(address: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """In a part of the bucket of their own. The worker's client has all of it."""
    minio.use_as_owner(address, monkeypatch)
    of_kind = fsspec.get_filesystem_class("s3")
    of_kind.clear_instance_cache()
    root = f"s3://{BUCKET}/{tmp_path.name}/kept"
    on_cluster = replace(
        settings, runtime="kubernetes", workspace_image="workspace:1", backup_url=root, backup_role=ROLE
    )
    yield Jobs(on_cluster, ArchiveKeys(new_key()), tmp_path)
    of_kind.clear_instance_cache()


def contents(volume: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in (volume / "app").iterdir()}


def client_of(credential: Credential) -> Any:
    """A client of the store with nothing else."""
    issued = credential.variables
    return get_session().create_client(
        "s3",
        aws_access_key_id=issued["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=issued["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=issued["AWS_SESSION_TOKEN"],
    )


def restored(jobs: Jobs, name: str, source: str, credential: Credential) -> tuple[Any, Path]:
    """The outcome of a restore into an empty volume, and that."""
    target = jobs.folder / "restored"
    shutil.rmtree(target, ignore_errors=True)
    (target / "app").mkdir(parents=True)
    return jobs.run("restore", name, target, source, credential, *LIMITS, "--user-id=ann@example.org"), target


def test_a_backup_and_its_restore_need_no_more(jobs: Jobs) -> None:
    volume = jobs.volume(MINE, "mine")
    jobs.back_up(MINE, volume, jobs.credential(making(MINE)))
    store = BackupStore(jobs.url, jobs.keys)
    name = backup_name(MINE, NOW)
    assert store.names() == [name]
    assert store.files.names(f"{store.files.root}/{MINE}") == [name, f"{name}.json"]
    _, target = restored(jobs, name, MINE, jobs.credential(reading(name), OTHERS))
    assert contents(target) == contents(volume)


def test_a_download_needs_no_more(jobs: Jobs) -> None:
    jobs.back_up(MINE, jobs.volume(MINE, "mine"), jobs.credential(making(MINE)))
    name, port = backup_name(MINE, NOW), free_port()
    told = ("--secret-digest", digest("secret"), "--port", str(port), "--patience", "60")
    content: list[bytes] = []

    def downloaded() -> bool:
        with suppress(requests.ConnectionError):
            answer = requests.get(f"http://127.0.0.1:{port}", headers={"Authorization": "Bearer secret"}, timeout=60)
            content.append(answer.content)
        return bool(content)

    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(jobs.run, "serve", name, None, MINE, jobs.credential(reading(name)), *told)
        wait_for(lambda: downloaded() or served.done(), "the download")
        assert served.result() is None
    with BackupStore(jobs.url, jobs.keys).open(name) as stored:
        assert content == [stored.read()]


def test_restore_points_and_their_restore_need_no_more(jobs: Jobs) -> None:
    """Their repository's first point, the next one with a full look, and a restore in another session."""
    volume = jobs.volume(MINE, "first")
    first = jobs.point(MINE, volume, jobs.credential(making(MINE)))
    kept = contents(volume)
    jobs.volume(MINE, "second")
    second = jobs.point(MINE, volume, jobs.credential(making(MINE)), parent=first.id, full=True)
    assert (second.checked, second.broken, second.repository) == (True, (), 1)
    for made, content in ((first, kept), (second, contents(volume))):
        point = reference(MINE, made.id)
        outcome, target = restored(jobs, point, MINE, jobs.credential(reading(point), OTHERS))
        assert outcome == RestoredPoint(made.id, made.created_at)
        assert contents(target) == content


def test_a_drill_needs_only_to_read(jobs: Jobs) -> None:
    """Of a whole point, and of one that lost a pack."""
    made = jobs.point(MINE, jobs.volume(MINE, "mine"), jobs.credential(making(MINE)))
    order = json.dumps({"uuid": MINE, "id": made.id, "files": made.files, "size": made.size})

    def drilled() -> Proof:
        told = ("--scratch", str(jobs.folder / "scratch"), "--order", order)
        proof: Proof = jobs.run("drill", reference(MINE, made.id), None, MINE, jobs.credential(proving(MINE)), *told)
        return proof

    proof = drilled()
    assert (proof.proven, proof.files, proof.compared) == (True, made.files, made.files), proof
    files = BackupStore(jobs.url).files
    packs = files.fs.find(f"{files.root}/{MINE}/repository-1/data")
    files.remove(max(packs, key=files.fs.size))
    files.fs.invalidate_cache()
    assert "can't be restored" in drilled().failure


def test_a_job_cannot_work_on_what_is_anothers(jobs: Jobs) -> None:
    """Whatever it is told: its backup, its restore points, its folder."""
    others, volume = jobs.volume(OTHERS, "others"), jobs.volume(MINE, "mine")
    jobs.back_up(OTHERS, others, jobs.credential(making(OTHERS), OTHERS))
    made = jobs.point(OTHERS, others, jobs.credential(making(OTHERS), OTHERS))
    files = BackupStore(jobs.url).files
    before = sorted(files.fs.find(files.root))
    mine = jobs.credential(making(MINE))
    for name in (backup_name(OTHERS, NOW), reference(OTHERS, made.id)):
        with pytest.raises((ArchiveError, RetryableError)):
            restored(jobs, name, OTHERS, mine)
    with pytest.raises((ArchiveError, RetryableError)):
        jobs.back_up(OTHERS, volume, mine, NOW + 1)
    with pytest.raises((ArchiveError, RetryableError)):
        jobs.point(OTHERS, volume, mine)
    assert sorted(files.fs.find(files.root)) == before


@pytest.mark.parametrize(
    "access",
    [making(MINE), proving(MINE), reading(backup_name(MINE, NOW)), reading(reference(MINE, new_id()))],
)
def test_the_store_refuses_a_jobs_credential_everything_else(jobs: Jobs, access: Access) -> None:
    """Files and lists of another session whose uuid begins alike, of the bucket, and of other buckets."""
    root = jobs.url.removeprefix(f"s3://{BUCKET}/")
    owner = get_session().create_client("s3")
    for each in (f"{root}/{OTHERS}/file", f"{root}/{MINE}5/file", f"{root}/file", "file"):
        owner.put_object(Bucket=BUCKET, Key=each, Body=b"others'")
    client = client_of(jobs.credential(access))
    tries: list[tuple[str, dict[str, Any]]] = [("list_buckets", {})]
    for each in (f"{root}/{OTHERS}/file", f"{root}/{MINE}5/file", f"{root}/{MINE}", f"{root}/file", "file"):
        tries += [(call, {"Key": each}) for call in ("get_object", "head_object", "put_object", "delete_object")]
        tries.append(("copy_object", {"Key": f"{root}/{MINE}/copy", "CopySource": f"{BUCKET}/{each}"}))
        tries.append(("create_multipart_upload", {"Key": each}))
    prefixes = ["", root, f"{root}/", f"{root}/{MINE[:4]}", f"{root}/{MINE}5/", f"{root}/{MINE}", f"{root}/{OTHERS}/"]
    tries += [("list_objects_v2", {"Prefix": prefix}) for prefix in prefixes]
    tries += [(call, {}) for call in ("list_objects_v2", "list_object_versions", "list_multipart_uploads")]
    tries += [(call, {}) for call in ("get_bucket_policy", "get_bucket_acl", "delete_bucket", "get_bucket_versioning")]
    for call, given in tries:
        with pytest.raises(ClientError) as refused:
            getattr(client, call)(**(given if call == "list_buckets" else {"Bucket": BUCKET, **given}))
        status = refused.value.response["ResponseMetadata"]["HTTPStatusCode"]
        assert (status, call, given) == (403, call, given)


def test_a_credential_to_read_writes_and_deletes_nothing(jobs: Jobs) -> None:
    name = backup_name(MINE, NOW)
    jobs.back_up(MINE, jobs.volume(MINE, "mine"), jobs.credential(making(MINE)))
    key = f"{jobs.url.removeprefix(f's3://{BUCKET}/')}/{MINE}/{name}"
    client = client_of(jobs.credential(reading(name)))
    assert client.head_object(Bucket=BUCKET, Key=key)["ContentLength"] > LARGE
    for call in (client.put_object, client.delete_object, client.create_multipart_upload):
        with pytest.raises(ClientError, match="AccessDenied"):
            call(Bucket=BUCKET, Key=key)
    assert BackupStore(jobs.url, jobs.keys).names() == [name]


def test_a_job_that_outlives_its_credential_says_so_and_the_next_one_ends(jobs: Jobs) -> None:
    volume = jobs.volume(MINE, "mine")
    fresh = jobs.credential(making(MINE))
    expired = Credential({**fresh.variables, "AWS_SESSION_TOKEN": "expired"}, time.time() - 1)
    for work in (jobs.back_up, jobs.point):
        with pytest.raises(RetryableError, match="took longer than its credential"):
            work(MINE, volume, expired)
        work(MINE, volume, jobs.credential(making(MINE)))


def test_sts_that_refuses_is_an_error_of_ours(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises((ArchiveError, RetryableError), match="BACKUP_ROLE"):
        jobs.credential(making(MINE))
