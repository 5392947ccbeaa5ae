"""The calls on services of a workspace: start one, see what runs, restart it, read its log, stop it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from flask import Response, request
from werkzeug.routing import BaseConverter

from app.api.answers import Answer
from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.event_schemas import STREAM, stream_of
from app.api.event_streams import HEARTBEAT, LIFETIME, by_parts, sse, streamed
from app.api.messages import wants_stream
from app.api.openapi import PLAIN
from app.api.prefer import wanted_wait
from app.api.reach import ERRORS, ReachQuerySchema, held, reach_of
from app.api.security import visible_session
from app.api.service_schemas import LogQuerySchema, NewServiceSchema, ServiceListSchema, ServiceSchema
from app.core.composition import Core
from app.core.reach import Reach
from app.core.services.model import LogPiece, NewService, Service
from app.core.sessions.model import Record
from app.http.problems import Problem

blp = Blueprint("services", __name__, description="Services of a workspace: start, list, restart, follow, stop.")

HERE = "/session/<session:uuid>/services"
POSITION = re.compile(r"[0-9]{1,15}")
SERVICE = ServiceSchema()


class ServiceName(BaseConverter):
    """The part of a path that names a service. A malformed name is answered as a service that doesn't exist."""


@blp.route(HERE, methods=["POST"])
@blp.arguments(ReachQuerySchema, location="query")
@blp.arguments(NewServiceSchema, example={"name": "web", "command": "npm run dev", "port": 3000})
@blp.response(200, ServiceSchema, description="It was known.")
@blp.alt_response(201, schema=ServiceSchema, description="It is new.")
@blp.operation("startService", *ERRORS, 507, body=True, rate="work", audit="start_service")
def start(query: dict[str, Any], wanted: dict[str, Any], uuid: str) -> Answer:
    """Define a service and start it, and wait until it is up; a session that sleeps is woken. The same definition again
    leaves one that runs as it is; another one takes the place of the old one."""
    record, seconds = visible_session(uuid), wanted_wait(core().settings.wait_default)
    with held(record, seconds):
        found, new = core().services.start(uuid, NewService(**wanted), reach_of(query), seconds)
    return found, 201 if new else 200


@blp.route(HERE, methods=["GET"])
@blp.arguments(ReachQuerySchema, location="query")
@blp.response(200, ServiceListSchema)
@blp.operation("listServices", *ERRORS, 400, rate="work")
def list_all(query: dict[str, Any], uuid: str) -> Mapping[str, Any]:
    """List the services, by name."""
    record = visible_session(uuid)
    with held(record):
        return {"services": core().services.known(uuid, reach_of(query))}


@blp.route(f"{HERE}/<service:name>", methods=["GET"])
@blp.arguments(ReachQuerySchema, location="query")
@blp.response(200, ServiceSchema)
@blp.operation("getService", *ERRORS, 400, rate="work")
def show(query: dict[str, Any], uuid: str, name: str) -> Service:
    """Show a service; answers at once unless asked to wait until it is up, or has ended for good."""
    record, seconds = visible_session(uuid), wanted_wait(0.0)
    with held(record, seconds):
        return core().services.show(uuid, name, reach_of(query), seconds)


@blp.route(f"{HERE}/<service:name>/restart", methods=["POST"])
@blp.arguments(ReachQuerySchema, location="query")
@blp.response(200, ServiceSchema)
@blp.operation("restartService", *ERRORS, 400, rate="work", audit="restart_service")
def restart(query: dict[str, Any], uuid: str, name: str) -> Service:
    """End a service and start it again, also one that has ended, and wait until it is up."""
    record, seconds = visible_session(uuid), wanted_wait(core().settings.wait_default)
    with held(record, seconds):
        return core().services.restart(uuid, name, reach_of(query), seconds)


@blp.route(f"{HERE}/<service:name>", methods=["DELETE"])
@blp.arguments(ReachQuerySchema, location="query")
@blp.response(204, description="It is ended, and forgotten with its log.")
@blp.operation("stopService", *ERRORS, 400, 507, rate="work", audit="stop_service")
def stop(query: dict[str, Any], uuid: str, name: str) -> Response:
    """End a service with all it started, and forget it with its log."""
    record = visible_session(uuid)
    with held(record):
        core().services.stop(uuid, name, reach_of(query))
    return Response(status=204)


@blp.route(f"{HERE}/<service:name>/log", methods=["GET"])
@blp.arguments(LogQuerySchema, location="query")
@blp.response(200, PLAIN, content_type="text/plain", description="The log as far as it is kept; or a stream of it.")
@blp.alt_response(200, schema=stream_of("LogEvents"), content_type=STREAM)
@blp.operation("getServiceLog", *ERRORS, 400, rate="work")
def log(query: dict[str, Any], uuid: str, name: str) -> Response:
    """Read the log of a service. With `Accept: text/event-stream` as it comes, and last its end; `Last-Event-ID`
    resumes after that event."""
    record, reach, tail = visible_session(uuid), reach_of(query), query["tail"]
    if wants_stream():
        seen = resumed_after(request.headers.get("Last-Event-ID"))
        return streamed(lambda: events(core(), record, name, seen, tail, reach), record.user_id, uuid)
    with ExitStack() as slot:
        slot.enter_context(held(record))
        response = Response(core().services.log(uuid, name, tail, reach), mimetype="text/plain")
        response.call_on_close(slot.pop_all().close)
        return response


def events(service: Core, record: Record, name: str, seen: int | None, tail: int | None, reach: Reach) -> Iterator[str]:
    """The lines of a stream about a service: its log after the position `seen`, and last its end."""

    def lines(piece: LogPiece) -> Iterator[str]:
        if piece.text:
            yield sse(str(piece.following), "log", {"text": piece.text})
        if not piece.more:
            yield sse(str(piece.following), "stopped", SERVICE.dump(piece.about))

    return by_parts(service.services.follow(record.uuid, name, seen, tail, reach, LIFETIME, HEARTBEAT), lines)


def resumed_after(last_event_id: str | None) -> int | None:
    """The position in the log that a client has seen, None for none; raises a 400."""
    if last_event_id is None:
        return None
    if not POSITION.fullmatch(last_event_id):
        raise Problem(400, "invalid_request", "Last-Event-ID is not the id of an event of this stream.")
    return int(last_event_id)
