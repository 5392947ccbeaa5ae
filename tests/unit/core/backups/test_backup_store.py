"""A backup is there when its zip and its sidecar are, and nothing else passes for one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import fsspec
import pytest

from app.core.backups.store import NAME_PATTERN, BackupStore, _locked, backup_name
from app.core.errors import ArchiveError, BackupNotFound, InvalidRequest, NoSpace, PermanentError, RetryableError
from tests.fakes import raising

NAME = "app-abcd1234-20251120-080000.zip"
OTHER = "app-abcd1234-20251120-080001.zip"
UUID = "abcd1234"
SIDECAR = {"name": NAME, "size": 3}


@pytest.fixture(params=["file", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BackupStore]:
    """Every kind of store that needs no network."""
    if request.param == "file":
        yield BackupStore(f"file://{tmp_path}/store")
        return
    yield BackupStore(f"memory://{tmp_path.name}/store")
    memory = fsspec.filesystem("memory")
    memory.store.clear()


@pytest.fixture
def local(tmp_path: Path) -> BackupStore:
    return BackupStore(f"file://{tmp_path}")


def put(files: BackupStore, name: str = NAME, content: bytes = b"zip") -> None:
    with files.writing(name) as part:
        part.write(content)
        part.commit({"name": name, "size": len(content)})


def parts(folder: Path) -> list[str]:
    """The files of the session."""
    return sorted(path.name for path in (folder / UUID).iterdir() if path.name != ".publishing")


def test_a_name_tells_the_session_and_the_moment_in_utc() -> None:
    assert backup_name("abcd1234", 1_763_625_600.9) == NAME
    assert NAME_PATTERN.fullmatch(NAME)


def test_a_backup_can_be_read_back_before_its_commit_and_is_there_after_it(files: BackupStore) -> None:
    """Its bytes, its size and its sidecar."""
    with files.writing(NAME) as part:
        part.write(b"zi")
        part.write(b"p")
        with part.read_back() as stored:
            assert stored.read() == b"zip"
        assert not files.exists(NAME)
        part.commit(SIDECAR)
    with files.open(NAME) as stored:
        assert stored.read() == b"zip"
    assert (files.exists(NAME), files.size(NAME), files.sidecar(NAME)) == (True, 3, SIDECAR)


def test_a_job_that_s3_refuses_what_is_not_there_writes_and_reads_its_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And takes no refusal for a missing backup."""
    strict = BackupStore(f"memory://{tmp_path.name}/store")
    info = strict.files.fs.info

    def strictly(path: str) -> object:
        try:
            return info(path)
        except FileNotFoundError as error:
            raise PermissionError("Forbidden") from error

    monkeypatch.setattr(strict.files.fs, "info", strictly)
    with pytest.raises((RetryableError, ArchiveError)):
        strict.exists(NAME)
    assert (strict.is_published(NAME), strict.is_published("../x")) == (False, False)
    put(strict)
    assert strict.is_published(NAME)
    assert (strict.size(NAME), strict.sidecar(NAME)) == (3, SIDECAR)
    fsspec.filesystem("memory").store.clear()


def test_an_uncommitted_backup_leaves_nothing(files: BackupStore) -> None:
    """Neither when its writer gives up nor when it fails."""
    with files.writing(NAME) as part:
        part.write(b"half")
    with pytest.raises(ZeroDivisionError), files.writing(NAME) as part:
        part.write(b"half")
        raise ZeroDivisionError
    assert not files.exists(NAME) and {name for _, inside in files._folders() for name in inside} <= {UUID}


def test_the_first_of_two_writers_of_one_name_wins_whole(files: BackupStore) -> None:
    """Never the zip of one with the sidecar of the other."""
    with files.writing(NAME) as late:
        late.write(b"late one")
        put(files)
        assert late.commit({"name": NAME, "size": 8}) == SIDECAR
    with files.open(NAME) as stored:
        assert stored.read() == b"zip"
    assert files.sidecar(NAME) == SIDECAR


@pytest.mark.parametrize("gone", ["", ".json"])
def test_half_a_backup_is_none(local: BackupStore, tmp_path: Path, gone: str) -> None:
    """A zip without a sidecar, or a sidecar without a zip."""
    put(local)
    (tmp_path / UUID / (NAME + gone)).unlink()
    assert not local.exists(NAME) and local.names() == []
    for read in (local.open, local.size, local.sidecar):
        with pytest.raises(BackupNotFound):
            read(NAME)


@pytest.mark.parametrize(
    "name", ["", "../" + NAME, NAME + "/x", NAME + "\n", "app-ABCD1234-20251120-080000.zip", "a.zip"]
)
def test_no_other_object_can_be_reached_by_a_name(files: BackupStore, name: str) -> None:
    """Every method looks at the name first."""
    for call in (files.open, files.size, files.sidecar, files.delete):
        with pytest.raises(BackupNotFound):
            call(name)
    assert not files.exists(name)
    with pytest.raises(InvalidRequest), files.writing(name):
        pass


def test_deleting_takes_both_files_and_may_be_repeated(files: BackupStore) -> None:
    put(files)
    put(files, OTHER)
    for _ in range(2):
        files.delete(NAME)
    assert not files.exists(NAME) and files.exists(OTHER)
    assert files.names() == [OTHER]


def test_an_empty_store_has_no_backups(files: BackupStore) -> None:
    """Before the first backup there is not even a folder."""
    assert files.names() == [] and files.sweep_parts(time.time()) == 0
    files.delete(NAME)


@pytest.mark.parametrize("damage", [b"{", b"[]", b"\xff", b'{"name": "another"}', b""])
def test_a_damaged_sidecar_is_an_error_of_ours(local: BackupStore, tmp_path: Path, damage: bytes) -> None:
    put(local)
    (tmp_path / UUID / (NAME + ".json")).write_bytes(damage)
    with pytest.raises(ArchiveError):
        local.sidecar(NAME)


@pytest.mark.slow
def test_what_killed_workers_left_is_swept_and_the_rest_stays(local: BackupStore, tmp_path: Path) -> None:
    """Old temporary files and zips that never got a sidecar go; recent ones may still be in use."""
    put(local)
    script = (
        "import os, sys; from app.core.backups.store import BackupStore\n"
        "with BackupStore(sys.argv[1]).writing(sys.argv[2]) as part:\n"
        "    part.write(b'half'); os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", script, f"file://{tmp_path}", OTHER], check=False, timeout=60)
    (tmp_path / UUID / OTHER).write_bytes(b"never got a sidecar")
    (tmp_path / UUID / "unrelated").write_bytes(b"not ours")
    left = [path for path in parts(tmp_path) if path.startswith(f".{OTHER}.part-")]
    assert len(left) == 1
    assert local.sweep_parts(time.time() - 3600) == 1
    assert parts(tmp_path) == sorted([NAME, NAME + ".json", OTHER, "unrelated"])
    for name in [OTHER, "unrelated", NAME]:
        os.utime(tmp_path / UUID / name, (1, 1))
    assert local.sweep_parts(time.time() - 3600) == 1
    assert parts(tmp_path) == sorted([NAME, NAME + ".json", "unrelated"])


class SweptFiles(BackupStore):
    """A store that is swept again and again while a backup is written, and `interruption` is called once before its
    writer has locked its file."""

    interruption: Callable[[], object] | None = None

    def sweep(self) -> int:
        return self.sweep_parts(time.time() + 3600)

    def _hold(self, path: str) -> int | None:
        interruption, self.interruption = self.interruption, None
        if interruption:
            interruption()
        return super()._hold(path)

    def _move(self, source: str, target: str) -> None:
        os.utime(source, (1, 1))
        self.sweep_parts(0.0)
        super()._move(source, target)


def test_what_somebody_writes_is_not_swept(tmp_path: Path) -> None:
    """However long ago he last did: a store of this machine tells by a lock, which ends with its holder."""
    swept = SweptFiles(f"file://{tmp_path}")
    with swept.writing(NAME) as part:
        part.write(b"zip")
        assert swept.sweep() == 0
        with part.read_back() as stored:
            assert swept.sweep() == 0
            assert stored.read() == b"zip"
        part.commit(SIDECAR)
    assert swept.names() == [NAME]


@pytest.mark.parametrize("held", [False, True])
def test_a_sweep_in_the_moment_before_the_lock_costs_nothing(tmp_path: Path, held: bool) -> None:
    """The file was taken away, or is about to be: another is begun."""
    swept = SweptFiles(f"file://{tmp_path}")

    def take() -> None:
        if not held:
            assert swept.sweep() == 1
            return
        (path,) = tmp_path.glob("*/.app-*")
        lock = _locked(str(path))
        assert lock is not None

        def remove() -> None:
            path.unlink()
            os.close(lock)

        swept.interruption = remove
        _locked(str(path))

    swept.interruption = take
    with swept.writing(NAME) as part:
        part.write(b"zip")
        part.commit(SIDECAR)
    with swept.open(NAME) as stored:
        assert stored.read() == b"zip"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_age_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int) -> None:
    """As on some network file systems."""
    local = SweptFiles(f"file://{tmp_path}")
    monkeypatch.setattr("app.core.backups.store.fcntl.flock", raising(OSError(code, os.strerror(code))))
    with local.writing(NAME) as part:
        part.write(b"zip")
        assert local.sweep_parts(time.time() - 3600) == 0
        assert local.sweep() == 1


def test_local_backups_are_for_the_service_alone(tmp_path: Path) -> None:
    """They hold everything a user has."""
    put(BackupStore(f"file://{tmp_path}/store"))
    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "store").rglob("*")}
    assert modes == {0} and (tmp_path / "store").stat().st_mode & 0o077 == 0


class FailingFiles(BackupStore):
    """A store whose files fail with `code` once more than `room` bytes are written to one of them."""

    def __init__(self, url: str, room: int, code: int) -> None:
        super().__init__(url)
        self.room, self.code = room, code

    def _create(self, path: str) -> BinaryIO:
        return FailingStream(super()._create(path), self)  # type: ignore[return-value]


class FailingStream:
    def __init__(self, stream: BinaryIO, files: FailingFiles) -> None:
        self._stream, self._files = stream, files
        self.fileno, self.close, self.flush = stream.fileno, stream.close, stream.flush

    def write(self, chunk: bytes) -> None:
        if self._stream.tell() + len(chunk) > self._files.room:
            raise OSError(self._files.code, os.strerror(self._files.code), "/some/path")
        self._stream.write(chunk)


@pytest.mark.parametrize(
    ("code", "raised", "told"),
    [
        (errno.ENOSPC, NoSpace, f"full: 5 bytes of {NAME}.*older backup are untouched"),
        (errno.EDQUOT, NoSpace, NAME),
        (errno.EIO, RetryableError, NAME),
        (errno.EROFS, ArchiveError, NAME),
        (errno.EACCES, ArchiveError, NAME),
    ],
)
def test_an_error_of_the_disk_is_told_apart_and_leaves_older_backups(
    tmp_path: Path, code: int, raised: type[Exception], told: str
) -> None:
    """What may pass is retried, what may not is reported, and no text holds a path."""
    put(BackupStore(f"file://{tmp_path}"), OTHER)
    failing = FailingFiles(f"file://{tmp_path}", room=10, code=code)
    with pytest.raises(raised, match=told) as caught, failing.writing(NAME) as part:
        part.write(b"12345")
        part.write(b"678901")
    assert str(tmp_path) not in str(caught.value) and "/some" not in str(caught.value)
    assert parts(tmp_path) == [OTHER, OTHER + ".json"]


def test_a_disk_that_is_full_at_the_sidecar_leaves_no_zip(tmp_path: Path) -> None:
    """The zip alone would be no backup and fill the disk further."""
    failing = FailingFiles(f"file://{tmp_path}", room=10, code=errno.ENOSPC)
    with pytest.raises(NoSpace), failing.writing(NAME) as part:
        part.write(b"12345")
        part.commit({"name": NAME})
    assert parts(tmp_path) == []


def test_an_unreachable_store_is_not_taken_for_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "There is no such backup" would be a reason to delete things."""
    unreachable = BackupStore(f"memory://{tmp_path.name}")
    monkeypatch.setattr(unreachable.files.fs, "info", raising(OSError("connection reset")))
    for call in (unreachable.exists, unreachable.open, unreachable.sidecar):
        with pytest.raises(RetryableError):
            call(NAME)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RetryableError):
        BackupStore(f"file://{tmp_path}/file/store").exists(NAME)


def test_an_unknown_kind_of_store_is_refused_at_once() -> None:
    """At start, not at the first backup."""
    with pytest.raises(PermanentError, match="nonsense"):
        BackupStore("nonsense://bucket")


def test_a_finished_backup_takes_no_more(local: BackupStore) -> None:
    with local.writing(NAME) as part:
        part.write(b"x")
        with part.read_back():
            pass
        with pytest.raises(ValueError, match="already finished"):
            part.write(b"y")
