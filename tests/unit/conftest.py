"""How unit tests run: on which Redis, and on how many processors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from tests.fake_redis import fake_redis
from tests.world import World

FAKE = os.environ.get("FAKE_REDIS") == "1" or not (os.environ.get("REAL_REDIS") == "1" or shutil.which("redis-server"))
"""A redis-server on loopback is faster than fakeredis, which runs each Lua script several times as long; so fakeredis
is for machines without one. REAL_REDIS=1 insists on a real one, FAKE_REDIS=1 uses fakeredis all the same."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Whole folders are tested on all processors, unless the command line says on how many."""
    options = config.option
    chosen = getattr(options, "numprocesses", 0) is not None or options.usepdb or options.collectonly
    if not (chosen or hasattr(config, "workerinput")) and all(Path(each).is_dir() for each in config.args):
        options.numprocesses = "logical"


@pytest.fixture
def redis_client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """An empty Redis; a real one for tests marked `real_redis`, and for those that use its URL."""
    real = request.node.get_closest_marker("real_redis") or "redis_server" in request.fixturenames
    if FAKE and not real:
        with fake_redis() as client:
            yield client
    else:
        yield request.getfixturevalue("real_redis_client")


@pytest.fixture
def world(redis_client: redis.Redis, tmp_path: Path) -> World:
    return World(redis_client, tmp_path)


@pytest.fixture
def make_world(redis_client: redis.Redis, tmp_path: Path) -> Callable[..., World]:
    """Makes a world with other settings."""
    return partial(World, redis_client, tmp_path)
