"""The stream of what changes in a workspace's folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Response, request

from app.agent.protocol import CHANGES_POSITION
from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.event_schemas import STREAM, stream_of
from app.api.event_streams import HEARTBEAT, LIFETIME, by_parts, sse, streamed
from app.api.file_schemas import (
    FilesAsleepEventSchema,
    FilesChangedEventSchema,
    FilesResetEventSchema,
    PlacesQuerySchema,
)
from app.api.files import path_of
from app.api.security import visible_session
from app.core.composition import Core
from app.core.files.changes import Away
from app.core.files.model import Changes, Watched
from app.core.sessions.model import Record
from app.http.problems import Problem

blp = Blueprint("file_changes", __name__, description="What changes in a workspace's folder.")

NOWHERE = "0"
"""The id of an event after which nothing is known."""

RESET, CHANGED, ASLEEP = FilesResetEventSchema(), FilesChangedEventSchema(), FilesAsleepEventSchema()


@blp.route("/session/<session:uuid>/changes", methods=["GET"])
@blp.arguments(PlacesQuerySchema, location="query")
@blp.response(200, stream_of("FileEvents"), description="Server-sent events.", content_type=STREAM)
@blp.operation("followFiles", 400, 404, 409, 503, rate="work")
def follow(query: dict[str, Any], uuid: str) -> Response:
    """Follow what changes at `path` and below it, as far as a list with the same query has it: first `reset`, which
    says to list it, then `changed`. What is in `.git`, `node_modules`, `__pycache__` and `.venv` is left out. It wakes
    nothing and keeps nothing awake. `Last-Event-ID` resumes after that event; the stream ends after an hour."""
    record = visible_session(uuid)
    watched = Watched(path=path_of(query), depth=query["depth"], glob=query["glob"])
    position = resumed_after(request.headers.get("Last-Event-ID"))
    return streamed(lambda: events(core(), record, watched, position), record.user_id, uuid)


def events(service: Core, record: Record, watched: Watched, position: str) -> Iterator[str]:
    """The lines of the stream, of what changed after the position."""
    return by_parts(service.file_changes.follow(record.uuid, watched, position, LIFETIME, HEARTBEAT), lines)


def lines(part: Changes | Away | None) -> Iterator[str]:
    """Those of a part of the stream."""
    if isinstance(part, Away):
        yield sse(NOWHERE, "asleep", ASLEEP.dump(part))
    elif part is not None and part.anew:
        yield sse(part.position, "reset", RESET.dump(part))
    elif part is not None:
        yield sse(part.position, "changed", CHANGED.dump(part))


def resumed_after(last_event_id: str | None) -> str:
    """The position that a client knows, "" for none; raises a 400."""
    if last_event_id is None or last_event_id == NOWHERE:
        return ""
    if not CHANGES_POSITION.fullmatch(last_event_id):
        raise Problem(400, "invalid_request", "Last-Event-ID is not the id of an event of this stream.")
    return last_event_id
