"""The calls that bring sessions back from the store when Redis and their volumes are lost."""

from __future__ import annotations

import time
from typing import Any

from marshmallow import Schema, fields

from app.api.answers import Text, Time, Truth, Whole
from app.api.blueprint import Blueprint
from app.api.current import core, request_id
from app.api.security import check_operator
from app.core.errors import RestorePointsOff
from app.core.redis import task_queue
from app.core.restore_points.recovery import Recovery


class RecoveryRequestSchema(Schema):
    dry_run = fields.Boolean(
        load_default=False, metadata={"description": "only count the sessions that would come back"}
    )


NEVER = Recovery(requested_at=0.0, dry_run=False)
"""In place of a recovery that nobody asked for."""


def state_of(recovery: Recovery) -> str:
    if not recovery.requested_at:
        return "none"
    return "done" if recovery.ended_at else "running"


def is_dry_run(recovery: Recovery) -> bool | None:
    return recovery.dry_run if recovery.requested_at else None


def found_by(recovery: Recovery) -> int | None:
    return recovery.found if recovery.ended_at else None


def damaged_in(recovery: Recovery) -> int | None:
    return recovery.damaged if recovery.ended_at else None


class RecoverySchema(Schema):
    status = Text(of=state_of, enum=["none", "running", "done"])
    dry_run = Truth(of=is_dry_run, null=True)
    requested_at = Time(null=True)
    ended_at = Time(null=True)
    found = Whole(
        "sessions that had restore points and neither record nor workspace; null until the end", of=found_by, null=True
    )
    recovered = Whole("those that exist again, so far")
    damaged = Whole("those of whose restore points none can be read; null until the end", of=damaged_in, null=True)
    error = Text("of the last attempt, which is repeated", null=True)


blp = Blueprint("recovery", __name__, description="Sessions of which only the store is left.")


@blp.route("/recovery", methods=["GET"])
@blp.response(200, RecoverySchema)
@blp.operation("showRecovery")
def show() -> Recovery:
    """Show the last recovery, and how far it is. For admin and read keys that are bound to no users."""
    check_operator()
    return core().recoveries.last() or NEVER


@blp.route("/recovery", methods=["POST"])
@blp.arguments(RecoveryRequestSchema, required=False)
@blp.response(202, RecoverySchema)
@blp.operation("recoverSessions", body=True, audit="recover")
def start(body: dict[str, Any]) -> Recovery:
    """Bring back every session that has restore points in the store and neither record nor workspace: after Redis and
    the volumes were lost together. Each comes back archived, under its uuid, and its next wake restores its newest
    restore point. Don't call it while volumes are only out of sight: their files are newer. For admin keys that are
    bound to no users."""
    check_operator()
    if not core().makes_restore_points:
        raise RestorePointsOff
    asked = core().recoveries.request(time.time(), dry_run=body["dry_run"])
    core().tasks.send(task_queue.SWEEP_INDEX, request_id=request_id())
    return asked
