"""The call that says what is wrong."""

from __future__ import annotations

import pytest
from flask import Flask

from app.api import diagnosis
from app.api.diagnosis import worst
from app.core.operations.checks import CHECKS
from app.core.operations.verdicts import State, Verdict
from tests.ports import free_port
from tests.unit.api.helpers import ADMIN_KEY, SERVICE_KEY, AppMaker, Client, check_problem, keyed

WELL = Verdict("redis", State.OK, "well")
ODD = Verdict("model", State.UNKNOWN, "odd", "ask")
BAD = Verdict("beat", State.FAILED, "bad", "mend")
SO_SO = Verdict("clocks", State.WARNING, "so so", "look")


@pytest.mark.parametrize(
    ("found", "status"),
    [([], "ok"), ([WELL], "ok"), ([WELL, ODD], "unknown"), ([ODD, SO_SO], "warning"), ([SO_SO, BAD, ODD], "failed")],
)
def test_the_worst_check_counts(found: list[Verdict], status: str) -> None:
    assert worst(found) == status


def test_the_answer_has_each_check(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "diagnose", lambda core, now: [WELL, BAD])
    body = client.get("/diagnosis").json
    assert body["status"] == "failed"
    assert body["checks"] == [
        {"check": "redis", "status": "ok", "found": "well", "remedy": ""},
        {"check": "beat", "status": "failed", "found": "bad", "remedy": "mend"},
    ]


def test_it_answers_while_redis_is_down(make_app: AppMaker) -> None:
    client = keyed(make_app(redis_url=f"redis://127.0.0.1:{free_port()}/0"), ADMIN_KEY)
    answer = client.get("/diagnosis")
    assert answer.status_code == 200, answer.text
    found = {each["check"]: each["status"] for each in answer.json["checks"]}
    assert list(found) == list(CHECKS)
    assert found["redis"] == "failed"


def test_it_is_for_operators_alone(app: Flask) -> None:
    check_problem(keyed(app, SERVICE_KEY).get("/diagnosis"), 403, "forbidden")
