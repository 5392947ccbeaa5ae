"""The process beside this one that calls remote stores: what it passes on, what bounds it, and how it ends."""

from __future__ import annotations

import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from app.core.backups.backup_access import Direct
from app.core.backups.index import BackupIndex
from app.core.backups.store import BackupStore, backup_name
from app.core.composition import build_stores
from app.core.errors import (
    AgentUnavailable,
    ArchiveError,
    BackupNotFound,
    FilesGoing,
    RetryableError,
    SessionError,
    SessionNotFound,
)
from app.core.prompts.history_index import Contended, ConversationTooLong, Index, OtherConversation
from app.core.prompts.history_store import HistoryStore
from app.core.storage import remote, server
from app.core.storage.archive_keys import NO_KEYS, ArchiveKeys, UnknownKey, new_key
from app.core.storage.remote import PIECE, Child, FilesProxy, Proxy, StoreProcess
from app.core.storage.server import CALLS, frame, receive, send
from app.process.settings import Settings, SettingsError
from tests.conftest import ROOT
from tests.unit.core.storage.shelf import Shelf
from tests.waiting import PATIENCE, wait_for

NAME = backup_name("abcd1234", 1_763_625_600.0)


@pytest.fixture(scope="module")
def process() -> Iterator[StoreProcess]:
    started = StoreProcess("INFO")
    yield started
    if started._child is not None:  # the last test may have ended it
        started._child.end()


def child(process: StoreProcess) -> Child:
    assert process._child is not None
    return process._child


@pytest.fixture
def shelf(process: StoreProcess, tmp_path: Path) -> Shelf:
    """One in the other process."""
    return cast(Shelf, Proxy(process, Shelf, tmp_path))


def pid_of(shelf: Shelf) -> int:
    return int(shelf.answer()[2][0])


def stopped(shelf: Shelf) -> int:
    """Let the process hang; answers its pid."""
    stopping = psutil.Process(pid_of(shelf))
    stopping.suspend()
    wait_for(lambda: stopping.status() == psutil.STATUS_STOPPED, "it to stand still")
    return stopping.pid


def check_gone(pid: int) -> None:
    def gone() -> bool:
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    wait_for(gone, "its end")


@contextmanager
def late() -> Iterator[None]:
    """Calls are late at once, and fail by that."""
    with pytest.MonkeyPatch.context() as shortly, pytest.raises(RetryableError, match="in time"):
        shortly.setattr(remote, "PATIENCE", 0.01)
        yield


def test_a_call_is_made_elsewhere_and_answered_here(shelf: Shelf) -> None:
    given, named, (pid, identity) = shelf.answer(Index(version=3), b"x" * 1_000_000, size=math.inf)
    assert (given, named) == ((Index(version=3), b"x" * 1_000_000), {"size": math.inf})
    assert pid != os.getpid()
    assert shelf.answer()[2] == (pid, identity)


@pytest.mark.parametrize(
    "error",
    [
        BackupNotFound(NAME),
        SessionNotFound("abcd1234"),
        FilesGoing(),
        ArchiveError("It is full."),
        AgentUnavailable("It is away."),
        Contended("abcd1234"),
        ConversationTooLong(5),
        OtherConversation(Index(version=3)),
    ],
)
def test_an_error_of_ours_is_raised_here_as_it_was_there(shelf: Shelf, error: SessionError) -> None:
    with pytest.raises(type(error)) as raised:
        shelf.fail(error)
    assert (type(raised.value), str(raised.value), vars(raised.value)) == (type(error), str(error), vars(error))


def test_any_other_error_is_a_fault_of_ours_that_names_its_kind(shelf: Shelf) -> None:
    with pytest.raises(RuntimeError, match="KeyError"):
        shelf.fail(KeyError("secret"))
    with pytest.raises(AttributeError):
        shelf.nothing_of_the_kind()  # type: ignore[attr-defined]


def test_a_process_that_was_killed_is_replaced(process: StoreProcess, shelf: Shelf) -> None:
    pid = pid_of(shelf)
    os.kill(pid, signal.SIGKILL)
    child(process).process.wait(PATIENCE)
    assert pid_of(shelf) != pid


def test_a_process_that_dies_at_a_call_fails_that_call_only(shelf: Shelf) -> None:
    with pytest.raises(RetryableError, match="ended"):
        shelf.die()
    assert shelf.answer(1)[0] == (1,)


def test_a_process_that_hangs_is_replaced(shelf: Shelf) -> None:
    pid = stopped(shelf)
    with late():
        shelf.answer()
    check_gone(pid)
    assert pid_of(shelf) != pid


def test_a_call_that_is_late_while_others_are_answered_disturbs_none(
    process: StoreProcess, shelf: Shelf, tmp_path: Path
) -> None:
    pid = pid_of(shelf)
    child(process).answered = math.inf
    with late():
        shelf.wait()
    (tmp_path / "go").touch()
    assert pid_of(shelf) == pid


def test_so_many_calls_run_at_a_time_and_the_rest_wait(shelf: Shelf, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3 * CALLS) as threads:
        calls: list[Future[int]] = [threads.submit(shelf.wait) for _ in range(3 * CALLS)]
        wait_for((tmp_path / f"waiting-{CALLS}").exists, "as many calls as may run")
        (tmp_path / "go").touch()
        assert max(call.result(PATIENCE) for call in calls) == CALLS


@pytest.mark.slow
def test_only_so_many_calls_wait(process: StoreProcess, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(shelf)
    child(process).answered = math.inf
    monkeypatch.setattr(remote, "PATIENCE", 0.01)

    def refused() -> bool:
        with pytest.raises(RetryableError) as raised:
            shelf.answer()
        return "no more calls" in str(raised.value)

    try:
        assert any(refused() for _ in range(10_000))
    finally:
        process._replace(child(process))


def test_what_is_too_large_is_neither_sent_nor_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    deadline = time.monotonic() + PATIENCE
    with ours, theirs:
        send(ours, frame("small"), deadline)
        assert pickle.loads(receive(theirs, deadline)) == "small"
        large = frame("x" * 1_000)
        monkeypatch.setattr(server, "MOST_BYTES", 100)
        send(ours, large, deadline)
        with pytest.raises(OSError, match="longer than any of ours"):
            receive(theirs, deadline)
        with pytest.raises(ArchiveError, match="too large"):
            frame("x" * 1_000)


PARENT = """
import sys
from pathlib import Path
from threading import Thread
from app.core.storage.remote import Proxy, StoreProcess
from tests.unit.core.storage.shelf import Shelf

shelf = Proxy(StoreProcess("INFO"), Shelf, Path(sys.argv[1]))
print(shelf.answer()[2][0], flush=True)
for _ in range(20):
    Thread(target=shelf.wait).start()
"""


@pytest.mark.slow
def test_it_ends_with_the_process_that_started_it_whatever_it_does(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_for((tmp_path / f"waiting-{CALLS}").exists, "all its threads to be at work")
        parent.kill()
    check_gone(pid)


PATCHED = """
from gevent import monkey
monkey.patch_all(aggressive=False)
import gevent, sys
from pathlib import Path
from app.core.storage.remote import Proxy, StoreProcess
from tests.unit.core.storage.shelf import Shelf

folder = Path(sys.argv[1])
shelf = Proxy(StoreProcess("INFO"), Shelf, folder)
waiting = [gevent.spawn(shelf.wait) for _ in range(5)]
while not (folder / "waiting-5").exists():
    gevent.sleep(0.01)
assert shelf.answer(1)[0] == (1,)
(folder / "go").touch()
print([each.get() for each in waiting])
"""


@pytest.mark.slow
def test_under_gevent_a_call_holds_up_nobody_else(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PATCHED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split(",")) == 5


@pytest.fixture
def files(process: StoreProcess, tmp_path: Path) -> BackupStore:
    """The backups of a folder, as those of a remote store are reached."""
    return cast(BackupStore, FilesProxy(process, BackupStore, f"file://{tmp_path}"))


def keep(folder: Path, content: bytes, keys: ArchiveKeys = NO_KEYS) -> None:
    with BackupStore(f"file://{folder}", keys).writing(NAME) as part:
        part.write(content)
        part.commit({"name": NAME})


@pytest.mark.slow
def test_a_download_comes_in_pieces(files: BackupStore, tmp_path: Path) -> None:
    content = os.urandom(3 * PIECE + 5)
    keep(tmp_path, content)
    direct = Direct(files, cast(BackupIndex, None))
    for start, stop in ((0, len(content)), (PIECE - 1, PIECE + 1), (len(content) - 3, len(content))):
        body = direct.open(NAME, start, stop)
        assert b"".join(body) == content[start:stop]
        body.close()
    with files.open(NAME) as stored:
        assert (stored.seek(-2, os.SEEK_END), stored.read()) == (len(content) - 2, content[-2:])


@pytest.mark.slow
def test_a_download_of_what_is_not_there_or_goes_away_is_an_error(files: BackupStore, tmp_path: Path) -> None:
    with pytest.raises(BackupNotFound):
        files.open(NAME)
    keep(tmp_path, os.urandom(2 * PIECE))
    with files.open(NAME) as stored:
        assert len(stored.read(PIECE)) == PIECE
        files.delete(NAME)
        with pytest.raises(BackupNotFound):
            stored.read(PIECE)


def test_an_encrypted_zip_is_read_there_and_plain_here(process: StoreProcess, tmp_path: Path) -> None:
    """By the keys that go with each call; without them it is said here which one is missing."""
    content, keys = os.urandom(2 * PIECE + 5), ArchiveKeys(new_key())
    url = f"file://{tmp_path}"
    keep(tmp_path, content, keys)
    files = FilesProxy(process, BackupStore, url, keys)
    assert (files.size(NAME), files.sidecar(NAME)) == (len(content), {"name": NAME})
    with files.open(NAME) as stored:
        assert stored.read() == content
        assert (stored.seek(-3, os.SEEK_END), stored.read()) == (len(content) - 3, content[-3:])
    with pytest.raises(UnknownKey, match=keys.ids[0]):
        FilesProxy(process, BackupStore, url).open(NAME)


@pytest.mark.slow
def test_a_process_that_is_ended_is_started_by_the_next_call(shelf: Shelf, process: StoreProcess) -> None:
    pid = pid_of(shelf)
    process.end()
    check_gone(pid)
    process.end()
    assert pid_of(shelf) != pid


def test_only_remote_stores_are_called_elsewhere(tmp_path: Path) -> None:
    local = Settings(data_dir=tmp_path)
    remote = Settings(data_dir=tmp_path, history_url="gs://bucket/archive", backup_url="s3://bucket/backups")
    kinds: Any = [tuple(type(each) for each in build_stores(settings, apart=True)) for settings in (local, remote)]
    assert kinds == [(BackupStore, HistoryStore), (FilesProxy, Proxy)]
    assert [type(each) for each in build_stores(local, apart=False)] == [BackupStore, HistoryStore]
    with pytest.raises(SettingsError, match="ARCHIVE_KEY"):
        build_stores(Settings(history_url="gs://bucket/archive", archive_key="none"), apart=True)
