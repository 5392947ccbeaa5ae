"""The web process, put together. gunicorn calls `create_app`; importing this module does nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from app.api import access, activity, backups, docs, door, messages, sessions, system
from app.api.blueprint import SessionName
from app.api.context import EXTENSION, KEYRING
from app.api.cors import register_cors
from app.api.errors import to_api_problem
from app.api.idempotency import register_idempotency
from app.api.limits import register_limits
from app.api.openapi import DOCUMENT, build_document, make_api
from app.api.pages import Pages
from app.api.prefer import register_prefer
from app.api.security import identify, read_keyring, require_key
from app.api.streams import SLOTS, stream_slots
from app.edge import register_edge
from app.problems import register_error_handlers
from app.sessions.core import build_core
from app.settings import Settings


class SyncFlask(Flask):
    """Flask without its look, before every call of a view or hook, for an async one: there are none here,
    and a dozen looks a request cost as much as the view."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func


def create_app(settings: Settings | None = None) -> Flask:
    """The WSGI application; raises `SettingsError` for settings it can't serve with. Connects to nothing:
    with Redis down it starts, and /readyz says 503."""
    settings = settings or Settings.from_env()
    keyring = read_keyring(settings)
    core = build_core(settings, stores_apart=True)
    app = SyncFlask("app", static_folder=None, template_folder=None)
    # A redirect to or from a trailing slash would be an HTML page, and OPTIONS an answer nobody described.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.converters["session"] = SessionName
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions[EXTENSION] = core
    app.extensions[KEYRING] = keyring
    app.extensions[door.PAGES] = Pages()
    app.extensions[SLOTS] = stream_slots(settings.max_streams)
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies)  # type: ignore[method-assign]

    # The order is that of a request: who asks is known before the limits count it, and counted before
    # it is refused. Answers pass the same places in reverse.
    register_error_handlers(app, to_api_problem)
    register_edge(app, settings.max_body_bytes)
    register_cors(app, settings.allowed_origins())
    app.before_request(lambda: identify(keyring, core.passes))
    register_limits(app, core)
    app.before_request(require_key)
    register_prefer(app)
    register_idempotency(app)

    api = make_api(app)
    for module in (sessions, access, activity, messages, backups, system, docs, door):
        api.register_blueprint(module.blp)
    app.extensions[DOCUMENT] = app.json.dumps(build_document(api))
    return app
