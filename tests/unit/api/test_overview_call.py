"""The call for an operator's charts."""

from __future__ import annotations

import time

import pytest
from flask import Flask

from app.core.composition import Core
from app.core.redis.counters import START_BUCKETS
from app.core.redis.task_queue import QUEUES
from app.core.sessions.model import Status, iso
from app.core.sessions.samples import Last, Sample
from tests.unit.api.helpers import SERVICE_KEY, Client, check_problem, keyed


def test_a_sample_is_shown_in_full(client: Client, core: Core) -> None:
    at = int(time.time()) // 60 * 60
    wakes = tuple(int(number == 5) for number in range(len(START_BUCKETS) + 1))
    told = {"failures": {"no_capacity": 1}, "queues": {"wake": 2}, "dead_letters": 3}
    sample = Sample(at=at, sessions={"active": 4}, wakes=wakes, creates=wakes[::-1], cost=0.1234567, **told)  # type: ignore[arg-type]
    core.samples.add(Last(""), {}, sample)
    body = client.get("/overview/history").json
    assert body["interval_seconds"] == 60
    assert body["samples"] == [
        {
            "at": iso(at),
            "sessions": {**dict.fromkeys(map(str, Status), 0), "active": 4},
            "wakes": 1,
            "wake_p50_ms": 875,
            "wake_p95_ms": 988,
            "creates": 1,
            "create_p50_ms": 2500,
            "create_p95_ms": 2950,
            "cost_dollars": 0.123457,
            "saved_dollars": 0.0,
            "failures": {"no_capacity": 1},
            "queues": {**dict.fromkeys(QUEUES, 0), "wake": 2},
            "dead_letters": 3,
        }
    ]


def test_an_empty_service_has_no_samples(client: Client) -> None:
    assert client.get("/overview/history?hours=1").json["samples"] == []
    assert client.get("/overview/history?hours=25").json["interval_seconds"] == 3600


@pytest.mark.parametrize("hours", ["0", "721", "x", "-1", "1.5"])
def test_other_hours_are_refused(client: Client, hours: str) -> None:
    check_problem(client.get(f"/overview/history?hours={hours}"), 400, "invalid_request")


def test_it_is_for_operators_alone(app: Flask) -> None:
    check_problem(keyed(app, SERVICE_KEY).get("/overview/history"), 403, "forbidden")
