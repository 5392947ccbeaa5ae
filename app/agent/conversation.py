"""The conversation in memory: the documents, with the journal's entries applied to them.

Nothing here is written to disk, and nothing is thread-safe: `app.agent.state` does both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Any

from app.agent.documents import Documents, Message, is_prompt, listed, natural, strings
from app.agent.protocol import Failure
from app.agent.text import seconds, seconds_since

UNDONE = {
    "status": "failed",
    "reason": "This prompt was undone: files and conversation are as they were before it.",
    "code": Failure.ROLLED_BACK,
}
"""The outcome of a prompt that was undone, also when it is sent again."""

UNDONE_KEPT = 1_000
"""Prompts that are known to be undone, the newest. The manager sends none again that is older."""


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
        self.undone: dict[str, str] = {}
        """Prompts that were undone, each with the one whose start was restored. They never run again."""
        self.restoring: dict[str, Any] | None = None
        """The restore of files that the conversation was cut for, until it is complete: `{"to", "files"}`."""
        self.last_restore: dict[str, Any] | None = None
        """The same of the last complete one."""
        self.last_prompt_at = self.last_finished_at = ""
        for message in documents.history:
            self._remember(message)
        undone = metadata.get("undone")
        for id_, to in (undone if isinstance(undone, dict) else {}).items():
            self._mark_undone(id_, str(to))
        self.restoring, self.last_restore = (_restore(metadata.get(name)) for name in ("restoring", "last_restore"))
        for prompt in listed(metadata.get("queue")):
            if is_prompt(prompt) and prompt["id"] not in self.prompts.keys() | self.undone.keys():
                self._enqueue(prompt)
        self.unreported = {id_: None for id_ in strings(metadata.get("unreported")) if id_ in self.outcomes}
        self.last_finished_at = str(metadata.get("last_finished_at") or "")
        self.last_prompt_at = str(metadata.get("last_prompt_at") or "")

    def metadata(self, uuid: str) -> dict[str, Any]:
        """The state that neither history nor context holds."""
        special = {
            "inherited": self.inherited,
            "restored": self.restored,
            "undone": dict(self.undone),
            "restoring": self.restoring,
            "last_restore": self.last_restore,
        }
        return {name: value for name, value in special.items() if value} | {
            "format": 1,
            "uuid": uuid,
            "queue": list(self.queue),
            "unreported": list(self.unreported),
            "resumes": self.resumes,
            "turns": len(self.outcomes) - len(self.undone),
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
        elif kind == "undone":
            self._cut(entry["n"], entry["ids"], entry["to"], entry["files"])
        elif kind == "ended":
            self._end(float(entry["until"]))
        elif kind == "files_restored":
            self.last_restore, self.restoring = self.restoring or self.last_restore, None
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

    def undoable(self, id_: str) -> tuple[int, list[str]] | None:
        """Where the history is cut to undo this prompt, and the prompts that go: it, and all after it. None if it never
        started, or is another session's."""
        for n in range(self.inherited, len(self.history)):
            message = self.history[n]
            if message["role"] == "user" and message["id"] == id_:
                after = [each["id"] for each in self.history[n:] if each["role"] == "user"]
                return n, after + [prompt["id"] for prompt in self.queue]
        return None

    def _cut(self, n: int, ids: Iterable[str], to: str, files: int) -> None:
        self._keep(n)
        self.queue = [prompt for prompt in self.queue if prompt["id"] not in ids]
        for id_ in ids:
            self.unreported[id_] = None
            self._mark_undone(id_, to)
        for id_ in list(self.undone)[:-UNDONE_KEPT]:
            del self.undone[id_], self.outcomes[id_]
            self.unreported.pop(id_, None)
        self.resumes = 0
        self.restoring = {"to": to, "files": files}

    def _keep(self, n: int) -> list[Message]:
        """Keep the first messages only; answers the others."""
        removed = self.history[n:]
        del self.history[n:]
        self.context = [message for message in self.context if natural(message.get("through")) <= n]
        return removed

    def _end(self, until: float) -> None:
        """Remove what is later than a time (seconds since the epoch). What was undone stays so."""
        removed = self._keep(sum(1 for _ in takewhile(lambda message: _at(message) <= until, self.history)))
        late = [prompt for prompt in self.queue if _at(prompt) > until]
        self.queue = [prompt for prompt in self.queue if prompt not in late]
        for message in removed:
            if "outcome" in message and message["id"] not in self.undone:
                self.outcomes.pop(message["id"], None)
                self.unreported.pop(message["id"], None)
        for prompt in [*(message for message in removed if message["role"] == "user"), *late]:
            self.prompts.pop(prompt["id"], None)
        self.inherited = min(self.inherited, len(self.history))
        self.resumes = 0

    def _mark_undone(self, id_: str, to: str) -> None:
        self.undone[id_] = to
        self.prompts.pop(id_, None)
        self.outcomes[id_] = UNDONE

    def disown(self) -> None:
        """Mark all messages as another session's: this session may have a prompt with the same id."""
        self.inherited = len(self.history)
        self.prompts, self.outcomes, self.unreported = {}, {}, {}
        self.queue.clear()
        self.undone, self.restoring, self.last_restore = {}, None, None

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


def _at(message: Message) -> float:
    """When a message was written, 0 if it does not say."""
    return seconds(message.get("at")) or 0.0


def _restore(value: Any) -> dict[str, Any] | None:
    """A restore as the metadata hold it."""
    if not isinstance(value, dict) or not isinstance(value.get("to"), str):
        return None
    return {"to": value["to"], "files": natural(value.get("files"))}
