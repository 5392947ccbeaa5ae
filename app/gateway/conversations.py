"""An agent's conversation, kept for it: added to in pieces, given back in pages, so that no request holds much of it.

An agent asks how far its conversation is kept, adds what is new, and says when it is whole. One of an earlier release
hands all of it over in one document, and gets it back in one.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from app.gateway.bodies import json_body, nothing
from app.gateway.context import Gateway, gateway, session
from app.problems import EXPLANATIONS, Problem
from app.sessions.archive_index import CHUNK_BYTES, Contended, ConversationTooLong, Head, OtherConversation, Piece
from app.sessions.archive_store import Checkpoint
from app.sessions.errors import InvalidRequest, SessionError
from app.sessions.foreign_json import LARGE
from app.sessions.model import Record

log = logging.getLogger(__name__)

blp = Blueprint("conversations", __name__, url_prefix="/agent/v1")

PIECE_MAX = 8 * CHUNK_BYTES
"""Bytes of a piece: of one message, that is, as an agent sends several only up to `CHUNK_BYTES`."""

WHOLE_MAX = 67_108_864
"""Bytes of a document that may hold a whole conversation: an agent of an earlier release knows no other way."""

WHOLE_VALUES = 2 * LARGE
"""Values in one: 64 MiB of messages of 1.5 KB."""

CHECKPOINT_WAIT = 5.0
"""s to wait for others to be stored: an agent that is being stopped has 10."""


@blp.get("/history")
def history() -> Response:
    """How far the conversation is kept (`?head`), or the messages from number `after` on, a page of them."""
    parts, record = gateway(), session()
    if "head" in request.args:
        return jsonify(parts.core.archive.index(record.uuid).heads())
    with _place(parts):
        page = parts.core.archive.page(record.uuid, _number("after"), size=CHUNK_BYTES)
        if page is None:
            raise _none_kept(record)
        return _document({"messages": list(page.messages), "total": page.total, "edition": page.edition})


@blp.post("/history")
def add() -> Response:
    """An agent adds messages to its conversation. 409 says from where to go on, where they don't continue it."""
    parts, record = gateway(), session()
    with _storing(parts, record):
        index = parts.core.archive.append(record.uuid, Piece.from_json(json_body(PIECE_MAX, LARGE)))
    return jsonify(index.heads())


@blp.put("/checkpoint")
def put_checkpoint() -> Response:
    """An agent says that its conversation is whole, or hands all of it over."""
    parts, record = gateway(), session()
    with _storing(parts, record):
        said = json_body(min(WHOLE_MAX, parts.core.settings.history_max_bytes), WHOLE_VALUES)
        if isinstance(said, dict) and "edition" in said:
            told = Checkpoint.from_json({**said, "history": []})
            parts.core.archive.settle(record.uuid, Head.from_json(said), told.context, told.metadata)
        else:
            parts.core.archive.write(record.uuid, Checkpoint.from_json(said))
    if record.unarchived:
        parts.core.store.change(record.uuid, time.time(), unarchived={})
    return nothing()


@blp.get("/checkpoint")
def get_checkpoint() -> Response:
    """The conversation an agent begins with when its volume has none; with `?paged` only what there is beside the
    messages, how many these are, and of which edition."""
    parts, record = gateway(), session()
    archive = parts.core.archive
    with _place(parts):
        current = archive.index(record.uuid).current
        if "paged" in request.args and current is not None:
            context, metadata = archive.beside(record.uuid)
            return _document({"context": context, "metadata": metadata, **current.head().to_json()})
        if current is not None and current.size > WHOLE_MAX:
            raise Problem(413, "payload_too_large", "The conversation is too long for one document; ask for pages.")
        checkpoint = archive.read(record.uuid)
        if checkpoint is None:
            raise _none_kept(record)
        return _document(checkpoint.to_json())


@contextmanager
def _storing(parts: Gateway, record: Record) -> Iterator[None]:
    """A place to store something of the conversation. What goes wrong is noted in the record, so that the status says
    that the kept conversation is not the newest."""
    try:
        with _place(parts):
            yield
    except OtherConversation as error:
        raise Problem(409, error.code, str(error), more=error.index.heads()) from error
    except Contended:
        # Whoever changed it has stored something newer.
        raise
    except ConversationTooLong as error:
        _note(parts, record, str(error))
        raise Problem(413, error.code, str(error)) from error
    except (SessionError, Problem) as error:
        _note(parts, record, str(error))
        raise
    except HTTPException as error:
        _note(parts, record, EXPLANATIONS.get(error.code or 0, "It could not be read."))
        raise


def _note(parts: Gateway, record: Record, reason: str) -> None:
    """The agent has something newer than what is kept. Noted once, so that trying again costs nothing."""
    if not record.unarchived:
        log.warning("a conversation is not kept: %s", reason, extra={"uuid": record.uuid})
        now = time.time()
        with suppress(SessionError):
            parts.core.store.change(record.uuid, now, unarchived={"since": round(now, 3), "reason": reason})


@contextmanager
def _place(parts: Gateway) -> Iterator[None]:
    if not parts.checkpoints.acquire(timeout=CHECKPOINT_WAIT):
        text = "Other conversations are being stored; try again."
        raise Problem(503, "unavailable", text, headers={"Retry-After": "1"})
    try:
        yield
    finally:
        parts.checkpoints.release()


def _none_kept(record: Record) -> Problem:
    return Problem(404, "checkpoint_not_found", f"No conversation of session {record.uuid} is kept.")


def _number(name: str) -> int:
    text = request.args.get(name, "0")
    if not text.isdecimal() or len(text) > 12:
        raise InvalidRequest(f"{name} is a number from 0 on.")
    return int(text)


def _document(document: Any) -> Response:
    return Response(json.dumps(document), mimetype="application/json")
