"""The calls on ports of a workspace: see what listens, open one to a browser or to everybody, close it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from flask import Response, g
from werkzeug.routing import BaseConverter, ValidationError

from app.agent.protocol import PortState
from app.api.access import existing, link_to, require_keys
from app.api.blueprint import Blueprint
from app.api.current import core, request_id
from app.api.idempotency import answer_has_secret
from app.api.port_schemas import OpenPortSchema, PortListSchema, PortOpeningSchema, ShownPort
from app.api.prefer import wanted_wait
from app.api.reach import ERRORS, ReachQuerySchema, held, reach_of
from app.api.security import visible_session
from app.core.access.login_links import LINK_TTL
from app.core.ports.model import Port
from app.core.sessions.opened_ports import PORT_REGEX, port_named

blp = Blueprint("ports", __name__, description="Ports of a workspace: list, open, close.")

HERE = "/session/<session:uuid>/ports"


class PortNumber(BaseConverter):
    """The part of a path that is a port, written in one way; anything else is a path that does not exist."""

    regex = PORT_REGEX

    def to_python(self, value: str) -> int:
        if port := port_named(value):
            return port
        raise ValidationError


@blp.route(HERE, methods=["GET"])
@blp.arguments(ReachQuerySchema, location="query")
@blp.response(200, PortListSchema)
@blp.operation("listPorts", *ERRORS, 400, rate="work")
def list_all(query: dict[str, Any], uuid: str) -> Mapping[str, Any]:
    """List the ports where something listens, those of services, and the opened ones, by number."""
    with held(visible_session(uuid)):
        told = {each.port: each for each in core().ports.known(uuid, reach_of(query))}
    opened = {each.port: each for each in core().sessions.get(uuid).opened_ports}
    ports = {port: told.get(port) or Port(port, PortState.STOPPED) for port in sorted(told | opened)}
    return {"ports": [ShownPort(uuid, each, opened.get(port)) for port, each in ports.items()]}


@blp.route(f"{HERE}/<port:port>/open", methods=["POST"])
@blp.arguments(ReachQuerySchema, location="query")
@blp.arguments(OpenPortSchema, required=False)
@blp.response(200, PortOpeningSchema)
@blp.operation("openPort", *ERRORS, body=True, rate="work", audit="open_port")
def open_one(query: dict[str, Any], wanted: dict[str, Any], uuid: str, port: int) -> ShownPort:
    """Open a port, and wait while the service there starts; a session that sleeps is woken. The answer has a single-use
    login link to `path`, for 30 s. With `public_until` anybody may see the port until then, and the answer has the
    plain address; without, nobody but who may open the workspace, also where it was public before. The same
    Idempotency-Key makes another link: secrets are not stored."""
    record, seconds = existing(visible_session(uuid)), wanted_wait(core().settings.wait_default)
    require_keys()
    answer_has_secret()
    path, until = wanted.get("path", "/"), int(wanted["public_until"] or 0)
    g.public_port = until > 0  # for the audit
    with held(record, seconds):
        told = core().ports.show(uuid, port, reach_of(query), seconds)
    opened = core().openings.open(uuid, port, until, request_id())
    if until:
        return ShownPort(uuid, told, opened, core().settings.workspace_url(uuid, port) + path)
    return ShownPort(uuid, told, opened, link_to(record, path, port), time.time() + LINK_TTL)


@blp.route(f"{HERE}/<port:port>", methods=["DELETE"])
@blp.response(204, description="It is closed, whether it was open or not.")
@blp.operation("closePort", 404, 409, rate="work", audit="close_port")
def close(uuid: str, port: int) -> Response:
    """Close a port: whoever saw it by a link, a cookie or as the public can't any more. The workspace is not asked."""
    visible_session(uuid)
    core().openings.close(uuid, port, request_id())
    return Response(status=204)
