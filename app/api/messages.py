"""The calls on a session's conversation: send a prompt, and read the messages."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from flask import Response, request

from app.api.answers import Answer
from app.api.blueprint import Blueprint
from app.api.current import core, request_id
from app.api.event_schemas import STREAM, stream_of
from app.api.event_streams import HELD_BACK, follow_message, streamed
from app.api.idempotency import answer_is_of, answered_message, name_of_request
from app.api.message_schemas import ChatSchema, ConversationSchema, MessageSchema, PromptSchema, fields_of
from app.api.prefer import longest_wait, waiting, wanted_wait
from app.api.request_fields import PageQuerySchema
from app.api.security import caller, visible_past, visible_session
from app.api.sessions import COMING_UP
from app.api.tenant_limits import Kind, hold
from app.core.agents.requests import AGENT_TIMEOUT
from app.core.errors import InvalidRequest
from app.core.prompts.inbox import Prompt, State, Taken
from app.core.sessions.model import Record, Status
from app.http.problems import RETRY_WHEN_CONFIGURED, Problem
from app.process.secret_keys import Purpose

blp = Blueprint("messages", __name__, description="Prompts to a workspace's agent, and the conversation.")

WAKING = "Pod is waking up, message queued"
QUEUED = "Message queued for the agent"
DELIVERED = "The agent has the message and has not answered yet"
CURSOR = re.compile(r"[0-9]{1,9}")
CHAT_ERRORS = (404, 413, 422, 429, 503, 507)


@blp.route("/session/<session:uuid>/chat", methods=["POST"])
@blp.arguments(PromptSchema, example={"message": "create hello.py that prints hi and run it"})
@blp.response(200, ChatSchema, description="The prompt is processed or has failed, with a reason.")
@blp.alt_response(
    202,
    schema=ChatSchema,
    description="The prompt is queued: the session slept, or did not answer within the wait. See `state`.",
)
@blp.alt_response(
    200,
    schema=stream_of("ChatEvents"),
    content_type=STREAM,
    description="The prompt is processed or has failed, with a reason; or the stream of the work on it.",
)
@blp.operation("chat", *CHAT_ERRORS, body=True, session_token=True, rate="chat", audit="prompt")
def chat(wanted: dict[str, str], uuid: str) -> Answer | Response:
    """Send a prompt to the agent; it wakes a sleeping session. With `Accept: text/event-stream` the answer is the
    agent's work as it happens, and last the message with its response. If the session is put to sleep first, the last
    event is `held`, and the prompt continues with the next wake or prompt."""
    record = visible_session(uuid)
    if answered := answered_message():
        return chat_answer(uuid, core().history.prompt(record, answered), held=False)
    require_model()
    message_id = wanted.get("id") or name_of_request()
    if wants_stream():
        return streamed(partial(chat_events, record, wanted["message"], message_id), record.user_id, uuid)
    began = time.monotonic()
    default = core().settings.wait_default
    with waiting(record.user_id, uuid, default if record.status is Status.ACTIVE else 0.0):
        taken = enqueue(record, wanted["message"], message_id)
        answer_is_of(taken.prompt.id)
        up = taken.record is None or taken.record.status is Status.ACTIVE
        seconds = wanted_wait(default if up else 0.0) - (time.monotonic() - began)
        return chat_answer(uuid, *core().sessions.wait_for_prompt(uuid, taken.prompt, seconds))


@blp.route("/session/<session:uuid>/messages", methods=["GET"])
@blp.arguments(PageQuerySchema, location="query")
@blp.response(200, ConversationSchema)
@blp.operation("listMessages", 400, 404, session_token=True)
def conversation(query: dict[str, Any], uuid: str) -> Mapping[str, Any]:
    """Read the conversation, oldest first; prompts that the agent has not begun are last. `cursor` is also the number
    of messages to leave out: with `total` one begins anywhere."""
    record = visible_past(uuid)
    cursor = query.get("cursor", "0")
    if not CURSOR.fullmatch(cursor):
        raise InvalidRequest("`cursor` is invalid; use the `next_cursor` of the page before.")
    with hold(Kind.AGENT, record.user_id, uuid):
        found = core().history.excerpt(record, int(cursor), query["limit"])
    following = None if found.following is None else str(found.following)
    return {"uuid": uuid, "total": found.total, "messages": found.messages, "next_cursor": following}


@blp.route("/session/<session:uuid>/messages/<message_id>", methods=["GET"])
@blp.response(200, MessageSchema)
@blp.operation("getMessage", 404, session_token=True)
def message(uuid: str, message_id: str) -> Mapping[str, Any]:
    """Show one message: its state, and its response if there is one."""
    record = visible_past(uuid)
    with hold(Kind.AGENT, record.user_id, uuid):
        return fields_of(uuid, core().history.prompt(record, message_id))


def require_model() -> None:
    """Raises a 503 if no model or no agents are configured."""
    settings = core().settings
    if not settings.llm_base_url:
        text = "No model is configured: start the service with LLM_BASE_URL (and LLM_API_KEY, LLM_MODEL) set."
        raise Problem(503, "llm_not_configured", text, retry_after=RETRY_WHEN_CONFIGURED)
    if not settings.keys_for(Purpose.AGENT):
        text = "Agents are not configured: start the service with SECRET_KEY set."
        raise Problem(503, "agent_not_configured", text, retry_after=RETRY_WHEN_CONFIGURED)


def wants_stream() -> bool:
    """Whether the caller prefers an event stream to one JSON answer."""
    return request.accept_mimetypes.best_match(["application/json", STREAM]) == STREAM


def enqueue(record: Record, text: str, message_id: str) -> Taken:
    """Queue a prompt. This request delivers it, if the session is awake and the caller waits as long as an agent may
    take to accept a prompt; otherwise, or behind other prompts or after a failure, a delivery worker does."""
    here = record.status is Status.ACTIVE and (wants_stream() or longest_wait() >= AGENT_TIMEOUT)
    taken = core().sessions.prompt(record.uuid, text, message_id, request_id(), delivery_worker=not here)
    if here and taken.deliver:
        core().delivery.deliver(record.uuid, most=1)
    return taken


def chat_events(record: Record, text: str, message_id: str) -> Iterator[str]:
    """Send a prompt; returns the lines of the stream about it."""
    after = core().events.last_id(record.uuid)
    taken = enqueue(record, text, message_id)
    return follow_message(core(), record.uuid, taken.prompt, after, held=caller().held)


def chat_answer(uuid: str, message: Prompt, held: bool) -> Answer:
    """The answer to a prompt. `status` stays `queued` until the end; `state` is finer, and `message` says what the
    prompt waits for."""
    body = {"uuid": uuid, "message_id": message.id, "state": message.state}
    if message.state is State.PROCESSED:
        return body | {"status": "processed", "pod_response": message.response}, 200
    if message.state is State.FAILED:
        return body | {"status": "failed", "pod_response": message.response, "reason": message.reason}, 200
    return body | {"status": "queued", "message": HELD_BACK if held else waits_for(uuid, message)}, 202


def waits_for(uuid: str, message: Prompt) -> str:
    """What an unfinished prompt waits for."""
    if message.state is State.DELIVERED:
        return DELIVERED
    return WAKING if core().sessions.get(uuid).status in COMING_UP else QUEUED
