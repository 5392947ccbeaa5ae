"""What each request of the dashboard passes: who is signed in, and whether the dashboard's own page sent it."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar, cast
from urllib.parse import urlencode

from flask import Flask, Response, current_app, g, redirect, request

from app.core.access.landing_path import landing
from app.http.problems import Problem
from app.web.people import People

T = TypeVar("T")

PEOPLE, KEYS = "dashboard_people", "dashboard_keys"
"""The app's extensions: the people who are signed in, and the API keys with which they may sign in."""

COOKIE = "__Host-dashboard"
"""A browser takes this prefix only from this very host, so that no other name of the domain can plant a cookie."""

CHECKED_EVERY = 10.0
"""s between two looks, at a stream's next piece, whether its person is still signed in; a quiet one has a comment every
15 s."""

ASSETS = frozenset({"web_static.asset", "web_static.look", "web_static.icon"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN_TO_ALL = frozenset({"web_sign_in.show", "web_sign_in.by_key", "web_oidc.begin", "web_oidc.back", *ASSETS})
"""The endpoints that need no sign-in."""

FOREIGN = "This request was not sent by a page of the dashboard. Reload the page and try again."


def register_guard(app: Flask, origin: str) -> None:
    """Refuse requests of other origins, and of people who are not signed in."""
    app.before_request(lambda: _same_origin(origin))
    app.before_request(_signed_in)


def _same_origin(origin: str) -> None:
    """A change must come from a page of this origin. Workspaces are on the same site, so that a cookie's SameSite does
    not keep them out; browsers send `Origin` with every POST and DELETE."""
    if request.method not in SAFE and request.headers.get("Origin") != origin:
        raise Problem(403, "foreign_origin", FOREIGN)


def _signed_in() -> Response | None:
    # Nobody need be known for a stylesheet, and a page asks for several.
    g.person = None if request.endpoint in ASSETS else people().find(request.cookies.get(COOKIE, ""))
    g.principal = g.person.principal if g.person else None
    if g.person is None:
        return None if request.endpoint in OPEN_TO_ALL else _to_sign_in()
    if request.method not in SAFE and request.endpoint not in OPEN_TO_ALL:
        # A form has it within; the file of a PUT is not read for it.
        in_form = request.form.get("csrf", "") if request.method == "POST" else ""
        shown = request.headers.get("X-CSRF-Token") or in_form
        if not hmac.compare_digest(shown.encode(), g.person.csrf.encode()):
            raise Problem(403, "foreign_origin", FOREIGN)
    return None


def _to_sign_in() -> Response:
    """The sign-in page, and back. htmx follows no redirect to another page, so it is told by a header."""
    if request.headers.get("HX-Request"):
        return Response(status=401, headers={"HX-Redirect": "/sign-in"})
    if request.headers.get("Accept", "").startswith("text/event-stream"):
        return Response(status=401)
    back = landing(request.path, request.query_string.decode("latin-1")) if request.method == "GET" else "/"
    return cast(Response, redirect("/sign-in" if back == "/" else f"/sign-in?{urlencode({'next': back})}"))


def while_signed_in(pieces: Iterable[T]) -> Iterator[T]:
    """The pieces of a stream, until the person is signed out: an open page is no longer theirs then."""
    found, secret, due = people(), request.cookies.get(COOKIE, ""), time.monotonic() + CHECKED_EVERY

    def pass_on() -> Iterator[T]:
        nonlocal due
        for piece in pieces:
            if time.monotonic() >= due:
                if found.find(secret, active=False) is None:
                    return
                due = time.monotonic() + CHECKED_EVERY
            yield piece

    return pass_on()


def people() -> People:
    """The people who are signed in."""
    return cast(People, current_app.extensions[PEOPLE])
