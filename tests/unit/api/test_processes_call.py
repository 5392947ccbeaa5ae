"""The call on the service's processes."""

from __future__ import annotations

from flask import Flask

from app.core.composition import Core
from app.core.redis.processes import KINDS, Reporter
from tests.unit.api.helpers import SERVICE_KEY, Client, check_problem, keyed


def test_processes_are_shown_by_kind(client: Client, core: Core) -> None:
    Reporter(core.redis, "gateway").tick()
    body = client.get("/processes").json
    found = {each["kind"]: each for each in body["processes"]}
    assert list(found) == list(KINDS)
    assert found["gateway"]["status"] == "alive"
    assert found["gateway"]["host"]
    assert abs(found["gateway"]["clock_skew_seconds"]) < 5
    assert found["gateway"]["since"] <= body["timestamp"]
    assert found["beat"] == {
        "name": "beat",
        "kind": "beat",
        "host": None,
        "status": "silent",
        "seen_at": None,
        "since": None,
        "clock_skew_seconds": None,
    }


def test_they_are_for_operators_alone(app: Flask) -> None:
    check_problem(keyed(app, SERVICE_KEY).get("/processes"), 403, "forbidden")
