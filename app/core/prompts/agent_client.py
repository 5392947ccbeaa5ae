"""The manager's client of the agent in a workspace: its prompts, its conversation, and what a stop needs of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.core.access.revocation import DisconnectOrder
from app.core.agents.agent import Agent
from app.core.agents.requests import AgentRequests
from app.core.errors import AgentUnavailable
from app.core.sessions.unsaved_work import read_unsaved_work
from app.core.untrusted_json import LARGE

NOTHING_NOTED = frozenset({404})
"""The status by which an agent says that it noted nothing before a prompt."""

CHAT_RESPONSE = 1_048_576
"""Bytes of the response to a prompt, which may hold its result: a model's longest text is half of that."""

PAGE_RESPONSE = 9_437_184
"""Bytes of a page of a conversation: one message may have 8 MiB."""

PAGE_BYTES = 1_048_576
"""Bytes asked for in a page of a conversation; a longer message comes alone."""

FINGERPRINT = re.compile(r"[0-9a-f]{8,64}")
"""The form of a fingerprint: the record holds it."""

UNSAVED_WORK_TIMEOUT = 6.0
"""s to report unsaved work; an agent takes 4 at most, and a stop must not wait longer."""


@dataclass(frozen=True)
class History:
    """Messages of a conversation as the agent keeps them, and their number in all."""

    messages: Sequence[Mapping[str, Any]]
    total: int


@dataclass(frozen=True)
class FoundCheckpoint:
    """What an agent noted before a prompt, `restored` if that was restored before."""

    restored: bool


@dataclass(frozen=True)
class RestoredCheckpoint:
    """What an agent restored: so many files were written or removed, and these prompts are in the conversation no
    more."""

    files: int
    messages_cut: Sequence[str]


class CheckpointIncomplete(AgentUnavailable):
    """The agent could not store its conversation in time."""

    code = "checkpoint_left"

    def __init__(self, uuid: str) -> None:
        super().__init__(
            f"The agent of session {uuid} could not store all of its conversation in time; its volume has it."
        )


class AgentClient(AgentRequests):
    """Requests about prompts and stops. Every method raises as all `AgentRequests`."""

    def chat(self, agent: Agent, message_id: str, text: str) -> Mapping[str, Any]:
        """Hand over a prompt; on return the agent has it on its disk. In the response `status` is `accepted`, or the
        result of an earlier delivery of the same prompt."""
        return self.json(agent, "POST", "/chat", {"id": message_id, "message": text}, most=CHAT_RESPONSE)

    def cancel(self, agent: Agent, reason: str, generation: int = 0, seconds: float = math.inf) -> None:
        """Cancel the running turn, and wait until it has ended. For a sleep or a delete the agent begins no other turn
        for a while, unless the stop of that `generation` was broken off before."""
        said = {"reason": reason} | ({"generation": generation} if generation else {})
        self.json(agent, "POST", "/cancel", said, timeout=seconds)

    def resume(self, agent: Agent, generation: int) -> None:
        """Let the agent begin turns again: the stop of `generation`, or an earlier one, was broken off."""
        self.json(agent, "POST", "/resume", {"generation": generation})

    def notice(self, agent: Agent, seconds: float) -> None:
        """Announce in the editor that the workspace sleeps in so many seconds unless it is used."""
        self.json(agent, "POST", "/notice", {"seconds": round(seconds, 1)})

    def tell_files(self, agent: Agent, files_of: float) -> None:
        """Tell in the editor that the files are those of this time (seconds since the epoch): their volume was lost."""
        self.json(agent, "POST", "/notice", {"files_of": round(files_of)})

    def disconnect(self, agent: Agent, access_epoch: int, seconds: float = math.inf) -> None:
        """End the connections to the workspace made before this access epoch, and all event streams; who still has
        access reconnects. Raises `AgentUnavailable` too where the editor itself does not confirm it in time."""
        order = DisconnectOrder(self._secrets.disconnect_secrets(agent.uuid), access_epoch)
        said = self.json(agent, "POST", "/disconnect", {"order": str(order)}, timeout=seconds)
        if not order.confirmed_by(said.get("confirmation")):
            raise AgentUnavailable(f"The editor of session {agent.uuid} did not confirm that it ended connections.")

    def unsaved_work(self, agent: Agent, seconds: float = math.inf) -> Mapping[str, Any]:
        """The unsaved work a stop would put at risk, as app/core/sessions/unsaved_work.py reads it; empty for none."""
        return read_unsaved_work(
            self.json(agent, "POST", "/unsaved-work", {}, timeout=min(UNSAVED_WORK_TIMEOUT, seconds))
        )

    def fingerprint(self, agent: Agent, seconds: float = math.inf) -> str:
        """A text that changes with the workspace's files, "" when the agent did not see all of them in time."""
        limit = min(UNSAVED_WORK_TIMEOUT, seconds)
        wanted = {"seconds": round(0.8 * limit, 3)}
        said = self.json(agent, "POST", "/fingerprint", wanted, timeout=limit)
        text = said.get("fingerprint")
        return text if isinstance(text, str) and FINGERPRINT.fullmatch(text) else ""

    def checkpoint(self, agent: Agent, seconds: float = math.inf) -> None:
        """Have the agent write its conversation to its disk and send the gateway what the history store lacks. Raises
        `CheckpointIncomplete` too."""
        seconds = min(self._timeout, seconds)
        wanted = {"seconds": round(0.8 * seconds, 3)}
        if self.json(agent, "POST", "/checkpoint", wanted, timeout=seconds).get("saved") is not True:
            raise CheckpointIncomplete(agent.uuid)

    def find_checkpoint(self, agent: Agent, message_id: str) -> FoundCheckpoint | None:
        """What the agent can restore of before this prompt; None if it noted nothing."""
        said = self.json(agent, "GET", f"/checkpoints/{message_id}", ignored=NOTHING_NOTED)
        return FoundCheckpoint(said.get("restored") is True) if said else None

    def restore_checkpoint(self, agent: Agent, message_id: str) -> RestoredCheckpoint | None:
        """Have the agent restore files and conversation as they were before this prompt began; None if it did not note
        that. Raises `AgentNotReady` while a turn runs."""
        path = f"/checkpoints/{message_id}/restore"
        said = self.json(agent, "POST", path, {}, ignored=NOTHING_NOTED, busy=(409,), values=LARGE)
        if not said:
            return None
        files, cut = said.get("files"), said.get("messages_cut")
        if not isinstance(files, int) or not isinstance(cut, list) or not all(isinstance(each, str) for each in cut):
            raise AgentUnavailable(f"The agent of session {agent.uuid} did not say what it restored.")
        return RestoredCheckpoint(files, cut)

    def history(self, agent: Agent, after: int, limit: int) -> History:
        """The conversation from message number `after` on: at most `limit` messages."""
        path = f"/history?after={after}&limit={limit}&bytes={PAGE_BYTES}"
        said = self.json(agent, "GET", path, most=PAGE_RESPONSE, values=LARGE)
        messages, total = said.get("messages"), said.get("total")
        if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
            raise AgentUnavailable(f"The agent of session {agent.uuid} returned an invalid history.")
        return History(messages, total if isinstance(total, int) else after + len(messages))
