"""Sign in with an API key, and sign out. Both, and what was refused, are audited: as acts that callers may repeat
without end, so that no key pushes out what others did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from flask import Blueprint, Flask, current_app, g, redirect, render_template, request
from flask_limiter import RateLimitExceeded
from werkzeug.wrappers import Response

from app.core.access.addresses import address_of
from app.core.access.audit import ANONYMOUS, Act, Audit
from app.core.access.keyring import METRICS, Principal
from app.core.access.landing_path import is_landing
from app.core.composition import Core
from app.core.limit_errors import SIGN_IN
from app.http.problems import to_problem
from app.http.rate_windows import counters, rate_exceeded, register_windows
from app.web.guard import COOKIE, KEYS, people

blp = Blueprint("web_sign_in", __name__)

AUDIT = "dashboard_audit"
"""The app's extension: the audit."""

NOT_VALID = "That key is not valid. Copy it once more; scripts/run prints it, and keeps it in its data folder."
SEES_NOTHING = "A key of the role `metrics` opens /metrics only. Sign in with another key."

BY_KEY = "web_sign_in.by_key"
SIGNING_IN = frozenset({BY_KEY, "web_oidc.back"})
"""The endpoints that sign people in, and are counted."""


def register_sign_in_limit(app: Flask, core: Core) -> None:
    """Count sign-ins by address and by key, and refuse those above the rate that the key has for `default`, else above
    RATE_LIMIT_DEFAULT. They are counted apart from calls of the API: a program that asks on at the same address, or
    with the same key, keeps nobody out. Register it after the guard: requests of other origins don't count."""
    app.before_request(_find_owner)
    register_windows(
        app,
        core.redis.connection_pool,
        names=lambda: counters(g.owner, own_rate=bool(_own_rate())),
        rate=lambda: _own_rate() or core.settings.rate_limit_default,
        category=lambda: SIGN_IN,
        unlimited=lambda: request.endpoint not in SIGNING_IN,
    )


@blp.get("/sign-in")
def show() -> Response | str:
    """The form; whoever is signed in goes on."""
    if g.person is not None:
        return redirect(wanted())
    return render_template("sign_in.html", next=wanted(), error="")


@blp.post("/sign-in")
def by_key() -> Response | tuple[str, int]:
    """Sign in with an API key."""
    principal: Principal | None = g.owner
    if principal is None or principal.role == METRICS:
        error = NOT_VALID if principal is None else SEES_NOTHING
        return refused(error, 401, wanted())
    return entered(principal, by_key=True, path=wanted())


@blp.post("/sign-out")
def sign_out() -> Response:
    """Sign out; the cookie opens nothing afterwards."""
    people().sign_out(request.cookies.get(COOKIE, ""))
    _note("sign_out", g.person.principal, 302)
    response = redirect("/sign-in")
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Lax")
    return response


def entered(principal: Principal, *, by_key: bool, path: str) -> Response:
    """Sign this person in, under a new cookie, and go on to `path`; a cookie from before opens nothing any more."""
    people().sign_out(request.cookies.get(COOKIE, ""))
    response = redirect(path)
    secret = people().sign_in(principal, by_key=by_key)
    _note("sign_in", principal, response.status_code)
    response.set_cookie(COOKIE, secret, path="/", secure=True, httponly=True, samesite="Lax")
    return response


def refused(text: str, status: int, path: str = "/") -> tuple[str, int]:
    """The sign-in page again, with what was wrong."""
    _note("sign_in", None, status)
    return render_template("sign_in.html", next=path, error=text), status


def too_many(error: RateLimitExceeded) -> tuple[str, int, Mapping[str, str]]:
    """The sign-in page again, above the limit."""
    problem = to_problem(rate_exceeded(error, g.owner, SIGN_IN, "" if _own_rate() else "RATE_LIMIT_DEFAULT"))
    return *refused(problem.detail, problem.status, wanted()), problem.headers


blp.register_error_handler(RateLimitExceeded, too_many)


def _find_owner() -> None:
    """Set `g.owner`, whose key the form has. Not while requests are counted: there, a body that can't be read would
    suspend the limits."""
    shown = request.form.get("key", "").strip() if request.endpoint == BY_KEY else ""
    g.owner = current_app.extensions[KEYS].find(shown) if shown else None


def _own_rate() -> str:
    owner: Principal | None = g.owner
    return owner.limits.get("default", "") if owner is not None else ""


def _note(action: str, principal: Principal | None, status: int) -> None:
    act = Act(
        action=action,
        by=principal.name if principal else ANONYMOUS,
        role=principal.role if principal else ANONYMOUS,
        address=address_of(request.remote_addr or ""),
        status=status,
        request_id=g.request_id,
    )
    cast(Audit, current_app.extensions[AUDIT]).note(act, repeatable=True)


def wanted() -> str:
    """The page to go on to: a path of the dashboard."""
    path = request.values.get("next", "/")
    return path if is_landing(path) else "/"
