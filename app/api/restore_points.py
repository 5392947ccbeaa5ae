"""The calls on a session's restore points."""

from __future__ import annotations

import time
from typing import Any

from flask import Response

from app.api.blueprint import Blueprint
from app.api.current import core, reply, request_id
from app.api.prefer import wait_for, waiting
from app.api.restore_point_schemas import RestorePointListSchema
from app.api.schemas import ActionSchema, PageQuerySchema
from app.api.security import check_session, visible_session
from app.api.sessions import action
from app.core.restore_points.index import RestorePoint
from app.core.restore_points.names import reference
from app.core.sessions.model import GONE, Record, iso

blp = Blueprint("restore_points", __name__, description="Restore points: list, make.")


@blp.route("/session/<session:uuid>/restore-points", methods=["GET"])
@blp.arguments(PageQuerySchema, location="query")
@blp.response(200, RestorePointListSchema)
@blp.operation("listRestorePoints", 400, 404)
def list_all(query: dict[str, Any], uuid: str) -> Response:
    """List a session's restore points, newest first."""
    visible_session(uuid)
    page = core().restore_points.page(uuid, **query)
    described = [shown(point) for point in page.items]
    return reply({"total": page.total, "restore_points": described, "next_cursor": page.next_cursor})


@blp.route("/session/<session:uuid>/restore-points", methods=["POST"])
@blp.response(202, ActionSchema)
@blp.alt_response(200, schema=ActionSchema, description="The restore point was made within the wait.")
@blp.operation("makeRestorePoint", 404, body=True, audit="restore_point")
def make(uuid: str) -> Response:
    """Make a restore point, without interrupting the session; answers at once unless asked to wait."""
    check_session(uuid)
    asked_at = time.time()

    def over(record: Record) -> bool:
        return record.status in GONE or record.point_at >= asked_at or record.point_error not in ("", before)

    with waiting(visible_session(uuid).user_id, uuid):
        asked = core().sessions.request_point(uuid, request_id())
        before = asked.point_error
        record = wait_for(asked, over)
    if record.point_at >= asked_at:
        return action(record, "restore_point", "done")
    return action(record, "restore_point", "queued", record.point_error, status=202)


def shown(point: RestorePoint) -> dict[str, Any]:
    """A restore point in an answer."""
    return {
        "id": point.id,
        "created_at": iso(point.created_at),
        "trigger": point.trigger,
        "files": point.files,
        "size": point.size,
        "stored": point.stored,
        "unreadable": point.unreadable,
        "message_id": point.message_id or None,
        "verified_at": iso(point.verified_at),
        "proven_at": iso(point.proven_at),
        "broken": point.broken,
        "restore_from": reference(point.uuid, point.id),
    }
