"""A world for each test of the core."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import redis

from tests.world import World


@pytest.fixture
def world(redis_client: redis.Redis, tmp_path: Path) -> World:
    return World(redis_client, tmp_path)


@pytest.fixture
def make_world(redis_client: redis.Redis, tmp_path: Path) -> Callable[..., World]:
    """Makes a world with other settings."""
    return partial(World, redis_client, tmp_path)
