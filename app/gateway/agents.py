"""The calls of agents: to announce their address, report their work, and ask which prompts are unfinished."""

from __future__ import annotations

import logging
import time
from typing import Any

from flask import Blueprint, Response, g, jsonify

from app.agent.protocol import PROCESSED, TOKEN, Event, Failure
from app.core.errors import IllegalState, InvalidRequest
from app.core.prompts.inbox import FINISHED, ID_PATTERN
from app.core.redis import task_queue
from app.core.sessions.model import UP, Record
from app.core.untrusted_json import SMALL
from app.gateway.activity_report import QuietLimits, read_activity, read_resources, read_services
from app.gateway.parts import Gateway, gateway, session
from app.gateway.reports import Report, fitted, shown
from app.http.bodies import json_body

log = logging.getLogger(__name__)

blp = Blueprint("agents", __name__, url_prefix="/agent/v1")

HELLO_MAX = 4_096
"""Bytes of an agent's hello: its address and two names."""

REPORT_MAX = 4_194_304
"""Bytes of a report, a response included."""

REPORT_VALUES = 40_000
"""JSON values in a report: its events, each with the arguments of a tool call."""

ACTIVITY_MAX = 4_096
"""Bytes of a report of activity: a few names and numbers, and those of 16 services."""

UNFINISHED_MAX = 131_072
"""Bytes of a question about unfinished prompts."""

UNFINISHED_MOST = 1_000


@blp.post("/hello")
def hello() -> Response:
    """Announce the agent's address; its prompts are delivered from now on, without waiting for the cluster."""
    parts, record = gateway(), session()
    document = json_body(HELLO_MAX)
    texts = [document.get(name, "") for name in ("address", "name", "boot")] if isinstance(document, dict) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest("`address`, `name` and `boot` must be strings.")
    address, name, boot = texts
    if not parts.core.inbox.agent_here(record.uuid, address, name, boot, time.time()):
        raise IllegalState(f"Session {record.uuid} is {record.status}; an agent must not run now.")
    # Both are throttled, for an agent that calls on and on. A notice lasts an hour; the sweep makes up for deliveries
    # that are left out.
    restored = record.files_of and record.task == task_queue.RESTORE
    if restored and parts.notices.due(record.uuid, parts.ticks()):
        parts.core.tasks.send(task_queue.TELL_FILES, record.uuid, request_id=g.request_id)
    if parts.core.inbox.delivery_due(record.uuid) and parts.deliveries.due(record.uuid, parts.ticks()):
        parts.core.delivery.request(record.uuid, g.request_id)
    return Response(status=204)


@blp.post("/events")
def events() -> Response:
    """Report the agent's work. A repeated report only shows its events twice."""
    parts, record = gateway(), session()
    g.routine = True
    report = Report.from_json(json_body(REPORT_MAX, REPORT_VALUES))
    if report.busy and record.status in UP:
        parts.core.activity.note(record.uuid, "turn", time.time())
    for run in report.runs():
        if isinstance(run, Event):
            _finish(parts, record, run)
        else:
            parts.core.events.append_all(record.uuid, [(event.type, shown(event)) for event in run])
            _note_first_tokens(parts, record, run)
    return Response(status=204)


@blp.post("/unfinished")
def unfinished() -> Response:
    """Say which of the prompts on the agent's disk are unfinished: its volume may have been restored from a backup."""
    parts, record = gateway(), session()
    ages = _ages(json_body(UNFINISHED_MAX, 2 * UNFINISHED_MOST + SMALL))
    since = time.time() - parts.core.store.remembers_since()
    states = dict(zip(ages, parts.core.inbox.states(record.uuid, list(ages)), strict=True))
    known = [message_id for message_id, state in states.items() if state is not None and state not in FINISHED]
    # Queued before this Redis began to remember. A younger unknown prompt has ended, and its state has expired.
    unknown = [message_id for message_id, state in states.items() if state is None and ages[message_id] > since]
    return jsonify({"unfinished": known, "unknown": unknown})


@blp.post("/activity")
def activity() -> Response:
    """Report activity in the workspace apart from the agent's own work, what the workspace uses, and its services.
    `again` asks to repeat the activity in the next report: this one came too soon after another to be written.
    `opened_ports` are those whose services are to run while the workspace does."""
    parts, record = gateway(), session()
    g.routine = True
    document, now = json_body(ACTIVITY_MAX), time.time()
    settings = parts.core.settings
    limits = QuietLimits(settings.quiet_job_max, settings.keepalive_max)
    signals, resources = read_activity(document, now, limits), read_resources(document)
    services = read_services(document)
    if record.status not in UP:
        return jsonify({"again": False, "opened_ports": []})
    if resources is not None:
        parts.core.resources.note(record.uuid, resources, now)
    if services is not None:
        parts.core.store.note_services(record.uuid, services)
    again = bool(signals) and not parts.core.activity.note_all(record.uuid, signals)
    return jsonify({"again": again, "opened_ports": [each.port for each in record.opened_ports]})


def _ages(document: Any) -> dict[str, float]:
    """The valid ids in `{"prompts": {id: seconds since it was queued}}`; raises `InvalidRequest`."""
    asked = document.get("prompts") if isinstance(document, dict) else None
    if not isinstance(asked, dict) or len(asked) > UNFINISHED_MOST:
        raise InvalidRequest(f"`prompts` must be an object of at most {UNFINISHED_MOST} ids and their ages in seconds.")
    return {
        message_id: age if isinstance(age, int | float) and not isinstance(age, bool) else 0.0
        for message_id, age in asked.items()
        if ID_PATTERN.fullmatch(message_id)
    }


def _note_first_tokens(parts: Gateway, record: Record, events: list[Event]) -> None:
    """Note that answers have begun: one call of Redis for each prompt that this process sees."""
    for message_id in dict.fromkeys(event.message_id for event in events if event.type == TOKEN):
        if parts.begun_answers.due(f"{record.uuid}:{message_id}", parts.ticks()):
            parts.core.inbox.answer_begins(record.uuid, message_id, time.time())


def _finish(parts: Gateway, record: Record, event: Event) -> None:
    """Store the end of a prompt; the inbox adds it to the event stream."""
    inbox, now, response = parts.core.inbox, time.time(), fitted(event.data.get("response", {}))
    if event.type == PROCESSED:
        known = inbox.finish(record.uuid, event.message_id, response=response, now=now)
    else:
        reason = event.data["reason"] or "The agent gave no reason."
        code = Failure.of(event.data.get("code"))
        known = inbox.finish(record.uuid, event.message_id, response=response, reason=reason, code=code, now=now)
    if known:
        log.info("message %s", event.type, extra={"uuid": record.uuid, "message_id": event.message_id})
