"""The processes that serve the API and the ingress, put together.

gunicorn calls `create_app` and `create_forward_auth`; importing this module does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from app.api import access, activity, audit, backups, docs, door, holding, messages, probes, sessions, system
from app.api.blueprint import SessionName
from app.api.context import EXTENSION, KEYRING
from app.api.cors import register_cors
from app.api.errors import to_api_problem
from app.api.idempotency import register_idempotency
from app.api.limits import register_limits
from app.api.openapi import DOCUMENT, build_document, make_api
from app.api.pages import Pages
from app.api.prefer import register_prefer
from app.api.refusals import PAGES
from app.api.security import Keyring, identify, read_keyring, require_key, stranger
from app.api.streams import SLOTS, stream_slots
from app.edge import register_edge
from app.problems import register_error_handlers
from app.sessions.core import Core, build_core
from app.settings import Settings
from app.tarpit import register_tarpit

NO_BODY = 1_024
"""bytes: the ingress asks by GET, and sends none."""

SMALL_BODY = 65_536
"""Bytes of a request with a few fields: 32 labels as long as they may be, all of it escaped, have 60,000."""

CHAT = "messages.chat"


def largest_prompt(settings: Settings) -> int:
    """Bytes of a prompt in JSON, in which each of its own may take six (`\\u0007`), and what stands around it."""
    return min(settings.max_body_bytes, 6 * settings.message_max_bytes + 4_096)


class SyncFlask(Flask):
    """Flask without its look, before every call of a view or hook, for an async one: there are none here,
    and a dozen looks a request cost as much as the view."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func


def create_app(settings: Settings | None = None) -> Flask:
    """The WSGI application; raises `SettingsError` for settings it can't serve with. Connects to nothing:
    with Redis down it starts, and /readyz says 503."""
    settings = settings or Settings.from_env()
    app, core, keyring = _begin("app", settings)
    app.url_map.converters["session"] = SessionName
    app.extensions[SLOTS] = stream_slots(settings.max_streams)
    app.extensions[holding.EXTENSION] = holding.Holding(settings)
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies)  # type: ignore[method-assign]

    # The order is that of a request: who asks is known before the limits count it, and counted before
    # it is refused. Answers pass the same places in reverse.
    register_error_handlers(app, to_api_problem)
    register_edge(app, min(SMALL_BODY, settings.max_body_bytes), core.budget, {CHAT: largest_prompt(settings)})
    register_tarpit(app, stranger, settings.web_connections)
    audit.register_audit(app)
    register_cors(app, settings.allowed_origins())
    app.before_request(lambda: identify(keyring, core.passes))
    register_limits(app, core)
    app.before_request(require_key)
    register_prefer(app)
    register_idempotency(app)

    api = make_api(app)
    for module in (sessions, access, activity, messages, backups, audit, system, probes, docs):
        api.register_blueprint(module.blp)
    api.register_blueprint(door.back)
    app.extensions[DOCUMENT] = app.json.dumps(build_document(api))
    return app


def create_forward_auth(settings: Settings | None = None) -> Flask:
    """The application that the ingress asks who gets into a workspace; as `create_app` otherwise."""
    app, core, _ = _begin("forward_auth", settings or Settings.from_env())
    register_error_handlers(app, to_api_problem)
    register_edge(app, NO_BODY, core.budget)
    for module in (door, probes):
        app.register_blueprint(module.blp)
    return app


def _begin(name: str, settings: Settings) -> tuple[Flask, Core, Keyring]:
    """What both begin with."""
    keyring = read_keyring(settings)
    core = build_core(settings, stores_apart=True)
    app = SyncFlask(name, static_folder=None, template_folder=None)
    # A redirect to or from a trailing slash would be an HTML page, and OPTIONS an answer nobody described.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions[EXTENSION] = core
    app.extensions[KEYRING] = keyring
    app.extensions[PAGES] = Pages(settings.embedding_origins())
    return app, core, keyring
