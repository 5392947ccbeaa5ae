"""The calls on a session's restore points."""

from __future__ import annotations

import time
from typing import Any

from app.api.answers import Answer
from app.api.blueprint import Blueprint
from app.api.current import core, request_id
from app.api.prefer import wait_for, waiting
from app.api.request_fields import PageQuerySchema
from app.api.restore_point_schemas import RestorePointListSchema
from app.api.security import check_session, visible_session
from app.api.session_schemas import ActionSchema
from app.api.sessions import action
from app.core.redis.paging import Page
from app.core.restore_points.index import RestorePoint
from app.core.sessions.model import GONE, Record

blp = Blueprint("restore_points", __name__, description="Restore points: list, make.")


@blp.route("/session/<session:uuid>/restore-points", methods=["GET"])
@blp.arguments(PageQuerySchema, location="query")
@blp.response(200, RestorePointListSchema)
@blp.operation("listRestorePoints", 400, 404)
def list_all(query: dict[str, Any], uuid: str) -> Page[RestorePoint]:
    """List a session's restore points, newest first."""
    visible_session(uuid)
    return core().restore_points.page(uuid, **query)


@blp.route("/session/<session:uuid>/restore-points", methods=["POST"])
@blp.response(202, ActionSchema)
@blp.alt_response(200, schema=ActionSchema, description="The restore point was made within the wait.")
@blp.operation("makeRestorePoint", 404, body=True, audit="restore_point")
def make(uuid: str) -> Answer:
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
