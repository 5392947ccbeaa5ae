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
from tests.unit.workers.archive.test_archive import unprivileged
from tests.waiting import wait_for
from workers.job import program
from workers.runtime.base import BackupSummary, PointOrder, PointSummary, Proof, ProofOrder, RestoredPoint

ADA = Identity(uuid="abcd1234", user_id="ada@example.com", created_at=1_763_625_600.0)
NAME = backup_name(ADA.uuid, 1_763_625_600.0)
SUMMARY = BackupSummary(created_at=1.5, size=10, files=2, content_bytes=7, sha256="ab", changed=("a", "b"))


def run(tmp_path: Path, action: str, *more: str) -> tuple[int, str]:
    """The exit status and the message of a Job."""
    message = tmp_path / "message"
    common = ["--files", str(tmp_path / "app"), "--url", f"file://{tmp_path}/backups", "--name", NAME]
    status = program.main([action, *common, *more, "--message", str(message)])
    return status, message.read_text()


MADE = ("--identity", json.dumps(identity_fields(ADA)), "--at", "1763625600.0")


LIMITS = ("--max-bytes", "1000000000", "--max-entries", "10")
RESTORE = (*LIMITS, f"--user-id={ADA.user_id}")


def back_up(tmp_path: Path, *more: str) -> tuple[int, str]:
    return run(tmp_path, "backup", *MADE, *LIMITS, *more)


def restore(tmp_path: Path) -> tuple[int, str]:
    return run(tmp_path, "restore", *RESTORE)


def test_a_backup_and_its_restore(tmp_path: Path) -> None:
    """The summary comes back whole, and so do the files."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "file").write_bytes(b"content")
    status, message = back_up(tmp_path)
    summary = program.read_outcome(message, NAME)
    assert status == 0
    assert isinstance(summary, BackupSummary)
    assert (summary.files, summary.content_bytes, summary.created_at) == (1, 7, 1_763_625_600.0)
    (tmp_path / "app" / "file").write_bytes(b"changed")
    status, message = restore(tmp_path)
    assert (status, program.read_outcome(message, NAME)) == (0, None)
    assert (tmp_path / "app" / "file").read_bytes() == b"content"


def test_a_workspace_that_never_started_has_an_empty_backup(tmp_path: Path) -> None:
    """Its volume is empty; that must not keep the session from being deleted."""
    status, message = back_up(tmp_path)
    summary = program.read_outcome(message, NAME)
    assert status == 0
    assert isinstance(summary, BackupSummary)
    assert summary.files == 0


def test_a_used_volume_that_lost_its_files_is_no_empty_backup(tmp_path: Path) -> None:
    """The editor's home is there and the folder of files is not: nothing may be deleted on the strength of that."""
    (tmp_path / "home").mkdir()
    status, message = back_up(tmp_path)
    assert status == program.FAILED
    with pytest.raises(PermanentError, match="no folder"):
        program.read_outcome(message, NAME)


def test_an_error_arrives_as_what_it_was(tmp_path: Path) -> None:
    """The lifecycle decides by its type."""
    status, message = restore(tmp_path)
    assert status == program.FAILED
    with pytest.raises(BackupNotFound, match=NAME):
        program.read_outcome(message, NAME)


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


@pytest.mark.parametrize(("limit", "text"), [("--max-bytes=6", "7 bytes"), ("--max-entries=0", "1 files")])
def test_what_could_not_be_restored_is_told(tmp_path: Path, limit: str, text: str) -> None:
    """The limits are those of the worker that made the Job."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "file").write_bytes(b"content")
    status, message = back_up(tmp_path, limit)
    assert status == program.FAILED
    with pytest.raises(PermanentError, match=text):
        program.read_outcome(message, NAME)


def test_what_may_not_be_read_fails_a_backup_or_is_told_of_a_partial_one() -> None:
    """As the worker asked for."""
    with unprivileged() as folder:
        (folder / "app").mkdir()
        (folder / "app" / "mine").touch(mode=0)
        status, message = back_up(folder)
        assert status == program.FAILED
        with pytest.raises(BackupIncomplete, match="mine"):
            program.read_outcome(message, NAME)
        status, message = back_up(folder, "--partial")
        summary = program.read_outcome(message, NAME)
        assert status == 0 and isinstance(summary, BackupSummary)
        assert (summary.unreadable, summary.unreadable_count, summary.files) == (("mine",), 1, 0)


def block_sigterm() -> None:
    """As the image's own script does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


@pytest.mark.slow
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("action", ["backup", "restore"])
def test_a_job_that_is_told_to_end_leaves_nothing(tmp_path: Path, action: str, early: bool) -> None:
    """The cluster gives it a while for that; whoever still waits for it tries again. It may be told before it has
    loaded its modules."""
    # So much that it is surely not done when it is told.
    (tmp_path / "app").mkdir()
    with open(tmp_path / "app" / "large", "wb") as file:
        for _ in range(20):
            file.write(os.urandom(10_000_000))
    if action == "restore":
        assert back_up(tmp_path)[0] == 0
        shutil.rmtree(tmp_path / "app")
    more = (*MADE, *LIMITS) if action == "backup" else RESTORE
    common = ["--files", str(tmp_path / "app"), "--url", f"file://{tmp_path}/backups", "--name", NAME]
    message = ["--message", str(tmp_path / "message")]
    command = [sys.executable, "-m", "workers.job.entry", action, *common, *message, *more]
    pattern = "backups/*/.app-*.part-*" if action == "backup" else ".restoring-*"
    with subprocess.Popen(command, preexec_fn=block_sigterm) as job:
        if not early:
            wait_for(lambda: list(tmp_path.glob(pattern)), "the Job to begin")
        job.terminate()
        assert job.wait(60) == program.FAILED
    with pytest.raises(RetryableError, match="was cancelled"):
        program.read_outcome((tmp_path / "message").read_text(), NAME)
    assert not list(tmp_path.glob(pattern))
    assert (tmp_path / "backups" / session_of(NAME) / NAME).exists() is (action == "restore")
    assert (tmp_path / "app").exists() is (action == "backup")


KEYS = ArchiveKeys(new_key()).session(ADA.uuid)
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


def point_job(tmp_path: Path, action: str, *more: str) -> tuple[int, str]:
    """The exit status and the message of a Job for a restore point."""
    (tmp_path / "keys").write_text(KEYS.to_text())
    own = ["--files", str(tmp_path / "volume/app"), "--url", f"file://{tmp_path}/store", "--keys-file"]
    arguments = [action, *own, str(tmp_path / "keys"), "--name", reference(ADA.uuid, POINT), *more]
    status = program.main([*arguments, "--message", str(tmp_path / "message")])
    return status, (tmp_path / "message").read_text()


@pytest.mark.slow
def test_a_restore_point_and_its_restore(tmp_path: Path) -> None:
    """Both say what they did, whole. The point is of when its Job began, not of when it was ordered."""
    (tmp_path / "volume/app").mkdir(parents=True)
    (tmp_path / "volume/app/file").write_bytes(b"content")
    begun = time.time()
    status, message = point_job(tmp_path, "point", "--order", json.dumps(asdict(ORDER)))
    made = program.read_outcome(message, NAME)
    assert isinstance(made, PointSummary)
    assert (status, made.id, made.files, made.forgotten) == (0, POINT, 1, ())
    assert ORDER.at < begun <= made.created_at < made.read_until
    (tmp_path / "volume/app/file").write_bytes(b"changed")
    status, message = point_job(tmp_path, "restore", *RESTORE)
    assert (status, program.read_outcome(message, NAME)) == (0, RestoredPoint(POINT, made.created_at))
    assert (tmp_path / "volume/app/file").read_bytes() == b"content"
    # Without the point's sidecar another one could take its place.
    (tmp_path / f"store/{ADA.uuid}/points/{POINT}.json").write_bytes(b"damaged")
    point_job(tmp_path, "point", "--order", json.dumps(asdict(replace(ORDER, id="p" + "1" * 15))))
    after = repr(time.time())
    status, message = point_job(tmp_path, "restore", *RESTORE, "--newer-than", after)
    assert status == program.FAILED
    with pytest.raises(PointsBroken, match="since its newest backup"):
        program.read_outcome(message, NAME)
    assert point_job(tmp_path, "restore", *RESTORE, "--newer-than", repr(begun))[0] == 0


@pytest.mark.slow
def test_a_drill_of_a_restore_point(tmp_path: Path) -> None:
    """It needs no volume, and leaves nothing."""
    (tmp_path / "volume/app").mkdir(parents=True)
    (tmp_path / "volume/app/file").write_bytes(b"content")
    point_job(tmp_path, "point", "--order", json.dumps(asdict(ORDER)))
    wanted = ProofOrder(uuid=ADA.uuid, id=POINT, files=1, size=7)
    scratch = tmp_path / "scratch/files"
    arguments = ["drill", "--scratch", str(scratch), "--url", f"file://{tmp_path}/store"]
    arguments += ["--keys-file", str(tmp_path / "keys"), "--name", reference(ADA.uuid, POINT)]
    arguments += ["--order", json.dumps(asdict(wanted)), "--message", str(tmp_path / "message")]
    status = program.main(arguments)
    proof = program.read_outcome((tmp_path / "message").read_text(), NAME)
    assert isinstance(proof, Proof)
    assert (status, proof.proven, proof.files, proof.size, proof.compared) == (0, True, 1, 7, 1)
    assert not scratch.exists()


@pytest.mark.slow
def test_the_restore_point_of_a_workspace_that_never_started_is_empty(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    status, message = point_job(tmp_path, "point", "--order", json.dumps(asdict(ORDER)))
    made = program.read_outcome(message, NAME)
    assert isinstance(made, PointSummary)
    assert (status, made.files) == (0, 0)


def test_a_restore_point_that_does_not_exist_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    status, message = point_job(tmp_path, "restore", *RESTORE)
    assert status == program.FAILED
    with pytest.raises(BackupNotFound):
        program.read_outcome(message, NAME)


# With a credential of its own


@pytest.fixture
def credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], tuple[str, str]]:
    """Writes the file of a credential that is good until then; returns the argument."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "before")

    def made(expires_at: float) -> tuple[str, str]:
        given = Credential({"AWS_SESSION_TOKEN": "canary"}, expires_at)
        (tmp_path / "credential").write_text(given.to_text())
        return "--credential-file", str(tmp_path / "credential")

    return made


def test_the_stores_clients_find_the_jobs_credential(
    tmp_path: Path, credential: Callable[[float], tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    """As restic does. It is told nowhere."""
    caplog.set_level("INFO")
    (tmp_path / "app").mkdir()
    status, message = back_up(tmp_path, *credential(time.time() + 60))
    assert status == 0
    assert os.environ["AWS_SESSION_TOKEN"] == "canary"
    assert "canary" not in message + caplog.text


@pytest.mark.parametrize("error", [RetryableError("the store's client raised ClientError"), ArchiveError("refused")])
@pytest.mark.parametrize("seconds", [60, -1])
def test_a_job_that_outlives_its_credential_says_so_and_is_tried_again(
    tmp_path: Path,
    credential: Callable[[float], tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    seconds: int,
) -> None:
    """Until it has expired, the error is what it is."""

    def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(program, "back_up", refused)
    status, message = back_up(tmp_path, *credential(time.time() + seconds))
    assert status == program.FAILED
    with pytest.raises(type(error) if seconds > 0 else RetryableError) as caught:
        program.read_outcome(message, NAME)
    assert ("BACKUP_ROLE_LIMIT" in str(caught.value)) is (seconds < 0)


@pytest.mark.parametrize("error", [NoSpace("full"), BackupNotFound(NAME), BackupIncomplete("unreadable")])
def test_an_expired_credential_hides_no_other_error(
    tmp_path: Path,
    credential: Callable[[float], tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def failed(*_: object) -> None:
        raise error

    monkeypatch.setattr(program, "back_up", failed)
    _, message = back_up(tmp_path, *credential(time.time() - 1))
    with pytest.raises(type(error)):
        program.read_outcome(message, NAME)
