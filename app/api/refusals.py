"""Answers to visitors who may not enter a workspace: a page for a person, a problem document for a program, or a
redirect to the product's sign-in.

No answer depends on the session: each is the same for a workspace that never existed.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

from flask import Response, current_app, request

from app.api.current import core
from app.api.pages import Pages
from app.api.port_visits import NEXT, by_workspace, way_by_workspace
from app.core.access.access_policy import Outcome
from app.core.access.forwarded_request import SENT_COOKIE, ForwardedRequest, Frame, Target, accepts_pages
from app.core.access.landing_path import landing, login_location
from app.http.problems import Problem, problem_response

PAGES = "forward_auth_pages"
SENT_FOR = 60
"""s during which redirects to the sign-in are counted for a browser."""


@dataclass(frozen=True)
class Refusal:
    """`code` is the problem's error code; a person reads `title` and `text`, whoever runs the service `hint`. A program
    gets all three."""

    status: int
    code: str
    title: str
    text: str
    hint: str = ""


REFUSALS = {
    Outcome.GONE: Refusal(
        404, "session_not_found", "This workspace does not exist", "It was deleted, or the address is wrong."
    ),
    Outcome.NO_TOKEN: Refusal(
        401,
        "unauthorized",
        "This workspace is not open to you",
        "Go back to the page where you found it, and open it from there.",
        "People come in by a link of POST /session/{uuid}/open, programs with a session token.",
    ),
    Outcome.USED_LINK: Refusal(
        403,
        "link_used",
        "This link has been used, or is too old",
        "A link opens a workspace once, within seconds. Go back to the page where you found it, and ask for a new one.",
    ),
    Outcome.FOREIGN: Refusal(
        403,
        "foreign_origin",
        "This request was sent by another page",
        "Only the workspace's own pages may.",
    ),
    Outcome.FRAMED: Refusal(
        403,
        "not_embeddable",
        "This page may not show the workspace",
        "Open the workspace in a tab of its own.",
        "The setting EMBED_ORIGINS lists the pages that may show a workspace in a frame. This page is not listed, or "
        "its Referrer-Policy hides its address. The link in the frame's address is still good.",
    ),
    Outcome.OVER_BUDGET: Refusal(
        403,
        "budget_exceeded",
        "This workspace can't start now",
        "The budget for this month is used up; your files are kept. Ask the people who run this service to raise it, "
        "or come back on the first of the next month.",
    ),
    Outcome.PUBLIC_ENDED: Refusal(
        403,
        "public_ended",
        "This page is not public any more",
        "Everybody could open it until a moment that has passed. Who may open its workspace still can.",
    ),
    Outcome.ASLEEP: Refusal(
        503,
        "asleep",
        "This page is asleep",
        "Its workspace does not run now, and visitors wake it only a few times an hour. Load this page again later, or "
        "ask somebody who may open the workspace.",
    ),
    Outcome.PORTS_FULL: Refusal(
        403,
        "too_many_ports",
        "This port can't be opened now",
        "As many ports of its workspace are public as may be. Close one first.",
    ),
    Outcome.NO_COOKIE: Refusal(
        401,
        "cookie_not_kept",
        "Your browser did not keep this workspace's cookie",
        "The workspace needs a cookie to know you. Allow cookies for this address, also within other pages if one "
        "shows the workspace to you, and try again.",
    ),
    Outcome.SIGN_IN_LOOP: Refusal(
        401,
        "sign_in_loop",
        "Signing in led back here without a link",
        "Your browser was sent to sign in several times within a minute, and came back without a link each time. Allow "
        "cookies for this address. If that does not help, tell the people who run this service.",
        "The page of LOGIN_URL must lead on to the `url` that POST /session/{uuid}/open answers.",
    ),
}

BY_NGINX = frozenset({Outcome.SIGN_IN, Outcome.BY_WORKSPACE, *REFUSALS})
"""Outcomes that nginx can show a person, by a redirect. A program gets nginx's own 403."""

AGAIN = {
    Outcome.SIGN_IN_LOOP: "Sign in",
    Outcome.NO_COOKIE: "Try again",
    Outcome.PUBLIC_ENDED: "Open it as one who may",
}
"""The text of the link by which a person may go on, for refusals that have one."""


def refusal(forwarded: ForwardedRequest, outcome: Outcome) -> Response:
    """The answer to a visitor who may not enter."""
    found = REFUSALS[outcome]
    if forwarded.wants_page:
        again = landing(forwarded.path, forwarded.query) if forwarded.frame is Frame.NONE else ""
        return refusal_page(outcome, forwarded, again)
    detail = f"{found.title}. {found.text} {found.hint}".rstrip()
    return problem_response(Problem(found.status, found.code, detail, headers=_challenge(found)))


def refusal_page(outcome: Outcome, target: Target, again: str) -> Response:
    """The page of a refusal; `again` is the path to try again, "" if that makes no sense."""
    found = REFUSALS[outcome]
    label = AGAIN.get(outcome, "") if again and (target.port or core().settings.login_url) else ""
    headers = _challenge(found) | {NEXT: outcome.value}
    template = "onward.html" if label else "page.html"
    # This page shows nobody's data and leads nowhere, so the framing page may show what is wrong.
    framed = outcome is Outcome.FRAMED
    values = {"title": found.title, "text": found.text, "href": _way_on(outcome, target, again), "label": label}
    return pages().show(template, found.status, headers, by_any_page=framed, hint=found.hint, **values)


def _way_on(outcome: Outcome, target: Target, again: str) -> str:
    """Where the link of a refusal leads."""
    settings = core().settings
    if outcome is Outcome.SIGN_IN_LOOP:
        return login_location(settings, target.uuid, again)
    if outcome is Outcome.PUBLIC_ENDED:
        return way_by_workspace(target)
    return settings.workspace_url(target.uuid, target.port) + again


def no_workspace() -> Response:
    """The answer at an address that is no workspace's."""
    found = REFUSALS[Outcome.GONE]
    headers = {NEXT: Outcome.GONE.value}
    if accepts_pages(request.headers):
        return pages().show("page.html", found.status, headers, title=found.title, text=found.text)
    detail = "There is no workspace at this address."
    return problem_response(Problem(found.status, "not_found", detail, headers=headers))


def to_login(uuid: str, path: str, sign_ins: int) -> Response:
    """The redirect to the product's sign-in, for a browser that was sent there `sign_ins` times within a minute."""
    response = Response(status=302, headers={"Location": login_location(core().settings, uuid, path)})
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    response.headers[NEXT] = Outcome.SIGN_IN.value
    times = str(sign_ins + 1)
    response.set_cookie(SENT_COOKIE, times, max_age=SENT_FOR, path="/", secure=True, httponly=True, samesite="Lax")
    return response


def shown_by_nginx(outcome: Outcome, target: Target) -> Response:
    """The same answer at the API's host, where nginx redirects to."""
    path = landing(target.path, target.query)
    if outcome is Outcome.BY_WORKSPACE:
        return by_workspace(target)
    if outcome is not Outcome.SIGN_IN:
        return refusal_page(outcome, target, "" if request.headers.get("Sec-Fetch-Dest") == "iframe" else path)
    if not core().settings.login_url:
        raise Problem(400, "bad_forwarded_request", "There is no sign-in page: LOGIN_URL is not set.")
    response = to_login(target.uuid, path, 0)
    # The cookie would be for this host; nginx has set the workspace's own already.
    del response.headers["Set-Cookie"]
    return response


def pages() -> Pages:
    """The pages of this process."""
    return cast(Pages, current_app.extensions[PAGES])


def _challenge(found: Refusal) -> dict[str, str]:
    return {"WWW-Authenticate": "Bearer"} if found.status == HTTPStatus.UNAUTHORIZED else {}
