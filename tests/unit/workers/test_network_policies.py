"""A cluster that enforces no policy is found out by trying what the policies forbid."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest
import redis

from app.core.redis import keys, task_queue
from app.core.redis.heartbeats import POLICIES_KNOWN, POLICIES_LOOKED_AT, Heartbeats, Policies
from app.process.settings import Settings
from tests.ports import free_port
from workers import network_policies
from workers.celery.app import app


@pytest.fixture
def heartbeats(redis_client: redis.Redis) -> Heartbeats:
    return Heartbeats(redis_client)


@pytest.fixture
def open_port() -> Iterator[int]:
    """A port where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def at(port: int) -> dict[str, str]:
    """What a pod is told of where the API server is."""
    return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port)}


def test_who_gets_through_shows_that_nothing_keeps_him_and_who_does_not_that_something_does(
    heartbeats: Heartbeats, open_port: int
) -> None:
    """Outside of pods nothing is tried, and nothing said."""
    looks: list[tuple[dict[str, str], Policies]] = [
        ({}, Policies.UNKNOWN),
        (at(open_port), Policies.NOT_ENFORCED),
        (at(free_port()), Policies.ENFORCED),
    ]
    for environment, found in looks:
        network_policies.check(heartbeats, environment)
        assert heartbeats.policies() is found


def test_a_look_counts_until_some_later_ones_should_have_come(
    heartbeats: Heartbeats, redis_client: redis.Redis
) -> None:
    """Delivery workers that look no more leave nothing behind that passes for the truth."""
    network_policies.check(heartbeats, at(free_port()))
    assert POLICIES_LOOKED_AT * 2 < redis_client.ttl(keys.NETWORK_POLICIES) <= POLICIES_KNOWN


def test_it_is_told_once_and_not_at_every_look(
    heartbeats: Heartbeats, open_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=network_policies.__name__)
    for port in (open_port, open_port, free_port(), open_port):
        network_policies.check(heartbeats, at(port))
    assert [each.levelname for each in caplog.records] == ["WARNING", "INFO", "WARNING"]


def test_on_one_machine_nobody_looks() -> None:
    """The application of these tests is of local mode."""
    assert task_queue.SWEEP_IDLE in app.conf.beat_schedule
    assert task_queue.CHECK_POLICIES not in app.conf.beat_schedule


def test_in_a_cluster_somebody_looks_every_minute() -> None:
    assert task_queue.SWEEPS[task_queue.CHECK_POLICIES](Settings(runtime="kubernetes")) == POLICIES_LOOKED_AT
