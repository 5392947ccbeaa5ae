"""The conversation in memory: the documents, with the journal's entries applied to them.

Nothing here is written to disk, and nothing is thread-safe: `app.agent.state` does both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.agent.documents import Documents, Message, is_prompt, listed, natural, strings
from app.agent.text import seconds_since


class Conversation:
    """The messages, the queue, each prompt's outcome, and the outcomes not reported yet."""

    def __init__(self, documents: Documents) -> None:
        metadata = documents.metadata
        self.history: list[Message] = []
        self.context = documents.context
        self.queue: list[Message] = []
        """Prompts accepted and not started."""
        self.prompts: dict[str, str] = {}
        """The text of each prompt ever accepted."""
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.unreported: dict[str, None] = {}
        """Ended prompts not reported to the manager yet, in order."""
        self.resumes = natural(metadata.get("resumes"))
        """How often the open turn was resumed without progress."""
        self.inherited = natural(metadata.get("inherited"))
        """How many messages at the beginning belong to another session; so do their prompts."""
        self.restored = metadata.get("restored") is True
        """Whether this is the manager's copy, with nothing done in it yet."""
        self.last_prompt_at = self.last_finished_at = ""
        for message in documents.history:
            self._remember(message)
        for prompt in listed(metadata.get("queue")):
            if is_prompt(prompt) and prompt["id"] not in self.prompts:
                self._enqueue(prompt)
        self.unreported = {id_: None for id_ in strings(metadata.get("unreported")) if id_ in self.outcomes}
        self.last_finished_at = str(metadata.get("last_finished_at") or "")
        self.last_prompt_at = str(metadata.get("last_prompt_at") or "")

    def metadata(self, uuid: str) -> dict[str, Any]:
        """The state that neither history nor context holds."""
        special = {"inherited": self.inherited, "restored": self.restored}
        return {name: value for name, value in special.items() if value} | {
            "format": 1,
            "uuid": uuid,
            "queue": list(self.queue),
            "unreported": list(self.unreported),
            "resumes": self.resumes,
            "turns": len(self.outcomes),
            "last_prompt_at": self.last_prompt_at,
            "last_finished_at": self.last_finished_at,
        }

    def apply(self, entry: Mapping[str, Any]) -> None:
        """Apply an entry of the journal. KeyError or TypeError if it is invalid."""
        kind = entry.get("kind")
        if kind == "message":
            message = entry["message"]
            if entry["n"] >= len(self.history):
                self._remember(message)
            elif "outcome" in message and message["id"] in self.outcomes:
                self.unreported[message["id"]] = None
            self.resumes = 0
        elif kind == "withdrawn":
            why = {"withdrawn": [entry["reason"], entry["code"]]}
            self.queue = [{**each, **why} if each["id"] == entry["id"] else each for each in self.queue]
        elif kind == "prompt" and entry["prompt"]["id"] not in self.prompts:
            self._enqueue(entry["prompt"])
        elif kind == "dropped":
            self.queue = [prompt for prompt in self.queue if prompt["id"] not in entry["ids"]]
            for id_ in entry["ids"]:
                self.prompts.pop(id_, None)
        elif kind == "reported":
            for id_ in entry["ids"]:
                self.unreported.pop(id_, None)
        elif kind == "resumed":
            self.resumes += 1
        elif kind == "stopped":
            self.resumes = 0

    def _remember(self, message: Message) -> None:
        self.history.append(message)
        if len(self.history) <= self.inherited:
            return
        id_ = message["id"]
        if message["role"] == "user":
            self.prompts[id_] = message["content"]
            self.queue = [prompt for prompt in self.queue if prompt["id"] != id_]
        if "outcome" in message:
            self.outcomes[id_] = message["outcome"]
            self.unreported[id_] = None
            self.last_finished_at = message.get("at", "")

    def _enqueue(self, prompt: Message) -> None:
        self.queue.append(prompt)
        self.prompts[prompt["id"]] = prompt["content"]
        self.last_prompt_at = prompt["at"]

    def disown(self) -> None:
        """Mark all messages as another session's: this session may have a prompt with the same id."""
        self.inherited = len(self.history)
        self.prompts, self.outcomes, self.unreported = {}, {}, {}
        self.queue.clear()

    def open_turn(self) -> str | None:
        """The id of the turn that has started and not ended."""
        if not self.history or "outcome" in self.history[-1]:
            return None
        return str(self.history[-1]["id"])

    def turn(self, id_: str) -> list[Message]:
        """The messages of the last turn, if it has this id."""
        start = len(self.history)
        while start > self.inherited and self.history[start - 1]["id"] == id_:
            start -= 1
        return self.history[start:]

    def open_prompts(self) -> list[str]:
        """The open turn's prompt, and the queued ones."""
        turn = self.open_turn()
        return [*([turn] if turn else []), *(prompt["id"] for prompt in self.queue)]

    def ages(self, ids: Iterable[str], now: float) -> dict[str, float]:
        """Seconds since these prompts were accepted."""
        accepted = {message["id"]: message.get("at") for message in self.history if message["role"] == "user"}
        accepted |= {prompt["id"]: prompt["at"] for prompt in self.queue}
        return {id_: seconds_since(accepted.get(id_), now) for id_ in ids}
