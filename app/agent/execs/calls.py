"""The calls on commands: run one, see what runs and ran, read the output, type into its terminal, end it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request

from app.agent.execs.exec import STREAMS, Exec
from app.agent.execs.execs import Closed, Execs, IdReused, NotReady, TooMany
from app.agent.execs.order import ORDER_BYTES, BadOrder, read_order
from app.agent.execs.terminal import Ended, Moved
from app.agent.protocol import INPUT_BYTES, NO_TERMINAL, window_of
from app.agent.requests import Problem, checked_wait, json_object, natural, waiting, writing

EXECS = "execs"
"""The key of the workspace's commands in `Flask.extensions`."""

execs = Blueprint("execs", __name__, url_prefix="/execs")

BODY_BYTES = 8 * ORDER_BYTES + 10_000
"""Of an order: JSON may take six bytes for one."""

PIECE_BYTES = 65_536
"""Of a stream in one answer."""

LISTED_CHARACTERS, LISTED_WORDS = 200, 10
"""Of a command in a list: its text's, or each word's, and its words."""

READ_MOST = 1_048_576
"""Bytes of a stream in one answer that has nothing else."""


@execs.post("")
def begin() -> tuple[Response, int]:
    """Run a command, and wait `wait` seconds for its end. The same id again answers the same command."""
    request.max_content_length = BODY_BYTES
    body = json_object()
    with refusals(), writing():
        try:
            begun = _execs().begin(read_order(body, _execs().longest))
        except IdReused:
            raise Problem(422, "exec_id_reused", "This `id` was used before with another command.") from None
        except TooMany:
            text = "As many commands run already as may at a time; wait for one to end, or end one."
            raise Problem(429, "too_many_execs", text, retry=True) from None
    _wait(begun, body.get("wait", 0))
    return jsonify(_whole(begun)), 202 if begun.running else 200


@execs.get("")
def newest() -> Response:
    """What runs and ran, newest first, without the output; of a long command the beginning."""
    return jsonify({"execs": [{**_told(each), "command": _beginning(each)} for each in _execs().newest()]})


@execs.get("/<id_>")
def show(id_: str) -> Response:
    """A command with its output; after `wait` seconds at most, once it has ended. With `stdout` and `stderr`, the bytes
    that the caller has seen: the pieces after them, as soon as there is one."""
    found = _find(id_)
    if "stdout" not in request.args:
        _wait(found, natural("wait", 0))
        return jsonify(_whole(found))
    seen = {name: natural(name, 0) for name in STREAMS}
    _wait(found, natural("wait", 0), seen)
    # The end first: what is read after it is all there is.
    ended = not found.running
    pieces = {name: found.stream(name).piece(seen[name], PIECE_BYTES, ended=ended) for name in STREAMS}
    told = {name: {"text": text, "next": following} for name, (text, following) in pieces.items()}
    more = any(found.stream(name).size > following for name, (_, following) in pieces.items())
    return jsonify({**_told(found), **told, "more": more or not ended})


@execs.get("/<id_>/<name>")
def read(id_: str, name: str) -> Response:
    """Bytes of a stream from `offset` on, at most `bytes`, as far as a file keeps them."""
    if name not in STREAMS:
        raise Problem(404, "not_found", "Not Found")
    stream = _find(id_).stream(name)
    data = stream.read(natural("offset", 0), min(natural("bytes", READ_MOST), READ_MOST))
    return Response(data, mimetype="application/octet-stream")


@execs.post("/<id_>/kill")
def kill(id_: str) -> Response:
    """Send the command a signal, by its name; without one, end it: SIGTERM, and after five seconds SIGKILL."""
    body, found = json_object(), _find(id_)
    found.kill(_signal(body.get("signal")))
    _wait(found, body.get("wait", 0))
    return jsonify(_whole(found))


@execs.put("/<id_>/input")
def type_in(id_: str) -> Response:
    """Type the body into the command's terminal, `at` so many bytes of input; a part of it if there is no more room."""
    request.max_content_length = INPUT_BYTES
    at, data = natural("at", 0), request.get_data()
    with _at_terminal():
        return jsonify({"input_bytes": _find(id_).terminal().write(at, data)})


@execs.put("/<id_>/window")
def resize(id_: str) -> Response:
    """Give the command's terminal another size."""
    try:
        window = window_of(json_object())
    except ValueError as e:
        raise Problem(400, "bad_request", f"The body {e}.") from None
    with _at_terminal():
        _find(id_).terminal().resize(window)
    return jsonify({})


@contextlib.contextmanager
def _at_terminal() -> Iterator[None]:
    """Answer why nothing can be done at a terminal."""
    try:
        yield
    except Ended:
        raise Problem(NO_TERMINAL, "no_terminal", "The command has ended, or has no terminal.") from None
    except Moved:
        raise Problem(409, "input_moved", "Something else was typed there meanwhile.") from None


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Answer why nothing can be begun."""
    try:
        yield
    except BadOrder as e:
        raise Problem(400, "bad_request", f"{e}.") from None
    except NotReady:
        raise Problem(503, "loading", "The agent is still starting; retry later.", retry=True) from None
    except Closed:
        raise Problem(503, "closing", "The workspace is about to stop.", retry=True) from None


def _execs() -> Execs:
    execs: Execs = current_app.extensions[EXECS]
    return execs


def _find(id_: str) -> Exec:
    found = _execs().find(id_)
    if found is None:
        raise Problem(404, "exec_not_found", "This workspace knows no command with this id.")
    return found


def _wait(found: Exec, seconds: Any, seen: dict[str, int] | None = None) -> None:
    seconds = checked_wait(seconds)
    with waiting() if seconds else contextlib.nullcontext():
        found.wait(seconds, seen)


def _beginning(found: Exec) -> str | list[str]:
    command = found.asked["command"]
    if isinstance(command, str):
        return command[:LISTED_CHARACTERS]
    return [word[:LISTED_CHARACTERS] for word in command[:LISTED_WORDS]]


def _signal(name: Any) -> int | None:
    if name is None:
        return None
    number = getattr(signal.Signals, name, None) if isinstance(name, str) else None
    if number is None:
        raise Problem(400, "bad_request", "`signal` must be the name of a signal, as SIGINT.")
    return int(number)


def _told(found: Exec) -> dict[str, Any]:
    """What is known of a command, without its output."""
    end = found.end
    return {
        **{name: found.asked[name] for name in ("id", "command", "cwd", "detached", "started_at")},
        "state": "running" if end is None else "exited",
        "exit_code": end and end.exit_code,
        "signal": end and end.signal,
        "reason": end and end.reason,
        "ended_at": end and end.at,
        "left": end and end.left,
        "ms": found.ms,
        "tty": found.tty,
        "input_bytes": found.input_bytes,
        "sizes": {name: found.stream(name).size for name in STREAMS},
        "kept": {name: found.stream(name).kept for name in STREAMS},
    }


def _whole(found: Exec) -> dict[str, Any]:
    """What is known of a command, and its output, a long one without its middle."""
    told = _told(found)
    streams = {name: found.stream(name) for name in STREAMS}
    truncated = any(stream.truncated for stream in streams.values())
    return {**told, **{name: stream.text() for name, stream in streams.items()}, "truncated": truncated}
