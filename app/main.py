"""The applications of web and forward auth.

gunicorn calls `create_app` and `create_forward_auth`; importing this module does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response
from flask.json.provider import DefaultJSONProvider
from flask_limiter import RateLimitExceeded
from werkzeug.exceptions import NotFound
from werkzeug.middleware.proxy_fix import ProxyFix

from app.api import (
    access,
    activity,
    audit,
    backups,
    costs,
    dead_letters,
    diagnosis,
    docs,
    execs,
    feed,
    file_changes,
    files,
    forward_auth,
    going_back,
    keys,
    messages,
    overview,
    past_events,
    ports,
    probes,
    processes,
    recovery,
    restore_points,
    services,
    session_metrics,
    sessions,
    system,
    tenant_limits,
    trees,
)
from app.api import (
    settings as settings_call,
)
from app.api.blueprint import SessionName
from app.api.cors import register_cors
from app.api.current import EXTENSION, KEYRING
from app.api.event_streams import SLOTS, stream_slots
from app.api.idempotency import register_idempotency
from app.api.instruments import INSTRUMENTS, ForwardAuthInstruments, WebInstruments
from app.api.openapi import make_api
from app.api.pages import Pages
from app.api.prefer import register_prefer
from app.api.rate_limits import refusal, register_limits
from app.api.refusals import PAGES
from app.api.security import has_key, identify, require_key, tarpit_name
from app.core.access.keyring import Keyring, read_keyring
from app.core.composition import Core, check_keys
from app.http.hooks import register_request_hooks
from app.http.problems import Problem, register_error_handlers, to_problem
from app.http.tarpit import register_tarpit
from app.http.traced_requests import trace_requests
from app.look.product import Product
from app.process.settings import Settings
from app.web.application import by_host, create_dashboard

NO_BODY = 1_024
"""Bytes; the ingress asks by GET, without a body."""

SMALL_BODY = 65_536
"""Bytes of a request with a few fields: 32 labels of the greatest length, all escaped, have 60,000."""

LARGEST_EXEC = 1_310_720
"""Bytes of the largest request to run a command: as much for its arguments and its input each as for a prompt."""

CHAT, EXEC, WRITE, UNPACK = "messages.chat", "execs.run", "files.write", "trees.write"


def largest_prompt(settings: Settings) -> int:
    """Bytes of the largest prompt request: JSON may take six bytes for one (`\\u0007`), plus the other fields."""
    return 6 * settings.prompt_max_bytes + 4_096


class OneLine(DefaultJSONProvider):
    """Writes answers as events and problem documents are written: in one line, with spaces, names in their order."""

    sort_keys = False

    def response(self, *args: Any, **kwargs: Any) -> Response:
        [answer] = args
        return Response(self.dumps(answer), mimetype=self.mimetype)


class SyncFlask(Flask):
    """Flask without its check, before each view and hook, whether that is async. None is, and a dozen checks a request
    cost as much as the view."""

    json_provider_class = OneLine

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func


def create_app(settings: Settings | None = None) -> Flask:
    """The API's WSGI application; raises `SettingsError` for invalid settings, and for an ARCHIVE_KEY
    that lacks a key of the stores. It waits for nothing: without Redis it starts, and /readyz says 503."""
    settings = settings or Settings.from_env()
    check_keys(settings, backups=settings.runtime == "local")
    app, core, keyring = _begin("app", settings)
    app.url_map.converters |= {
        "session": SessionName,
        "file": files.FilePath,
        "service": services.ServiceName,
        "port": ports.PortNumber,
    }
    app.extensions[SLOTS] = stream_slots(settings.max_streams)
    app.extensions[INSTRUMENTS] = instruments = WebInstruments()
    shown = {tenant_limits.Kind.STREAM: instruments.streams, tenant_limits.Kind.WAIT: instruments.waits}
    app.extensions[tenant_limits.EXTENSION] = tenant_limits.TenantLimits(settings, shown)

    # A request passes these in order: first the caller is known, then the limits count, then it may be refused. Answers
    # pass in reverse order.
    register_error_handlers(app, to_api_problem)
    app.before_request(lambda: identify(keyring, core.access_tokens))
    trace_requests(app, has_key)
    larger = {
        CHAT: largest_prompt(settings),
        EXEC: LARGEST_EXEC,
        WRITE: settings.file_max_bytes,
        UNPACK: settings.file_max_bytes,
    }
    register_request_hooks(app, instruments.http, SMALL_BODY, core.budget, larger)
    register_tarpit(app, tarpit_name)
    audit.register_audit(app)
    register_cors(app, settings.allowed_origins())
    register_limits(app, core)
    app.before_request(require_key)
    register_prefer(app)
    register_idempotency(app)

    api = make_api(app)
    for module in (
        sessions,
        feed,
        access,
        activity,
        messages,
        execs,
        services,
        ports,
        files,
        file_changes,
        trees,
        past_events,
        backups,
        restore_points,
        going_back,
        costs,
        session_metrics,
        audit,
        dead_letters,
        diagnosis,
        keys,
        overview,
        processes,
        recovery,
        settings_call,
        system,
        probes,
        docs,
    ):
        api.register_blueprint(module.blp)
    api.register_blueprint(forward_auth.again_blp)
    if location := settings.dashboard_location():
        # Behind the proxies' part: what the dashboard calls is the API alone, with the person's address.
        dashboard = create_dashboard(core, keyring, instruments.http, app.wsgi_app)
        app.wsgi_app = by_host(urlsplit(location).hostname or "", dashboard, app.wsgi_app)  # type: ignore[assignment, method-assign]
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies)  # type: ignore[method-assign]
    return app


def create_forward_auth(settings: Settings | None = None) -> Flask:
    """Forward auth's WSGI application; otherwise as `create_app`."""
    app, core, _ = _begin("forward_auth", settings or Settings.from_env())
    register_error_handlers(app, to_api_problem)
    app.extensions[INSTRUMENTS] = instruments = ForwardAuthInstruments()
    register_request_hooks(app, instruments.http, NO_BODY, core.budget)
    app.after_request(lambda response: forward_auth.count_decision(instruments, response))
    for module in (forward_auth, probes):
        app.register_blueprint(module.blp)
    return app


def _begin(name: str, settings: Settings) -> tuple[Flask, Core, Keyring]:
    """The part that both applications share."""
    keyring = read_keyring(settings)
    core = Core(settings, stores_apart=True, knows_keys=True)
    app = SyncFlask(name, static_folder=None, template_folder=None)
    # Redirects for slashes would be HTML pages, and answers to OPTIONS are not documented.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.extensions[EXTENSION] = core
    app.extensions[KEYRING] = keyring
    app.extensions[PAGES] = Pages(Product.of(settings), settings.embedding_origins())
    return app, core, keyring


def to_api_problem(error: Exception) -> Problem:
    """The problem for `error`."""
    if isinstance(error, RateLimitExceeded):
        return to_problem(refusal(error))
    if isinstance(error, NotFound):
        return Problem(404, "not_found", "There is no such path; /openapi.json lists all paths.")
    return to_problem(error)
