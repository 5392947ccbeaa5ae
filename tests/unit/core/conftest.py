"""A session that is up, records, and a Redis with the users of a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from app.core.sessions.model import Record, Status
from app.core.sessions.store import SessionStore
from tests.redis_users import Guarded, guarded_redis
from tests.unit.core.reached import Clock
from tests.world import World


@pytest.fixture
def uuid(world: World) -> str:
    """That of a session that is up."""
    return world.active()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(redis_client: redis.Redis) -> SessionStore:
    return SessionStore(redis_client)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


def a_record(number: int = 0, **fields: object) -> Record:
    """One that is newer the greater its number."""
    given = {"user_id": "ada", "created_at": 1_000.0 + number, "status": Status.CREATED} | fields
    return Record(uuid=f"{number:08d}", **given)  # type: ignore[arg-type]
