"""A session's conversation, wherever it is: with its agent while that runs, in the archive otherwise.

The inbox knows of the prompts whose end is not known, and for a while of the others; the history is the
agent's. Its messages come from a workspace and are passed on as they are.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.sessions.agents import PAGE_BYTES, AgentClient, History
from app.sessions.archive_store import Archive
from app.sessions.errors import AgentUnavailable, MessageNotFound, SessionError
from app.sessions.inbox import Inbox, Message, State
from app.sessions.model import UP, Record, iso

log = logging.getLogger(__name__)

FAILED = State.FAILED.value

PAGE = 1_000
MOST_PAGES = 100
"""Of a conversation that is searched for one message: how much is asked for at once, and how often."""


TURN_LIMIT = 10.0
"""s such a search may take: the agent is the tenant's, and answers as slowly as it likes."""


@dataclass(frozen=True)
class Excerpt:
    """Some messages of a conversation, oldest first, and the number of the next one, None when these are the last."""

    messages: Sequence[Mapping[str, Any]]
    following: int | None


class Conversations:
    """Reads conversations. Every method raises `StateUnavailable`, and `RetryableError` or `ArchiveError` where
    the archive can't be read."""

    def __init__(self, inbox: Inbox, agents: AgentClient, archive: Archive) -> None:
        self._inbox = inbox
        self._agents = agents
        self._archive = archive

    def excerpt(self, record: Record, after: int, limit: int) -> Excerpt:
        """At most `limit` messages from number `after` on; after the last of them the prompts that the agent has
        not begun, each with its `state`."""
        history = self._history(record, after, limit)
        messages = list(history.messages[:limit])
        end = after + len(messages)
        if messages and end < history.total:
            return Excerpt(messages, end)
        begun = {message.get("id") for message in messages}
        open_prompts = [prompt for prompt in self._inbox.unfinished(record.uuid) if prompt.id not in begun]
        return Excerpt([*messages, *map(_as_entry, open_prompts)], None)

    def message(self, record: Record, message_id: str) -> Message:
        """One message: as the inbox knows it, else as the history tells. Raises `MessageNotFound`."""
        try:
            return self._inbox.get(record.uuid, message_id)
        except MessageNotFound:
            turn = self._turn(record, message_id)
            if not turn:
                raise
            return _from_turn(message_id, turn)

    def _turn(self, record: Record, message_id: str) -> list[Mapping[str, Any]]:
        """All messages of a turn, wherever in the conversation: of the last one with this id, as a conversation that
        came with a backup may have had another."""
        turn: list[Mapping[str, Any]] = []
        after = 0
        deadline = time.monotonic() + TURN_LIMIT
        for _ in range(MOST_PAGES):
            if time.monotonic() > deadline:
                text = f"The conversation of session {record.uuid} takes too long to be looked through; try again."
                raise AgentUnavailable(text)
            page = self._history(record, after, PAGE)
            for each in page.messages:
                if each.get("id") == message_id:
                    turn = [each] if each.get("role") == "user" else [*turn, each]
            after += len(page.messages)
            if not page.messages or after >= page.total:
                break
        return turn

    def _history(self, record: Record, after: int, limit: int) -> History:
        agent = self._inbox.agent(record.uuid) if record.status in UP else None
        if agent is not None:
            try:
                return self._agents.history(agent, after, limit)
            except SessionError as error:
                log.info("the archive answers for the agent: %s", error, extra={"uuid": record.uuid})
        kept = self._archive.page(record.uuid, after, limit, size=PAGE_BYTES)
        return History(kept.messages, kept.total) if kept else History((), 0)


def _as_entry(prompt: Message) -> dict[str, Any]:
    """A prompt as it will stand in the history, and its state."""
    entry = {"id": prompt.id, "role": "user", "content": prompt.text, "at": iso(prompt.created_at)}
    return entry | {"state": prompt.state}


def _from_turn(message_id: str, turn: Sequence[Mapping[str, Any]]) -> Message:
    """What the messages of a turn say of its prompt: the first is the prompt, the last has the `outcome`."""
    outcome = turn[-1].get("outcome")
    outcome = outcome if isinstance(outcome, dict) else {}
    response = outcome.get("response")
    state = State.DELIVERED
    if outcome:
        state = State.FAILED if outcome.get("status") == FAILED else State.PROCESSED
    return Message(
        id=message_id,
        state=state,
        text=str(turn[0].get("content", "")),
        response=response if isinstance(response, dict) else {},
        reason=str(outcome.get("reason") or ""),
        created_at=_seconds(turn[0].get("at")),
        processed_at=_seconds(turn[-1].get("at")) if outcome else 0.0,
    )


def _seconds(moment: object) -> float:
    """ISO 8601 as seconds since the epoch, 0 for anything else."""
    try:
        return datetime.fromisoformat(str(moment)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
