"""What agents want of the manager: to say where they are, to tell of their work, to learn what of it is still open."""

from __future__ import annotations

import logging
import time
from typing import Any

from flask import Blueprint, Response, g, jsonify

from app.gateway.activity import read_activity
from app.gateway.bodies import json_body, nothing
from app.gateway.context import Gateway, gateway, session
from app.gateway.reports import PROCESSED, Event, Report, fitted
from app.sessions import queue
from app.sessions.errors import IllegalState, InvalidRequest
from app.sessions.foreign_json import SMALL
from app.sessions.inbox import FINISHED, ID_PATTERN
from app.sessions.model import UP, Record

log = logging.getLogger(__name__)

blp = Blueprint("agents", __name__, url_prefix="/agent/v1")

HELLO_MAX = 4_096
"""Bytes of an agent's first words: where it is, and two names."""

REPORT_MAX = 4_194_304
"""Bytes of a report: what an agent tells in one go, a response included."""

REPORT_VALUES = 40_000
"""Values in one: a thousand events, each with the arguments of a call."""

ACTIVITY_MAX = 4_096
"""Bytes of a report of activity: a few names and numbers."""

UNFINISHED_MAX = 131_072
"""Bytes of a question about the prompts an agent holds."""

UNFINISHED_MOST = 1_000


@blp.post("/hello")
def hello() -> Response:
    """An agent says where it listens; its prompts are delivered from now on, without waiting for the cluster."""
    parts, record = gateway(), session()
    said = json_body(HELLO_MAX)
    texts = [said.get(name, "") for name in ("address", "name", "boot")] if isinstance(said, dict) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest("An agent says its address, its name and its boot, as texts.")
    address, name, boot = texts
    if not parts.core.inbox.agent_here(record.uuid, address, name, boot, time.time()):
        raise IllegalState(f"Session {record.uuid} is {record.status}; its agent is not wanted now.")
    # An agent that calls on and on gets no more deliveries than one that calls once; the sweep makes up for it.
    if parts.core.inbox.waiting(record.uuid) and parts.deliveries.due(record.uuid, parts.ticks()):
        parts.core.tasks.send(queue.DELIVER, record.uuid, request_id=g.request_id)
    return nothing()


@blp.post("/events")
def events() -> Response:
    """An agent tells of its work. Repeating a report does no harm but to show its events twice."""
    parts, record = gateway(), session()
    g.routine = True
    report = Report.from_json(json_body(REPORT_MAX, REPORT_VALUES))
    if report.busy and record.status in UP:
        parts.core.signals.note(record.uuid, "turn", time.time())
    for run in report.runs():
        if isinstance(run, Event):
            _finish(parts, record, run)
        else:
            parts.core.events.append_all(record.uuid, [(event.type, event.shown()) for event in run])
    return nothing()


@blp.post("/unfinished")
def unfinished() -> Response:
    """An agent asks which of the prompts on its disk have not ended: it may have been restored as it once was."""
    parts, record = gateway(), session()
    ages = _ages(json_body(UNFINISHED_MAX, 2 * UNFINISHED_MOST + SMALL))
    since = time.time() - parts.core.store.remembers_since()
    states = dict(zip(ages, parts.core.inbox.states(record.uuid, list(ages)), strict=True))
    known = [message_id for message_id, state in states.items() if state is not None and state not in FINISHED]
    # Taken before what this Redis remembers; one it should remember has ended, and was forgotten after its time.
    unknown = [message_id for message_id, state in states.items() if state is None and ages[message_id] > since]
    return jsonify({"unfinished": known, "unknown": unknown})


@blp.post("/activity")
def activity() -> Response:
    """An agent tells what goes on in the workspace beside its own work. `again` asks for the same once more, in its
    next report: this one came too soon after another to be written."""
    parts, record = gateway(), session()
    g.routine = True
    signals = read_activity(json_body(ACTIVITY_MAX), time.time())
    if not signals or record.status not in UP:
        return jsonify({"again": False})
    return jsonify({"again": not parts.core.signals.note_all(record.uuid, signals)})


def _ages(document: Any) -> dict[str, float]:
    """The prompts in `{"prompts": {id: seconds since it was taken}}`, without what is none; raises `InvalidRequest`."""
    asked = document.get("prompts") if isinstance(document, dict) else None
    if not isinstance(asked, dict) or len(asked) > UNFINISHED_MOST:
        raise InvalidRequest(f"An agent asks about up to {UNFINISHED_MOST} prompts, and says how old they are.")
    return {
        message_id: age if isinstance(age, int | float) and not isinstance(age, bool) else 0.0
        for message_id, age in asked.items()
        if ID_PATTERN.fullmatch(message_id)
    }


def _finish(parts: Gateway, record: Record, event: Event) -> None:
    """Note how a message ended; the inbox tells the event stream."""
    inbox, now = parts.core.inbox, time.time()
    if event.type == PROCESSED:
        known = inbox.finish(record.uuid, event.message_id, response=fitted(event.data["response"]), now=now)
    else:
        reason = event.data["reason"] or "The agent gave no reason."
        known = inbox.finish(record.uuid, event.message_id, reason=reason, now=now)
    log.info("message %s", event.type, extra={"uuid": record.uuid, "message_id": event.message_id, "new": known})
