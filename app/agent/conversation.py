"""The conversation in memory: what the documents say, and what the entries of the journal make of it, now and after a
crash. Nothing here is written, and nothing is safe from several threads: `app.agent.state` sees to both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.agent.documents import Documents, Message, is_prompt, listed, natural
from app.agent.text import seconds_since


class Conversation:
    """What was said, what waits, what came of each prompt, and who has been told."""

    def __init__(self, documents: Documents) -> None:
        metadata = documents.metadata
        self.history: list[Message] = []
        self.context = documents.context
        self.queue: list[Message] = []
        """Prompts accepted and not begun."""
        self.prompts: dict[str, str] = {}
        """The text of each prompt ever accepted."""
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.unreported: dict[str, None] = {}
        """Prompts of whose end the manager hasn't heard, in order."""
        self.resumes = natural(metadata.get("resumes"))
        """How often the open turn was taken up without getting any further."""
        self.inherited = natural(metadata.get("inherited"))
        """How many messages at the beginning are another session's: none of their prompts is ours."""
        self.restored = metadata.get("restored") is True
        """Whether this is what the manager kept, and nothing was done with it yet."""
        self.last_prompt_at = self.last_finished_at = ""
        for message in documents.history:
            self._remember(message)
        for prompt in listed(metadata.get("queue")):
            if is_prompt(prompt) and prompt["id"] not in self.prompts:
                self._enqueue(prompt)
        told = [id_ for id_ in listed(metadata.get("unreported")) if isinstance(id_, str)]
        self.unreported = {id_: None for id_ in told if id_ in self.outcomes}
        self.last_finished_at = str(metadata.get("last_finished_at") or "")
        self.last_prompt_at = str(metadata.get("last_prompt_at") or "")

    def metadata(self, uuid: str) -> dict[str, Any]:
        """What of it is in none of the other documents."""
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
        """What this entry of the journal says has happened. KeyError, TypeError: it isn't one."""
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
        """All that was said is another session's: one of its prompts may come with the same id."""
        self.inherited = len(self.history)
        self.prompts, self.outcomes, self.unreported = {}, {}, {}
        self.queue.clear()

    def open_turn(self) -> str | None:
        """The id of the turn that has begun and not ended."""
        if not self.history or "outcome" in self.history[-1]:
            return None
        return str(self.history[-1]["id"])

    def turn(self, id_: str) -> list[Message]:
        """What belongs to the last turn, if it is this one."""
        start = len(self.history)
        while start > self.inherited and self.history[start - 1]["id"] == id_:
            start -= 1
        return self.history[start:]

    def open_prompts(self) -> list[str]:
        """What is still to be done: the open turn's prompt, and those that wait."""
        turn = self.open_turn()
        return [*([turn] if turn else []), *(prompt["id"] for prompt in self.queue)]

    def ages(self, ids: Iterable[str], now: float) -> dict[str, float]:
        """How long ago these prompts were accepted (s)."""
        taken = {message["id"]: message.get("at") for message in self.history if message["role"] == "user"}
        taken |= {prompt["id"]: prompt["at"] for prompt in self.queue}
        return {id_: seconds_since(taken.get(id_), now) for id_ in ids}
