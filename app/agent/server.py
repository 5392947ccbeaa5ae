"""The agent's HTTP interface for prompts, their answers, and the manager's calls around a sleep.

Every path but `/health` requires `Authorization: Bearer` with the agent secret. Errors are RFC 9457 problem
documents with a stable code in `error`, like the manager's.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import math
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from werkzeug.exceptions import HTTPException

from app.agent.activity_reporter import announce, tell_files, tell_stopping
from app.agent.checkpoints import pieces
from app.agent.editor import EditorDown, pass_order
from app.agent.events import outcome_event
from app.agent.execs.calls import EXECS, execs
from app.agent.files.calls import CHANGED, FILES, TREES, WORKSPACE, files
from app.agent.ports.calls import PORTS, ports
from app.agent.prompt_status import ID
from app.agent.protocol import Event
from app.agent.requests import (
    WAITING,
    WAITING_CALLERS,
    Problem,
    json_object,
    natural,
    problem_response,
    waiting,
    writing,
)
from app.agent.service import Agent
from app.agent.services.calls import SERVICES, services
from app.agent.state import IdReused, QueueFull
from app.agent.text import clean, moment
from app.agent.traces import HEADER
from app.agent.turns import PAUSING, Busy
from app.agent.undo.points import NO_POINT, NO_ROOM, UndoFailed
from app.agent.unsaved_work import find_unsaved_work
from app.volume.fingerprint import fingerprint

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

VERSION = "1"
"""Of this interface."""

WAIT_LIMIT = 3600.0
"""Seconds a caller waits for an outcome at most, however long the queue is."""

LOADING_WAIT = 5.0
"""Seconds a call waits for the conversation to load. The first prompt arrives as soon as the socket is open, well
before that."""

KEEP_ALIVE = 15.0
CANCEL_WAIT = 5.0
NOTICE_MOST = 86_400.0
"""Seconds before a sleep that a notice may announce it."""

HISTORY_LIMIT = 10_000
PUSH_SECONDS = 8.0
"""Default time for a pushed checkpoint; the manager waits 10."""

AGENT = "agent"
"""The agent's key in `Flask.extensions`."""

api = Blueprint("agent", __name__)


def create_app(agent: Agent) -> Flask:
    """The interface to this agent."""
    app = Flask(__name__)
    app.wsgi_app = _below(f"/chat/{agent.settings.uuid}", app.wsgi_app)  # type: ignore[assignment, method-assign]
    app.config["MAX_CONTENT_LENGTH"] = 8 * agent.settings.prompt_max_bytes + 10_000
    app.extensions |= {AGENT: agent, EXECS: agent.execs, SERVICES: agent.services}
    app.extensions |= {
        FILES: agent.files,
        TREES: agent.trees,
        CHANGED: agent.changed,
        WORKSPACE: agent.workspace,
        PORTS: agent.ports,
    }
    app.extensions[WAITING] = threading.BoundedSemaphore(WAITING_CALLERS)
    app.register_error_handler(Problem, problem_response)
    app.register_blueprint(api)
    app.register_blueprint(execs)
    app.register_blueprint(files)
    app.register_blueprint(services)
    app.register_blueprint(ports)
    return app


def _below(prefix: str, served: WSGIApplication) -> WSGIApplication:
    """The application, served below `prefix` too: some ingresses that route a path to the agent do not strip it."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path.startswith(f"{prefix}/"):
            environ |= {"SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + prefix, "PATH_INFO": path[len(prefix) :]}
        return served(environ, start_response)

    return serve


def the_agent() -> Agent:
    agent: Agent = current_app.extensions[AGENT]
    return agent


# Before and after each view


@api.before_app_request
def check_secret() -> None:
    """Require the agent secret, on unknown paths too."""
    if request.path == "/health":
        return
    secret = the_agent().settings.agent_secret()
    given = request.headers.get("Authorization", "")
    if not secret or not hmac.compare_digest(given.encode(), f"Bearer {secret}".encode()):
        raise Problem(401, "unauthorized", "The agent secret is missing or wrong.")


@api.app_errorhandler(HTTPException)
def http_error_response(e: HTTPException) -> Response:
    """Flask's own errors (unknown path, body too large) as problem documents."""
    name = e.name or "Error"
    return problem_response(Problem(e.code or 500, name.lower().replace(" ", "_"), name))


# The views


@api.get("/health")
def health() -> Response:
    """Liveness, for the manager's probes."""
    return jsonify({"status": "ok", "busy": the_agent().turns.busy, "version": VERSION})


@api.get("/activity")
def activity() -> Response:
    """The running turn and the queue."""
    agent = the_agent()
    return jsonify(
        {
            "busy": agent.turns.busy,
            "turn": agent.turns.current(),
            "last_prompt_at": agent.state.last_prompt_at or None,
            "last_finished_at": agent.state.last_finished_at or None,
            "queued": agent.state.waiting(),
        }
    )


@api.get("/history")
def history() -> Response:
    """A page of messages: from index `after`, at most `limit` of them, and at most `bytes` bytes if given."""
    agent = _loaded()
    after = natural("after", 0)
    messages, total = agent.state.history(after, min(natural("limit", HISTORY_LIMIT), HISTORY_LIMIT))
    if "bytes" in request.args:
        messages = next(pieces(messages, natural("bytes", 0)), [])
    return jsonify({"messages": messages, "total": total})


@api.post("/checkpoint")
def checkpoint() -> Response:
    """Write the documents, and send the manager what it lacks within `seconds` (`push`)."""
    return jsonify(_loaded().push(_seconds(json_object(), PUSH_SECONDS)))


@api.get("/checkpoints")
def checkpoints() -> Response:
    """The undo points, newest first, and the last prompts without one. (Not the conversation's checkpoint.)"""
    agent = _loaded()
    try:
        points = agent.undo.listed()
    except UndoFailed as e:
        raise Problem(500, e.code, f"{e}.") from None
    known = [
        {**point, "created_at": moment(point["created_at"])}
        for point in points
        if agent.state.undoable(point["message_id"])
    ]
    missing = [{"message_id": id_, "reason": reason} for id_, reason in list(agent.undo.missing.items())]
    return jsonify({"checkpoints": known, "missing": missing})


@api.get("/checkpoints/<message_id>")
def find_checkpoint(message_id: str) -> Response:
    """Whether a prompt can be undone; `restored` if it has been."""
    agent = _loaded()
    try:
        undone = agent.find_undo(message_id)
    except UndoFailed as e:
        raise Problem(500, e.code, f"{e}.") from None
    if undone is None:
        raise _no_checkpoint()
    return jsonify({"message_id": message_id, "restored": undone})


@api.post("/checkpoints/<message_id>/restore")
def restore_checkpoint(message_id: str) -> Response:
    """Undo a prompt and all after it: the files and the conversation are as they were when it began."""
    agent = _loaded()
    begun = time.monotonic()
    try:
        with writing():
            undone = agent.undo_prompt(message_id)
    except Busy:
        raise Problem(409, "busy", "A turn runs; cancel it, or wait for its end.", retry=True) from None
    except UndoFailed as e:
        if e.code == NO_POINT:
            raise _no_checkpoint() from None
        status = 507 if e.code == NO_ROOM else 500
        raise Problem(status, e.code, f"The prompt can't be undone: {e}.") from None
    return jsonify({**undone, "ms": round(1000 * (time.monotonic() - begun))})


def _no_checkpoint() -> Problem:
    return Problem(404, "no_checkpoint", "There is no undo point of this prompt.")


@api.post("/notice")
def notice() -> Response:
    """Announce in the editor that the workspace will sleep in `seconds`, or tell that its files are those of
    `files_of` (seconds since the epoch)."""
    body, home = json_object(), the_agent().settings.home
    with writing():
        if "files_of" in body:
            tell_files(home, _files_of(body))
        else:
            announce(home, _seconds(body, math.nan))
    return jsonify({})


@api.post("/disconnect")
def disconnect() -> Response:
    """End the event streams, pass the manager's `order` to end connections on to the editor, and return the editor's
    confirmation."""
    agent, order = the_agent(), json_object().get("order")
    if not isinstance(order, str):
        raise Problem(400, "bad_request", "`order` must be a string.")
    agent.bus.end_streams()
    try:
        confirmation = pass_order(order, agent.settings.editor_port)
    except EditorDown as e:
        raise Problem(502, "editor_down", f"The editor did not confirm the order: {e}.", retry=True) from None
    return jsonify({"confirmation": confirmation})


@api.post("/unsaved-work")
def unsaved_work() -> Response:
    """Unsaved work in the workspace (app/agent/unsaved_work.py)."""
    agent = the_agent()
    return jsonify(find_unsaved_work(agent.settings.folder, agent.settings.home, agent.environment, agent.hidden))


@api.post("/fingerprint")
def files_fingerprint() -> Response:
    """A text that changes with the workspace's files (`fingerprint`), found within `seconds`."""
    deadline = time.monotonic() + _seconds(json_object(), math.nan)

    def check() -> None:
        if time.monotonic() > deadline:
            raise TimeoutError

    found = ""
    with contextlib.suppress(TimeoutError):
        found = fingerprint(the_agent().settings.folder.absolute().parent, check)
    return jsonify({"fingerprint": found})


@api.post("/cancel")
def cancel() -> Response:
    """Cancel the running turn, or the prompt `id`. Before a stop, end the connections to the editor too: its page asks
    then how the workspace is, and says that it sleeps, while the turn may take seconds to end."""
    agent, body = the_agent(), json_object()
    reason, id_ = body.get("reason", "user"), body.get("id") or ""
    if not isinstance(reason, str) or not isinstance(id_, str):
        raise Problem(400, "bad_request", "`reason` and `id` must be strings.")
    if reason in PAUSING:
        agent.expect_stop(reason)
        with contextlib.suppress(OSError):  # The volume is full: the page learns it when the editor ends.
            tell_stopping(agent.settings.home)
    cancelled = agent.turns.cancel(clean(reason)[:200], id_, _generation(body))
    if cancelled is not None:
        agent.state.wait_for_outcome(cancelled, CANCEL_WAIT)
    return jsonify({"cancelled": cancelled})


@api.post("/resume")
def resume() -> Response:
    """End the pause that a cancelled stop began."""
    agent = the_agent()
    agent.expect_stop("")
    agent.turns.resume(_generation(json_object()))
    return jsonify({})


@api.post("/chat")
def chat() -> Response | tuple[Response, int]:
    """Take a prompt, and wait for its outcome as long as the caller prefers, or stream its events."""
    agent = the_agent()
    id_, message = _prompt(agent)
    agent.traces.note(id_, request.headers.get(HEADER, ""))
    streams = "text/event-stream" in request.headers.get("Accept", "")
    seconds = _patience(request.headers.get("Prefer", ""))
    with contextlib.ExitStack() as held:
        if streams or seconds > 0:
            held.enter_context(waiting())
        if streams:
            # Watch before the prompt is accepted, so that no event is missed.
            events = held.enter_context(agent.bus.watch(id_))
            _accept(agent, id_, message)
            response = Response(_events(agent, id_, events), mimetype="text/event-stream")
            response.headers |= {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            response.call_on_close(held.pop_all().close)
            return response
        _accept(agent, id_, message)
        outcome = agent.state.outcome(id_) or _wait(agent, id_, seconds)
    if outcome is None:
        return jsonify({"id": id_, "status": "accepted"}), 202
    return jsonify({"id": id_, **outcome})


# Reading a request


def _loaded() -> Agent:
    """The agent, its conversation loaded."""
    agent = the_agent()
    if not agent.state.wait_until_loaded(LOADING_WAIT):
        raise Problem(503, "loading", "The conversation is still loading; retry later.", retry=True)
    return agent


def _seconds(body: dict[str, Any], default: float) -> float:
    """`seconds` of a body; a `default` of NaN makes it required."""
    seconds = body.get("seconds", default)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= NOTICE_MOST:
        raise Problem(400, "bad_request", f"`seconds` must be a number from 0 to {NOTICE_MOST:g}.")
    return seconds


def _files_of(body: dict[str, Any]) -> float:
    files_of = body["files_of"]
    if isinstance(files_of, bool) or not isinstance(files_of, int | float) or not 0 <= files_of < 1e11:
        raise Problem(400, "bad_request", "`files_of` must be seconds since the epoch.")
    return files_of


def _generation(body: dict[str, Any]) -> int:
    """The generation of the intent behind a request, 0 if not given."""
    generation = body.get("generation", 0)
    if isinstance(generation, bool) or not isinstance(generation, int) or generation < 0:
        raise Problem(400, "bad_request", "`generation` must be a non-negative integer.")
    return generation


def _prompt(agent: Agent) -> tuple[str, str]:
    """The id and the text in the request."""
    body = json_object()
    id_, message = body.get("id"), body.get("message")
    if not isinstance(id_, str) or not ID.fullmatch(id_):
        raise Problem(400, "bad_request", "`id` must be 1 to 64 characters of A-Z a-z 0-9 . _ -")
    if not isinstance(message, str) or not message.strip():
        raise Problem(400, "bad_request", "`message` must be a non-empty string.")
    message = clean(message)
    if len(message.encode()) > agent.settings.prompt_max_bytes:
        raise Problem(413, "message_too_large", f"`message` must have at most {agent.settings.prompt_max_bytes} bytes.")
    return id_, message


def _accept(agent: Agent, id_: str, message: str) -> None:
    """Take a prompt once; it is on disk when this returns."""
    _loaded()
    if agent.closing and not agent.state.knows(id_):
        raise Problem(503, "closing", "The workspace is about to stop.", retry=True)
    try:
        with writing():
            agent.state.accept(id_, message, limit=agent.settings.queue_limit)
    except IdReused:
        raise Problem(422, "message_id_reused", "This `id` was used before with another `message`.") from None
    except QueueFull:
        raise Problem(503, "queue_full", "The prompt queue of this agent is full; retry later.", retry=True) from None


def _patience(prefer: str) -> float:
    """Seconds a caller wants to wait for an outcome (RFC 7240)."""
    wanted = [part.strip().lower() for part in prefer.split(",")]
    if "respond-async" in wanted:
        return 0.0
    for part in wanted:
        name, _, value = part.partition("=")
        if name == "wait" and value.isdecimal():
            return min(float(value), WAIT_LIMIT)
    return WAIT_LIMIT


# Waiting for an outcome


def _wait(agent: Agent, id_: str, seconds: float) -> dict[str, Any] | None:
    """The outcome, None if the time is over or the process ends first."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not agent.stopping:
        outcome = agent.state.wait_for_outcome(id_, min(left, 1.0))
        if outcome is not None:
            return outcome
    return None


def _events(agent: Agent, id_: str, events: queue.Queue[Event | None]) -> Iterator[bytes]:
    """A prompt's events as server-sent events, the outcome last; comments keep an idle stream open."""
    deadline = time.monotonic() + WAIT_LIMIT
    yield b": here\n\n"
    while time.monotonic() < deadline:
        try:
            event = events.get(timeout=0 if agent.state.outcome(id_) else KEEP_ALIVE)
        except queue.Empty:
            outcome = agent.state.outcome(id_)
            if outcome is not None:
                yield _sse(outcome_event(id_, outcome))
                return
            yield b": still here\n\n"
            continue
        if event is None:
            return
        yield _sse(event)
        if event.ends:
            return


def _sse(event: Event) -> bytes:
    """An event as a server-sent one, its data with the prompt's id."""
    data = json.dumps({"id": event.message_id, **event.data}, ensure_ascii=False)
    return f"event: {event.type}\ndata: {data}\n\n".encode()
