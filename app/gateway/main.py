"""The gateway's application: all calls that workspaces may make to the manager.

It is a process of its own because it is sized for streams that last minutes, and because workspaces are hostile: they
can reach no other process of the service.
"""

from __future__ import annotations

import math

from flask import Blueprint, Flask, Response, g, request

from app.core.agents.requests import AGENT_TIMEOUT
from app.core.composition import Core, check_keys
from app.core.prompts.token_usage import TokenUsage
from app.core.throttle import Throttle
from app.gateway import agents, conversations, llm
from app.gateway.audit import register_audit
from app.gateway.cancellation import DisconnectWatcher
from app.gateway.gateway_metrics import Metrics
from app.gateway.identity import register_identity, who_asks
from app.gateway.parts import EXTENSION, Gateway, gateway
from app.gateway.provider import Provider
from app.http import readiness
from app.http.concurrency import Slots
from app.http.hooks import register_request_hooks
from app.http.problems import Problem, register_error_handlers
from app.http.tarpit import register_tarpit
from app.http.traced_requests import trace_requests
from app.process.secret_keys import Purpose
from app.process.settings import Settings, SettingsError

blp = Blueprint("system", __name__)

DELIVERY_INTERVAL = 1.0
"""s between two deliveries that a session's hellos trigger."""

RENEWAL_INTERVAL = 5.0
"""s between two renewals of a session's token that calls with an ended one trigger; a new one arrives within 2."""

CHECKPOINTS_AT_A_TIME = 4
"""Each holds a part of a conversation in memory several times."""


def create_app(settings: Settings | None = None) -> Flask:
    """The WSGI application; raises `SettingsError` for invalid settings, and for an ARCHIVE_KEY that lacks a key of the
    stored conversations. It waits for nothing, and starts without a model."""
    settings = settings or Settings.from_env()
    check_keys(settings, backups=False)
    if not settings.keys_for(Purpose.WORKSPACE):
        raise SettingsError("SECRET_KEY has no key for workspace tokens, which identify workspaces.")
    core, metrics = Core(settings, stores_apart=True), Metrics()
    app = Flask("gateway", static_folder=None, template_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.extensions[EXTENSION] = Gateway(
        core=core,
        token_usage=TokenUsage(core.redis),
        provider=Provider(settings, metrics),
        metrics=metrics,
        disconnects=DisconnectWatcher(),
        deliveries=Throttle(DELIVERY_INTERVAL),
        # A notice may take as long, so a session holds one delivery worker with them.
        notices=Throttle(AGENT_TIMEOUT),
        renewals=Throttle(RENEWAL_INTERVAL),
        begun_answers=Throttle(math.inf),
        checkpoints=Slots(CHECKPOINTS_AT_A_TIME),
    )
    register_error_handlers(app)
    largest = max(llm.LARGEST_REQUEST, conversations.CHECKPOINT_MAX)
    register_request_hooks(app, metrics.http, largest, core.budget)
    register_tarpit(app, who_asks)
    register_audit(app)
    register_identity(app, settings.gateway_calls_per_session)
    trace_requests(app, lambda: "session" in g, continued_only=True)
    app.after_request(lambda response: _count_request(metrics, response))
    for calls in (llm.blp, agents.blp, conversations.blp, blp):
        app.register_blueprint(calls)
    return app


def _count_request(metrics: Metrics, response: Response) -> Response:
    metrics.requests.labels(request.endpoint or "none", str(response.status_code)).inc()
    return response


@blp.get("/livez")
def livez() -> Response:
    """Whether the process answers."""
    return readiness.alive()


@blp.get("/readyz")
def readyz() -> Response:
    """Whether requests can be served: Redis answers. No model is needed."""
    return readiness.ready(gateway().core.heartbeats)


@blp.get("/metrics")
def metrics() -> Response:
    """Metrics for Prometheus, as long as they have no port of their own: workspaces reach this one."""
    if gateway().core.settings.metrics_port:
        raise Problem(404, "not_found", "The metrics are at METRICS_PORT, which workspaces don't reach.")
    text, content_type = gateway().metrics.text(request.headers.get("Accept", ""))
    return Response(text, content_type=content_type)
