"""A session's conversation: from its agent while that runs, from the history store otherwise.

The inbox knows the unfinished prompts and, for a while, the finished ones. The messages come from a workspace and are
passed on as they are.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.core.errors import AgentUnavailable, PromptNotFound, SessionError
from app.core.prompts.agent_client import PAGE_BYTES, AgentClient, History
from app.core.prompts.history_store import HistoryStore
from app.core.prompts.inbox import Inbox, Prompt, State
from app.core.sessions.model import UP, Record, iso

log = logging.getLogger(__name__)

FAILED = State.FAILED.value

PAGE = 1_000
MOST_PAGES = 100
"""Messages of a page and pages read, to find one message in a conversation."""

TURN_LIMIT = 10.0
"""s such a search may take: a tenant controls the agent, which may answer as slowly as it likes."""


@dataclass(frozen=True)
class Excerpt:
    """Messages of a conversation, oldest first, the number of the next one, None after the last, and how many there
    are without the prompts that the agent has not begun."""

    messages: Sequence[Mapping[str, Any]]
    following: int | None
    total: int


class ConversationHistory:
    """Reads conversations. Every method raises `StateUnavailable`, and `RetryableError` or `ArchiveError` where
    the history store can't be read."""

    def __init__(self, inbox: Inbox, agents: AgentClient, history_store: HistoryStore) -> None:
        self._inbox = inbox
        self._agents = agents
        self._history_store = history_store

    def excerpt(self, record: Record, after: int, limit: int) -> Excerpt:
        """At most `limit` messages from number `after` on; after the last message of all, the prompts that the agent
        has not begun, each with its `state`."""
        history = self._history(record, after, limit)
        messages = list(history.messages[:limit])
        end = after + len(messages)
        if messages and end < history.total:
            return Excerpt(messages, end, history.total)
        # No set: an agent may have written anything as an id.
        begun = [message.get("id") for message in messages]
        open_prompts = [prompt for prompt in self._inbox.unfinished(record.uuid) if prompt.id not in begun]
        return Excerpt([*messages, *map(_as_entry, open_prompts)], None, history.total)

    def prompt(self, record: Record, message_id: str) -> Prompt:
        """A prompt: from the inbox, else from the history. Raises `PromptNotFound`."""
        try:
            return self._inbox.get(record.uuid, message_id)
        except PromptNotFound:
            turn = self._turn(record, message_id)
            if not turn:
                raise
            return _from_turn(message_id, turn)

    def _turn(self, record: Record, message_id: str) -> list[Mapping[str, Any]]:
        """All messages of the last turn with this id; a conversation from a backup may have an earlier one."""
        turn: list[Mapping[str, Any]] = []
        after = 0
        deadline = time.monotonic() + TURN_LIMIT
        for _ in range(MOST_PAGES):
            if time.monotonic() > deadline:
                text = f"Searching the conversation of session {record.uuid} took too long; retry."
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
                log.info("reading the history store, as the agent failed: %s", error, extra={"uuid": record.uuid})
        kept = self._history_store.page(record.uuid, after, limit, size=PAGE_BYTES)
        return History(kept.messages, kept.total) if kept else History((), 0)


def _as_entry(prompt: Prompt) -> dict[str, Any]:
    """A prompt as it will stand in the history, and its state."""
    entry = {"id": prompt.id, "role": "user", "content": prompt.text, "at": iso(prompt.created_at)}
    return entry | {"state": prompt.state}


def _from_turn(message_id: str, turn: Sequence[Mapping[str, Any]]) -> Prompt:
    """The prompt of a turn: the first message is the prompt, the last has its `outcome`."""
    outcome = turn[-1].get("outcome")
    outcome = outcome if isinstance(outcome, dict) else {}
    response = outcome.get("response")
    state = State.DELIVERED
    if outcome:
        state = State.FAILED if outcome.get("status") == FAILED else State.PROCESSED
    return Prompt(
        id=message_id,
        state=state,
        text=str(turn[0].get("content", "")),
        response=response if isinstance(response, dict) else {},
        reason=str(outcome.get("reason") or ""),
        created_at=_seconds(turn[0].get("at")),
        processed_at=_seconds(turn[-1].get("at")) if outcome else 0.0,
    )


def _seconds(moment: object) -> float:
    """ISO 8601 as seconds since the epoch, 0 for anything else, and for a time that is in no year of UTC."""
    try:
        seconds = datetime.fromisoformat(str(moment)).timestamp()
        iso(seconds)
    except (ValueError, OverflowError):
        return 0.0
    return seconds
