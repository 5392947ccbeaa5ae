"""The call that says what is wrong with the service, and what to do."""

from __future__ import annotations

import time
from collections.abc import Sequence

from flask import Response

from app.api.blueprint import Blueprint
from app.api.current import core, reply
from app.api.diagnosis_schemas import DiagnosisSchema
from app.api.operators import check_operator
from app.core.operations.checks import diagnose
from app.core.operations.verdicts import State, Verdict
from app.core.sessions.model import iso

blp = Blueprint("diagnosis", __name__, description="What is wrong, and what to do.")

WORST = (State.FAILED, State.WARNING, State.UNKNOWN, State.OK)


@blp.route("/diagnosis", methods=["GET"])
@blp.response(200, DiagnosisSchema)
@blp.operation("diagnose", without_redis=True)
def show() -> Response:
    """Check all parts of the service, side by side, within some 5 s: what was found, and where something is wrong,
    what to do. `status` is the worst one. A file is written to the stores, read and deleted. For admin and read
    keys that are bound to no users."""
    check_operator()
    now = time.time()
    found = diagnose(core(), now)
    return reply({"status": worst(found), "checks": [vars(each) for each in found], "timestamp": iso(now)})


def worst(found: Sequence[Verdict]) -> State:
    return next(state for state in WORST if state is State.OK or state in {each.status for each in found})
