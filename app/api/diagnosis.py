"""The call that says what is wrong with the service, and what to do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from marshmallow import Schema

from app.api.answers import Items, Text, Time
from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.security import check_operator
from app.core.operations.checks import CHECKS, diagnose
from app.core.operations.verdicts import State, Verdict


def state_field(description: str) -> Text:
    return Text(description, enum=[str(each) for each in State])


class CheckSchema(Schema):
    check = Text(examples=list(CHECKS)[:3])
    status = state_field("`warning`: it works and needs attention; `unknown`: it can't be told")
    found = Text("what was found")
    remedy = Text("what to do; empty where all is well")


class DiagnosisSchema(Schema):
    status = state_field("the worst one")
    checks = Items(CheckSchema)
    timestamp = Time()


blp = Blueprint("diagnosis", __name__, description="What is wrong, and what to do.")

WORST = (State.FAILED, State.WARNING, State.UNKNOWN, State.OK)


@blp.route("/diagnosis", methods=["GET"])
@blp.response(200, DiagnosisSchema)
@blp.operation("diagnose", without_redis=True)
def show() -> dict[str, Any]:
    """Check all parts of the service, side by side, within some 5 s: what was found, and where something is wrong,
    what to do. `status` is the worst one. A file is written to the stores, read and deleted. For admin and read
    keys that are bound to no users."""
    check_operator()
    now = time.time()
    found = diagnose(core(), now)
    return {"status": worst(found), "checks": found, "timestamp": now}


def worst(found: Sequence[Verdict]) -> State:
    return next(state for state in WORST if state is State.OK or state in {each.status for each in found})
