"""The calls on services: start one, see what there is and what it does, read its log, end it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request

from app.agent.execs.calls import PIECE_BYTES, refusals
from app.agent.execs.execs import TooMany
from app.agent.requests import Problem, awaited, json_object, natural
from app.agent.services.definition import read_definition
from app.agent.services.service import Service
from app.agent.services.services import Services

SERVICES = "services"
"""The key of the workspace's services in `Flask.extensions`."""

services = Blueprint("services", __name__, url_prefix="/services")


@services.post("")
def start() -> Response:
    """Have a service run, and wait `wait` seconds until it does; `new`: whether its name is."""
    body = json_object()
    with awaited(body.get("wait", 0)) as left, refusals(), _keeping():
        try:
            service, new = _services().start(read_definition(body))
        except TooMany:
            text = "This workspace has as many services as it may have; remove one first."
            raise Problem(429, "too_many_services", text) from None
        return _answer(service, left, new=new)


@services.get("")
def list_all() -> Response:
    """All services, by name."""
    with refusals():
        return jsonify({"services": [service.told() for service in _services().all()]})


@services.get("/<service_name>")
def show(service_name: str) -> Response:
    """A service; after `wait` seconds at most, once its state does not pass by itself."""
    with awaited(natural("wait", 0)) as left:
        return _answer(_find(service_name), left)


@services.post("/<service_name>/restart")
def restart(service_name: str) -> Response:
    """End a service, if it runs, and start it; then as `show`."""
    with awaited(json_object().get("wait", 0)) as left, refusals():
        return _answer(_known(_services().restart(service_name)), left)


@services.delete("/<service_name>")
def remove(service_name: str) -> Response:
    """End a service, and forget it with its log."""
    with refusals(), _keeping():
        if not _services().remove(service_name):
            raise _unknown()
    return jsonify({})


@services.get("/<service_name>/log")
def read_log(service_name: str) -> Response:
    """The log from byte `offset` on, or from `tail` bytes before its end, or from the first byte kept; as soon as there
    is some, or after `wait` seconds."""
    service = _find(service_name)
    with awaited(natural("wait", 0)) as left:
        if "offset" in request.args:
            offset = natural("offset", 0)
        else:
            offset = service.place_in_log(natural("tail", 0) if "tail" in request.args else None)
        text, following = service.piece(offset, PIECE_BYTES, left())
        told = service.told()
    return jsonify({"service": told, "text": text, "next": following, "size": told["log_bytes"]})


def _services() -> Services:
    services: Services = current_app.extensions[SERVICES]
    return services


def _find(service_name: str) -> Service:
    with refusals():
        return _known(_services().find(service_name))


def _known(found: Service | None) -> Service:
    if found is None:
        raise _unknown()
    return found


def _unknown() -> Problem:
    return Problem(404, "service_not_found", "This workspace has no service of this name.")


@contextlib.contextmanager
def _keeping() -> Iterator[None]:
    """Answer 507 when the services there are can't be kept."""
    try:
        yield
    except OSError:
        raise Problem(507, "workspace_full", "The workspace's disk can't be written; it may be full.") from None


def _answer(service: Service, left: Callable[[], float], **more: Any) -> Response:
    """A service, once its state does not pass by itself, or no time is left."""
    service.wait(left())
    return jsonify({**service.told(), **more})
