"""Answers for a workspace that isn't up, to those who may enter it: a page for a person, which goes on to the workspace
by itself, and a problem document for a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import cast

from flask import Response, g

from app.api.context import core
from app.api.reasons import WAKING, for_people, told
from app.api.refusals import pages
from app.core.access.access_policy import RETRY_PATH
from app.core.access.forwarded_request import ForwardedRequest
from app.core.sessions.model import PHASES, Record, Status, Tier
from app.problems import Problem, problem_response

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


def starting(forwarded: ForwardedRequest, record: Record, now: float) -> Response:
    """The answer for a workspace that isn't up: how far its start is."""
    # Not worth a log line: tabs left open ask for sleeping workspaces all day.
    g.expected = True
    elapsed = max(0, round((now - record.requested_at) * 1000)) if record.requested_at else 0
    code, reason = (record.reason_code, record.reason) if record.status in SAYS_WHY else ("", "")
    archived = record.tier is Tier.ARCHIVED
    if forwarded.wants_page:
        estimate = core().counters.usual_start("restore" if archived else "wake") or 0
        return waking_page(record.status, record.phases, elapsed, estimate, code, reason, archived=archived)
    return not_up(record.status, record.phases, elapsed, code, reason, archived=archived)


def waking_page(
    status: str,
    phases: Mapping[str, int],
    elapsed: int,
    estimate: int,
    code: str = "",
    reason: str = "",
    *,
    archived: bool = False,
) -> Response:
    """The page: what happens, the steps of the start, and a button where it has ended. `elapsed` and `estimate` are in
    ms, 0 for not known."""
    words = told(status, phases, code, reason, archived=archived)
    return pages().show(
        "waking.html",
        HTTPStatus.SERVICE_UNAVAILABLE,
        {"Retry-After": RETRY_AFTER, STATUS_HEADER: status},
        title=words.title,
        text=words.text,
        detail=words.detail,
        state=status,
        steps=steps(status, phases),
        steps_are_over=status == Status.FAILED and PHASES[-1] in phases,
        elapsed_ms=elapsed,
        estimate_ms=estimate,
        retry=RETRY_PATH,
    )


def back_to(url: str) -> Response:
    """The page at nginx's place of return, which goes back to the workspace's address every second."""
    headers = {"Retry-After": RETRY_AFTER, STATUS_HEADER: "unknown"}
    text = f"{WAKING.text} If nothing happens for long, tell the people who run this service."
    return pages().show("again.html", 503, headers, title=WAKING.title, text=text, back=url)


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


def not_up(
    status: str,
    phases: Mapping[str, int],
    elapsed: int = 0,
    code: str = "",
    reason: str = "",
    *,
    archived: bool = False,
) -> Response:
    """The problem document; its `for_people` is what the page says."""
    text = "The workspace is not running. POST /session/{uuid}/wake wakes it; so does a person who opens its address."
    more = {
        "session_status": status,
        "phases": dict(phases),
        "elapsed_ms": elapsed,
        "reason": for_people(reason),
        "reason_code": code or None,
        "for_people": asdict(told(status, phases, code, reason, archived=archived)),
    }
    headers = {"Retry-After": RETRY_AFTER, STATUS_HEADER: status}
    return problem_response(Problem(503, "workspace_not_up", text, headers=headers, more=more))
