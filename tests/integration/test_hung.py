"""Supervised processes that live and do nothing, and such as wait for a Redis that says nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from celery import Celery

from tests.conftest import ROOT
from tests.integration.serving import OwnRedis
from tests.waiting import wait_for

LIMIT = 20
"""s without a heartbeat; ten times what a Redis that hangs is waited for, and more than Python takes to start."""

CELERY = [sys.executable, "-m", "celery", "-A", "tests.integration.hasty"]
COMMANDS = {
    "worker": [*CELERY, "worker", "-Q", "wake", "-c", "1", "--without-gossip", "--without-mingle"],
    "beat": [*CELERY, "beat"],
    "observer": [sys.executable, "-m", "workers.observer"],
}
PATIENCE = 120.0
"""s for a process to be up, or to be found hanging."""


class Watched:
    """A process of ours under a supervisor; `folder` is its data folder."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        self._pid = folder / "pids" / f"{name}.pid"
        self._heartbeat = folder / "pids" / f"{name}.heartbeat"
        self.log = folder / f"{name}.log"

    def pid(self) -> int:
        """Of the command itself."""
        return int(self._pid.read_text() or 0) if self._pid.exists() else 0

    def beats_after(self, moment: float) -> bool:
        """Whether it has worked since that time."""
        return self._heartbeat.exists() and self._heartbeat.stat().st_mtime > moment

    def up(self) -> int:
        """The id of the process, once it works."""
        wait_for(lambda: self.beats_after(0.0), "the first heartbeat", self.words, PATIENCE)
        return self.pid()

    def replaced(self, first: int) -> None:
        """Another process is there, and works."""
        wait_for(lambda: self.pid() not in (0, first), "another process", self.words, PATIENCE)
        now = time.time()
        wait_for(lambda: self.beats_after(now), "its heartbeat", self.words, PATIENCE)

    def words(self) -> str:
        return self.log.read_text()[-3_000:]


@contextmanager
def supervised(name: str, folder: Path, redis_url: str) -> Iterator[Watched]:
    watched = Watched(name, folder)
    environ = os.environ | {
        "REDIS_URL": redis_url,
        "DATA_DIR": str(folder),
        "PROCESS_NAME": name,
        "HEARTBEAT_FILE": str(folder / "pids" / f"{name}.heartbeat"),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "tests.supervised", str(folder), "--heartbeat", str(LIMIT), *COMMANDS[name]]
    with watched.log.open("wb") as log:
        process = subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=log)
        try:
            yield watched
        finally:
            process.terminate()
            process.wait(PATIENCE)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_process_that_hangs_is_replaced(name: str, tmp_path: Path, own_redis: OwnRedis) -> None:
    """It is there, its children are, and nothing of it ends by itself."""
    with supervised(name, tmp_path, own_redis.url) as watched:
        first = watched.up()
        os.kill(first, signal.SIGSTOP)
        watched.replaced(first)
        assert "no heartbeat" in watched.log.read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_redis_that_says_nothing_is_no_reason_to_start_anew(name: str, tmp_path: Path, own_redis: OwnRedis) -> None:
    """The process is not to blame: it asks again and again, for longer than a hung one is left alone."""
    with supervised(name, tmp_path, own_redis.url) as watched:
        first = watched.up()
        own_redis.freeze(True)
        frozen = time.time()
        wait_for(lambda: watched.beats_after(frozen + 2 * LIMIT), "it to go on trying", watched.words, PATIENCE)
        own_redis.freeze(False)
        thawed = time.time()
        wait_for(lambda: watched.beats_after(thawed), "it to go on", watched.words, PATIENCE)
        assert watched.pid() == first


def test_a_worker_whose_pool_takes_nothing_is_replaced_and_the_task_done(tmp_path: Path, own_redis: OwnRedis) -> None:
    """Its event loop goes round, and hands the task to a process that hangs: no time limit has begun to run."""
    with supervised("worker", tmp_path, own_redis.url) as watched:
        first = watched.up()
        [child] = wait_for(lambda: psutil.Process(first).children(), "the pool", watched.words)
        child.suspend()
        with Celery(broker=own_redis.url) as client:
            client.send_task("tests.touch", args=["done"], queue="wake")
        watched.replaced(first)
        assert "takes no tasks" in watched.log.read_text()
        with Celery(broker=own_redis.url) as client:
            client.send_task("tests.touch", args=["again"], queue="wake")
        wait_for((tmp_path / "again").exists, "the next task to be done", watched.words)
