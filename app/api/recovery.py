"""The calls that bring sessions back from the store when Redis and their volumes are lost."""

from __future__ import annotations

import time
from typing import Any

from flask import Response
from marshmallow import Schema, fields

from app.api.blueprint import Blueprint
from app.api.current import core, reply, request_id
from app.api.schemas import time_field
from app.api.security import check_operator
from app.core.errors import RestorePointsOff
from app.core.redis import task_queue
from app.core.restore_points.recovery import Recovery
from app.core.sessions.model import iso


class RecoveryRequestSchema(Schema):
    dry_run = fields.Boolean(
        load_default=False, metadata={"description": "only count the sessions that would come back"}
    )


class RecoverySchema(Schema):
    status = fields.String(required=True, metadata={"enum": ["none", "running", "done"]})
    dry_run = fields.Boolean(required=True, allow_none=True)
    requested_at = time_field(required=True, allow_none=True)
    ended_at = time_field(required=True, allow_none=True)
    found = fields.Integer(
        required=True,
        allow_none=True,
        metadata={
            "description": "sessions that had restore points and neither record nor workspace; null until the end"
        },
    )
    recovered = fields.Integer(required=True, metadata={"description": "those that exist again, so far"})
    damaged = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "those of whose restore points none can be read; null until the end"},
    )
    error = fields.String(
        required=True, allow_none=True, metadata={"description": "of the last attempt, which is repeated"}
    )


blp = Blueprint("recovery", __name__, description="Sessions of which only the store is left.")


@blp.route("/recovery", methods=["GET"])
@blp.response(200, RecoverySchema)
@blp.operation("showRecovery")
def show() -> Response:
    """Show the last recovery, and how far it is. For admin and read keys that are bound to no users."""
    check_operator()
    return reply(shown(core().recoveries.last()))


@blp.route("/recovery", methods=["POST"])
@blp.arguments(RecoveryRequestSchema, required=False)
@blp.response(202, RecoverySchema)
@blp.operation("recoverSessions", body=True, audit="recover")
def start(body: dict[str, Any]) -> Response:
    """Bring back every session that has restore points in the store and neither record nor workspace: after Redis and
    the volumes were lost together. Each comes back archived, under its uuid, and its next wake restores its newest
    restore point. Don't call it while volumes are only out of sight: their files are newer. For admin keys that are
    bound to no users."""
    check_operator()
    if not core().makes_restore_points:
        raise RestorePointsOff
    asked = core().recoveries.request(time.time(), dry_run=body["dry_run"])
    core().tasks.send(task_queue.SWEEP_INDEX, request_id=request_id())
    return reply(shown(asked), 202)


def shown(recovery: Recovery | None) -> dict[str, Any]:
    """A recovery in an answer; null for missing values."""
    over = recovery is not None and bool(recovery.ended_at)
    return {
        "status": "none" if recovery is None else "done" if over else "running",
        "dry_run": recovery.dry_run if recovery else None,
        "requested_at": iso(recovery.requested_at) if recovery else None,
        "ended_at": iso(recovery.ended_at) if recovery else None,
        "found": recovery.found if recovery and over else None,
        "recovered": recovery.recovered if recovery else 0,
        "damaged": recovery.damaged if recovery and over else None,
        "error": (recovery.error or None) if recovery else None,
    }
