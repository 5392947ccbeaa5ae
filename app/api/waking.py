"""Answers for a workspace that isn't up, to those who may enter it: a page for a person, which goes on to the workspace
by itself, and a problem document for a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import cast

from flask import Response, g

from app.api.current import core
from app.api.reasons import OPENING, Files, Told, for_people, silent_port, told
from app.api.refusals import pages
from app.core.access.access_policy import RETRY_PATH
from app.core.access.forwarded_request import ForwardedRequest
from app.core.redis.task_queue import START_KINDS
from app.core.sessions.model import PHASES, Record, Status, Tier
from app.http.problems import Problem, problem_response

STATUS_HEADER = "Workspace-Status"
"""On each answer that says that a workspace isn't up. By it the waking page tells our answers from the workspace's."""

RETRY_AFTER = "1"
SAYS_WHY = frozenset({Status.CREATED, Status.WAKING, Status.FAILED})
"""The states whose reason is about the workspace's start."""

LOCAL_PHASES = ("enqueued", "started", "ready")
PHASE_NAMES = {
    "enqueued": "Getting ready",
    "scheduled": "Finding a machine",
    "volume": "Attaching your files",
    "image": "Loading the software",
    "started": "Starting the editor",
    "ready": "Opening the editor",
}
"""What is being done until the phase is reached."""


@dataclass(frozen=True)
class NotUp:
    """A workspace that isn't up. `phases` are the steps of its start that are done, `elapsed_ms` is since when it
    starts, 0 for not known; `port` is that of it where nothing answers, 0 for none."""

    status: str
    words: Told
    phases: Mapping[str, int] = field(default_factory=dict)
    elapsed_ms: int = 0
    code: str = ""
    reason: str = ""
    port: int = 0


UNKNOWN = NotUp("unknown", OPENING)
"""One of which this process knows nothing."""


def silent(port: int) -> NotUp:
    """A port where nothing answers, of a workspace of which this process knows nothing."""
    return NotUp(UNKNOWN.status, silent_port(port), port=port)


def starting(forwarded: ForwardedRequest, record: Record, now: float) -> Response:
    """The answer for a workspace that isn't up: how far its start is."""
    # Not worth a log line: tabs left open ask for sleeping workspaces all day.
    g.expected = True
    elapsed = max(0, round((now - record.requested_at) * 1000)) if record.requested_at else 0
    code, reason = (record.reason_code, record.reason) if record.status in SAYS_WHY else ("", "")
    files = files_of(record)
    words = told(record.status, record.phases, code, reason, files, record.brings)
    state = NotUp(record.status, words, record.phases, elapsed, code, reason)
    if not forwarded.wants_page:
        return not_up(state)
    # Other wakes don't tell how long one from the archive takes.
    usual = None if files is Files.ARCHIVED else core().counters.usual_start(START_KINDS.get(record.task, "wake"))
    return waking_page(state, usual or 0)


def files_of(record: Record) -> Files:
    """Where the session's files are."""
    if record.tier is Tier.ARCHIVED:
        return Files.ARCHIVED
    return Files.RESTORED if record.restore_from or record.rollback_to else Files.THERE


def waking_page(state: NotUp, estimate_ms: int = 0) -> Response:
    """The page: what happens, the steps of the start, and a button where it has ended. `estimate_ms` is how long such a
    start usually takes, 0 for not known."""
    return pages().show(
        "waking.html",
        HTTPStatus.SERVICE_UNAVAILABLE,
        {"Retry-After": RETRY_AFTER, STATUS_HEADER: state.status},
        title=state.words.title,
        text=state.words.text,
        detail=state.words.detail,
        state=state.status,
        steps=steps(state.status, state.phases),
        shows_steps=not state.port and not (state.status == Status.FAILED and PHASES[-1] in state.phases),
        elapsed_ms=state.elapsed_ms,
        estimate_ms=estimate_ms,
        retry=RETRY_PATH,
    )


def back_to(url: str) -> Response:
    """The page at nginx's place of return, which goes back to the workspace's address every second."""
    headers = {"Retry-After": RETRY_AFTER, STATUS_HEADER: UNKNOWN.status}
    text = f"{OPENING.text} If nothing happens for long, tell the people who run this service."
    return pages().show("again.html", 503, headers, title=OPENING.title, text=text, back=url)


@dataclass(frozen=True)
class Step:
    """A step of a start as the waking page shows it (waking.js changes it): `state` is done, now, failed or "", `took`
    how long it took, "" while it isn't done."""

    name: str
    words: str
    state: str
    took: str


def steps(status: str, phases: Mapping[str, int]) -> list[Step]:
    """The steps of a start, of which the first that isn't done is under way, or has failed."""
    shown, reached = [], 0
    then = {Status.FAILED: "failed", Status.SLEEPING: ""}.get(cast(Status, status), "now")
    for name in PHASES if core().settings.runtime == "kubernetes" else LOCAL_PHASES:
        ms = phases.get(name)
        took = "" if ms is None else f"{(ms - reached) / 1000:.1f} s"
        shown.append(Step(name, PHASE_NAMES[name], then if ms is None else "done", took))
        then, reached = ("", reached) if ms is None else (then, ms)
    return shown


def not_up(state: NotUp) -> Response:
    """The problem document; its `for_people` is what the page says."""
    if state.port:
        code, text = "port_not_listening", f"Nothing answers at port {state.port} of the workspace."
    else:
        code = "workspace_not_up"
        text = (
            "The workspace is not running. POST /session/{uuid}/wake wakes it; so does a person who opens its address."
        )
    more = {
        "session_status": state.status,
        "phases": dict(state.phases),
        "elapsed_ms": state.elapsed_ms,
        "reason": for_people(state.reason),
        "reason_code": state.code or None,
        "for_people": asdict(state.words),
    }
    headers = {"Retry-After": RETRY_AFTER, STATUS_HEADER: state.status}
    return problem_response(Problem(503, code, text, headers=headers, more=more))
