"""The agent's HTTP interface: prompts in, answers out, and what the manager asks before it puts a workspace to sleep.

Everything but `/health` wants `Authorization: Bearer` with the secret of this agent's door. Errors are RFC 9457 problem
documents with a stable code in `error`, like those of the manager.
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

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from app.agent.activity import announce, lock_out
from app.agent.checkpoints import pieces
from app.agent.events import Event, outcome_event
from app.agent.risk import at_risk
from app.agent.service import Agent
from app.agent.standing import ID
from app.agent.state import IdReused, QueueFull
from app.agent.text import clean

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

VERSION = "1"
"""Of this interface."""

RETRY_AFTER = 2
"""Seconds after which it is worth trying again when the agent is about to end, or has just begun."""

WAIT_LIMIT = 3600.0
"""Seconds a caller is kept waiting at most, whatever is queued before its prompt."""

LOADING_WAIT = 5.0
"""Seconds a call waits for the conversation: the first prompt comes as soon as the socket is open, well before it."""

KEEP_ALIVE = 15.0
CANCEL_WAIT = 5.0
WAITING_CALLERS = 24
"""Of the server's threads; the others stay free for short calls."""

NOTICE_MOST = 86_400.0
"""Seconds before a sleep that it may be announced."""

HISTORY_LIMIT = 10_000
PUSH_SECONDS = 8.0
"""For a checkpoint that is pushed, where nobody says how long: the manager waits 10."""


class Problem(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, detail: str, *, retry: bool = False) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.retry = retry


def problem_response(status: int, code: str, detail: str, *, retry: bool = False) -> Response:
    """A problem document; `retry` says when to try again."""
    body = {"type": "about:blank", "title": code.replace("_", " "), "status": status, "detail": detail, "error": code}
    response = jsonify(body)
    response.status_code = status
    response.content_type = "application/problem+json"
    if retry:
        response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


def create_app(agent: Agent) -> Flask:
    """The interface to this agent."""
    app = Flask(__name__)
    app.wsgi_app = _below(f"/chat/{agent.settings.uuid}", app.wsgi_app)  # type: ignore[assignment, method-assign]
    app.config["MAX_CONTENT_LENGTH"] = 8 * agent.settings.message_max_bytes + 10_000
    waiting = threading.BoundedSemaphore(WAITING_CALLERS)

    @app.before_request
    def check_token() -> None:
        if request.path == "/health":
            return
        door = agent.settings.door()
        given = request.headers.get("Authorization", "")
        if not door or not hmac.compare_digest(given.encode(), f"Bearer {door}".encode()):
            raise Problem(401, "unauthorized", "The secret of this agent is missing or wrong.")

    @app.errorhandler(Problem)
    def show_problem(e: Problem) -> Response:
        return problem_response(e.status, e.code, str(e), retry=e.retry)

    @app.errorhandler(HTTPException)
    def show_http_error(e: HTTPException) -> Response:
        code = (e.name or "error").lower().replace(" ", "_")
        return problem_response(e.code or 500, code, e.name or "Error")

    @app.get("/health")
    def health() -> Response:
        return jsonify({"status": "ok", "busy": agent.turns.busy, "version": VERSION})

    @app.get("/activity")
    def activity() -> Response:
        return jsonify(
            {
                "busy": agent.turns.busy,
                "turn": agent.turns.current(),
                "last_prompt_at": agent.state.last_prompt_at or None,
                "last_finished_at": agent.state.last_finished_at or None,
                "queued": agent.state.waiting(),
            }
        )

    @app.get("/history")
    def history() -> Response:
        _loaded(agent)
        after = _natural(request.args.get("after", "0"))
        limit = min(_natural(request.args.get("limit", str(HISTORY_LIMIT))), HISTORY_LIMIT)
        messages, total = agent.state.history(after, limit)
        if "bytes" in request.args:
            messages = next(pieces(messages, _natural(request.args["bytes"])), [])
        return jsonify({"messages": messages, "total": total})

    @app.post("/checkpoint")
    def checkpoint() -> Response:
        _loaded(agent)
        body = request.get_json(force=True, silent=True)
        wanted = body if isinstance(body, dict) else {}
        if wanted.get("push") is True and agent.settings.gateway_url:
            return jsonify(agent.push(_seconds(wanted, PUSH_SECONDS)))
        with _writing():
            agent.state.fold()
        return jsonify(agent.state.documents().as_json())

    @app.post("/notice")
    def notice() -> Response:
        seconds = _seconds(_object(), math.nan)
        with _writing():
            announce(agent.settings.home, seconds)
        return jsonify({})

    @app.post("/lockout")
    def lockout() -> Response:
        agent.bus.dismiss()
        with _writing():
            lock_out(agent.settings.home)
        return jsonify({})

    @app.post("/risk")
    def risk() -> Response:
        return jsonify(at_risk(agent.settings.folder, agent.settings.home, agent.environment))

    @app.post("/cancel")
    def cancel() -> Response:
        body = _object()
        reason, id_ = body.get("reason", "user"), body.get("id") or ""
        if not isinstance(reason, str) or not isinstance(id_, str):
            raise Problem(400, "bad_request", "`reason` and `id` are texts.")
        cancelled = agent.turns.cancel(clean(reason)[:200], id_, _generation(body))
        if cancelled is not None:
            agent.state.wait_for_outcome(cancelled, CANCEL_WAIT)
        return jsonify({"cancelled": cancelled})

    @app.post("/resume")
    def resume() -> Response:
        agent.turns.resume(_generation(_object()))
        return jsonify({})

    @app.post("/chat")
    def chat() -> Response:
        id_, message = _prompt(agent)
        streams = "text/event-stream" in request.headers.get("Accept", "")
        seconds = _patience(request.headers.get("Prefer", ""))
        with contextlib.ExitStack() as held:
            if streams or seconds > 0:
                if not waiting.acquire(blocking=False):
                    raise Problem(503, "too_many_waiting", "Too many callers wait; use respond-async.", retry=True)
                held.callback(waiting.release)
            if streams:
                # Before the prompt is taken, so that not one event is missed.
                events = held.enter_context(agent.bus.watch(id_))
                _accept(agent, id_, message)
                response = _stream(_events(agent, id_, events))
                response.call_on_close(held.pop_all().close)
                return response
            _accept(agent, id_, message)
            outcome = agent.state.outcome(id_) or _wait(agent, id_, seconds)
        if outcome is None:
            return _answer({"id": id_, "status": "accepted"}, 202)
        return _answer({"id": id_, **outcome}, 200)

    return app


def _below(prefix: str, served: WSGIApplication) -> WSGIApplication:
    """The same, served below `prefix` too: an ingress may lead a path of another host here, and not every one of them
    takes the path off."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path.startswith(f"{prefix}/"):
            environ |= {"SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + prefix, "PATH_INFO": path[len(prefix) :]}
        return served(environ, start_response)

    return serve


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Tell of a disk that can't be written to."""
    try:
        yield
    except OSError:
        raise Problem(503, "disk", "The workspace can't be written to.", retry=True) from None


def _loaded(agent: Agent) -> None:
    if not agent.state.wait_until_loaded(LOADING_WAIT):
        raise Problem(503, "loading", "The conversation is being loaded.", retry=True)


def _object() -> dict[str, Any]:
    body = request.get_json(force=True, silent=True)
    if not isinstance(body, dict):
        raise Problem(400, "bad_request", "The body is not a JSON object.")
    return body


def _seconds(body: dict[str, Any], default: float) -> float:
    """A time in a request: `default` where none is said, which must be one if that is no number."""
    seconds = body.get("seconds", default)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= NOTICE_MOST:
        raise Problem(400, "bad_request", f"`seconds` is a number up to {NOTICE_MOST:g}.")
    return seconds


def _generation(body: dict[str, Any]) -> int:
    """The session's intent behind a request, 0 where it isn't said."""
    generation = body.get("generation", 0)
    if isinstance(generation, bool) or not isinstance(generation, int) or generation < 0:
        raise Problem(400, "bad_request", "`generation` is a number from 0 on.")
    return generation


def _natural(text: str) -> int:
    if not text.isdecimal() or len(text) > 12:
        raise Problem(400, "bad_request", "Not a number from 0 on.")
    return int(text)


def _prompt(agent: Agent) -> tuple[str, str]:
    """The id and the text in the request."""
    body = _object()
    id_, message = body.get("id"), body.get("message")
    if not isinstance(id_, str) or not ID.fullmatch(id_):
        raise Problem(400, "bad_request", "`id` is 1 to 64 characters of A-Z a-z 0-9 . _ -")
    if not isinstance(message, str) or not message.strip():
        raise Problem(400, "bad_request", "`message` is a text.")
    message = clean(message)
    if len(message.encode()) > agent.settings.message_max_bytes:
        raise Problem(413, "message_too_large", f"At most {agent.settings.message_max_bytes} bytes.")
    return id_, message


def _accept(agent: Agent, id_: str, message: str) -> None:
    """Take a prompt, once; it is on disk when this returns."""
    _loaded(agent)
    if agent.closing and not agent.state.knows(id_):
        raise Problem(503, "closing", "The workspace is about to stop.", retry=True)
    try:
        agent.state.accept(id_, message, limit=agent.settings.queue_limit)
    except IdReused:
        raise Problem(422, "message_id_reused", "This id came before with another message.") from None
    except QueueFull:
        raise Problem(503, "queue_full", "Too many prompts wait.", retry=True) from None
    except OSError:
        raise Problem(503, "disk", "The workspace can't be written to; its disk may be full.", retry=True) from None


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


def _wait(agent: Agent, id_: str, seconds: float) -> dict[str, Any] | None:
    """The outcome, None when the time is over or the process ends first."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not agent.stopping:
        outcome = agent.state.wait_for_outcome(id_, min(left, 1.0))
        if outcome is not None:
            return outcome
    return None


def _answer(body: dict[str, Any], status: int) -> Response:
    response = jsonify(body)
    response.status_code = status
    return response


def _stream(events: Iterator[bytes]) -> Response:
    response = Response(events, mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _events(agent: Agent, id_: str, events: queue.Queue[Event | None]) -> Iterator[bytes]:
    """A message's events, ending with its outcome; a comment while nothing happens."""
    deadline = time.monotonic() + WAIT_LIMIT
    yield b": here\n\n"
    while time.monotonic() < deadline:
        try:
            event = events.get(timeout=0 if agent.state.outcome(id_) else KEEP_ALIVE)
        except queue.Empty:
            outcome = agent.state.outcome(id_)
            if outcome is not None:
                yield sse(outcome_event(id_, outcome))
                return
            yield b": still here\n\n"
            continue
        if event is None:
            return
        yield sse(event)
        if event.is_terminal:
            return


def sse(event: Event) -> bytes:
    """An event as a server-sent one, its data with the message's id."""
    data = json.dumps({"id": event.message_id, **event.data}, ensure_ascii=False)
    return f"event: {event.type}\ndata: {data}\n\n".encode()
