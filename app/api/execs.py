"""The calls on commands in a workspace: run one, see what runs and ran, read the output, type into its terminal, end
it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from flask import Response, request

from app.agent.protocol import INPUT_BYTES, Window
from app.api.answers import BYTES, OCTETS, Answer
from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.event_schemas import STREAM, stream_of
from app.api.event_streams import HEARTBEAT, LIFETIME, by_parts, sse, streamed
from app.api.exec_schemas import (
    EndQuerySchema,
    ExecEntrySchema,
    ExecInputSchema,
    ExecListSchema,
    ExecQuerySchema,
    ExecSchema,
    InputQuerySchema,
    NewExecSchema,
    NewWindowSchema,
)
from app.api.idempotency import name_of_request
from app.api.messages import wants_stream
from app.api.prefer import wanted_wait
from app.api.reach import ERRORS, ReachQuerySchema, held, reach_of
from app.api.security import visible_session
from app.core.composition import Core
from app.core.execs.model import STREAMS, NewExec, Piece
from app.core.reach import Reach
from app.core.sessions.model import Record
from app.http.bodies import read_body
from app.http.problems import Problem

blp = Blueprint("execs", __name__, description="Commands in a workspace: run, follow, list, end.")

ENTRY = ExecEntrySchema()

AWAKE = {"wake": False}
"""The query of a call that reaches a workspace only while it is awake."""


@blp.route("/session/<session:uuid>/exec", methods=["POST"])
@blp.arguments(ReachQuerySchema, location="query")
@blp.arguments(NewExecSchema, example={"command": "python3 hello.py"})
@blp.response(200, ExecSchema, description="The command has ended; or the stream of its output, and last its end.")
@blp.alt_response(200, schema=stream_of("ExecEvents"), content_type=STREAM)
@blp.alt_response(202, schema=ExecSchema, description="It runs: it was detached, or the wait ran out.")
@blp.operation("exec", *ERRORS, 422, body=True, rate="work", audit="exec")
def run(query: dict[str, Any], wanted: dict[str, Any], uuid: str) -> Answer | Response:
    """Run a command in the workspace, and wait for its end; a session that sleeps is woken. With `Accept:
    text/event-stream` the answer is its output as it comes, and last its end. It goes on when the caller is gone. When
    the session is put to sleep it is ended."""
    record, reach = visible_session(uuid), reach_of(query)
    asked = NewExec(id=wanted.pop("id", "") or name_of_request() or secrets.token_hex(8), **wanted)
    if wants_stream():
        return streamed(lambda: begun_events(core(), record, asked, reach), record.user_id, uuid)
    seconds = 0.0 if asked.detach else wanted_wait(core().settings.wait_default)
    with held(record, seconds):
        found = core().execs.begin(uuid, asked, reach, seconds)
    return found, 202 if found.running else 200


@blp.route("/session/<session:uuid>/exec", methods=["GET"])
@blp.arguments(ReachQuerySchema, location="query")
@blp.response(200, ExecListSchema)
@blp.operation("listExecs", *ERRORS, 400, rate="work")
def list_all(query: dict[str, Any], uuid: str) -> Mapping[str, Any]:
    """List the commands that run, and the last hundred that ran, newest first."""
    record = visible_session(uuid)
    with held(record):
        return {"execs": core().execs.known(uuid, reach_of(query))}


@blp.route("/session/<session:uuid>/exec/<exec_id>", methods=["GET"])
@blp.arguments(ExecQuerySchema, location="query")
@blp.response(200, ExecSchema, description="The command; or, with `stream`, the bytes it wrote; or a stream of these.")
@blp.alt_response(200, schema=stream_of("ExecEvents"), content_type=STREAM)
@blp.alt_response(200, schema=BYTES, content_type=OCTETS)
@blp.alt_response(206, schema=BYTES, content_type=OCTETS, description="A part of the bytes.")
@blp.operation("getExec", *ERRORS, 400, 416, rate="work")
def show(query: dict[str, Any], uuid: str, exec_id: str) -> Answer | Response:
    """Show a command with its output so far; answers at once unless asked to wait for its end. With `Accept:
    text/event-stream` its output as it comes; `Last-Event-ID` resumes after that event."""
    record, reach = visible_session(uuid), reach_of(query)
    if "stream" in query:
        return output(record, exec_id, query["stream"], reach)
    if wants_stream():
        seen = resumed_after(request.headers.get("Last-Event-ID"))
        return streamed(lambda: events(core(), record, exec_id, seen, reach), record.user_id, uuid)
    seconds = wanted_wait(0.0)
    with held(record, seconds):
        return core().execs.show(uuid, exec_id, reach, seconds), 200


@blp.route("/session/<session:uuid>/exec/<exec_id>", methods=["DELETE"])
@blp.arguments(EndQuerySchema, location="query")
@blp.response(200, ExecSchema)
@blp.alt_response(202, schema=ExecSchema, description="It still runs.")
@blp.operation("endExec", *ERRORS, 400, rate="work", audit="end_exec")
def end(query: dict[str, Any], uuid: str, exec_id: str) -> Answer:
    """End a command with all it started, or send it a signal, and wait for its end; one that has ended stays as it
    is."""
    record, seconds = visible_session(uuid), wanted_wait(core().settings.wait_default)
    with held(record, seconds):
        found = core().execs.kill(uuid, exec_id, query.get("signal"), reach_of(query), seconds)
    return found, 202 if found.running else 200


@blp.route("/session/<session:uuid>/exec/<exec_id>/input", methods=["PUT"])
@blp.arguments(InputQuerySchema, location="query")
@blp.response(200, ExecInputSchema)
@blp.doc(requestBody={"required": True, "content": {OCTETS: {"schema": BYTES}}})
@blp.operation("writeExecInput", *ERRORS, 400, 413, rate="input")
def type_in(query: dict[str, Any], uuid: str, exec_id: str) -> Mapping[str, Any]:
    """Type the bytes of the body into the terminal of a command: as many as there is room for, of 64 KiB at most. A
    repetition whose answer was lost types nothing twice. It wakes nothing: a sleep has ended the command."""
    record, data = visible_session(uuid), read_body(INPUT_BYTES)
    with held(record):
        taken = core().execs.type_in(uuid, exec_id, query["at"], data, reach_of(AWAKE))
    return {"uuid": uuid, "exec_id": exec_id, "input_bytes": taken}


@blp.route("/session/<session:uuid>/exec/<exec_id>/window", methods=["PUT"])
@blp.arguments(NewWindowSchema, example={"rows": 40, "columns": 120})
@blp.response(204, description="The terminal has this size.")
@blp.operation("setExecWindow", *ERRORS, body=True, rate="input")
def resize(wanted: dict[str, Any], uuid: str, exec_id: str) -> Response:
    """Give the terminal of a command another size. It wakes nothing."""
    record = visible_session(uuid)
    with held(record):
        core().execs.resize(uuid, exec_id, Window(**wanted), reach_of(AWAKE))
    return Response(status=204)


def begun_events(service: Core, record: Record, asked: NewExec, reach: Reach) -> Iterator[str]:
    """Run a command; returns the lines of the stream about it."""
    service.execs.begin(record.uuid, asked, reach, 0.0)
    return events(service, record, asked.id, dict.fromkeys(STREAMS, 0), reach)


def events(service: Core, record: Record, exec_id: str, seen: dict[str, int], reach: Reach) -> Iterator[str]:
    """The lines of a stream about a command: its output after the bytes `seen`, and last its end."""
    at = dict(seen)

    def lines(piece: Piece) -> Iterator[str]:
        for name in STREAMS:
            at[name] = piece.following[name]
            if piece.texts[name]:
                yield sse(_position(at), name, {"text": piece.texts[name]})
        if not piece.more:
            yield sse(_position(at), "exit", ENTRY.dump(piece.about))

    return by_parts(service.execs.follow(record.uuid, exec_id, seen, reach, LIFETIME, HEARTBEAT), lines)


def _position(seen: Mapping[str, int]) -> str:
    """The id of an event: the bytes of each stream that it and those before it have shown."""
    return "-".join(str(seen[name]) for name in STREAMS)


def resumed_after(last_event_id: str | None) -> dict[str, int]:
    """The bytes of each stream that a client has seen; raises a 400."""
    parts = (last_event_id or "0-0").split("-")
    if len(parts) != len(STREAMS) or not all(part.isdecimal() and part.isascii() and len(part) < 16 for part in parts):
        raise Problem(400, "invalid_request", "Last-Event-ID is not the id of an event of this stream.")
    return dict(zip(STREAMS, map(int, parts), strict=True))


def output(record: Record, exec_id: str, stream: str, reach: Reach) -> Response:
    """The bytes of a stream that are kept, or the part that `Range` asks for."""
    with ExitStack() as slot:
        slot.enter_context(held(record))
        kept = core().execs.show(record.uuid, exec_id, reach).kept[stream]
        response = Response(mimetype=OCTETS)
        response.content_length = kept
        response.make_conditional(request, accept_ranges=True, complete_length=kept)
        if response.status_code in (200, 206) and request.method != "HEAD":
            part = response.content_range
            start, stop = part.start or 0, part.stop or kept
            response.response = core().execs.read(record.uuid, exec_id, stream, start, stop, reach)
        response.call_on_close(slot.pop_all().close)
        return response
