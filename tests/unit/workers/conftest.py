"""Worlds whose sessions have restore points."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.core.storage.archive_keys import new_key
from tests.world import World


@pytest.fixture
def saving_world(make_world: Callable[..., World]) -> World:
    """With an archive key. Its Redis counts as compared with the store, in which the fake makes no points."""
    world = make_world(archive_key=new_key(), drill_cycle=1_000_000.0)
    world.core.store.first_sight(world.now)
    return world
