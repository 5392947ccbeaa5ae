"""The gateway's process, put together: all that workspaces may ask of the manager, and nothing else.

It stands apart from the API because it is sized for streams that last for minutes, and because workspaces are hostile:
this is the only process of the service they can reach.
"""

from __future__ import annotations

import math
from threading import BoundedSemaphore

from flask import Flask, Response, request

from app.edge import register_edge
from app.gateway import agents, conversations, llm, system
from app.gateway.calls import Hangups
from app.gateway.context import EXTENSION, Gateway
from app.gateway.figures import Figures
from app.gateway.identity import register_identity, who_asks
from app.gateway.pacing import Pace
from app.gateway.provider import Provider
from app.problems import register_error_handlers
from app.secret_keys import Purpose
from app.sessions.core import build_core
from app.sessions.spending import Spending
from app.settings import Settings, SettingsError
from app.tarpit import register_tarpit

DELIVERY_INTERVAL = 1.0
"""s between two deliveries that an agent's calling sets going."""

RENEWAL_INTERVAL = 5.0
"""s between two renewals of a session's token that calls with an ended one set going: an agent has its new one in 2."""

CHECKPOINTS_AT_A_TIME = 4
"""Each holds a piece of a conversation in memory, several times over; an agent of an earlier release sends it whole."""


def create_app(settings: Settings | None = None) -> Flask:
    """The WSGI application; raises `SettingsError` for settings it can't serve with. Connects to nothing, and
    starts without a model."""
    settings = settings or Settings.from_env()
    if not settings.keys_for(Purpose.WORKSPACE):
        raise SettingsError("SECRET_KEY has no key for workspaces; without it none can be told from another.")
    core, figures = build_core(settings, stores_apart=True), Figures()
    app = Flask("gateway", static_folder=None, template_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.extensions[EXTENSION] = Gateway(
        core=core,
        spending=Spending(core.redis),
        provider=Provider(settings, figures),
        figures=figures,
        hangups=Hangups(),
        deliveries=Pace(DELIVERY_INTERVAL),
        renewals=Pace(RENEWAL_INTERVAL),
        old_tokens=Pace(math.inf),
        checkpoints=BoundedSemaphore(CHECKPOINTS_AT_A_TIME),
    )
    register_error_handlers(app)
    register_edge(app, max(settings.llm_max_body_bytes, conversations.WHOLE_MAX), core.budget)
    register_tarpit(app, who_asks, settings.gateway_connections)
    register_identity(app, settings.gateway_calls_per_session)
    app.after_request(lambda response: _count_request(figures, response))
    for module in (llm, agents, conversations, system):
        app.register_blueprint(module.blp)
    return app


def _count_request(figures: Figures, response: Response) -> Response:
    figures.requests.labels(request.endpoint or "none", str(response.status_code)).inc()
    return response
