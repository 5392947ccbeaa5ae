"""Questions of the web process to a worker, and what becomes of those that nobody waits for any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from app.core.errors import (
    ArchiveError,
    BackupInUse,
    BackupNotFound,
    PermanentError,
    RetryableError,
    SessionError,
    StateUnavailable,
)
from app.core.redis.rpc import Rpc
from app.core.redis.task_queue import TaskQueue
from tests.unit.core.backups.test_backup_index import a_backup
from tests.world import World
from workers import rpc
from workers.runtime.kubernetes.download_job import DownloadJob, DownloadJobs

NAME = "app-aaaa0001-20260101-000000.zip"
PATIENCE = 30.0


class Workers:
    """A queue that is worked at once, by `work(name, call)`."""

    def __init__(self) -> None:
        self.work: Callable[[str, str], Any] = lambda name, call: None
        self.rpc: list[str] = []

    def send(self, task: str, *args: str, request_id: str = "") -> None:
        name, call = args
        self.rpc.append(call)
        self.work(name, call)


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
def calls(redis_client: redis.Redis, workers: Workers) -> Rpc:
    return Rpc(redis_client, cast(TaskQueue, workers), block=0.02)


class FakeReaders:
    """DownloadJobs in memory; `meanwhile` is what happens while one starts."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def start(self, name: str) -> DownloadJob:
        self.started.append(name)
        self.meanwhile()
        return DownloadJob("read-1", "10.0.0.1", "secret")

    def end(self, reader: DownloadJob) -> None:
        self.ended.append(reader.job)


@pytest.fixture
def readers(world: World) -> FakeReaders:
    """Beside an index with the backup."""
    world.core.backups.add(a_backup("aaaa0001", name=NAME))
    return FakeReaders()


@pytest.fixture
def world(redis_client: redis.Redis, tmp_path: Path) -> World:
    return World(redis_client, tmp_path)


def read(world: World, readers: FakeReaders, call: str) -> None:
    rpc.read(world.core, cast(DownloadJobs, readers), NAME, call)


def test_the_answer_comes_back_and_nothing_is_left(calls: Rpc, workers: Workers, redis_client: redis.Redis) -> None:
    workers.work = lambda name, call: calls.answer(call, {"host": name})
    assert calls.ask("backups.read", NAME, PATIENCE) == {"host": NAME}
    assert redis_client.keys("rpc:*") == []


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (BackupNotFound(NAME), BackupNotFound),
        (BackupInUse("in use"), BackupInUse),
        (ArchiveError("damaged"), ArchiveError),
        (PermanentError("a quota, say"), RetryableError),
        (RetryableError("busy"), RetryableError),
    ],
)
def test_a_refusal_is_raised(calls: Rpc, workers: Workers, refusal: SessionError, told: type[SessionError]) -> None:
    """As what it is where it is final, else as one that may pass."""
    workers.work = lambda name, call: calls.refuse(call, refusal)
    with pytest.raises(told, match=str(refusal)) as raised:
        calls.ask("backups.read", NAME, PATIENCE)
    assert raised.type is told


def test_a_worker_that_comes_too_late_finds_nobody(
    calls: Rpc, workers: Workers, world: World, readers: FakeReaders
) -> None:
    """The asker was told to try again; what is done twice would be done for nobody, and a deletion against its word."""
    with pytest.raises(RetryableError, match="retry"):
        calls.ask("backups.read", NAME, 0.05)
    [call] = workers.rpc
    assert not calls.wanted(call)
    read(world, readers, call)
    rpc.delete(world.core, NAME, call)
    assert (readers.started, calls.answer(call, {})) == ([], False)
    assert world.core.redis.keys("rpc:*") == []


def test_a_reader_is_started_and_told(calls: Rpc, workers: Workers, world: World, readers: FakeReaders) -> None:
    workers.work = lambda name, call: read(world, readers, call)
    answer = calls.ask("backups.read", NAME, PATIENCE)
    assert answer == {"host": "10.0.0.1", "port": 8081, "secret": "secret"}
    assert (readers.started, readers.ended) == ([NAME], [])


def test_a_reader_whose_caller_left_meanwhile_is_ended(
    calls: Rpc, workers: Workers, world: World, readers: FakeReaders, redis_client: redis.Redis
) -> None:
    workers.work = lambda name, call: read(world, readers, call)
    readers.meanwhile = lambda: redis_client.delete(f"rpc:{workers.rpc[0]}") and None
    with pytest.raises(RetryableError):
        calls.ask("backups.read", NAME, 0.05)
    assert readers.ended == ["read-1"]


def test_a_reader_that_does_not_start_is_a_refusal(
    calls: Rpc, workers: Workers, world: World, readers: FakeReaders
) -> None:
    def fail() -> None:
        raise RetryableError("no room")

    readers.meanwhile = fail
    workers.work = lambda name, call: read(world, readers, call)
    with pytest.raises(RetryableError, match="no room"):
        calls.ask("backups.read", NAME, PATIENCE)


def test_redis_away_is_no_refusal(world: World, readers: FakeReaders, redis_client: redis.Redis) -> None:
    """There is nobody who could be told; the task says so."""
    redis_client.set("rpc:t", NAME)

    def fail() -> None:
        raise StateUnavailable("away")

    readers.meanwhile = fail
    with pytest.raises(StateUnavailable):
        read(world, readers, "t")


def test_a_deletion_takes_files_and_index_once(calls: Rpc, workers: Workers, world: World) -> None:
    """A second one finds them gone, which is what was asked for."""
    uuid = world.asleep()
    world.sessions.request_backup(uuid)
    world.work()
    name = world.get(uuid).backup
    workers.work = lambda name, call: rpc.delete(world.core, name, call)
    assert [calls.ask("backups.delete", name, PATIENCE) for _ in range(2)] == [{}, {}]
    assert world.core.backups.count() == 0


def test_a_backup_that_has_come_into_use_meanwhile_stays(calls: Rpc, workers: Workers, world: World) -> None:
    uuid = world.asleep()
    world.sessions.delete(uuid)
    world.work()
    name = world.get(uuid).backup
    world.sessions.restore(name)
    workers.work = lambda name, call: rpc.delete(world.core, name, call)
    with pytest.raises(BackupInUse):
        calls.ask("backups.delete", name, PATIENCE)
    assert world.core.backups.count() == 1
