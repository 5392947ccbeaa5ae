"""What tests of every kind share: a real Redis, settings of their own, and the editor's program."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from app.process.settings import Settings
from tests import sampling
from tests.ports import free_port
from tests.waiting import wait_for

# A busy machine takes longer for one example than for another, which is no bug.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Suites that modules of tests derive from: what a failed comparison compared is shown as in those.
pytest.register_assert_rewrite("tests.suites")

ROOT = Path(__file__).resolve().parent.parent

NEEDS = {"browser": "browser", "small_disk": "root", "images": "root"}
"""The marks of tests that use these fixtures."""
REDIS_PASSWORD = "p@ss/word+1"
REDIS_PASSWORD_IN_URL = "p%40ss%2Fword%2B1"


def pytest_configure() -> None:
    """A run that is ended by SIGTERM, as `.ci/run` ends it at its limit, ends what its fixtures have started, as after
    Ctrl-C. A process that a test has forked is none of a run's."""
    ours = os.getpid()

    def end(number: int, _: object) -> None:
        if os.getpid() != ours:
            os._exit(128 + number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)


def pytest_report_header() -> str:
    return sampling.described()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a browser, root or a cluster, before `-m` chooses."""
    for item in items:
        folder = item.path.relative_to(ROOT).parts[1]
        if folder == "cluster" or (folder == "contract" and "KUBECONFIG" in os.environ):
            item.add_marker("cluster")
        for fixture in NEEDS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(NEEDS[fixture])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Python looks for garbage neither while modules and tests are read, nor, later, among these: that took a sixth of
    the unit tests' time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis of our own, set up as the service wants it, with a password and nothing evicted; but it writes
    no file, as a slow disk would hold up its answers."""
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
        "--appendonly": "no",
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
    """Return as soon as the redis-server `process` answers at `url`."""

    def answers() -> bool:
        assert process.poll() is None, f"redis-server ended with status {process.returncode}"
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False

    with redis.Redis.from_url(url, socket_timeout=1.0) as client:
        wait_for(answers, "redis-server answers", interval=0.02)


@pytest.fixture(scope="session")
def redis_pool(redis_server: str) -> Iterator[redis.ConnectionPool]:
    """Connections that the tests' clients share: to make a new one for each takes as long as many a test."""
    pool = redis.ConnectionPool.from_url(redis_server, decode_responses=True, socket_timeout=5.0)
    yield pool
    pool.disconnect()


@pytest.fixture
def real_redis_client(redis_pool: redis.ConnectionPool) -> redis.Redis:
    """An empty Redis."""
    client = redis.Redis(connection_pool=redis_pool)
    client.flushall()
    return client


@pytest.fixture
def redis_client(real_redis_client: redis.Redis) -> redis.Redis:
    """An empty Redis; tests/unit/conftest.py has another one."""
    return real_redis_client


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
        [sys.executable, str(ROOT / "app" / "editor" / "install")],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"the editor can't be installed:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


@pytest.fixture(scope="session")
def namespace() -> Iterator[str]:
    """A namespace of the cluster, of this run's own."""
    # Where there is one: unit tests need no client of Kubernetes.
    from tests.contract.cluster import own_namespace

    with own_namespace() as name:
        yield name
