"""The workspaces' door: the ingress asks here before it lets a request through, and for a page while nothing answers.

A process of its own serves it, at a port that only the ingress reaches: what it answers holds what an agent and an
editor are opened with, and no caller of the API may keep a workspace's visitors waiting.

It has no rate limit: every request for every workspace passes here from one address, the ingress's, which has limits
of its own. What it costs is bounded instead: one round trip to Redis, no call of the cluster. It is closed where
there is doubt: without Redis, without SECRET_KEY, for whatever is no workspace.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from flask import Response, current_app, g, request
from marshmallow import Schema, fields, validate

from app.api.audit import VISITOR, address_of
from app.api.blueprint import Blueprint
from app.api.context import KEYRING, core, request_id
from app.api.pages import Pages
from app.api.security import SESSION
from app.api.verdicts import RETRY_PATH, Outcome, Verdict, judge, judge_agent
from app.api.visits import Visit, from_nginx, from_traefik, target, told_address
from app.problems import Problem, problem_response
from app.secret_keys import Purpose
from app.sessions.audit import REFUSED, Act
from app.sessions.errors import StateUnavailable
from app.sessions.model import PHASES, Record, Status
from app.sessions.passes import COOKIE, Kind, Pass

blp = Blueprint("door", __name__, description="For the ingress: who gets into a workspace.")

back = Blueprint("return", __name__, description="Where nginx leads a visitor of a workspace: on the API's own host.")

PAGES = "door_pages"
SECRET_HEADER = "X-Workspace-Secret"
"""What the editor wants to be shown (scripts/editor/guard.js): the session's own secret, by each SECRET_KEY."""

STATUS_HEADER = "Workspace-Status"
"""On every answer that says that a workspace isn't up: the page tells it from those of the workspace by this."""

RETRY_AFTER = "1"
SAYS_WHY = frozenset({Status.CREATED, Status.WAKING, Status.FAILED})
"""The states whose reason is about the workspace's coming up."""

LOCAL_PHASES = ("enqueued", "started", "ready")
PHASE_NAMES = {
    "enqueued": "taken by a worker",
    "scheduled": "a machine is found",
    "volume": "its files are there",
    "image": "its image is there",
    "started": "the editor is started",
    "ready": "the editor answers",
}

REFUSALS = {
    Outcome.GONE: (404, "session_not_found", "There is no such workspace", "It was deleted, or never was."),
    Outcome.NO_PASS: (
        401,
        "unauthorized",
        "This workspace is not open to you",
        "Open it from where you found it: you get in with a fresh link. Programs need a session token.",
    ),
    Outcome.USED_LINK: (
        403,
        "link_used",
        "This link has been used, or is too old",
        "A link opens a workspace once, within seconds. Go back to where you found it, and ask for a new one.",
    ),
    Outcome.FOREIGN: (
        403,
        "foreign_origin",
        "This was asked by another page",
        "Only the workspace's own pages may.",
    ),
}

NGINX = {302: 401, 303: 401, 503: 401, 401: 403, 404: 403}
"""What is said to nginx instead: `auth_request` knows 2xx, 401 and 403, and takes all else for an error. 401 is for
whatever goes on by itself: its `auth-signin` leads to /auth/again from there, and brings the cookie along."""


class VerifyQuery(Schema):
    """`host` is nginx's `$host`: of the server by which it chose where the request goes."""

    proxy = fields.String(load_default="traefik", validate=validate.OneOf(["traefik", "nginx"]))
    host = fields.String(load_default="")


@dataclass(frozen=True)
class Visitor:
    """Who is named in the log line of a visit."""

    name: str


class AgainQuery(Schema):
    rd = fields.String(required=True)


@blp.route("/auth/verify", methods=["GET"])
@blp.arguments(VerifyQuery, location="query")
@blp.response(200, description="Let it through, with the headers of this answer instead of its own.")
@blp.alt_response(302, description="The link was good.")
@blp.alt_response(303, description="The workspace is being woken.")
@blp.operation("verify", 400, 401, 403, 404, anonymous=True)
def verify(query: dict[str, str]) -> Response:
    """Whether a visitor gets through to a workspace; for the ingress, which says in X-Forwarded-* whose request it
    is (`proxy=nginx`: in X-Original-*)."""
    settings = core().settings
    nginx = query["proxy"] == "nginx"
    visit = from_nginx(request.headers, settings, query["host"]) if nginx else from_traefik(request.headers, settings)
    if visit is None:
        raise Problem(400, "no_visit", "This is for the ingress, which tells of a workspace's visitor.")
    g.principal = Visitor(f"visitor:{visit.uuid}")
    now = time.time()
    held = held_by(visit, now)
    response = at_agent(visit, held, now) if visit.agent else at_workspace(visit, held, now)
    if nginx:
        response.status_code = NGINX.get(response.status_code, response.status_code)
    return response


@blp.route("/auth/waking", methods=["GET"])
@blp.response(503, description="The workspace is up and not reached yet.")
@blp.operation("waking", anonymous=True)
def waking() -> Response:
    """What the ingress shows where it reaches no workspace: the same page as while it wakes. It knows nothing of
    the session, and tells nothing."""
    g.expected = True
    if "text/html" in request.headers.get("Accept", ""):
        return waking_page("unknown", {}, 0, 0, "")
    return not_up("unknown", {})


@back.route("/auth/again", methods=["GET"])
@back.arguments(AgainQuery, location="query")
@back.response(302, description="Back there without the link.")
@back.alt_response(503, description="The workspace is being woken; the page goes back there by itself.")
@back.operation("again", 400, anonymous=True)
def again(query: dict[str, str]) -> Response:
    """Where nginx sends a visitor (`auth-signin`) whose link was good: back without it; and whose workspace is being
    woken: to a page that goes back every second. It knows nothing of the session, and tells nothing."""
    goal = target(query["rd"], core().settings)
    if goal is None:
        raise Problem(400, "no_visit", "This leads back to workspaces only.")
    g.expected = True
    url = core().settings.workspace_url(goal.uuid) + goal.without_link
    if goal.has_link and not goal.agent:
        return Response(status=302, headers={"Location": url, "Referrer-Policy": "no-referrer"})
    if goal.agent or "text/html" not in request.headers.get("Accept", ""):
        return not_up("unknown", {})
    headers = {"Retry-After": RETRY_AFTER, STATUS_HEADER: "unknown"}
    text = "This page goes on to it by itself. If it stays for long, ask where you found the workspace what is wrong."
    return pages().show("again.html", 503, headers, title="Waking the workspace", text=text, back=url)


def held_by(visit: Visit, now: float) -> Pass | None:
    """The pass a visitor brings, if it is one: what is shown on purpose goes before what a browser adds."""
    passes = core().passes
    token = passes.read(Kind.TOKEN, visit.bearer, now) or passes.read(Kind.PROBE, visit.bearer, now)
    return token or (None if visit.agent else passes.read(Kind.COOKIE, visit.cookie, now))


def at_workspace(visit: Visit, held: Pass | None, now: float) -> Response:
    """The answer to a visit of the workspace itself."""
    try:
        look = core().links.look(visit.uuid, visit.link)
        verdict = judge(visit, look.record, held, core().settings.workspace_url(visit.uuid), look.linked, now)
        return answered(visit, look.record, verdict, now)
    except StateUnavailable:
        if not visit.page:
            raise
        title, text = "The workspaces can't be reached for the moment", "Load this page again in a few seconds."
        return pages().show("page.html", 503, {"Retry-After": RETRY_AFTER}, title=title, text=text)


def at_agent(visit: Visit, held: Pass | None, now: float) -> Response:
    """The answer to a visit of an agent; what opens its door goes along in place of what opened this one."""
    principal = current_app.extensions[KEYRING].find(visit.api_key) if visit.api_key else None
    record = core().links.look(visit.uuid).record
    keyed = principal if principal and record and principal.may_see(record.user_id) else None
    verdict = judge_agent(record, held, keyed is not None)
    if verdict.outcome is not Outcome.PASS:
        return answered(visit, record, verdict, now)
    if not core().settings.keys_for(Purpose.AGENT):
        raise Problem(503, "agent_not_configured", "There are no agents: SECRET_KEY is not set.")
    if visit.acts:
        # Straight to the agent, past web, which would note it.
        action = "prompt" if visit.path.endswith("/chat") else "agent_call"
        by, role = (keyed.name, keyed.role) if keyed else (f"session:{visit.uuid}", SESSION)
        tell(visit, record, Act(action=action, by=by, role=role, status=200, reason="at its agent"))
    through = let_through(visit)
    through.headers["Authorization"] = f"Bearer {core().secrets.doors(visit.uuid, record.epoch if record else 0)[0]}"
    return through


def answered(visit: Visit, record: Record | None, verdict: Verdict, now: float) -> Response:
    """Do what the verdict asks for, and say it."""
    if verdict.wake:
        record = core().sessions.wake(visit.uuid, request_id())
    note(visit, record, verdict)
    if verdict.outcome in REFUSALS or record is None:
        return refusal(visit, verdict.outcome)
    url = core().settings.workspace_url(visit.uuid)
    match verdict.outcome:
        case Outcome.ENTER | Outcome.TIDY:
            response = Response(status=302, headers={"Location": url + visit.without_link})
            response.headers["Referrer-Policy"] = "no-referrer"
        case Outcome.RETRY:
            return Response(status=303, headers={"Location": f"{url}/"})
        case Outcome.NOT_UP:
            return starting(visit, record, now)
        case _:
            response = let_through(visit)
            response.headers[SECRET_HEADER] = " ".join(core().secrets.editors(visit.uuid))
    if verdict.use:
        core().signals.note(visit.uuid, "browser", now)
    if verdict.renew or verdict.outcome is Outcome.ENTER:
        set_cookie(response, record, now)
    return response


def note(visit: Visit, record: Record | None, verdict: Verdict) -> None:
    """Tell the audit who came in by a link, woke a workspace or was refused; of all other visits it knows nothing."""
    status, reason, *_ = REFUSALS.get(verdict.outcome, (0, ""))
    if verdict.outcome is Outcome.ENTER:
        tell(visit, record, by_visitor("enter", 302, ""), repeatable=False)
    elif verdict.wake:
        pressed = verdict.outcome is Outcome.RETRY
        tell(visit, record, by_visitor("wake", 303 if pressed else 503, "its button" if pressed else "its address"))
    elif status in REFUSED:
        tell(visit, record, by_visitor("visit", status, reason))


def by_visitor(action: str, status: int, reason: str) -> Act:
    return Act(action=action, by=VISITOR, role=VISITOR, status=status, reason=reason)


def tell(visit: Visit, record: Record | None, act: Act, *, repeatable: bool = True) -> None:
    """Have an entry in the audit about a visit. A visitor may come without end, but by a link, which a key has made."""
    told = replace(
        act,
        uuid=visit.uuid,
        user_id=record.user_id if record else "",
        address=address_of(told_address(request.headers, core().settings)),
        request_id=request_id(),
    )
    core().audit.note(told, repeatable=repeatable)


def let_through(visit: Visit) -> Response:
    """200; the ingress replaces the visitor's Cookie, Authorization, X-API-Key and X-Workspace-Secret by those here, or
    by nothing."""
    return Response(status=200, headers={"Cookie": visit.other_cookies} if visit.other_cookies else {})


def set_cookie(response: Response, record: Record, now: float) -> None:
    text, issued = core().passes.issue(Kind.COOKIE, record.uuid, record.door, now)
    age = int(issued.expires_at - issued.issued_at)
    response.set_cookie(COOKIE, text, max_age=age, path="/", secure=True, httponly=True, samesite="Lax")


def refusal(visit: Visit, outcome: Outcome) -> Response:
    status, code, title, text = REFUSALS[outcome]
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    if visit.page:
        return pages().show("page.html", status, headers, title=title, text=text)
    return problem_response(Problem(status, code, f"{title}. {text}", headers=headers))


def starting(visit: Visit, record: Record, now: float) -> Response:
    """The answer for a workspace that isn't up: how far it is."""
    # Tabs that were left open ask for sleeping workspaces all day.
    g.expected = True
    elapsed = max(0, round((now - record.requested_at) * 1000)) if record.requested_at else 0
    reason = record.reason if record.status in SAYS_WHY else ""
    if visit.page:
        return waking_page(record.status, record.phases, elapsed, core().fleet.usual_start("wake") or 0, reason)
    return not_up(record.status, record.phases, elapsed, reason)


def waking_page(status: str, phases: Any, elapsed: int, estimate: int, reason: str) -> Response:
    shown = PHASES if core().settings.runtime == "kubernetes" else LOCAL_PHASES
    failed = status == Status.FAILED
    return pages().show(
        "waking.html",
        HTTPStatus.SERVICE_UNAVAILABLE,
        {"Retry-After": RETRY_AFTER, STATUS_HEADER: status},
        title="The workspace did not start" if failed else "Waking the workspace",
        text="" if failed else "This page goes on to it by itself.",
        failed=failed,
        state=status,
        phases=[(name, PHASE_NAMES[name], phases.get(name)) for name in shown],
        elapsed_ms=elapsed,
        estimate_ms=estimate,
        reason=reason,
        retry=RETRY_PATH,
    )


def not_up(status: str, phases: Any, elapsed: int = 0, reason: str = "") -> Response:
    text = "The workspace is not up now. POST /session/{uuid}/wake wakes it, and so does a person who opens it."
    more = {"session_status": status, "phases": dict(phases), "elapsed_ms": elapsed, "reason": reason}
    headers = {"Retry-After": RETRY_AFTER, STATUS_HEADER: status}
    return problem_response(Problem(503, "workspace_not_up", text, headers=headers, more=more))


def pages() -> Pages:
    found: Pages = current_app.extensions[PAGES]
    return found
