"""The conversation as it survives: what was asked, every step taken, what came of it, who has been told.

    .session/history.json   every message, oldest first; nothing is ever taken out
    .session/context.json   what the model gets of it (`app.agent.context`)
    .session/metadata.json  prompts waiting, outcomes not yet reported, whose session it is
    .session/journal        what happened since those three were written (`app.agent.disk`)

A message is `{"id", "role": "user"|"assistant"|"tool", "content", "at", …}`, where `id` is the prompt's,
for every message of its turn. An assistant's may have `tool_calls` `[{"call_id","name","arguments"}]`
and `usage`; a tool's has `call_id`, `name`, `ok`. The last message of a turn has `outcome`:
`{"status": "processed", "response": {…}}` or `{"status": "failed", "reason", "code"}`. A history whose
last message has none was cut short there: that turn goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.agent.disk import Journal, write_document
from app.agent.documents import Documents, Message, Unreadable, is_prompt, listed, read_documents, set_aside
from app.agent.text import moment

log = logging.getLogger(__name__)

JOURNAL_BYTES = 1024 * 1024
"""A journal longer than this is not left to a quieter moment: reading it again takes time at the next start."""

RESTORED = "The workspace was restored from a backup made while this ran."


class IdReused(ValueError):
    """This id came before with another text."""


class QueueFull(RuntimeError):
    """As many prompts wait as may."""


@dataclass(frozen=True)
class Turn:
    """A turn to work on. `resumes`: how often it was taken up again since its last message."""

    id: str
    resumes: int = 0
    withdrawn: tuple[str, str] | None = None
    """Reason and code of its cancel, when that came before it began."""


class State:
    """The conversation in memory and on disk. Every method is safe from any thread."""

    def __init__(self, folder: Path, uuid: str, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._uuid = uuid
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._folding = threading.Lock()
        """Held while documents are written; taken before the other, never after it."""
        self._journal = Journal(folder / "journal")
        self._unsaved: list[dict[str, Any]] = []
        self.loaded = False
        """Whether it is known what was said before."""
        self._history: list[Message] = []
        self._context: list[Message] = []
        self._queue: list[Message] = []
        self._prompts: dict[str, str] = {}
        self._outcomes: dict[str, dict[str, Any]] = {}
        self._unreported: dict[str, None] = {}
        self._resumes = 0
        self.last_prompt_at = ""
        """When a prompt was last accepted, "" if never."""
        self.last_finished_at = ""
        """When a turn last ended, "" if none has."""
        self.changes = 0
        """Grows with every change worth a checkpoint."""

    # Loading

    def open(self, fetch: Callable[[], Documents | None]) -> None:
        """Load what is there; of a folder without a history, what `fetch` has, if anything.

        `fetch` may raise to say that it isn't known yet whether there is something: nothing is changed then.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        documents = self._read()
        if documents is None:
            documents = fetch() or Documents()
            # The history last: its presence says that the others are there.
            write_document(self._folder / "context.json", documents.context)
            write_document(self._folder / "metadata.json", documents.metadata)
            write_document(self._folder / "history.json", documents.history)
        with self._changed:
            self._take(documents)
            self._replay(self._journal.open())
            foreign = documents.metadata.get("uuid", self._uuid) != self._uuid
            if foreign:
                self._disown()
            self.loaded = True
            self._changed.notify_all()
        if foreign:
            self.fold()

    def _read(self) -> Documents | None:
        """The documents on disk; None when there are none, or none that can be read (they are set aside)."""
        try:
            return read_documents(self._folder)
        except Unreadable as e:
            log.warning("The conversation on disk is set aside: %s", e)
            set_aside(self._folder, int(self._clock()))
            return None

    def _take(self, documents: Documents) -> None:
        for message in documents.history:
            self._remember(message)
        self._unreported.clear()
        metadata = documents.metadata
        for prompt in listed(metadata.get("queue")):
            if is_prompt(prompt) and prompt["id"] not in self._prompts:
                self._enqueue(prompt)
        told = [id_ for id_ in listed(metadata.get("unreported")) if isinstance(id_, str)]
        self._unreported = {id_: None for id_ in told if id_ in self._outcomes}
        self._context = documents.context
        resumes = metadata.get("resumes")
        self._resumes = resumes if isinstance(resumes, int) else 0
        self.last_finished_at = str(metadata.get("last_finished_at") or "")
        self.last_prompt_at = str(metadata.get("last_prompt_at") or "")

    def _disown(self) -> None:
        """In another session's conversation nothing is left to do or to report: its prompts aren't ours."""
        for prompt in self._queue:
            self._prompts.pop(prompt["id"], None)
        self._queue.clear()
        turn = self.open_turn()
        if turn is not None:
            self.finish(turn, failure=(RESTORED, "restored"))
        self._unreported.clear()

    # The journal: every change is an entry, applied the same way now and after a crash

    def _replay(self, entries: Sequence[Mapping[str, Any]]) -> None:
        for entry in entries:
            try:
                self._apply(entry)
            except (KeyError, TypeError):
                log.warning("An entry of the journal isn't ours; it is left out")

    def _apply(self, entry: Mapping[str, Any]) -> None:
        kind = entry.get("kind")
        if kind == "message":
            message = entry["message"]
            if entry["n"] >= len(self._history):
                self._remember(message)
            elif "outcome" in message:
                self._unreported[message["id"]] = None
            self._resumes = 0
        elif kind == "withdrawn":
            why = {"withdrawn": [entry["reason"], entry["code"]]}
            self._queue = [{**each, **why} if each["id"] == entry["id"] else each for each in self._queue]
        elif kind == "prompt" and entry["prompt"]["id"] not in self._prompts:
            self._enqueue(entry["prompt"])
        elif kind == "reported":
            for id_ in entry["ids"]:
                self._unreported.pop(id_, None)
        elif kind == "resumed":
            self._resumes += 1
        elif kind == "stopped":
            self._resumes = 0

    def _remember(self, message: Message) -> None:
        self._history.append(message)
        id_ = message["id"]
        if message["role"] == "user":
            self._prompts[id_] = message["content"]
            self._queue = [prompt for prompt in self._queue if prompt["id"] != id_]
        if "outcome" in message:
            self._outcomes[id_] = message["outcome"]
            self._unreported[id_] = None
            self.last_finished_at = message.get("at", "")

    def _enqueue(self, prompt: Message) -> None:
        self._queue.append(prompt)
        self._prompts[prompt["id"]] = prompt["content"]
        self.last_prompt_at = prompt["at"]

    def _record(self, entry: dict[str, Any], *, even_if_full: bool = False) -> None:
        """Write an entry and apply it. OSError changes nothing, unless it is to count with a full disk too."""
        self._unsaved.append(entry)
        try:
            while self._unsaved:
                self._journal.add(self._unsaved[0])
                self._unsaved.pop(0)
        except OSError:
            if not even_if_full:
                self._unsaved.pop()
                raise
            log.warning("The outcome of a turn can't be written; it is kept in memory")
        self._apply(entry)
        self.changes += 1
        self._changed.notify_all()

    # Prompts

    def wait_until_loaded(self, seconds: float) -> bool:
        """Whether it is known what was said before, at the latest after these seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.loaded, seconds)

    def accept(self, id_: str, text: str, *, limit: int) -> bool:
        """Take a prompt; on disk when it returns. False: it was taken before. IdReused, QueueFull, OSError."""
        with self._changed:
            known = self._prompts.get(id_)
            if known is not None:
                if known != text:
                    raise IdReused(id_)
                return False
            if len(self._queue) >= limit:
                raise QueueFull
            prompt = {"id": id_, "content": text, "at": moment(self._clock())}
            self._record({"kind": "prompt", "prompt": prompt})
            return True

    def next_turn(self) -> Turn | None:
        """The turn to work on now: the one that was cut short, else the first prompt waiting, begun by this."""
        with self._changed:
            id_ = self.open_turn()
            if id_ is not None:
                self._record({"kind": "resumed", "id": id_})
                resumes = self._resumes
            elif self._queue:
                self.append({**self._queue[0], "role": "user"})
                id_, resumes = str(self._history[-1]["id"]), 0
            else:
                return None
            withdrawn = self.turn_messages(id_)[0].get("withdrawn")
            return Turn(id_, resumes, (str(withdrawn[0]), str(withdrawn[1])) if withdrawn else None)

    def withdraw(self, id_: str, *, reason: str, code: str) -> bool:
        """Let a prompt that waits fail when it is its turn, so that order stays. False if it doesn't wait."""
        with self._changed:
            if not any(prompt["id"] == id_ for prompt in self._queue):
                return False
            self._record({"kind": "withdrawn", "id": id_, "reason": reason, "code": code})
            return True

    def wait_for_prompt(self, seconds: float, *, unless: Callable[[], bool]) -> None:
        """Return when there is something to do, when `unless` holds (say so with `notify`), or after these seconds."""
        with self._changed:
            self._changed.wait_for(lambda: unless() or bool(self._queue) or self.open_turn() is not None, seconds)

    def notify(self) -> None:
        """Let those who wait look again."""
        with self._changed:
            self._changed.notify_all()

    def open_turn(self) -> str | None:
        """The id of the turn that has begun and not ended."""
        with self._changed:
            if not self._history or "outcome" in self._history[-1]:
                return None
            return str(self._history[-1]["id"])

    def waiting(self) -> int:
        """Prompts accepted and not begun."""
        return len(self._queue)

    # Steps and outcomes

    def append(self, message: Message) -> None:
        """Add a message to the history; on disk when it returns. OSError: it isn't there."""
        with self._changed:
            message.setdefault("at", moment(self._clock()))
            self._record({"kind": "message", "n": len(self._history), "message": message})

    def finish(self, id_: str, *, failure: tuple[str, str]) -> None:
        """End the open turn without an answer: reason for people, code for programs.

        It counts even when it can't be written, so that a full disk doesn't make a turn endless.
        """
        reason, code = failure
        with self._changed:
            if self.open_turn() != id_:
                return
            message = {
                "id": id_,
                "role": "assistant",
                "content": "",
                "at": moment(self._clock()),
                "outcome": {"status": "failed", "reason": reason, "code": code},
            }
            entry = {"kind": "message", "n": len(self._history), "message": message}
            self._record(entry, even_if_full=True)

    def stopped(self, id_: str) -> None:
        """Note that a turn rests because the process was asked to end, so that this counts as no failure of it."""
        with self._changed:
            self._record({"kind": "stopped", "id": id_})

    def knows(self, id_: str) -> bool:
        """Whether this prompt was ever accepted."""
        with self._changed:
            return id_ in self._prompts

    def outcome(self, id_: str) -> dict[str, Any] | None:
        """What came of a prompt, None while that is open."""
        return self._outcomes.get(id_)

    def wait_for_outcome(self, id_: str, seconds: float) -> dict[str, Any] | None:
        """The outcome once there is one, None if there is none after these seconds."""
        with self._changed:
            self._changed.wait_for(lambda: id_ in self._outcomes, seconds)
            return self._outcomes.get(id_)

    def unreported(self) -> dict[str, dict[str, Any]]:
        """Outcomes the manager hasn't taken yet, by prompt, in order."""
        with self._changed:
            return {id_: self._outcomes[id_] for id_ in self._unreported}

    def reported(self, ids: Sequence[str]) -> None:
        """The manager has taken these."""
        with self._changed:
            known = [id_ for id_ in ids if id_ in self._unreported]
            if known:
                self._record({"kind": "reported", "ids": known})

    # Reading

    def history(self, after: int = 0, limit: int | None = None) -> tuple[list[Message], int]:
        """The messages from index `after` on, and how many there are in all."""
        with self._changed:
            end = None if limit is None else after + limit
            return self._history[after:end], len(self._history)

    def turn_messages(self, id_: str) -> list[Message]:
        """What belongs to the last turn, if it is this one."""
        with self._changed:
            start = len(self._history)
            while start and self._history[start - 1]["id"] == id_:
                start -= 1
            return self._history[start:]

    # Documents

    def context(self) -> list[Message]:
        """What the model got last (`app.agent.context` brings it up to date)."""
        with self._changed:
            return list(self._context)

    def set_context(self, context: list[Message], *, write: bool = False) -> None:
        """Replace it; `write` at once what was expensive to make, else with the next `fold`."""
        with self._changed:
            self._context = list(context)
        if write:
            with self._folding:
                write_document(self._folder / "context.json", context)

    def documents(self) -> Documents:
        """All of it as of now."""
        with self._changed:
            return Documents(list(self._history), list(self._context), self._metadata())

    def _metadata(self) -> dict[str, Any]:
        return {
            "format": 1,
            "uuid": self._uuid,
            "queue": list(self._queue),
            "unreported": list(self._unreported),
            "resumes": self._resumes,
            "turns": len(self._outcomes),
            "last_prompt_at": self.last_prompt_at,
            "last_finished_at": self.last_finished_at,
        }

    def fold(self) -> None:
        """Write the documents anew and start the journal empty. OSError leaves what was there.

        Others may go on meanwhile; then the journal stays as it is, which says some things twice.
        """
        with self._folding:
            with self._changed:
                documents, changes = self.documents(), self.changes
            self._write(documents)
            with self._changed:
                if self.changes != changes:
                    if self._journal.size < JOURNAL_BYTES:
                        return
                    self._write(self.documents())
                self._unsaved.clear()
                self._journal.clear()

    def _write(self, documents: Documents) -> None:
        write_document(self._folder / "history.json", documents.history)
        write_document(self._folder / "context.json", documents.context)
        write_document(self._folder / "metadata.json", documents.metadata)

    def close(self) -> None:
        """Let go of the files."""
        with self._changed:
            self._journal.close()
