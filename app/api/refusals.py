"""What a visitor is told who is not let into a workspace: a page for a person, a problem document for a program, or the
way to the product's sign-in.

None of it depends on the session: it says the same of a workspace that never was.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from flask import Response, current_app, request

from app.api.context import core
from app.api.landing import landing, login_location
from app.api.pages import Pages
from app.api.verdicts import Outcome
from app.api.visits import SENT_COOKIE, Frame, Target, Visit
from app.problems import Problem, problem_response

PAGES = "door_pages"
NEXT = "Workspace-Next"
"""What /auth/again is to show or do, in forward-auth's answer to nginx, whose redirect there says it on."""

SENT_FOR = 60
"""s for which it is counted how often a browser was sent to sign in."""


@dataclass(frozen=True)
class Refusal:
    """`code` is the problem's; `title` and `text` are what a person reads."""

    status: int
    code: str
    title: str
    text: str


REFUSALS = {
    Outcome.GONE: Refusal(404, "session_not_found", "There is no such workspace", "It was deleted, or never was."),
    Outcome.NO_PASS: Refusal(
        401,
        "unauthorized",
        "This workspace is not open to you",
        "Open it from where you found it: you get in with a fresh link. Programs need a session token.",
    ),
    Outcome.USED_LINK: Refusal(
        403,
        "link_used",
        "This link has been used, or is too old",
        "A link opens a workspace once, within seconds. Go back to where you found it, and ask for a new one.",
    ),
    Outcome.FOREIGN: Refusal(
        403,
        "foreign_origin",
        "This was asked by another page",
        "Only the workspace's own pages may.",
    ),
    Outcome.FRAMED: Refusal(
        403,
        "not_embeddable",
        "This page may not show the workspace",
        "The setting EMBED_ORIGINS names the pages that may hold a workspace in a frame. This one is not named, or its "
        "Referrer-Policy keeps browsers from saying which page it is. A link in the frame's address is not used up.",
    ),
    Outcome.NO_COOKIE: Refusal(
        401,
        "cookie_not_kept",
        "Your browser did not keep this workspace's cookie",
        "You came by a link, and are back without the cookie it gave you. Allow cookies for this address, also within "
        "other pages if one shows it to you, and try again.",
    ),
    Outcome.SIGN_IN_LOOP: Refusal(
        401,
        "sign_in_loop",
        "Signing in led back here without a link",
        "Your browser was sent to sign in several times within a minute, and each time it came back as before. Allow "
        "cookies for this address. If that does not help, tell those who run this: the page of LOGIN_URL must lead on "
        "to the `url` that POST /session/{uuid}/open answers.",
    ),
}

BY_NGINX = frozenset({Outcome.SIGN_IN, Outcome.SIGN_IN_LOOP, Outcome.NO_COOKIE, Outcome.FRAMED})
"""What nginx is to lead a person to; in place of everything else it shows its own 403."""

AGAIN = {Outcome.SIGN_IN_LOOP: "Sign in", Outcome.NO_COOKIE: "Try again"}
"""Refusals after which a person may go on by a click, and what the link says."""


def refusal(visit: Visit, outcome: Outcome) -> Response:
    """The answer to a visitor who is turned away."""
    found = REFUSALS[outcome]
    if visit.page:
        again = landing(visit.path, visit.query) if visit.frame is Frame.NONE else ""
        return refusal_page(outcome, visit.uuid, again)
    return problem_response(
        Problem(found.status, found.code, f"{found.title}. {found.text}", headers=_challenge(found))
    )


def refusal_page(outcome: Outcome, uuid: str, again: str) -> Response:
    """The page of a refusal; `again` is the path of the workspace to try again, where that makes sense."""
    found = REFUSALS[outcome]
    settings = core().settings
    label = AGAIN.get(outcome, "") if again and settings.login_url else ""
    loops = outcome is Outcome.SIGN_IN_LOOP
    href = login_location(settings, uuid, again) if loops else settings.workspace_url(uuid) + again
    headers = _challenge(found) | ({NEXT: outcome.value} if outcome in BY_NGINX else {})
    template = "onward.html" if label else "page.html"
    # It shows nothing that is anybody's and has nothing to click on: so whoever put it there may read what is wrong.
    framed = outcome is Outcome.FRAMED
    values = {"title": found.title, "text": found.text, "href": href, "label": label}
    return pages().show(template, found.status, headers, by_any_page=framed, **values)


def to_login(uuid: str, path: str, sent: int) -> Response:
    """The way to the product's sign-in, for a browser that was sent there `sent` times lately."""
    response = Response(status=302, headers={"Location": login_location(core().settings, uuid, path)})
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    response.headers[NEXT] = Outcome.SIGN_IN.value
    times = str(sent + 1)
    response.set_cookie(SENT_COOKIE, times, max_age=SENT_FOR, path="/", secure=True, httponly=True, samesite="Lax")
    return response


def led_on(outcome: Outcome, goal: Target) -> Response:
    """What nginx leads to: the same, told at the API's host."""
    path = landing(goal.path, goal.query)
    if outcome is not Outcome.SIGN_IN:
        return refusal_page(outcome, goal.uuid, "" if request.headers.get("Sec-Fetch-Dest") == "iframe" else path)
    if not core().settings.login_url:
        raise Problem(400, "no_visit", "There is no page to sign in: LOGIN_URL is not set.")
    response = to_login(goal.uuid, path, 0)
    # Of this host it would be; nginx sent the workspace's along.
    del response.headers["Set-Cookie"]
    return response


def pages() -> Pages:
    """The pages of this process."""
    found: Pages = current_app.extensions[PAGES]
    return found


def _challenge(found: Refusal) -> dict[str, str]:
    return {"WWW-Authenticate": "Bearer"} if found.status == HTTPStatus.UNAUTHORIZED else {}
