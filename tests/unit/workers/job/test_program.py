"""What an archive Job does, and how its outcome travels to the worker that made it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from app.core.backups.index import identity_fields
from app.core.backups.store import backup_name, session_of
from app.core.errors import (
    ArchiveError,
    BackupIncomplete,
    BackupNotFound,
    NoSpace,
    PermanentError,
    PointsBroken,
    RetryableError,
)
from app.core.restore_points.names import reference
from app.core.sessions.model import Identity
from app.core.storage.archive_keys import ArchiveKeys, new_key
from app.core.storage.credential import Credential
from tests.unit.workers.archive.conftest import unprivileged
from tests.waiting import wait_for
from workers.job import program
from workers.runtime.base import BackupSummary, PointOrder, PointSummary, Proof, ProofOrder, RestoredPoint

ADA = Identity(uuid="abcd1234", user_id="ada@example.com", created_at=1_763_625_600.0)
NAME = backup_name(ADA.uuid, 1_763_625_600.0)
SUMMARY = BackupSummary(created_at=1.5, size=10, files=2, content_bytes=7, sha256="ab", changed=("a", "b"))

LIMITS = ("--max-bytes", "1000000000", "--max-entries", "10")
MORE = {
    "backup": ("--identity", json.dumps(identity_fields(ADA)), "--at", "1763625600.0", *LIMITS),
    "restore": (*LIMITS, f"--user-id={ADA.user_id}"),
}


def command(folder: Path, action: str, *more: str, url: str = "") -> list[str]:
    """The arguments of a Job for a backup."""
    own = ["--files", f"{folder}/volume/app", "--url", url or f"file://{folder}/backups", "--name", NAME]
    return [action, *own, *MORE[action], *more, "--message", f"{folder}/message"]


def outcome(folder: Path, arguments: list[str]) -> program.Result:
    """What the worker gets of a Job, whose exit status says whether it failed."""
    status = program.main(arguments)
    message = (folder / "message").read_text()
    assert status == (program.FAILED if "error" in json.loads(message) else 0)
    return program.read_outcome(message, NAME)


def back_up(folder: Path, *more: str) -> BackupSummary:
    summary = outcome(folder, command(folder, "backup", *more))
    assert isinstance(summary, BackupSummary)
    return summary


def restore(folder: Path) -> None:
    assert outcome(folder, command(folder, "restore")) is None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The only one of a volume."""
    (tmp_path / "volume/app").mkdir(parents=True)
    (tmp_path / "volume/app/file").write_bytes(b"content")
    return tmp_path / "volume/app/file"


def test_a_backup_and_its_restore(tmp_path: Path, file: Path) -> None:
    """The summary comes back whole, and so do the files."""
    summary = back_up(tmp_path)
    assert (summary.files, summary.content_bytes, summary.created_at) == (1, 7, 1_763_625_600.0)
    file.write_bytes(b"changed")
    restore(tmp_path)
    assert file.read_bytes() == b"content"


def test_a_workspace_that_never_started_has_an_empty_backup(tmp_path: Path) -> None:
    """Its volume is empty; that must not keep the session from being deleted."""
    (tmp_path / "volume").mkdir()
    assert back_up(tmp_path).files == 0


def test_a_used_volume_that_lost_its_files_is_no_empty_backup(tmp_path: Path) -> None:
    """The editor's home is there and the folder of files is not: nothing may be deleted on the strength of that."""
    (tmp_path / "volume/home").mkdir(parents=True)
    with pytest.raises(PermanentError, match="no folder"):
        back_up(tmp_path)


def test_an_error_arrives_as_what_it_was(tmp_path: Path) -> None:
    """The lifecycle decides by its type."""
    (tmp_path / "volume").mkdir()
    with pytest.raises(BackupNotFound, match=NAME):
        restore(tmp_path)


@pytest.mark.parametrize("kind", [RetryableError, PermanentError, ArchiveError, BackupIncomplete, NoSpace])
def test_each_kind_of_error_travels(kind: type[Exception]) -> None:
    """With its text."""
    message = program.outcome_text({"error": kind.code, "text": "why"})  # type: ignore[attr-defined]
    with pytest.raises(kind, match="^why$") as caught:
        program.read_outcome(message, NAME)
    assert type(caught.value) is kind


@pytest.mark.parametrize("message", ["", "Killed", "[]", "7", '{"summary": {"size": 1}}', '{"summary": 3}'])
def test_a_job_that_did_not_say_how_it_went_is_tried_again(message: str) -> None:
    """It was killed, or ran out of memory: its last words are shown."""
    with pytest.raises(RetryableError):
        program.read_outcome(message, NAME)


def test_a_long_outcome_is_cut_to_what_a_message_holds() -> None:
    """Names of changed files go first; the sidecar has them all."""
    many = replace(SUMMARY, changed=tuple("x" * 100 + str(number) for number in range(100)), unreadable=("closed",))
    text = program.outcome_text({"summary": asdict(many)})
    summary = program.read_outcome(text, NAME)
    assert len(text) <= program.MESSAGE_LIMIT
    assert isinstance(summary, BackupSummary)
    assert 10 < len(summary.changed) < 100
    assert replace(summary, changed=()) == replace(SUMMARY, changed=(), unreadable=("closed",))
    many = replace(many, changed=(), unreadable=many.changed, unreadable_count=1_000)
    summary = program.read_outcome(program.outcome_text({"summary": asdict(many)}), NAME)
    assert isinstance(summary, BackupSummary)
    assert 10 < len(summary.unreadable) < 100
    assert summary.unreadable_count == 1_000
    text = program.outcome_text({"error": "archive_error", "text": "é" * 5000})
    assert len(text.encode()) <= program.MESSAGE_LIMIT


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize(("limit", "text"), [("--max-bytes=6", "7 bytes"), ("--max-entries=0", "1 files")])
def test_what_could_not_be_restored_is_told(tmp_path: Path, limit: str, text: str) -> None:
    """The limits are those of the worker that made the Job."""
    with pytest.raises(PermanentError, match=text):
        back_up(tmp_path, limit)


def test_what_may_not_be_read_fails_a_backup_or_is_told_of_a_partial_one() -> None:
    """As the worker asked for."""
    with unprivileged() as folder:
        (folder / "volume/app").mkdir(parents=True)
        (folder / "volume/app/mine").touch(mode=0)
        with pytest.raises(BackupIncomplete, match="mine"):
            back_up(folder)
        summary = back_up(folder, "--partial")
        assert (summary.unreadable, summary.unreadable_count, summary.files) == (("mine",), 1, 0)


def block_sigterm() -> None:
    """As the image's own script does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


@pytest.mark.slow
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(
    ("action", "pattern"), [("backup", "backups/*/.app-*.part-*"), ("restore", "volume/.restoring-*")]
)
def test_a_job_that_is_told_to_end_leaves_nothing(tmp_path: Path, action: str, pattern: str, early: bool) -> None:
    """The cluster gives it a while for that; whoever still waits for it tries again. It may be told before it has
    loaded its modules."""
    # So much that it is surely not done when it is told.
    (tmp_path / "volume/app").mkdir(parents=True)
    with open(tmp_path / "volume/app/large", "wb") as file:
        for _ in range(20):
            file.write(os.urandom(10_000_000))
    if action == "restore":
        back_up(tmp_path)
        shutil.rmtree(tmp_path / "volume/app")
    program_ = [sys.executable, "-m", "workers.job.entry", *command(tmp_path, action)]
    with subprocess.Popen(program_, preexec_fn=block_sigterm) as job:
        if not early:
            wait_for(lambda: list(tmp_path.glob(pattern)), "the Job to begin")
        job.terminate()
        assert job.wait(60) == program.FAILED
    with pytest.raises(RetryableError, match="was cancelled"):
        program.read_outcome((tmp_path / "message").read_text(), NAME)
    assert not list(tmp_path.glob(pattern))
    assert (tmp_path / "backups" / session_of(NAME) / NAME).exists() is (action == "restore")
    assert (tmp_path / "volume/app").exists() is (action == "backup")


# Restore points

POINT = "p" + "0" * 15
ORDER = PointOrder(
    uuid=ADA.uuid,
    id=POINT,
    at=1_763_625_600.0,
    trigger="sleep",
    keep=(3, 24, 7, 4),
    max_bytes=1000,
    max_entries=10,
    identity=identity_fields(ADA),
)
KEYS = ArchiveKeys(new_key()).session(ADA.uuid)


def point_job(folder: Path, action: str, *more: str) -> program.Result:
    """What the worker gets of a Job for a restore point."""
    (folder / "keys").write_text(KEYS.to_text())
    own = ["--url", f"file://{folder}/store", "--keys-file", f"{folder}/keys", "--name", reference(ADA.uuid, POINT)]
    return outcome(folder, [action, *own, *more, "--message", f"{folder}/message"])


def make_point(folder: Path, order: PointOrder = ORDER) -> PointSummary:
    made = point_job(folder, "point", "--files", f"{folder}/volume/app", "--order", json.dumps(asdict(order)))
    assert isinstance(made, PointSummary)
    return made


def restore_point(folder: Path, *more: str) -> program.Result:
    return point_job(folder, "restore", "--files", f"{folder}/volume/app", *MORE["restore"], *more)


@pytest.mark.slow
def test_a_restore_point_and_its_restore(tmp_path: Path, file: Path) -> None:
    """Both say what they did, whole. The point is of when its Job began, not of when it was ordered."""
    begun = time.time()
    made = make_point(tmp_path)
    assert (made.id, made.files, made.forgotten) == (POINT, 1, ())
    assert ORDER.at < begun <= made.created_at < made.read_until
    file.write_bytes(b"changed")
    assert restore_point(tmp_path) == RestoredPoint(POINT, made.created_at)
    assert file.read_bytes() == b"content"
    # Without the point's sidecar another one could take its place.
    (tmp_path / f"store/{ADA.uuid}/points/{POINT}.json").write_bytes(b"damaged")
    make_point(tmp_path, replace(ORDER, id="p" + "1" * 15))
    with pytest.raises(PointsBroken, match="since its newest backup"):
        restore_point(tmp_path, "--newer-than", repr(time.time()))
    restore_point(tmp_path, "--newer-than", repr(begun))


@pytest.mark.slow
@pytest.mark.usefixtures("file")
def test_a_drill_of_a_restore_point(tmp_path: Path) -> None:
    """It needs no volume, and leaves nothing."""
    make_point(tmp_path)
    wanted = json.dumps(asdict(ProofOrder(uuid=ADA.uuid, id=POINT, files=1, size=7)))
    proof = point_job(tmp_path, "drill", "--scratch", f"{tmp_path}/scratch/files", "--order", wanted)
    assert isinstance(proof, Proof)
    assert (proof.proven, proof.files, proof.size, proof.compared) == (True, 1, 7, 1)
    assert not (tmp_path / "scratch/files").exists()


@pytest.mark.slow
def test_the_restore_point_of_a_workspace_that_never_started_is_empty(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    assert make_point(tmp_path).files == 0


def test_a_restore_point_that_does_not_exist_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    with pytest.raises(BackupNotFound):
        restore_point(tmp_path)


# With a credential of its own


@pytest.fixture
def credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], tuple[str, str]]:
    """Writes the file of a credential that is good for so many seconds; returns the argument."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "before")

    def made(seconds: float) -> tuple[str, str]:
        given = Credential({"AWS_SESSION_TOKEN": "canary"}, time.time() + seconds)
        (tmp_path / "credential").write_text(given.to_text())
        return "--credential-file", str(tmp_path / "credential")

    return made


@pytest.mark.usefixtures("file")
def test_the_stores_clients_find_the_jobs_credential(
    tmp_path: Path, credential: Callable[[float], tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    """As restic does. It is told nowhere."""
    caplog.set_level("INFO")
    back_up(tmp_path, *credential(60))
    assert os.environ["AWS_SESSION_TOKEN"] == "canary"
    assert "canary" not in (tmp_path / "message").read_text() + caplog.text


@pytest.mark.parametrize(
    ("error", "seconds", "kind", "blamed"),
    [
        (RetryableError("the store's client raised ClientError"), 60, RetryableError, False),
        (ArchiveError("refused"), 60, ArchiveError, False),
        (RetryableError("the store's client raised ClientError"), -1, RetryableError, True),
        (ArchiveError("refused"), -1, RetryableError, True),
        (NoSpace("full"), -1, NoSpace, False),
        (BackupNotFound(NAME), -1, BackupNotFound, False),
        (BackupIncomplete("unreadable"), -1, BackupIncomplete, False),
    ],
)
def test_a_job_that_outlives_its_credential_says_so_and_is_tried_again(
    tmp_path: Path,
    credential: Callable[[float], tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    seconds: int,
    kind: type[Exception],
    blamed: bool,
) -> None:
    """Until it has expired, the error is what it is; and an expired one hides no error that has another cause."""

    def failed(*_: object) -> None:
        raise error

    monkeypatch.setattr(program, "back_up", failed)
    with pytest.raises(kind) as caught:
        back_up(tmp_path, *credential(seconds))
    assert type(caught.value) is kind
    assert ("BACKUP_ROLE_LIMIT" in str(caught.value)) is blamed
