"""The history store for agents: a conversation is added in pieces and read in pages, as no request may hold all of it.

An agent asks how far its conversation is stored, adds new messages, and says when it is complete.
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

from app.core.errors import InvalidRequest, SessionError
from app.core.prompts.history_index import CHUNK_BYTES, Contended, ConversationTooLong, Head, OtherConversation, Piece
from app.core.prompts.history_store import context_and_metadata
from app.core.sessions.model import Record
from app.core.untrusted_json import LARGE
from app.gateway.parts import Gateway, gateway, session
from app.http.bodies import json_of, read_body
from app.http.problems import EXPLANATIONS, Problem

log = logging.getLogger(__name__)

blp = Blueprint("conversations", __name__, url_prefix="/agent/v1")

PIECE_MAX = 8 * CHUNK_BYTES
"""Bytes of a piece; agents put several messages into one only up to `CHUNK_BYTES`."""

CHECKPOINT_MAX = 67_108_864
"""Bytes of a checkpoint without its messages: a full queue of the longest prompts is in its metadata."""

CHECKPOINT_WAIT = 5.0
"""s to wait for a slot: an agent that is being stopped has 10, and one that is refused tries again at its next
checkpoint."""


@blp.get("/history")
def history() -> Response:
    """How far the conversation is stored (`?head`), or a page of its messages from number `after` on."""
    parts, record = gateway(), session()
    if "head" in request.args:
        return jsonify(parts.core.history_store.index(record.uuid).heads())
    with _slot(parts, record):
        page = parts.core.history_store.page(record.uuid, _number("after"), size=CHUNK_BYTES)
        if page is None:
            raise _not_stored(record)
        return _document({"messages": list(page.messages), "total": page.total, "edition": page.edition})


@blp.post("/history")
def add() -> Response:
    """Add messages to the conversation. If they don't continue it, the 409 says where to continue."""
    parts, record = gateway(), session()
    with _storing(parts, record, PIECE_MAX) as body:
        index = parts.core.history_store.append(record.uuid, Piece.from_json(json_of(body, LARGE)))
    return jsonify(index.heads())


@blp.put("/checkpoint")
def put_checkpoint() -> Response:
    """Mark the stored messages as a complete conversation, with this context and metadata."""
    parts, record = gateway(), session()
    with _storing(parts, record, min(CHECKPOINT_MAX, parts.core.settings.history_max_bytes)) as body:
        document = json_of(body, LARGE)
        head, (context, metadata) = Head.from_json(document), context_and_metadata(document)
        parts.core.history_store.settle(record.uuid, head, context, metadata)
    if record.unarchived:
        parts.core.store.note_unarchived(record.uuid, {})
    return Response(status=204)


@blp.get("/checkpoint")
def get_checkpoint() -> Response:
    """The conversation without its messages: their number, their edition, and the context and metadata."""
    parts, record = gateway(), session()
    store = parts.core.history_store
    with _slot(parts, record):
        current = store.index(record.uuid).current
        if current is None:
            raise _not_stored(record)
        context, metadata = store.beside(record.uuid)
        return _document({"context": context, "metadata": metadata, **current.head().to_json()})


@contextmanager
def _storing(parts: Gateway, record: Record, most: int) -> Iterator[bytes]:
    """Hold a slot to store the part of the conversation in the request's body of `most` bytes. An error is noted in the
    record, so that the session's status says that the stored conversation is stale."""
    try:
        # Read before there is a slot: a slow sender holds none. Until then it costs the budget of bodies what it sent.
        body = read_body(most)
        with _slot(parts, record):
            yield body
    except OtherConversation as error:
        raise Problem(409, error.code, str(error), more=error.index.heads()) from error
    except Contended:
        # The other writer has stored something newer.
        raise
    except ConversationTooLong as error:
        _note(parts, record, str(error))
        raise Problem(413, error.code, str(error)) from error
    except (SessionError, Problem) as error:
        _note(parts, record, str(error))
        raise
    except HTTPException as error:
        _note(parts, record, EXPLANATIONS.get(error.code or 0, "The request could not be read."))
        raise


def _note(parts: Gateway, record: Record, reason: str) -> None:
    """Note that the stored conversation is stale. Noted once, so that retries cost nothing."""
    if not record.unarchived:
        log.warning("conversation not stored: %s", reason, extra={"uuid": record.uuid})
        with suppress(SessionError):
            parts.core.store.note_unarchived(record.uuid, {"since": round(time.time(), 3), "reason": reason})


@contextmanager
def _slot(parts: Gateway, record: Record) -> Iterator[None]:
    if not parts.checkpoints.acquire(record.uuid, CHECKPOINT_WAIT):
        text = "The gateway is storing or reading other conversations, or another part of this one; retry later."
        raise Problem(503, "unavailable", text, retry_after=1)
    try:
        yield
    finally:
        parts.checkpoints.release(record.uuid)


def _not_stored(record: Record) -> Problem:
    return Problem(404, "checkpoint_not_found", f"No conversation of session {record.uuid} is stored.")


def _number(name: str) -> int:
    text = request.args.get(name, "0")
    if not text.isdecimal() or len(text) > 12:
        raise InvalidRequest(f"`{name}` must be a whole number, 0 or more.")
    return int(text)


def _document(document: Any) -> Response:
    return Response(json.dumps(document), mimetype="application/json")
