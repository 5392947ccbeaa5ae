"""A download through a reader: both ends of the connection, the one in web and the one beside the backups."""

from __future__ import annotations

import http.client
import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import cast

import pytest

from app.core.backups.backup_access import Remote
from app.core.backups.store import BackupStore
from app.core.errors import BackupNotFound, RetryableError
from app.core.redis import task_queue
from app.core.redis.rpc import Rpc
from tests.ports import free_port
from workers.job import download_server
from workers.job.download_server import DownloadServer, digest

NAME = "app-aaaa0001-20260101-000000.zip"
SECRET = "a-secret-of-the-tests"
CONTENT = bytes(range(256)) * 65_536
PATIENCE = 30.0


class Answered:
    """Questions that are answered at once with a reader's address."""

    def __init__(self, port: int, secret: str) -> None:
        self.answer = {"host": "127.0.0.1", "port": port, "secret": secret}
        self.asked: list[tuple[str, str]] = []

    def ask(self, task: str, name: str, patience: float) -> dict[str, object]:
        self.asked.append((task, name))
        return self.answer


def remote(port: int, secret: str = SECRET) -> Remote:
    return Remote(cast(Rpc, Answered(port, secret)), PATIENCE)


def fetched(reader: DownloadServer, start: int, stop: int, secret: str = SECRET) -> bytes:
    """What comes of this part."""
    with closing(remote(reader.server_port, secret).open(NAME, start, stop)) as body:
        return b"".join(body)


def reading(content: bytes = CONTENT, size: int | None = None) -> DownloadServer:
    """A reader of this content."""
    return DownloadServer(("127.0.0.1", 0), io.BytesIO(content), size or len(content), digest(SECRET))


@contextmanager
def serving(content: bytes = CONTENT, size: int | None = None) -> Iterator[tuple[DownloadServer, Thread]]:
    """A reader in a thread that ends when it does."""
    with reading(content, size) as reader:
        thread = Thread(target=reader.serve_once, args=(PATIENCE,))
        thread.start()
        yield reader, thread
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the reader does not end"


def test_a_backup_comes_whole_and_its_reader_ends() -> None:
    """Asked for by its name, with no secret."""
    with serving() as (reader, _):
        rpc = Answered(reader.server_port, SECRET)
        with closing(Remote(cast(Rpc, rpc), PATIENCE).open(NAME, 0, len(CONTENT))) as body:
            assert b"".join(body) == CONTENT
    assert rpc.asked == [(task_queue.READ_BACKUP, NAME)]


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (100, 70_000), (len(CONTENT) - 1, len(CONTENT))])
def test_a_part_of_it_is_that_part(start: int, stop: int) -> None:
    with serving() as (reader, _):
        assert fetched(reader, start, stop) == CONTENT[start:stop]


def test_whoever_has_not_got_the_secret_gets_nothing_and_takes_nobody_s_turn() -> None:
    """Not with a wrong one, not with none, not with the digest."""
    with serving() as (reader, thread):
        for wrong in ("", "Bearer wrong", f"Bearer {digest(SECRET)}", f"Basic {SECRET}"):
            connection = http.client.HTTPConnection("127.0.0.1", reader.server_port, timeout=PATIENCE)
            connection.request("GET", "/", headers={"Authorization": wrong})
            assert connection.getresponse().status == 403
            connection.close()
        with pytest.raises(RetryableError, match="status 403"):
            fetched(reader, 0, 1, "wrong")
        assert thread.is_alive()
        assert fetched(reader, 0, 10) == CONTENT[:10]


def test_a_range_that_is_not_there_is_refused() -> None:
    """And is nobody's turn."""
    with serving(b"0123456789") as (reader, _):
        with pytest.raises(RetryableError, match="status 416"):
            fetched(reader, 5, 20)
        assert fetched(reader, 5, 10) == b"56789"


def test_a_caller_that_leaves_ends_the_reader() -> None:
    """Long before it has sent everything."""
    with serving(CONTENT * 4) as (reader, thread):
        with closing(remote(reader.server_port).open(NAME, 0, len(CONTENT) * 4)) as body:
            first = next(iter(body))
        thread.join(PATIENCE)
        assert not thread.is_alive() and reader.taken
        assert CONTENT.startswith(first) and len(first) < len(CONTENT)


def test_a_backup_that_ends_too_early_breaks_the_download_off() -> None:
    """An answer that is short must not look whole."""
    with serving(b"01234", size=10) as (reader, _), pytest.raises(RetryableError, match="shorter than expected"):
        fetched(reader, 0, 10)


def test_a_reader_nobody_comes_to_ends() -> None:
    with reading() as reader, pytest.raises(RetryableError, match="No caller came"):
        reader.serve_once(0.01)


def test_a_backup_that_is_not_there_is_said_to_the_one_who_asked(tmp_path: Path) -> None:
    """Who has been told where to call by then; and it is the reader's own end too."""
    port = free_port()
    ended: list[type[Exception]] = []

    def serve() -> None:
        try:
            download_server.serve(BackupStore(f"file://{tmp_path}"), NAME, digest(SECRET), port, PATIENCE)
        except BackupNotFound as error:
            ended.append(type(error))

    thread = Thread(target=serve)
    thread.start()
    with pytest.raises(BackupNotFound):
        remote(port).open(NAME, 0, 1)
    thread.join(PATIENCE)
    assert ended == [BackupNotFound]


def test_a_reader_that_is_gone_is_no_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pod ended between its start and our call."""
    monkeypatch.setattr("app.core.backups.backup_access.CONNECT_LIMIT", 0.2)
    with reading() as reader:
        gone = remote(reader.server_port)
    with pytest.raises(RetryableError, match="did not start in time"):
        gone.open(NAME, 0, 1)
