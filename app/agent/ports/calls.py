"""The calls on ports: what listens where, and what is at one of them."""

from __future__ import annotations

import re

from flask import Blueprint, Response, abort, current_app, jsonify

from app.agent.execs.calls import refusals
from app.agent.ports.ports import Ports
from app.agent.requests import awaited, natural

PORTS = "ports"
"""The key of the workspace's ports in `Flask.extensions`."""

NUMBER = re.compile(r"[1-9][0-9]{0,4}")

HIGHEST = 65_535

ports = Blueprint("ports", __name__, url_prefix="/ports")


@ports.get("")
def list_all() -> Response:
    """The ports on which something listens and those of services, by number."""
    with refusals():
        return jsonify({"ports": [port.told() for port in _ports().all()]})


@ports.get("/<port>")
def show(port: str) -> Response:
    """A port, whether anything is there or not; after `wait` seconds at most, once it is not `starting`."""
    number = int(port) if NUMBER.fullmatch(port) else 0
    if not 1 <= number <= HIGHEST:
        abort(404)
    with awaited(natural("wait", 0)) as left, refusals():
        return jsonify(_ports().find(number, left()).told())


def _ports() -> Ports:
    ports: Ports = current_app.extensions[PORTS]
    return ports
