"""Every runtime, one after the other, with nothing left in it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
import redis

from app.process.settings import Settings
from tests.contract import runtimes
from tests.contract.runtimes import A, AgentHarness, B, C, Harness
from workers.runtime.base import Runtime


def made_harness(
    kind: str, request: pytest.FixtureRequest, settings: Settings, redis_client: redis.Redis
) -> Iterator[Harness]:
    made = runtimes.make(
        kind,
        settings,
        redis_client,
        lambda: str(request.getfixturevalue("code_server")),
        lambda: str(request.getfixturevalue("namespace")),
    )
    yield made
    for uuid in (A, B, C):
        made.runtime.remove(uuid, 1_000_000)


@pytest.fixture(params=runtimes.KINDS)
def harness(request: pytest.FixtureRequest, settings: Settings, redis_client: redis.Redis) -> Iterator[Harness]:
    yield from made_harness(request.param, request, settings, redis_client)


@pytest.fixture(params=[kind for kind in runtimes.KINDS if kind != "fake"])
def agents(request: pytest.FixtureRequest, settings: Settings, redis_client: redis.Redis) -> Iterator[AgentHarness]:
    """A runtime that runs real agents."""
    for made in made_harness(request.param, request, settings, redis_client):
        yield cast(AgentHarness, made)


@pytest.fixture
def runtime(harness: Harness) -> Runtime:
    return harness.runtime
