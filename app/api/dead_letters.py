"""The calls on dead letters, the tasks that were given up: list, retry, drop."""

from __future__ import annotations

from typing import Any

from flask import Response, g

from app.api.blueprint import Blueprint
from app.api.current import core, request_id
from app.api.dead_letter_schemas import DeadLetterListSchema, RetriedSchema
from app.api.request_fields import PageQuerySchema
from app.api.security import check_operator
from app.core.operations.retry import retry
from app.core.redis.dead_letters import DeadLetter
from app.core.redis.paging import Page

blp = Blueprint("dead_letters", __name__, description="Tasks that were given up.")


@blp.route("/dead-letters", methods=["GET"])
@blp.arguments(PageQuerySchema, location="query")
@blp.response(200, DeadLetterListSchema)
@blp.operation("listDeadLetters", 400)
def list_all(query: dict[str, Any]) -> Page[DeadLetter]:
    """List the tasks that were given up, newest first; the last 1,000 are kept. For admin and read keys that are
    bound to no users."""
    check_operator()
    return core().dead_letters.page(**query)


@blp.route("/dead-letters/<letter_id>/retry", methods=["POST"])
@blp.response(202, RetriedSchema)
@blp.operation("retryDeadLetter", 404, body=True, audit="retry_dead_letter")
def retry_one(letter_id: str) -> dict[str, Any]:
    """Try again what was given up, with a new count of attempts, and drop the dead letter. 409 if that makes no sense:
    the session is deleted, or was woken, deleted or changed since. For admin keys that are bound to no users."""
    check_operator()
    letter = core().dead_letters.get(letter_id)
    g.audited_session = (letter.uuid, "")
    record = retry(core().sessions, letter, request_id())
    g.audited_session = (record.uuid, record.user_id)
    # Last: should the service stop in between, the dead letter is still there, and another retry is refused.
    core().dead_letters.remove(letter_id)
    return {"id": letter_id, "uuid": record.uuid, "task": letter.task, "status": record.status}


@blp.route("/dead-letters/<letter_id>", methods=["DELETE"])
@blp.response(204, description="The dead letter is dropped.")
@blp.operation("deleteDeadLetter", 404, audit="drop_dead_letter")
def delete(letter_id: str) -> Response:
    """Drop a dead letter; its session stays as it is. For admin keys that are bound to no users."""
    check_operator()
    g.audited_session = (core().dead_letters.remove(letter_id).uuid, "")
    return Response(status=204)
