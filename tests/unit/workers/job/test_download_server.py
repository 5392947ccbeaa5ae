"""A download through a reader: both ends of the connection, the one in web and the one beside the backups."""

from __future__ import annotations

import http.client
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, cast

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

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []

    def ask(self, task: str, name: str, patience: float) -> dict[str, Any]:
        self.asked.append((task, name))
        return self.answer


def remote(reader: DownloadServer, secret: str = SECRET) -> Remote:
    return Remote(cast(Rpc, Answered(answer_of(reader, secret))), PATIENCE)


def answer_of(reader: DownloadServer, secret: str = SECRET) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": reader.server_address[1], "secret": secret}


@contextmanager
def serving(content: bytes = CONTENT, size: int | None = None) -> Iterator[tuple[DownloadServer, Thread]]:
    """A reader of this content, in a thread that ends when it does."""
    size = len(content) if size is None else size
    with DownloadServer(("127.0.0.1", 0), io.BytesIO(content), size, digest(SECRET)) as reader:
        thread = Thread(target=reader.serve_once, args=(PATIENCE,))
        thread.start()
        yield reader, thread
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the reader does not end"


def test_a_backup_comes_whole_and_its_reader_ends() -> None:
    """Asked for by its name, with no secret."""
    with serving() as (reader, _):
        rpc = Answered(answer_of(reader))
        body = Remote(cast(Rpc, rpc), PATIENCE).open(NAME, 0, len(CONTENT))
        assert b"".join(body) == CONTENT
        body.close()
    assert rpc.asked == [(task_queue.READ_BACKUP, NAME)]


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (100, 70_000), (len(CONTENT) - 1, len(CONTENT))])
def test_a_part_of_it_is_that_part(start: int, stop: int) -> None:
    with serving() as (reader, _):
        body = remote(reader).open(NAME, start, stop)
        assert b"".join(body) == CONTENT[start:stop]
        body.close()


def test_whoever_has_not_got_the_secret_gets_nothing_and_takes_nobody_s_turn() -> None:
    """Not with a wrong one, not with none, not with the digest."""
    with serving() as (reader, thread):
        for wrong in ("", "Bearer wrong", f"Bearer {digest(SECRET)}", f"Basic {SECRET}"):
            connection = http.client.HTTPConnection("127.0.0.1", reader.server_address[1], timeout=PATIENCE)
            connection.request("GET", "/", headers={"Authorization": wrong})
            assert connection.getresponse().status == 403
            connection.close()
        with pytest.raises(RetryableError, match="status 403"):
            remote(reader, "wrong").open(NAME, 0, 1)
        assert thread.is_alive()
        body = remote(reader).open(NAME, 0, 10)
        assert b"".join(body) == CONTENT[:10]
        body.close()


def test_a_range_that_is_not_there_is_refused() -> None:
    """And is nobody's turn."""
    with serving(b"0123456789") as (reader, _):
        with pytest.raises(RetryableError, match="status 416"):
            remote(reader).open(NAME, 5, 20)
        body = remote(reader).open(NAME, 5, 10)
        assert b"".join(body) == b"56789"
        body.close()


def test_a_caller_that_leaves_ends_the_reader() -> None:
    """Long before it has sent everything."""
    with serving(CONTENT * 4) as (reader, thread):
        body = remote(reader).open(NAME, 0, len(CONTENT) * 4)
        first = next(iter(body))
        body.close()
        thread.join(PATIENCE)
        assert not thread.is_alive() and reader.taken
        assert CONTENT.startswith(first) and len(first) < len(CONTENT)


def test_a_backup_that_ends_too_early_breaks_the_download_off() -> None:
    """An answer that is short must not look whole."""
    with serving(b"01234", size=10) as (reader, _):
        body = remote(reader).open(NAME, 0, 10)
        with pytest.raises(RetryableError, match="shorter than expected"):
            list(body)
        body.close()


def test_a_reader_nobody_comes_to_ends() -> None:
    with (
        DownloadServer(("127.0.0.1", 0), io.BytesIO(CONTENT), len(CONTENT), digest(SECRET)) as reader,
        pytest.raises(RetryableError, match="No caller came"),
    ):
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
    answer = {"host": "127.0.0.1", "port": port, "secret": SECRET}
    with pytest.raises(BackupNotFound):
        Remote(cast(Rpc, Answered(answer)), PATIENCE).open(NAME, 0, 1)
    thread.join(PATIENCE)
    assert ended == [BackupNotFound]


def test_a_reader_that_is_gone_is_no_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pod ended between its start and our call."""
    monkeypatch.setattr("app.core.backups.backup_access.CONNECT_LIMIT", 0.2)
    with DownloadServer(("127.0.0.1", 0), io.BytesIO(CONTENT), len(CONTENT), digest(SECRET)) as reader:
        gone = remote(reader)
    with pytest.raises(RetryableError, match="did not start in time"):
        gone.open(NAME, 0, 1)
