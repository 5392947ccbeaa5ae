"""Event streams (SSE): a session's events as they happen, resumable, and bounded in number and time."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from threading import BoundedSemaphore
from typing import Any, TypeVar, cast

from flask import Response, current_app, request

from app.api.current import core
from app.api.message_schemas import MessageSchema, fields_of
from app.api.security import caller
from app.api.tenant_limits import Kind, hold
from app.core.access.tokens import AccessToken
from app.core.ahead import begun
from app.core.composition import Core
from app.core.errors import PromptNotFound, SessionError, SessionNotFound, StateUnavailable
from app.core.limit_errors import ServerStreamsFull
from app.core.prompts.inbox import FINISHED, Prompt, State
from app.core.redis.events import QUIET, REVOKED, SessionEvent, is_event_id
from app.core.sessions.model import Record, Status
from app.http.problems import Problem

T = TypeVar("T")

log = logging.getLogger(__name__)

HEARTBEAT = 15.0
"""s between comment lines, which keep proxies from closing the connection and detect clients that left."""

LIFETIME = 3600.0
"""s a stream lasts at most; the client resumes with Last-Event-ID."""

HELD_BACK = "The session sleeps, so this prompt waits: wake it or send another prompt to continue."

STILL_HERE = ": still here\n\n"

SLOTS = "event_stream_slots"


def stream_slots(count: int) -> BoundedSemaphore:
    """The limit of streams in this process; the app keeps it."""
    return BoundedSemaphore(max(1, count))


def event_stream(uuid: str) -> Response:
    """The stream of a session's events; raises as `streamed`."""
    service = core()
    after = resume_point(request.headers.get("Last-Event-ID"))
    position = after if after is not None else service.events.last_id(uuid)
    record = service.sessions.get(uuid)
    held = caller().held
    lines = partial(follow, service, record, position, announce=after is None, held=held)
    return streamed(lines, record.user_id, record.uuid)


def streamed(begin: Callable[[], Iterator[str]], user_id: str | None, uuid: str = "") -> Response:
    """The lines of `begin()` as a stream about a session, a user's sessions, or all. Before it calls `begin`, it raises
    `ServerStreamsFull` at the process's limit of streams, and `TooManyStreams` at the session's, user's or key's."""
    slots = cast(BoundedSemaphore, current_app.extensions[SLOTS])
    if not slots.acquire(blocking=False):
        raise ServerStreamsFull(core().settings.max_streams)
    with ExitStack() as slot:
        slot.callback(slots.release)
        slot.enter_context(hold(Kind.STREAM, user_id, uuid))
        response = Response(begin(), mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})
        # A generator's own `finally` does not run if no line was read; this always runs.
        response.call_on_close(slot.pop_all().close)
        return response


def follow(
    service: Core,
    record: Record,
    position: str,
    *,
    announce: bool,
    held: AccessToken | None = None,
    heartbeat: float = HEARTBEAT,
) -> Iterator[str]:
    """The lines of a stream: the present state (if `announce`), then every event after `position`, until the session is
    terminated or gone, or the caller's session token `held` is revoked."""
    told: Mapping[str, Any] = {}
    if announce:
        told = {"status": record.status, "reason": record.reason or None, "reason_code": record.reason_code or None}
        yield sse(position, "state", told)
    over = record.status is Status.TERMINATED
    if over and announce:
        return
    quiet_since = time.monotonic()
    try:
        for event in service.events.follow(record.uuid, position, LIFETIME, min(heartbeat, QUIET)):
            if event is not None:
                data = shown(service, record.uuid, event)
                # What was announced may have happened after `position`.
                if event.type != "state" or data != told:
                    yield sse(event.id, event.type, data)
                    quiet_since = time.monotonic()
                told = data if event.type == "state" else told
                ended = event.type == "state" and event.data.get("status") == Status.TERMINATED
                if ended or revoked(held, event):
                    return
            elif over:
                return
            elif time.monotonic() - quiet_since >= heartbeat:
                yield STILL_HERE
                quiet_since = time.monotonic()
                over = service.sessions.get(record.uuid).status is Status.TERMINATED
    except (StateUnavailable, SessionNotFound) as error:
        log.info("event stream ended early: %s", error)


def follow_message(
    service: Core,
    uuid: str,
    message: Prompt,
    position: str,
    *,
    held: AccessToken | None = None,
    heartbeat: float = HEARTBEAT,
) -> Iterator[str]:
    """The lines of a stream about one prompt: its session's states, the agent's work on it, and last the prompt with
    its response, or as it is after `LIFETIME`. If the session is put to sleep first, the event `held` comes last. The
    stream ends without either if the caller's session token `held` is revoked."""
    quiet_since = time.monotonic()
    last, rests, down, over = position, False, False, False
    check = True  # The session may have been put to sleep before the stream began.
    try:
        if not message.finished:
            for event in service.events.follow(uuid, position, LIFETIME, min(heartbeat, QUIET)):
                if event is not None:
                    if revoked(held, event):
                        return
                    last = event.id
                    about = event.type == "state" or event.data.get("message_id") == message.id
                    if event.type == "message" and about and event.data.get("state") in FINISHED:
                        break
                    if event.type == "state":
                        down = event.data.get("status") == Status.SLEEPING
                    if about:
                        yield sse(event.id, event.type, shown(service, uuid, event))
                        quiet_since = time.monotonic()
                    if not (down and event.type == "phase"):
                        continue
                if time.monotonic() - quiet_since >= heartbeat:
                    yield STILL_HERE
                    quiet_since = time.monotonic()
                    # The last event may be lost: Redis keeps a thousand.
                    check = True
                if check or down:
                    seen, rests = service.inbox.progress(uuid, message.id)
                    # Of a prompt that has finished since the log was read, the rest of its work is told first.
                    if rests or (seen.finished and over):
                        break
                    check = over = seen.finished
            message = service.inbox.get(uuid, message.id)
        if rests:
            yield sse(last, "held", message_of(uuid, message) | {"session": Status.SLEEPING, "detail": HELD_BACK})
        else:
            yield sse(last, "message", message_of(uuid, message))
    except (StateUnavailable, PromptNotFound) as error:
        log.info("event stream ended early: %s", error)


def shown(service: Core, uuid: str, event: SessionEvent) -> Mapping[str, Any]:
    """The data of an event in a stream. The log takes room in Redis: of a prompt it has only the id and the state. Its
    text, which may be long, is left to `GET …/messages/{message_id}`."""
    if event.type == "state":
        last = {"backup": event.data["backup"]} if "backup" in event.data else {}
        return {name: event.data.get(name) for name in ("status", "reason", "reason_code")} | last
    if event.type != "message":
        return event.data
    state, reason = State(event.data["state"]), event.data.get("reason", "")
    try:
        prompt = service.inbox.get(uuid, event.data["message_id"])
    except PromptNotFound:
        prompt = Prompt(id=event.data["message_id"], state=state)
    delivered_at = 0.0 if state is State.QUEUED else prompt.delivered_at
    processed_at = prompt.processed_at if state in FINISHED else 0.0
    then = replace(prompt, text="", state=state, reason=reason, delivered_at=delivered_at, processed_at=processed_at)
    return message_of(uuid, then)


def revoked(token: AccessToken | None, event: SessionEvent) -> bool:
    """Whether this event revokes the caller's session token; callers with an API key have none."""
    if token is None or event.type != REVOKED:
        return False
    return token.access_epoch < event.data["access_epoch"]


MESSAGE = MessageSchema()


def message_of(uuid: str, message: Prompt) -> dict[str, Any]:
    """A prompt in a stream."""
    shown: dict[str, Any] = MESSAGE.dump(fields_of(uuid, message))
    return shown


def by_parts(parts: Iterator[T], lines_of: Callable[[T], Iterable[str]]) -> Iterator[str]:
    """The lines of a stream about what grows in a workspace: those of each part; for one without any, that the stream
    is still there. The first part is read before the answer begins, so that an error is an answer."""
    told = begun(parts)

    def lines() -> Iterator[str]:
        try:
            for part in told:
                yield from list(lines_of(part)) or [STILL_HERE]
        except SessionError as error:
            log.info("event stream ended early: %s", error)

    return lines()


def sse(event_id: str, kind: str, data: Mapping[str, Any]) -> str:
    """One event in the wire format; JSON has no raw newline, so the data is one line."""
    return f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(dict(data))}\n\n"


def resume_point(last_event_id: str | None) -> str | None:
    """The header Last-Event-ID, checked; raises a 400."""
    if last_event_id is None:
        return None
    if not is_event_id(last_event_id):
        raise Problem(400, "invalid_request", "Last-Event-ID is not a valid event id.")
    return last_event_id
