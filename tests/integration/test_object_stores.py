"""Backups and conversations in object stores: the same as in a folder, by the stores' own clients over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest

from app.core.backups.store import BackupStore, backup_name
from app.core.errors import ArchiveError, RetryableError
from app.core.prompts.history_index import Head, Piece
from app.core.prompts.history_store import Checkpoint, HistoryStore
from app.core.sessions.model import Identity
from app.core.storage.file_store import FileStore
from app.core.storage.object_stores import ERRORS, errors
from tests.integration.stores import BUCKET, point_at, server
from tests.ports import free_port
from workers.archive import restore_backup, write_backup

NOW = 1_763_625_600.0
NAME = backup_name("abcd1234", NOW)
IDENTITY = Identity(uuid="abcd1234", user_id="ann@example.org", created_at=NOW)
LARGE = 6 * 1024 * 1024
"""Bytes of a file that no client sends in one piece."""


@pytest.fixture(params=["s3", "gs"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def port(kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where the store is to be found by its client."""
    chosen = free_port()
    point_at(kind, chosen, monkeypatch)
    of_kind = fsspec.get_filesystem_class(kind)
    of_kind.clear_instance_cache()
    yield chosen
    of_kind.clear_instance_cache()


@pytest.fixture
def url(kind: str, port: int, tmp_path: Path) -> Iterator[str]:
    with server(kind, port, tmp_path / "server.log"):
        fsspec.filesystem(kind).mkdir(BUCKET)
        yield f"{kind}://{BUCKET}/kept"


def test_a_backup_goes_there_and_comes_back(url: str, tmp_path: Path) -> None:
    root, target = tmp_path / "app", tmp_path / "restored"
    root.mkdir()
    (root / "large").write_bytes(bytes(range(256)) * (LARGE // 256))
    (root / "run.sh").write_text("echo hi\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("run.sh")
    files = BackupStore(url)
    assert files.names() == []
    summary = write_backup(root, files, NAME, IDENTITY, NOW)
    assert (files.names(), files.size(NAME)) == ([NAME], summary.size)
    assert files.sidecar(NAME)["sha256"] == summary.sha256
    target.mkdir()
    restore_backup(files, NAME, target, 10 * LARGE, 100)
    assert (target / "large").read_bytes() == (root / "large").read_bytes()
    assert (target / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (target / "link").readlink() == Path("run.sh")
    files.delete(NAME)
    files.delete(NAME)
    assert BackupStore(url).names() == []


@pytest.mark.parametrize("content", [b"", b"a last line\r", b"a line\n--==0==--", bytes(range(256))])
def test_bytes_come_back_as_they_were_written(url: str, content: bytes) -> None:
    """Encrypted ones too, of which one in 256 ends with a carriage return."""
    store = FileStore(url)
    store.write(f"{store.root}/file", content)
    assert store.read(f"{store.root}/file") == content


def test_what_a_killed_worker_left_there_is_swept(url: str) -> None:
    files = BackupStore(url)
    with files.writing(NAME) as whole:
        whole.write(b"zip")
        whole.commit({"name": NAME})
    other = backup_name("zzzz0001", NOW)
    client = fsspec.filesystem(url.partition(":")[0])
    client.pipe_file(f"{url}/zzzz0001/{other}", b"a zip that never got its sidecar")
    client.pipe_file(f"{url}/zzzz0001/.{other}.part-{'0' * 16}", b"half a zip")
    assert files.names() == [NAME]
    assert files.sweep_parts(time.time() - 3600) == 0
    assert files.sweep_parts(time.time() + 3600) == 2
    assert files.names() == [NAME]


def test_the_first_of_two_writers_of_one_name_stands(url: str) -> None:
    files = BackupStore(url)
    with files.writing(NAME) as first, files.writing(NAME) as second:
        first.write(b"the first")
        second.write(b"the second")
        first.commit({"name": NAME, "by": "first"})
        assert second.commit({"name": NAME, "by": "second"})["by"] == "first"
    with files.open(NAME) as stored:
        assert stored.read() == b"the first"


def test_a_conversation_is_kept_there(url: str) -> None:
    archive = HistoryStore(url)
    assert (archive.read("abcd1234"), archive.uuids(), archive.last_written("abcd1234")) == (None, [], None)
    said = [{"id": "m1", "role": "user", "content": "remember ß \ud800"}]
    archive.write("abcd1234", Checkpoint(said, said, {"turns": 1}))
    archive.renew("abcd1234", {"turns": 1, "ended": True})
    kept = HistoryStore(url).read("abcd1234")
    assert kept is not None
    assert (kept.history, kept.metadata) == (said, {"turns": 1, "ended": True})
    assert archive.uuids() == ["abcd1234"]
    assert (archive.last_written("abcd1234") or 0) > NOW
    archive.append("abcd1234", Piece("new", 0, "", "1", said))
    assert archive.append("abcd1234", Piece("new", 1, "1", "2", said)).heads()["following"]["messages"] == 2
    archive.settle("abcd1234", Head("new", 2, "2"), said, {"turns": 2})
    archive.append("abcd1234", Piece("new", 2, "2", "3", said))
    archive.settle("abcd1234", Head("new", 3, "3"), said, {"turns": 3})
    kept = HistoryStore(url).read("abcd1234")
    assert kept is not None
    assert (kept.history, kept.metadata) == (3 * said, {"turns": 3})
    archive.delete("abcd1234")
    archive.delete("abcd1234")
    assert archive.uuids() == []


class Refusing(BaseHTTPRequestHandler):
    """A store that lets nobody in."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_PUT = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Not wanted."""


def calls(url: str) -> list[Callable[[], object]]:
    files, archive = BackupStore(url), HistoryStore(url)
    return [files.names, lambda: files.exists(NAME), archive.uuids, lambda: archive.read("abcd1234")]


def test_a_store_that_refuses_is_an_error_of_ours_and_no_empty_store(kind: str, port: int) -> None:
    with ThreadingHTTPServer(("127.0.0.1", port), Refusing) as refusing:
        thread = Thread(target=refusing.serve_forever)
        thread.start()
        try:
            for call in calls(f"{kind}://{BUCKET}/kept"):
                with pytest.raises((RetryableError, ArchiveError)):
                    call()
        finally:
            refusing.shutdown()
            thread.join()


@pytest.mark.parametrize("kind", ["s3"])
def test_a_store_that_is_away_is_an_error_of_ours_and_no_empty_store(kind: str, port: int) -> None:
    """The client of gs:// says the same after half a minute of trying."""
    for call in calls(f"{kind}://{BUCKET}/kept"):
        with pytest.raises(RetryableError):
            call()


def test_the_errors_of_every_client_are_known() -> None:
    for kind, names in ERRORS.items():
        assert len(errors(f"{kind}://{BUCKET}")) == 1 + len(names)


def test_a_bucket_that_is_not_there_takes_no_backup(kind: str, port: int, tmp_path: Path) -> None:
    with server(kind, port, tmp_path / "server.log"):
        files = BackupStore(f"{kind}://{BUCKET}/kept")
        with pytest.raises((RetryableError, ArchiveError)), files.writing(NAME) as part:
            part.write(b"zip")
            part.commit({"name": NAME})
