"""How a person without a cookie for a port of a workspace gets one: by the workspace's own address.

A port's address has a cookie of its own, which only a login link sets. Who opens the address without one is sent to the
workspace's address, and there, if that has a cookie, led back with a new link. So a port's address, given on, opens for
all who may open the workspace, and for no one else.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode

from flask import Response

from app.api.current import core
from app.core.access.access_policy import PORT_PATH, Outcome
from app.core.access.forwarded_request import ForwardedRequest, Target
from app.core.access.landing_path import PARAMETER, is_landing, landing, with_parameter
from app.core.sessions.model import Record
from app.core.sessions.opened_ports import port_named

NEXT = "Workspace-Next"
"""The header that tells nginx what /auth/again shall show or do; nginx's redirect there repeats it."""

TO_PORT_NEXT = rf"{Outcome.TO_PORT}\.[A-Za-z0-9_-]{{43}}"
"""What it says to lead a visitor on to a port: with the secret of a link."""


def asked_port(query: str) -> int:
    """The port that a query asks to be led to, 0 for none."""
    return port_named(parse_qs(query).get("port", [""])[0])


def way_by_workspace(target: Target) -> str:
    """The address of the workspace that leads back to this address of a port."""
    asked = urlencode({"port": target.port, "path": landing(target.path, target.query)})
    return f"{core().settings.workspace_url(target.uuid)}{PORT_PATH}?{asked}"


def by_workspace(target: Target) -> Response:
    """The redirect to the workspace, for the visitor of a port."""
    return _onward(way_by_workspace(target), Outcome.BY_WORKSPACE)


def to_port(forwarded: ForwardedRequest, record: Record) -> Response:
    """The redirect to the port that was opened for the visitor, by a new link; to the workspace if none was asked
    for."""
    port = asked_port(forwarded.query)
    if not port:
        return _onward(core().settings.workspace_url(forwarded.uuid) + "/", Outcome.DROP_LINK)
    secret = core().login_links.make(record.uuid, record.access_epoch, port)
    response = by_link(forwarded, secret)
    response.headers[NEXT] = f"{Outcome.TO_PORT}.{secret}"
    return response


def by_link(target: Target, secret: str) -> Response:
    """The redirect to the port that `target` asks for, by the link with this secret."""
    path = parse_qs(target.query).get("path", ["/"])[0]
    goal = with_parameter(path if is_landing(path) else "/", PARAMETER + secret)
    return _onward(core().settings.workspace_url(target.uuid, asked_port(target.query)) + goal, Outcome.TO_PORT)


def _onward(url: str, outcome: Outcome) -> Response:
    headers = {"Location": url, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", NEXT: outcome.value}
    return Response(status=302, headers=headers)
