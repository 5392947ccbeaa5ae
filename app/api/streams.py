"""Event streams (SSE): a session's events as they happen, resumable, and bounded in number and time."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from threading import BoundedSemaphore
from typing import Any, cast

from flask import Response, current_app, request

from app.api.context import core
from app.api.errors import Problem
from app.sessions.core import Core
from app.sessions.errors import SessionNotFound, StateUnavailable
from app.sessions.events import ID_PATTERN
from app.sessions.model import Record, Status

log = logging.getLogger(__name__)

HEARTBEAT = 15.0
"""s between comment lines: keeps proxies from closing the connection, and finds clients that left."""

LIFETIME = 3600.0
"""s a stream lasts; the client resumes with Last-Event-ID, and no thread is held for ever."""

LARGEST_ID = 2**64 - 1
SLOTS = "event_stream_slots"


def stream_slots(count: int) -> BoundedSemaphore:
    """What bounds the streams of this process; kept by the app."""
    return BoundedSemaphore(max(1, count))


def event_stream(uuid: str) -> Response:
    """The stream of a session's events. Raises a 503 when this process has as many as it may."""
    service = core()
    after = _resume_point(request.headers.get("Last-Event-ID"))
    position = after if after is not None else service.events.last_id(uuid)
    record = service.sessions.get(uuid)
    slots = cast(BoundedSemaphore, current_app.extensions[SLOTS])
    if not slots.acquire(blocking=False):
        text = "This server has as many event streams as it can hold; try again."
        raise Problem(503, "too_many_streams", text, headers={"Retry-After": "5"})
    lines = follow(service, record, position, announce=after is None)
    response = Response(lines, mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})
    # Called however the request ends, even when not one line was read; a generator's own `finally` isn't.
    response.call_on_close(slots.release)
    return response


def follow(
    service: Core, record: Record, position: str, *, announce: bool, heartbeat: float = HEARTBEAT
) -> Iterator[str]:
    """The lines of a stream: the state as it is (when `announce`), then every event after `position`,
    until the session is terminated or gone."""
    if announce:
        yield sse(position, "state", {"status": record.status, "reason": record.reason or None})
    over = record.status is Status.TERMINATED
    if over and announce:
        return
    quiet_since = time.monotonic()
    try:
        for event in service.events.follow(record.uuid, position, LIFETIME):
            if event is not None:
                yield sse(event.id, event.type, event.data)
                quiet_since = time.monotonic()
                if event.type == "state" and event.data.get("status") == Status.TERMINATED:
                    return
            elif over:
                return
            elif time.monotonic() - quiet_since >= heartbeat:
                yield ": still here\n\n"
                quiet_since = time.monotonic()
                over = service.sessions.get(record.uuid).status is Status.TERMINATED
    except (StateUnavailable, SessionNotFound) as error:
        log.info("event stream ended early: %s", error)


def sse(event_id: str, kind: str, data: Mapping[str, Any]) -> str:
    """One event in the wire format. JSON has no raw newline, so the data is one line."""
    return f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(dict(data))}\n\n"


def _resume_point(last_event_id: str | None) -> str | None:
    if last_event_id is None:
        return None
    parts = last_event_id.split("-")
    if not ID_PATTERN.fullmatch(last_event_id) or any(int(part) > LARGEST_ID for part in parts):
        raise Problem(400, "invalid_request", "Last-Event-ID is not the id of an event of this service.")
    return last_event_id
