"""Forward auth: the ingress asks here before it lets a request through to a workspace or one of its ports, and for a
page to show while the workspace does not answer.

A process of its own serves it, at a port that only the ingress reaches: its answers hold the secrets of agents and
editors, and no caller of the API may keep a workspace's visitors waiting.

It has no rate limit: all requests for all workspaces come from one address, the ingress's, which has limits of its own.
Its cost is bounded instead: one round trip to Redis, no call of the cluster. In doubt it refuses: without Redis,
without SECRET_KEY, for any host that is no workspace's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flask import Response, current_app, g, request
from marshmallow import Schema, fields, validate

from app.api.audit import VISITOR
from app.api.blueprint import Blueprint
from app.api.current import KEYRING, core, request_id
from app.api.instruments import Decided, ForwardAuthInstruments
from app.api.openapi import PLAIN
from app.api.port_visits import TO_PORT_NEXT, asked_port, by_link, by_workspace, to_port
from app.api.problem_schemas import ProblemSchema
from app.api.refusals import BY_NGINX, NEXT, REFUSALS, no_workspace, pages, refusal, shown_by_nginx, to_login
from app.api.request_fields import WholeText
from app.api.waking import RETRY_AFTER, UNKNOWN, back_to, not_up, silent, starting, waking_page
from app.core.access.access_policy import AccessDecision, Outcome, decide, decide_agent
from app.core.access.addresses import address_of
from app.core.access.audit import REFUSED, Act
from app.core.access.forwarded_request import (
    ForwardedRequest,
    Frame,
    accepts_pages,
    client_address,
    from_nginx,
    from_traefik,
    port_of,
    target,
)
from app.core.access.keyring import SESSION
from app.core.access.landing_path import ENTERED, landing, with_parameter
from app.core.access.port_policy import decide_port
from app.core.access.tokens import BY_BROWSER, COOKIE, FRAME_COOKIE, AccessToken, Kind
from app.core.errors import StateUnavailable
from app.core.limit_errors import BudgetExceeded, TooManyPorts
from app.core.sessions.model import Record
from app.core.sessions.opened_ports import find
from app.http.problems import PROBLEM_TYPE, Problem
from app.process.secret_keys import Purpose

blp = Blueprint("forward_auth", __name__, description="Forward auth, for the ingress: who gets into a workspace.")

again_blp = Blueprint("auth_again", __name__, description="Where nginx redirects a workspace's visitor to.")

VERIFY = "forward_auth.verify"
"""The endpoint that decides."""

SECRET_HEADER = "X-Workspace-Secret"
"""The editor requires it (app/editor/guard.js): the session's editor secret, by each key of SECRET_KEY, and the access
epoch, by which the editor tells connections from before a revocation (app/editor/disconnect.js), and the port that the
request is for, if it is for one (app/editor/ports.js)."""

NGINX = {302: 401, 303: 401, 503: 401, 401: 403, 404: 403}
"""The status for nginx in place of ours: `auth_request` knows 2xx, 401 and 403, and takes all else for an error. On 401
nginx redirects to /auth/again (`auth-signin`), with our cookie; so 401 is for answers that go on by themselves, and for
those that /auth/again can give in nginx' place (`NEXT`)."""


class VerifyQuery(Schema):
    """`host` is nginx's `$host`, the name by which it chose where the request goes, and `service` its `$service_name`,
    where that is."""

    proxy = fields.String(load_default="traefik", validate=validate.OneOf(["traefik", "nginx"]))
    host = fields.String(load_default="")
    service = fields.String(load_default="")


@dataclass(frozen=True)
class Visitor:
    """The caller in the log line of a forwarded request."""

    name: str


NEXT_REGEX = f"^(|{'|'.join(sorted(BY_NGINX))}|{TO_PORT_NEXT})$"


class AgainQuery(Schema):
    """`next` is the `Workspace-Next` of forward auth's answer to nginx, "" for none: an outcome, and of `to_port` the
    link's secret behind a dot."""

    rd = fields.String(required=True)
    next = fields.String(load_default="", validate=WholeText(NEXT_REGEX, "Must be what forward auth said."))


class ForPeopleSchema(Schema):
    title = fields.String(required=True)
    text = fields.String(required=True)
    detail = fields.String(required=True, metadata={"description": "for whoever reports the trouble; empty for none"})


class NotUpSchema(ProblemSchema):
    """The problem of a workspace that does not run."""

    session_status = fields.String()
    phases = fields.Dict(keys=fields.String(), values=fields.Integer())
    elapsed_ms = fields.Integer()
    reason = fields.String()
    reason_code = fields.String(allow_none=True)
    for_people = fields.Nested(ForPeopleSchema, metadata={"description": "what the page says"})


@blp.route("/auth/verify", methods=["GET"])
@blp.arguments(VerifyQuery, location="query")
@blp.response(200, description="Let the request through, with the headers of this answer in place of its own.")
@blp.alt_response(302, description="The login link was good; or a redirect to the product's sign-in.")
@blp.alt_response(303, description="The workspace is being woken.")
@blp.operation("verify", 400, 401, 403, 404, anonymous=True)
def verify(query: dict[str, str]) -> Response:
    """Decide whether a request gets through to a workspace. For the ingress, which describes the request in
    X-Forwarded-* headers (`proxy=nginx`: in X-Original-*)."""
    settings = core().settings
    nginx, headers = query["proxy"] == "nginx", request.headers
    if not headers.get("X-Original-URL" if nginx else "X-Forwarded-Host"):
        missing = "X-Original-* headers" if nginx else "X-Forwarded-* headers"
        raise Problem(
            400,
            "bad_forwarded_request",
            f"This is for the ingress, which names the address in {missing}; they are missing.",
        )
    if nginx:
        forwarded = from_nginx(headers, settings, query["host"], query["service"])
    else:
        forwarded = from_traefik(headers, settings)
    response = answer(forwarded) if forwarded else no_workspace()
    if nginx:
        status = response.status_code
        response.status_code = 401 if NEXT in response.headers else NGINX.get(status, status)
    else:
        response.headers.pop(NEXT, None)
    return response


def answer(forwarded: ForwardedRequest) -> Response:
    """The answer to a request for a workspace or its agent."""
    g.principal = Visitor(f"visitor:{forwarded.uuid}")
    now = time.time()
    tokens = tokens_of(forwarded, now)
    return to_agent(forwarded, tokens, now) if forwarded.agent else to_workspace(forwarded, tokens, now)


DECIDED: Mapping[Outcome, Decided] = {
    **dict.fromkeys((Outcome.ALLOW, Outcome.RETRY, Outcome.NOT_UP), Decided.LET_IN),
    **dict.fromkeys(
        (Outcome.ENTER, Outcome.DROP_LINK, Outcome.SIGN_IN, Outcome.TO_PORT, Outcome.BY_WORKSPACE), Decided.LOGIN
    ),
}
"""The decisions in the metrics; all other outcomes are refusals."""


def count_decision(instruments: ForwardAuthInstruments, response: Response) -> Response:
    """Count the decision on a forwarded request; an answer without one is an error of ours or of the ingress."""
    if request.endpoint == VERIFY:
        outcome: Outcome | None = g.get("outcome")
        failed = response.status_code >= 500 and outcome not in (Outcome.NOT_UP, Outcome.ASLEEP)
        decided = DECIDED.get(outcome, Decided.REFUSED) if outcome else Decided.REFUSED
        instruments.decided(Decided.ERROR if failed else decided)
    return response


@blp.route("/auth/waking", methods=["GET"])
@blp.response(503, description="The ingress does not reach the workspace yet.")
@blp.operation("waking", anonymous=True)
def waking() -> Response:
    """The page the ingress shows when it reaches no workspace, or no program at a port: it goes on to it by itself, and
    says nothing about the session."""
    g.expected = True
    port = port_of(request.host, core().settings)
    state = silent(port) if port else UNKNOWN
    return waking_page(state) if accepts_pages(request.headers) else not_up(state)


@again_blp.route("/auth/again", methods=["GET"])
@again_blp.arguments(AgainQuery, location="query")
@again_blp.response(302, description="Back to the workspace without the link.")
@again_blp.alt_response(
    401, schema=PLAIN, content_type="text/html", description="The page that says why the workspace does not open."
)
@again_blp.alt_response(
    403, schema=PLAIN, content_type="text/html", description="The same, in a frame of another page."
)
@again_blp.alt_response(404, schema=PLAIN, content_type="text/html", description="There is no workspace there.")
@again_blp.alt_response(404, schema=ProblemSchema, content_type=PROBLEM_TYPE)
@again_blp.alt_response(
    503, schema=PLAIN, content_type="text/html", description="The workspace wakes; the page goes back to it by itself."
)
@again_blp.alt_response(503, schema=NotUpSchema, content_type=PROBLEM_TYPE)
@again_blp.operation("again", 400, own=(404, 503), anonymous=True, without_redis=True, rate=None)
def again(query: dict[str, str]) -> Response:
    """Where nginx redirects visitors to (`auth-signin`). Sends a visitor whose link was good back without it, one whose
    workspace wakes to a page that goes back every second, and one without a token to LOGIN_URL. It says nothing about
    the session."""
    goal = target(query["rd"], core().settings)
    if goal is None and query["next"] == Outcome.GONE:
        return no_workspace()
    if goal is None:
        raise Problem(400, "bad_forwarded_request", "`rd` must be the address of a workspace.")
    g.expected = True
    if query["next"].startswith(Outcome.TO_PORT):
        return by_link(goal, query["next"].partition(".")[2])
    if query["next"] and not goal.agent:
        return shown_by_nginx(Outcome(query["next"]), goal)
    url = core().settings.workspace_url(goal.uuid, goal.port) + goal.without_link
    if (goal.has_link or goal.entered) and not goal.agent:
        in_frame = request.headers.get("Sec-Fetch-Dest") == "iframe"
        return without_link(url, entered=goal.has_link, in_frame=in_frame, at_port=bool(goal.port))
    if goal.agent or not accepts_pages(request.headers):
        return not_up(UNKNOWN)
    return back_to(url)


def without_link(url: str, *, entered: bool, in_frame: bool, at_port: bool) -> Response:
    """The redirect to the address without its link. If it matters whether the browser keeps the cookie set with this
    answer, the address is marked (`entered`) until the browser sends the cookie: without it a port's visitor would be
    sent for a link again."""
    marked = entered and (in_frame or at_port or bool(core().settings.login_url))
    response = Response(status=302, headers={"Location": with_parameter(url, ENTERED) if marked else url})
    # Through redirects a browser still names the page it came from; that identifies a frame's page.
    response.headers["Referrer-Policy"] = "strict-origin" if in_frame else "no-referrer"
    return response


def tokens_of(forwarded: ForwardedRequest, now: float) -> tuple[AccessToken, ...]:
    """The signed tokens of a request: the bearer token, or else the cookies."""
    access_tokens = core().access_tokens
    bearer = access_tokens.read(Kind.TOKEN, forwarded.bearer, now) or access_tokens.read(
        Kind.PROBE, forwarded.bearer, now
    )
    if bearer or forwarded.agent:
        return (bearer,) if bearer else ()
    cookies = ((Kind.COOKIE, forwarded.cookies), (Kind.FRAME, forwarded.frame_cookies))
    read = (access_tokens.read(kind, text, now) for kind, texts in cookies for text in texts)
    return tuple(token for token in read if token)


def to_workspace(forwarded: ForwardedRequest, tokens: tuple[AccessToken, ...], now: float) -> Response:
    """The answer to a request for the workspace itself, or for one of its ports."""
    settings = core().settings
    try:
        found = core().login_links.lookup(forwarded.uuid, forwarded.link, forwarded.port)
        own = settings.workspace_url(forwarded.uuid, forwarded.port)
        asked = (forwarded, found.record, tokens, own, found.linked, now)
        decision = decide_port(*asked) if forwarded.port else decide(*asked, sign_in=bool(settings.login_url))
        return carry_out(forwarded, found.record, decision, now)
    except StateUnavailable:
        if not forwarded.wants_page:
            raise
        title, text = "Workspaces are unavailable", "This lasts a moment. Load this page again in a few seconds."
        return pages().show("page.html", 503, {"Retry-After": RETRY_AFTER}, title=title, text=text)


def to_agent(forwarded: ForwardedRequest, tokens: tuple[AccessToken, ...], now: float) -> Response:
    """The answer to a request for an agent; the agent's secret replaces the caller's credential."""
    principal = current_app.extensions[KEYRING].find(forwarded.api_key) if forwarded.api_key else None
    record = core().login_links.lookup(forwarded.uuid).record
    # Of a session that never was, a key is told as of a session of no user: only one for all users learns of it.
    keyed = principal if principal and principal.may_see(record.user_id if record else "") else None
    token = tokens[0] if tokens else None
    decision = decide_agent(record, token, keyed=keyed is not None, nowhere=forwarded.nowhere)
    if decision.outcome is not Outcome.ALLOW:
        return carry_out(forwarded, record, decision, now)
    if not core().settings.keys_for(Purpose.AGENT):
        raise Problem(503, "agent_not_configured", "Agents are not configured: set SECRET_KEY.")
    if forwarded.has_effects:
        # The request goes straight to the agent, so web can't audit it.
        action = "prompt" if forwarded.path.endswith("/chat") else "agent_call"
        by, role = (keyed.name, keyed.role) if keyed else (f"session:{forwarded.uuid}", SESSION)
        audit(forwarded, record, Act(action=action, by=by, role=role, status=200, reason="at its agent"))
    g.outcome = decision.outcome
    response = let_through(forwarded)
    secret = core().credentials.agent_secrets(forwarded.uuid, record.epoch if record else 0)[0]
    response.headers["Authorization"] = f"Bearer {secret}"
    return response


def carry_out(forwarded: ForwardedRequest, record: Record | None, decision: AccessDecision, now: float) -> Response:
    """Carry a decision out; returns the answer."""
    if decision.public and not core().public_wakes.take(forwarded.uuid):
        decision = AccessDecision(Outcome.ASLEEP)
    # Not worth a log line: tabs left open ask all day.
    g.expected = decision.outcome is Outcome.ASLEEP
    try:
        if decision.wake:
            record = core().sessions.wake(forwarded.uuid, request_id(), asked=True)
        elif decision.outcome is Outcome.TO_PORT:
            open_asked(forwarded, record)
    except BudgetExceeded:
        decision = replace(decision, outcome=Outcome.OVER_BUDGET, wake=False)
    except TooManyPorts:
        decision = replace(decision, outcome=Outcome.PORTS_FULL)
    outcome = g.outcome = decision.outcome
    audit_decision(forwarded, record, decision)
    if outcome is Outcome.SIGN_IN:
        return to_login(forwarded.uuid, landing(forwarded.path, forwarded.query), forwarded.sign_ins)
    if outcome is Outcome.BY_WORKSPACE:
        return by_workspace(forwarded)
    if outcome in REFUSALS or record is None:
        return refusal(forwarded, outcome)
    url = core().settings.workspace_url(forwarded.uuid, forwarded.port)
    match outcome:
        case Outcome.ENTER | Outcome.DROP_LINK:
            entered, in_frame = outcome is Outcome.ENTER, forwarded.frame is Frame.NAMED
            goal, at_port = url + forwarded.without_link, bool(forwarded.port)
            response = without_link(goal, entered=entered, in_frame=in_frame, at_port=at_port)
        case Outcome.TO_PORT:
            return to_port(forwarded, record)
        case Outcome.RETRY:
            return Response(status=303, headers={"Location": f"{url}/"})
        case Outcome.NOT_UP:
            return starting(forwarded, record, now)
        case _:
            response = let_through(forwarded)
            secrets = core().credentials.editor_secrets(forwarded.uuid)
            named = [f"port={forwarded.port}"] if forwarded.port else []
            response.headers[SECRET_HEADER] = " ".join([*secrets, f"epoch={record.access_epoch}", *named])
    if decision.use:
        core().activity.note(forwarded.uuid, "browser", now)
    if decision.renew or outcome is Outcome.ENTER:
        set_cookie(response, record, now, forwarded.port, in_frame=decision.in_frame)
    return response


def open_asked(forwarded: ForwardedRequest, record: Record | None) -> None:
    """Open the port that the visitor asks to be led to, unless it is opened. Raises `TooManyPorts`."""
    port = asked_port(forwarded.query)
    if port and record and not find(record.opened_ports, port):
        core().openings.open(forwarded.uuid, port, request_id=request_id())


def audit_decision(forwarded: ForwardedRequest, record: Record | None, decision: AccessDecision) -> None:
    """Audit who entered by a link, woke a workspace or was refused; no other request is audited."""
    refused = REFUSALS.get(decision.outcome)
    if decision.outcome is Outcome.ENTER:
        at = f"port {forwarded.port}" if forwarded.port else ""
        audit(forwarded, record, by_visitor("enter", 302, at), repeatable=False)
    elif decision.outcome is Outcome.TO_PORT:
        audit(forwarded, record, by_visitor("open_port", 302, f"port {asked_port(forwarded.query)}"))
    elif decision.wake:
        pressed = decision.outcome is Outcome.RETRY
        act = by_visitor("wake", 303 if pressed else 503, "its button" if pressed else "its address")
        audit(forwarded, record, act)
    elif refused and refused.status in REFUSED:
        audit(forwarded, record, by_visitor("visit", refused.status, refused.code))


def by_visitor(action: str, status: int, reason: str) -> Act:
    return Act(action=action, by=VISITOR, role=VISITOR, status=status, reason=reason)


def audit(forwarded: ForwardedRequest, record: Record | None, act: Act, *, repeatable: bool = True) -> None:
    """Write an audit entry about a forwarded request. Visitors may repeat theirs without end, except by links: an API
    key makes those."""
    act = replace(
        act,
        uuid=forwarded.uuid,
        user_id=record.user_id if record else "",
        address=address_of(client_address(request.headers, core().settings)),
        request_id=request_id(),
    )
    core().audit.note(act, repeatable=repeatable)


def let_through(forwarded: ForwardedRequest) -> Response:
    """A 200. The ingress replaces the visitor's Cookie, Authorization, X-API-Key and X-Workspace-Secret by the headers
    of this answer, or removes them."""
    response = Response(status=200, headers={"Cookie": forwarded.other_cookies} if forwarded.other_cookies else {})
    if forwarded.port:
        response.headers.update(programs_own(forwarded))
    return response


def programs_own(forwarded: ForwardedRequest) -> dict[str, str]:
    """The credentials in a request for a port that are not ours: the program there may have its own."""
    found = {}
    if forwarded.authorization and not any(each.kind not in BY_BROWSER for each in tokens_of(forwarded, time.time())):
        found["Authorization"] = forwarded.authorization
    if forwarded.api_key and not current_app.extensions[KEYRING].find(forwarded.api_key):
        found["X-API-Key"] = forwarded.api_key
    return found


def set_cookie(response: Response, record: Record, now: float, port: int, *, in_frame: bool) -> None:
    """Set the cookie for the workspace, or for a port of it; in a frame of another page, a partitioned one for that
    page's site."""
    kind, name = (Kind.FRAME, FRAME_COOKIE) if in_frame else (Kind.COOKIE, COOKIE)
    text, issued = core().access_tokens.issue(kind, record.uuid, record.access_epoch, now, port)
    response.set_cookie(
        name,
        text,
        max_age=int(issued.expires_at - issued.issued_at),
        path="/",
        secure=True,
        httponly=True,
        samesite="None" if in_frame else "Lax",
        partitioned=in_frame,
    )
