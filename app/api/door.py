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
from app.api.landing import ENTERED, landing, with_parameter
from app.api.refusals import BY_NGINX, NEXT, REFUSALS, led_on, pages, refusal, to_login
from app.api.security import SESSION
from app.api.verdicts import RETRY_PATH, Outcome, Verdict, judge, judge_agent
from app.api.visits import Frame, Visit, from_nginx, from_traefik, target, told_address
from app.problems import Problem, problem_response
from app.secret_keys import Purpose
from app.sessions.audit import REFUSED, Act
from app.sessions.errors import StateUnavailable
from app.sessions.model import PHASES, Record, Status
from app.sessions.passes import COOKIE, FRAME_COOKIE, Kind, Pass

blp = Blueprint("door", __name__, description="For the ingress: who gets into a workspace.")

back = Blueprint("return", __name__, description="Where nginx leads a visitor of a workspace: on the API's own host.")

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

NGINX = {302: 401, 303: 401, 503: 401, 401: 403, 404: 403}
"""What is said to nginx instead: `auth_request` knows 2xx, 401 and 403, and takes all else for an error. 401 is for
whatever goes on by itself: its `auth-signin` leads to /auth/again from there, and brings the cookie along. Where that
says why (`next`), 401 is for what a person is to be shown or led to as well."""


class VerifyQuery(Schema):
    """`host` is nginx's `$host`: of the server by which it chose where the request goes."""

    proxy = fields.String(load_default="traefik", validate=validate.OneOf(["traefik", "nginx"]))
    host = fields.String(load_default="")


@dataclass(frozen=True)
class Visitor:
    """Who is named in the log line of a visit."""

    name: str


class AgainQuery(Schema):
    """`next` is what forward-auth said in its answer to nginx, "" for nothing."""

    rd = fields.String(required=True)
    next = fields.String(load_default="", validate=validate.OneOf(["", *sorted(BY_NGINX)]))


@blp.route("/auth/verify", methods=["GET"])
@blp.arguments(VerifyQuery, location="query")
@blp.response(200, description="Let it through, with the headers of this answer instead of its own.")
@blp.alt_response(302, description="The link was good; or the product is to ask who it is.")
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
    shown = held_by(visit, now)
    response = at_agent(visit, shown, now) if visit.agent else at_workspace(visit, shown, now)
    if nginx:
        response.status_code = for_nginx(response, settings.nginx_says_why())
    else:
        response.headers.pop(NEXT, None)
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
@back.alt_response(401, description="The page that says why the workspace does not open.")
@back.alt_response(403, description="The same, where another page shows it in a frame.")
@back.alt_response(503, description="The workspace is being woken; the page goes back there by itself.")
@back.operation("again", 400, anonymous=True)
def again(query: dict[str, str]) -> Response:
    """Where nginx sends a visitor (`auth-signin`) whose link was good: back without it; whose workspace is being woken:
    to a page that goes back every second; and who has no pass: to LOGIN_URL. It knows nothing of the session, and tells
    nothing."""
    goal = target(query["rd"], core().settings)
    if goal is None:
        raise Problem(400, "no_visit", "This leads back to workspaces only.")
    g.expected = True
    if query["next"] and not goal.agent:
        return led_on(Outcome(query["next"]), goal)
    url = core().settings.workspace_url(goal.uuid) + goal.without_link
    if (goal.has_link or goal.entered) and not goal.agent:
        in_frame = request.headers.get("Sec-Fetch-Dest") == "iframe"
        return without_link(url, entered=goal.has_link, in_frame=in_frame)
    if goal.agent or "text/html" not in request.headers.get("Accept", ""):
        return not_up("unknown", {})
    headers = {"Retry-After": RETRY_AFTER, STATUS_HEADER: "unknown"}
    text = "This page goes on to it by itself. If it stays for long, ask where you found the workspace what is wrong."
    return pages().show("again.html", 503, headers, title="Waking the workspace", text=text, back=url)


def for_nginx(response: Response, says_why: bool) -> int:
    """The status nginx is given in place of the response's own. `says_why`: whether its redirect does."""
    if NEXT in response.headers:
        return 401 if says_why else 403
    return NGINX.get(response.status_code, response.status_code)


def without_link(url: str, *, entered: bool, in_frame: bool) -> Response:
    """The way on to the address without its link. Where it matters whether the browser keeps the cookie it was given
    with this, the address says that it was (`entered`) until the browser comes with it."""
    marked = entered and (in_frame or bool(core().settings.login_url))
    response = Response(status=302, headers={"Location": with_parameter(url, ENTERED) if marked else url})
    # A browser on its way through redirects still names the page it came from; by that a frame is known.
    response.headers["Referrer-Policy"] = "strict-origin" if in_frame else "no-referrer"
    return response


def held_by(visit: Visit, now: float) -> tuple[Pass, ...]:
    """The passes a visitor brings: what is shown on purpose, or else what a browser adds."""
    passes = core().passes
    token = passes.read(Kind.TOKEN, visit.bearer, now) or passes.read(Kind.PROBE, visit.bearer, now)
    if token or visit.agent:
        return (token,) if token else ()
    read = (passes.read(Kind.COOKIE, visit.cookie, now), passes.read(Kind.FRAME, visit.frame_cookie, now))
    return tuple(each for each in read if each)


def at_workspace(visit: Visit, shown: tuple[Pass, ...], now: float) -> Response:
    """The answer to a visit of the workspace itself."""
    settings = core().settings
    try:
        look = core().links.look(visit.uuid, visit.link)
        own, sign_in = settings.workspace_url(visit.uuid), bool(settings.login_url)
        verdict = judge(visit, look.record, shown, own, look.linked, now, sign_in=sign_in)
        return answered(visit, look.record, verdict, now)
    except StateUnavailable:
        if not visit.page:
            raise
        title, text = "The workspaces can't be reached for the moment", "Load this page again in a few seconds."
        return pages().show("page.html", 503, {"Retry-After": RETRY_AFTER}, title=title, text=text)


def at_agent(visit: Visit, shown: tuple[Pass, ...], now: float) -> Response:
    """The answer to a visit of an agent; what opens its door goes along in place of what opened this one."""
    principal = current_app.extensions[KEYRING].find(visit.api_key) if visit.api_key else None
    record = core().links.look(visit.uuid).record
    keyed = principal if principal and record and principal.may_see(record.user_id) else None
    verdict = judge_agent(record, shown[0] if shown else None, keyed is not None)
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
    if verdict.outcome is Outcome.SIGN_IN:
        return to_login(visit.uuid, landing(visit.path, visit.query), visit.sent)
    if verdict.outcome in REFUSALS or record is None:
        return refusal(visit, verdict.outcome)
    url = core().settings.workspace_url(visit.uuid)
    match verdict.outcome:
        case Outcome.ENTER | Outcome.TIDY:
            entered, in_frame = verdict.outcome is Outcome.ENTER, visit.frame is Frame.NAMED
            response = without_link(url + visit.without_link, entered=entered, in_frame=in_frame)
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
        set_cookie(response, record, now, in_frame=verdict.in_frame)
    return response


def note(visit: Visit, record: Record | None, verdict: Verdict) -> None:
    """Tell the audit who came in by a link, woke a workspace or was refused; of all other visits it knows nothing."""
    refused = REFUSALS.get(verdict.outcome)
    if verdict.outcome is Outcome.ENTER:
        tell(visit, record, by_visitor("enter", 302, ""), repeatable=False)
    elif verdict.wake:
        pressed = verdict.outcome is Outcome.RETRY
        tell(visit, record, by_visitor("wake", 303 if pressed else 503, "its button" if pressed else "its address"))
    elif refused and refused.status in REFUSED:
        tell(visit, record, by_visitor("visit", refused.status, refused.code))


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


def set_cookie(response: Response, record: Record, now: float, *, in_frame: bool) -> None:
    """Give the browser a cookie; in another page's frame, one that it keeps apart for that page's site."""
    text, issued = core().passes.issue(Kind.FRAME if in_frame else Kind.COOKIE, record.uuid, record.door, now)
    age = int(issued.expires_at - issued.issued_at)
    response.set_cookie(
        FRAME_COOKIE if in_frame else COOKIE,
        text,
        max_age=age,
        path="/",
        secure=True,
        httponly=True,
        samesite="None" if in_frame else "Lax",
        partitioned=in_frame,
    )


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
