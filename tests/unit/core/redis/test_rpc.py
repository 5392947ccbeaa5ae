"""Questions of the web process to a worker, and what becomes of those that nobody waits for any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from unittest.mock import Mock

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
    """A queue that is worked at once, by `work(name, call)`, and the calls that it is sent."""

    def __init__(self, client: redis.Redis) -> None:
        self.calls = Rpc(client, cast(TaskQueue, self), block=0.02)
        self.work: Callable[[str, str], Any] = lambda name, call: None
        self.rpc: list[str] = []

    def send(self, task: str, *args: str, request_id: str = "") -> None:
        name, call = args
        self.rpc.append(call)
        self.work(name, call)


@pytest.fixture
def workers(redis_client: redis.Redis) -> Workers:
    return Workers(redis_client)


class FakeReaders:
    """DownloadJobs in memory; `meanwhile` is what happens while one starts."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[str] = []
        self.meanwhile: Callable[[], Any] = lambda: None

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


def read(world: World, readers: FakeReaders, call: str) -> None:
    rpc.read(world.core, cast(DownloadJobs, readers), NAME, call)


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
def test_a_refusal_is_raised(workers: Workers, refusal: SessionError, told: type[SessionError]) -> None:
    """As what it is where it is final, else as one that may pass."""
    workers.work = lambda name, call: workers.calls.refuse(call, refusal)
    with pytest.raises(told, match=str(refusal)) as raised:
        workers.calls.ask("backups.read", NAME, PATIENCE)
    assert raised.type is told


def test_a_worker_that_comes_too_late_finds_nobody(workers: Workers, world: World, readers: FakeReaders) -> None:
    """The asker was told to try again; what is done twice would be done for nobody, and a deletion against its word."""
    with pytest.raises(RetryableError, match="retry"):
        workers.calls.ask("backups.read", NAME, 0.05)
    [call] = workers.rpc
    assert not workers.calls.wanted(call)
    read(world, readers, call)
    rpc.delete(world.core, NAME, call)
    assert (readers.started, workers.calls.answer(call, {})) == ([], False)
    assert world.core.redis.keys("rpc:*") == []


def test_a_reader_is_started_and_told_and_nothing_is_left(workers: Workers, world: World, readers: FakeReaders) -> None:
    workers.work = lambda name, call: read(world, readers, call)
    answer = workers.calls.ask("backups.read", NAME, PATIENCE)
    assert answer == {"host": "10.0.0.1", "port": 8081, "secret": "secret"}
    assert (readers.started, readers.ended) == ([NAME], [])
    assert world.core.redis.keys("rpc:*") == []


def test_a_reader_whose_caller_left_meanwhile_is_ended(workers: Workers, world: World, readers: FakeReaders) -> None:
    workers.work = lambda name, call: read(world, readers, call)
    readers.meanwhile = lambda: world.core.redis.delete(f"rpc:{workers.rpc[0]}")
    with pytest.raises(RetryableError):
        workers.calls.ask("backups.read", NAME, 0.05)
    assert readers.ended == ["read-1"]


def test_a_reader_that_does_not_start_is_a_refusal(workers: Workers, world: World, readers: FakeReaders) -> None:
    readers.meanwhile = Mock(side_effect=RetryableError("no room"))
    workers.work = lambda name, call: read(world, readers, call)
    with pytest.raises(RetryableError, match="no room"):
        workers.calls.ask("backups.read", NAME, PATIENCE)


def test_redis_away_is_no_refusal(world: World, readers: FakeReaders, redis_client: redis.Redis) -> None:
    """There is nobody who could be told; the task says so."""
    redis_client.set("rpc:t", NAME)
    readers.meanwhile = Mock(side_effect=StateUnavailable("away"))
    with pytest.raises(StateUnavailable):
        read(world, readers, "t")


def test_a_deletion_takes_files_and_index_once(workers: Workers, world: World) -> None:
    """A second one finds them gone, which is what was asked for; one that has come into use meanwhile stays."""
    asleep, deleted = world.asleep(), world.asleep()
    world.sessions.request_backup(asleep)
    world.sessions.delete(deleted)
    world.work()
    unused, used = (world.get(uuid).backup for uuid in (asleep, deleted))
    world.sessions.restore(used)
    workers.work = lambda name, call: rpc.delete(world.core, name, call)
    assert [workers.calls.ask("backups.delete", unused, PATIENCE) for _ in range(2)] == [{}, {}]
    with pytest.raises(BackupInUse):
        workers.calls.ask("backups.delete", used, PATIENCE)
    assert [each.name for each in world.core.backups.page().items] == [used]
