"""The conversation with a session's agent. New prompts come by a form, what the agent does by the page's stream."""

from __future__ import annotations

from typing import Any

from flask import render_template, request

from app.web.api import api
from app.web.session.blueprint import session_blueprint
from app.web.session.conversation import DELIVERED, QUEUED, Turn, add_events, settled, turns_of
from app.web.session.markdown import Formatter
from app.web.session.page import show
from app.web.session.phases import steps_of

blp = session_blueprint("chat")

PAGE = 60
"""Messages of a page; a turn has one for its prompt, and one for each answer and each result of a tool."""

TAIL = 300
"""Messages at the end in which a turn is looked for."""

WORK = "token,tool_call,tool_result"

NEVER = "0-0"
"""An id before those of all events."""


@blp.get("/chat")
def index(uuid: str) -> str:
    """The end of the conversation, and the form for a prompt."""
    return show(uuid, "chat", _whole, rendered=Formatter())


@blp.get("/chat/state")
def state(uuid: str) -> str:
    """What a prompt would wait for, or waits for: the phases while the session wakes."""
    return render_template("session/_chat_state.html", **_status(uuid))


@blp.get("/chat/before/<int:end>")
def before(uuid: str, end: int) -> str:
    """The page of the conversation that ends before message number `end`."""
    return render_template(
        "session/_turns.html", uuid=uuid, rendered=Formatter(), **_page(uuid, max(0, end - PAGE), end)
    )


@blp.get("/chat/turns/<message_id>")
def turn(uuid: str, message_id: str) -> str:
    """One turn, as far as it is."""
    found = _one(uuid, message_id)
    return _turn(uuid, found, _follow_up(uuid, [found]) if found.state == DELIVERED else NEVER)


@blp.post("/chat")
def send(uuid: str) -> str:
    """Send a prompt, which wakes a sleeping session; answers its turn."""
    prompt = request.form.get("message", "")
    wanted = {"message": prompt} | ({"id": request.form["id"]} if request.form.get("id") else {})
    answer = api().post(f"/session/{uuid}/chat", wanted)
    sent = Turn(answer["message_id"], prompt, state=answer.get("state", QUEUED))
    # A quick agent has ended it already: nothing more comes by the page's stream.
    return turn(uuid, sent.id) if sent.over else _turn(uuid, sent)


def _turn(uuid: str, found: Turn, upto: str = NEVER) -> str:
    return render_template("session/_turns.html", uuid=uuid, turns=[found], upto=upto, rendered=Formatter())


def _whole(uuid: str) -> dict[str, Any]:
    total = api().get(f"/session/{uuid}/messages", limit=1)["total"]
    return _status(uuid) | _page(uuid, max(0, total - PAGE), None)


def _status(uuid: str) -> dict[str, Any]:
    status = api().get(f"/session/{uuid}")
    asleep = status["session"]["status"] in ("sleeping", "failed")
    return {"status": status, "asleep": asleep, "steps_now": steps_of(status["phases"])}


def _page(uuid: str, start: int, end: int | None) -> dict[str, Any]:
    """The turns that begin between two message numbers (None: to the end of all), what is known of those not over, and
    the number of the first message shown, None where the conversation begins."""
    messages = _messages(uuid, start, end)
    # A turn begins with its prompt; the page before has the beginning of the first one.
    left = next((index for index, each in enumerate(messages) if each.get("role") == "user"), 0) if start else 0
    turns = settled(turns_of(messages[left:]), going=end is None)
    going = [each for each in turns if each.state == DELIVERED]
    upto = _follow_up(uuid, going) if going else NEVER
    return {"turns": turns, "earlier": start + left or None, "upto": upto}


def _messages(uuid: str, start: int, end: int | None) -> list[dict[str, Any]]:
    """The messages from number `start` on, before number `end`; an answer may have fewer than asked for."""
    messages: list[dict[str, Any]] = []
    cursor: int | str = start
    for _ in range(TAIL):
        limit = PAGE if end is None else min(PAGE, end - start - len(messages))
        page = api().get(f"/session/{uuid}/messages", cursor=cursor, limit=limit)
        messages += page["messages"]
        cursor = page["next_cursor"]
        if cursor is None or (end is not None and len(messages) >= end - start) or len(messages) > TAIL:
            break
    return messages if end is None else messages[: end - start]


def _follow_up(uuid: str, turns: list[Turn]) -> str:
    """Add what the events tell of these turns; answers the id of the newest event read."""
    events = api().get(f"/session/{uuid}/events/past", type=WORK, limit=1000)["events"]
    for each in turns:
        add_events(each, reversed(events))
    return events[0]["id"] if events else NEVER


def _one(uuid: str, message_id: str) -> Turn:
    """A turn of the conversation's end, else what is known of its prompt."""
    total = api().get(f"/session/{uuid}/messages", limit=1)["total"]
    found = [each for each in turns_of(_messages(uuid, max(0, total - TAIL), None)) if each.id == message_id]
    if found and found[-1].prompt is not None:
        return found[-1]
    message = api().get(f"/session/{uuid}/messages/{message_id}")
    answer = (message["response"] or {}).get("text")
    said = turns_of([{"id": message_id, "role": "assistant", "content": answer}])[0].steps if answer else []
    return Turn(
        message_id, message["message"], message["created_at"] or "", message["state"], message["reason"] or "", said
    )
