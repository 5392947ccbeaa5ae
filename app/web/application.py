"""The dashboard's WSGI application, and the choice by host between it and the API."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, Response, g, request
from markupsafe import Markup
from werkzeug.exceptions import NotFound

from app.agent.protocol import EXEC_ID, SERVICE_NAME
from app.core.access.addresses import counted_as
from app.core.access.keyring import Keyring
from app.core.backups.store import NAME_PATTERN
from app.core.composition import Core
from app.core.prompts.inbox import ID_PATTERN
from app.core.redis.dead_letters import LETTER_ID_PATTERN
from app.core.restore_points import names as restore_points
from app.core.sessions.model import UUID_PATTERN
from app.http.hooks import register_request_hooks
from app.http.problems import register_error_handlers
from app.http.request_metrics import HttpMetrics
from app.http.tarpit import register_tarpit
from app.look.product import Product, mark
from app.web import (
    operations,
    overview,
    session_actions,
    session_stream,
    sessions,
    settings_page,
    sign_in,
    static_files,
)
from app.web.api import EXTENSION, Api
from app.web.error_pages import shown, to_problem
from app.web.guard import KEYS, PEOPLE, register_guard
from app.web.people import People
from app.web.session import (
    activity_tab,
    audit_tab,
    backups_tab,
    chat_tab,
    cost_tab,
    events_tab,
    files_tab,
    overview_tab,
    page,
    ports_tab,
    resources_tab,
    restore_points_tab,
    run_tab,
    services_tab,
)
from app.web.sign_in import AUDIT, register_sign_in_limit
from app.web.static_files import PRODUCT, asset_url, icon_url, look_url
from app.web.words import FILTERS

PATTERNS = {
    "uuid": UUID_PATTERN,
    "name": NAME_PATTERN,
    "point_id": restore_points.ID_PATTERN,
    "message_id": ID_PATTERN,
    "exec_id": EXEC_ID,
    "service": SERVICE_NAME,
    "letter_id": LETTER_ID_PATTERN,
}
"""Of names in the dashboard's addresses, by the argument of the route: they become parts of the API's paths, so none
may hold anything else."""

LARGEST_FORM = 262_144
"""Bytes; the longest prompt and some fields."""

UPLOAD = "web_session_files.write"
"""The endpoint whose body is a file."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PROTECTING = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def create_dashboard(core: Core, keyring: Keyring, metrics: HttpMetrics, api: WSGIApplication) -> Flask:
    """The dashboard over an API's application; `metrics` counts its requests beside the API's."""
    app = Flask("app.web", static_folder=None)
    app.extensions[EXTENSION] = Api(api)
    app.extensions[PEOPLE] = People(core.redis, keyring, core.settings.dashboard_session)
    app.extensions[KEYS] = keyring
    app.extensions[AUDIT] = core.audit
    app.jinja_env.filters.update(FILTERS)
    app.extensions[PRODUCT] = Product.of(core.settings)
    app.jinja_env.globals.update(
        asset=asset_url, look=look_url, favicon=icon_url, product=app.extensions[PRODUCT], mark=Markup(mark())
    )
    app.context_processor(
        lambda: {"person": g.get("person"), "page": request.endpoint or "", "oidc": bool(core.settings.oidc_issuer)}
    )
    register_error_handlers(app, to_problem, shown)
    register_request_hooks(app, metrics, LARGEST_FORM, core.budget, {UPLOAD: core.settings.file_max_bytes})
    register_tarpit(app, _stranger)
    app.after_request(_protect)
    register_guard(app, core.settings.dashboard_location())
    register_sign_in_limit(app, core)
    app.before_request(_check_names)  # after the guard has let the person in
    for module in (
        static_files,
        sign_in,
        sessions,
        session_stream,
        session_actions,
        page,
        overview_tab,
        chat_tab,
        files_tab,
        run_tab,
        services_tab,
        ports_tab,
        backups_tab,
        restore_points_tab,
        cost_tab,
        activity_tab,
        resources_tab,
        events_tab,
        audit_tab,
        overview,
        operations,
        settings_page,
    ):
        app.register_blueprint(module.blp)
    if core.settings.oidc_issuer:
        # Imported here: its libraries take 20 MB in each process of web.
        from app.web.oidc import register_oidc

        register_oidc(app, core.settings)
    return app


def by_host(host: str, dashboard: WSGIApplication, others: WSGIApplication) -> WSGIApplication:
    """The dashboard for requests to its host, `others` for all others."""

    def choose(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        asked = environ.get("HTTP_HOST", "").partition(":")[0].lower()
        return (dashboard if asked == host else others)(environ, start_response)

    return choose


def _stranger() -> str:
    """The name by which the tarpit counts someone who is not signed in."""
    return "" if g.get("person") else counted_as(request.remote_addr)


def _protect(response: Response) -> Response:
    for name, value in PROTECTING.items():
        response.headers.setdefault(name, value)
    return response


def _check_names() -> None:
    """404 for an address whose names are not well formed."""
    for name, text in (request.view_args or {}).items():
        if name in PATTERNS and not PATTERNS[name].fullmatch(text):
            raise NotFound
