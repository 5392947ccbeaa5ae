"""Event streams (SSE): a session's events as they happen, resumable, and bounded in number and time."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from threading import BoundedSemaphore
from typing import Any, cast

from flask import Response, current_app, request

from app.api.context import core
from app.api.holding import Kind, place
from app.api.security import caller
from app.problems import Problem
from app.sessions.core import Core
from app.sessions.errors import MessageNotFound, SessionNotFound, StateUnavailable
from app.sessions.events import ID_PATTERN, QUIET, REVOKED, SessionEvent
from app.sessions.inbox import FINISHED, Message, State
from app.sessions.model import Record, Status, iso
from app.sessions.passes import Pass

log = logging.getLogger(__name__)

HEARTBEAT = 15.0
"""s between comment lines: keeps proxies from closing the connection, and finds clients that left."""

LIFETIME = 3600.0
"""s a stream lasts; the client resumes with Last-Event-ID, and none is held for ever."""

HELD_BACK = "The session sleeps, and this prompt with it: wake it, or send another prompt, and it goes on."

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
    held = caller().held
    return streamed(record, lambda: follow(service, record, position, announce=after is None, held=held))


def streamed(record: Record, begin: Callable[[], Iterator[str]]) -> Response:
    """The lines that `begin` answers, as a stream about the session. Raises, before `begin` is called, a 503 when this
    process has as many streams as it may, and a 429 when the session or its user has."""
    slots = cast(BoundedSemaphore, current_app.extensions[SLOTS])
    if not slots.acquire(blocking=False):
        text = "This server has as many event streams as it can hold; try again."
        raise Problem(503, "too_many_streams", text, headers={"Retry-After": "5"})
    with ExitStack() as slot:
        slot.callback(slots.release)
        slot.enter_context(place(Kind.STREAM, record.user_id, record.uuid))
        response = Response(begin(), mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})
        # Called however the request ends, even when not one line was read; a generator's own `finally` isn't.
        response.call_on_close(slot.pop_all().close)
        return response


def follow(
    service: Core,
    record: Record,
    position: str,
    *,
    announce: bool,
    held: Pass | None = None,
    heartbeat: float = HEARTBEAT,
) -> Iterator[str]:
    """The lines of a stream: the state as it is (when `announce`), then every event after `position`,
    until the session is terminated or gone, or what the caller `held` was taken back."""
    if announce:
        why = {"reason": record.reason or None, "reason_code": record.reason_code or None}
        yield sse(position, "state", {"status": record.status, **why})
    over = record.status is Status.TERMINATED
    if over and announce:
        return
    quiet_since = time.monotonic()
    try:
        for event in service.events.follow(record.uuid, position, LIFETIME, min(heartbeat, QUIET)):
            if event is not None:
                yield sse(event.id, event.type, event.data)
                quiet_since = time.monotonic()
                ended = event.type == "state" and event.data.get("status") == Status.TERMINATED
                if ended or taken_back(held, event):
                    return
            elif over:
                return
            elif time.monotonic() - quiet_since >= heartbeat:
                yield ": still here\n\n"
                quiet_since = time.monotonic()
                over = service.sessions.get(record.uuid).status is Status.TERMINATED
    except (StateUnavailable, SessionNotFound) as error:
        log.info("event stream ended early: %s", error)


def follow_message(
    service: Core,
    uuid: str,
    message: Message,
    position: str,
    *,
    held: Pass | None = None,
    heartbeat: float = HEARTBEAT,
) -> Iterator[str]:
    """The lines of a stream about one message: its session's states, what the agent tells of its work on it, and
    at last the message itself with its response, or as it is when the stream has lasted long enough; the event `held`
    in its place when the session was put to sleep first. It ends without either when what the caller `held` was taken
    back."""
    quiet_since = time.monotonic()
    last, rests, down = position, False, False
    look = True  # at the next quiet moment: a sleep may have come before this began
    try:
        if not message.finished:
            for event in service.events.follow(uuid, position, LIFETIME, min(heartbeat, QUIET)):
                if event is not None:
                    if taken_back(held, event):
                        return
                    last = event.id
                    about = event.type == "state" or event.data.get("message_id") == message.id
                    if event.type == "message" and about and event.data.get("state") in FINISHED:
                        break
                    if event.type == "state":
                        down = event.data.get("status") == Status.SLEEPING
                    if about:
                        yield sse(event.id, event.type, event.data)
                        quiet_since = time.monotonic()
                    continue
                if time.monotonic() - quiet_since >= heartbeat:
                    yield ": still here\n\n"
                    quiet_since = time.monotonic()
                    # Its last event may be gone: a stream keeps a thousand.
                    look = True
                if look or down:
                    seen, rests = service.inbox.look(uuid, message.id)
                    if seen.finished or rests:
                        break
                    look = False
            message = service.inbox.get(uuid, message.id)
        if rests:
            yield sse(last, "held", message_of(uuid, message) | {"session": Status.SLEEPING, "detail": HELD_BACK})
        else:
            yield sse(last, "message", message_of(uuid, message))
    except (StateUnavailable, MessageNotFound) as error:
        log.info("event stream ended early: %s", error)


def taken_back(held: Pass | None, event: SessionEvent) -> bool:
    """Whether this event says that the caller's pass is good no more; a key is never taken back so."""
    return held is not None and event.type == REVOKED and held.door < event.data["door"]


def message_of(uuid: str, message: Message) -> dict[str, Any]:
    """A message, as answers and streams show it."""
    return {
        "uuid": uuid,
        "message_id": message.id,
        "state": message.state,
        "message": message.text or None,
        "response": dict(message.response) if message.state is State.PROCESSED else None,
        "reason": message.reason or None,
        "created_at": iso(message.created_at),
        "delivered_at": iso(message.delivered_at),
        "processed_at": iso(message.processed_at),
    }


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
