"""What tests of every kind share: a real Redis, settings of their own, and the editor's program."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
REDIS_PASSWORD = "p@ss/word+1"
REDIS_PASSWORD_IN_URL = "p%40ss%2Fword%2B1"
PATIENCE = 30.0
"""Seconds after which a test gives up on something that takes well under one; no test measures it."""


def free_port() -> int:
    """A loopback port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis of our own, set up as the service wants it: a password, AOF on, nothing evicted."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server on PATH")
    folder = tmp_path_factory.mktemp("redis")
    port = free_port()
    arguments = {
        "--port": str(port),
        "--bind": "127.0.0.1",
        "--dir": str(folder),
        "--requirepass": REDIS_PASSWORD,
        "--appendonly": "yes",
        "--maxmemory-policy": "noeviction",
        "--notify-keyspace-events": "KEA",
        "--save": "",
    }
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [program, *(part for pair in arguments.items() for part in pair)], stdout=log, stderr=subprocess.STDOUT
    )
    url = f"redis://:{REDIS_PASSWORD_IN_URL}@127.0.0.1:{port}/0"
    try:
        wait_for_redis(url, process)
        yield url
    finally:
        process.kill()
        process.wait()
        log.close()


def wait_for_redis(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    with redis.Redis.from_url(url, socket_timeout=1.0) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                client.ping()
                return
            except redis.RedisError:
                time.sleep(0.02)
    raise RuntimeError(f"redis-server did not come up; its status is {process.poll()}")


@pytest.fixture
def redis_client(redis_server: str) -> Iterator[redis.Redis]:
    """An empty Redis."""
    with redis.Redis.from_url(redis_server, decode_responses=True, socket_timeout=5.0) as client:
        client.flushall()
        yield client


@pytest.fixture
def settings(redis_server: str, tmp_path: Path) -> Settings:
    """Settings with a data folder of the test's own."""
    return Settings(data_dir=tmp_path / "data", redis_url=redis_server)


@pytest.fixture(scope="session")
def code_server() -> str:
    """The editor's program: CODE_SERVER, else the one on PATH, else one that is built (over a minute, once)."""
    named = os.environ.get("CODE_SERVER") or shutil.which("code-server")
    if named:
        return named
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "editor" / "install")],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"the editor can't be installed:\n{done.stderr[-2000:]}")
    return done.stdout.strip()
