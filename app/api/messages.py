"""The calls on a session's conversation: send a prompt, and read what was said."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from flask import Response, request

from app.api.blueprint import Blueprint
from app.api.context import core, reply, request_id
from app.api.holding import Kind, place
from app.api.idempotency import answer_is_of, answered_message, name_of_request
from app.api.prefer import longest_wait, waiting, wanted_wait
from app.api.schemas import ChatSchema, ConversationSchema, MessageSchema, PageQuerySchema, PromptSchema
from app.api.security import caller, visible_past, visible_session
from app.api.sessions import COMING_UP
from app.api.streams import HELD_BACK, follow_message, message_of, streamed
from app.problems import Problem
from app.secret_keys import Purpose
from app.sessions.delivery import Deliveries
from app.sessions.errors import InvalidRequest
from app.sessions.inbox import Message, State, Taken
from app.sessions.model import Record, Status

blp = Blueprint("messages", __name__, description="Prompts to a workspace's agent, and the conversation.")

WAKING = "Pod is waking up, message queued"
QUEUED = "Message queued for the agent"
DELIVERED = "The agent has the message and has not answered yet"
STREAM = "text/event-stream"
CURSOR = re.compile(r"[0-9]{1,9}")
CHAT_ERRORS = (404, 413, 422, 429, 503, 507)


@blp.route("/session/<session:uuid>/chat", methods=["POST"])
@blp.arguments(PromptSchema, example={"message": "create hello.py that prints hi and run it"})
@blp.response(200, ChatSchema, description="The prompt was worked on; `failed`, with its reason, is an end too.")
@blp.alt_response(
    202, schema=ChatSchema, description="Stored; the session slept, or did not answer within the wait. See `state`."
)
@blp.operation("chat", *CHAT_ERRORS, body=True, by_token=True)
def chat(wanted: dict[str, str], uuid: str) -> Response:
    """Send a prompt to the agent; a session that sleeps is woken. With `Accept: text/event-stream` the answer
    is the agent's work as it happens, and last the message with its response; `held` in its place when the session was
    put to sleep first: the prompt goes on with the next wake or prompt."""
    record = visible_session(uuid)
    if answered := answered_message():
        return chat_answer(uuid, core().conversations.message(record, answered), held=False)
    require_model()
    message_id = wanted.get("id") or name_of_request()
    if wants_stream():
        return streamed(record, partial(chat_events, record, wanted["message"], message_id))
    began = time.monotonic()
    default = core().settings.wait_default
    with waiting(record.user_id, uuid, default if record.status is Status.ACTIVE else 0.0):
        taken = bring(record, wanted["message"], message_id)
        answer_is_of(taken.message.id)
        up = taken.record is None or taken.record.status is Status.ACTIVE
        seconds = wanted_wait(default if up else 0.0) - (time.monotonic() - began)
        return chat_answer(uuid, *core().sessions.wait_for_message(uuid, taken.message, seconds))


@blp.route("/session/<session:uuid>/messages", methods=["GET"])
@blp.arguments(PageQuerySchema, location="query")
@blp.response(200, ConversationSchema)
@blp.operation("listMessages", 400, 404, by_token=True)
def conversation(query: dict[str, Any], uuid: str) -> Response:
    """Read the conversation, oldest first; at its end are the prompts that the agent has not begun."""
    record = visible_past(uuid)
    cursor = query.get("cursor", "0")
    if not CURSOR.fullmatch(cursor):
        raise InvalidRequest("cursor is not one of this service.")
    with place(Kind.AGENT, record.user_id, uuid):
        found = core().conversations.excerpt(record, int(cursor), query["limit"])
    following = None if found.following is None else str(found.following)
    return reply({"uuid": uuid, "messages": list(found.messages), "next_cursor": following})


@blp.route("/session/<session:uuid>/messages/<message_id>", methods=["GET"])
@blp.response(200, MessageSchema)
@blp.operation("getMessage", 404, by_token=True)
def message(uuid: str, message_id: str) -> Response:
    """Show one message: its state, and its response once there is one."""
    record = visible_past(uuid)
    with place(Kind.AGENT, record.user_id, uuid):
        return reply(message_of(uuid, core().conversations.message(record, message_id)))


def require_model() -> None:
    """Raises a 503 where there is nothing to answer a prompt with."""
    settings = core().settings
    if not settings.llm_base_url:
        text = "No model is configured: start the service with LLM_BASE_URL (and LLM_API_KEY, LLM_MODEL) set."
        raise Problem(503, "llm_not_configured", text, headers={"Retry-After": "60"})
    if not settings.keys_for(Purpose.AGENT):
        text = "Agents are not configured: start the service with SECRET_KEY set."
        raise Problem(503, "agent_not_configured", text, headers={"Retry-After": "60"})


def wants_stream() -> bool:
    """Whether the caller prefers events to one JSON answer."""
    return request.accept_mimetypes.best_match(["application/json", STREAM]) == STREAM


def bring(record: Record, text: str, message_id: str) -> Taken:
    """Take a prompt. Where its session is up and the caller waits as long as an agent may take to accept one, this
    request hands it over; otherwise, or when others are before it or the agent fails, a courier does."""
    settings = core().settings
    here = record.status is Status.ACTIVE and (wants_stream() or longest_wait() >= settings.agent_timeout)
    taken = core().sessions.prompt(record.uuid, text, message_id, request_id(), courier=not here)
    if here and taken.deliver:
        Deliveries(core()).deliver(record.uuid, most=1)
    return taken


def chat_events(record: Record, text: str, message_id: str) -> Iterator[str]:
    """Send a prompt; answers the lines of the stream about it."""
    after = core().events.last_id(record.uuid)
    taken = bring(record, text, message_id)
    return follow_message(core(), record.uuid, taken.message, after, held=caller().held)


def chat_answer(uuid: str, message: Message, held: bool) -> Response:
    """The answer to a prompt, as far as it has come. `status` stays `queued` until the end; `state` tells more, and
    the text what it waits for."""
    body = {"uuid": uuid, "message_id": message.id, "state": message.state}
    if message.state is State.PROCESSED:
        return reply(body | {"status": "processed", "pod_response": dict(message.response)})
    if message.state is State.FAILED:
        return reply(body | {"status": "failed", "pod_response": {}, "reason": message.reason})
    return reply(body | {"status": "queued", "message": HELD_BACK if held else waits_for(uuid, message)}, 202)


def waits_for(uuid: str, message: Message) -> str:
    """What a prompt waits for whose end is not known."""
    if message.state is State.DELIVERED:
        return DELIVERED
    return WAKING if core().sessions.get(uuid).status in COMING_UP else QUEUED
