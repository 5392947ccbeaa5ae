"""A world for each test of the core."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from tests.world import World


@pytest.fixture
def world(redis_client: redis.Redis, tmp_path: Path) -> World:
    return World(redis_client, tmp_path)
