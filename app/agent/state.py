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

The folder may be a copy, whose conversation is another session's, or this one's as it once was. `metadata.json` has
the session's `uuid` from the beginning; in another's nothing is ours but what was said, and `inherited` counts those
messages. What is open in our own goes on where the manager agrees (`app.agent.standing`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.agent.conversation import Conversation
from app.agent.disk import Journal, write_document
from app.agent.documents import (
    Documents,
    Message,
    Unreadable,
    owner,
    read_documents,
    set_aside,
)
from app.agent.standing import Ask, Standing, nobody
from app.agent.text import moment

log = logging.getLogger(__name__)

JOURNAL_BYTES = 1024 * 1024
"""A journal longer than this is not left to a quieter moment: reading it again takes time at the next start."""

RESTORED = "The workspace was restored from a backup made while this ran."
ROLLED_BACK = "The conversation was restored as it was while this ran. It has ended since; how is not in this copy."


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
        self._conversation = Conversation(Documents())
        self._doubtful: list[str] = []
        self.changes = 0
        """Grows with every change worth a checkpoint."""

    @property
    def last_prompt_at(self) -> str:
        """When a prompt was last accepted, "" if never."""
        return self._conversation.last_prompt_at

    @property
    def last_finished_at(self) -> str:
        """When a turn last ended, "" if none has."""
        return self._conversation.last_finished_at

    # Loading

    def open(self, fetch: Callable[[], Documents | None], ask: Ask = nobody) -> None:
        """Load what is there; of a folder without a history, what `fetch` has, if anything. `ask` tells whose a
        conversation is that doesn't say so. On return it says so on the disk.

        Both may raise to say that this isn't known yet: nothing is changed then, and this may be called again.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        documents = self._read() or self._begin(fetch())
        with self._changed:
            self._conversation = Conversation(documents)
            self._unsaved.clear()
            self._replay(self._journal.open())
        if self._is_foreign(owner(documents), ask):
            self._disown()
        elif owner(documents) != self._uuid:
            self.fold()
        with self._changed:
            self._doubtful = self._conversation.open_prompts()
            self._conversation.restored = self._conversation.restored and bool(self._doubtful)
            self.loaded = True
            self._changed.notify_all()

    def _read(self) -> Documents | None:
        """The documents on disk; None when there are none, or none that can be read (they are set aside)."""
        try:
            documents = read_documents(self._folder)
        except Unreadable as e:
            log.warning("The conversation on disk is set aside: %s", e)
            documents = None
        if documents is None:
            # With the journal: it goes on from its history, and alone it doesn't say whose it is.
            set_aside(self._folder, int(self._clock()))
        return documents

    def _begin(self, fetched: Documents | None) -> Documents:
        """Write the documents of a folder that has none. The history last: its presence says that the others are
        there."""
        metadata = {"format": 1} if fetched is None else {**fetched.metadata, "restored": True}
        documents = replace(fetched or Documents(), metadata=metadata | {"uuid": self._uuid})
        write_document(self._folder / "metadata.json", documents.metadata)
        write_document(self._folder / "context.json", documents.context)
        write_document(self._folder / "history.json", documents.history)
        return documents

    def _is_foreign(self, owner: str, ask: Ask) -> bool:
        """Whether the conversation is another session's. One that doesn't say whose it is is ours where the manager
        waits for the end of one of its prompts: agents of earlier releases wrote it down after their first turn."""
        if owner:
            return owner != self._uuid
        ages = self._conversation.ages(self._conversation.prompts, self._clock())
        standing = ask(ages) if ages else None
        if standing is None:
            return False
        self._conversation.unreported |= {
            id_: None for id_ in self._conversation.outcomes if id_ in standing.unfinished
        }
        return not standing.unfinished

    def _disown(self) -> None:
        """In another session's conversation nothing is left to do or to report, and its prompts aren't ours: one may
        come with the same id."""
        with self._changed:
            turn = self.open_turn()
            if turn is not None:
                self.finish(turn, failure=(RESTORED, "restored"))
            self._conversation.disown()
            write_document(self._folder / "history.json", self._conversation.history)
            # Before it says that it is ours, or its journal would be.
            self._journal.clear()
            self._unsaved.clear()
            write_document(self._folder / "metadata.json", self._conversation.metadata(self._uuid))

    def doubtful(self) -> dict[str, float]:
        """What was open on the disk, and was not brought again since: the prompts, and how old they are (s)."""
        with self._changed:
            return self._conversation.ages(self._doubtful, self._clock())

    def settle(self, standing: Standing) -> None:
        """Go on with what was open only as far as the manager knows it as unfinished: the rest has ended, and this
        copy is older. What the manager may have forgotten goes on too, unless it is certain that this is a copy."""
        with self._changed:
            ours = standing.unfinished if self._conversation.restored else standing.unfinished | standing.unknown
            gone = [id_ for id_ in self._doubtful if id_ not in ours]
            turn = self.open_turn()
            if turn is not None and turn in gone:
                self.finish(turn, failure=(ROLLED_BACK, "rolled_back"))
                self.reported([turn])
            waiting = [prompt["id"] for prompt in self._conversation.queue if prompt["id"] in gone]
            if waiting:
                self._record({"kind": "dropped", "ids": waiting})
            self._doubtful = []
            self._conversation.restored = False
        if gone:
            log.warning("%d prompts that were open here have ended elsewhere; they are left", len(gone))

    # The journal: every change is an entry, applied the same way now and after a crash

    def _replay(self, entries: Sequence[Mapping[str, Any]]) -> None:
        for entry in entries:
            try:
                self._conversation.apply(entry)
            except (KeyError, TypeError):
                log.warning("An entry of the journal isn't ours; it is left out")

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
        self._conversation.apply(entry)
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
            known = self._conversation.prompts.get(id_)
            if known is not None:
                if known != text:
                    raise IdReused(id_)
                if id_ in self._doubtful:
                    self._doubtful.remove(id_)
                return False
            if len(self._conversation.queue) >= limit:
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
                resumes = self._conversation.resumes
            elif self._conversation.queue:
                self.append({**self._conversation.queue[0], "role": "user"})
                id_, resumes = str(self._conversation.history[-1]["id"]), 0
            else:
                return None
            withdrawn = self.turn_messages(id_)[0].get("withdrawn")
            return Turn(id_, resumes, (str(withdrawn[0]), str(withdrawn[1])) if withdrawn else None)

    def withdraw(self, id_: str, *, reason: str, code: str) -> bool:
        """Let a prompt that waits fail when it is its turn, so that order stays. False if it doesn't wait."""
        with self._changed:
            if not any(prompt["id"] == id_ for prompt in self._conversation.queue):
                return False
            self._record({"kind": "withdrawn", "id": id_, "reason": reason, "code": code})
            return True

    def wait_for_prompt(self, seconds: float, *, unless: Callable[[], bool]) -> None:
        """Return when there is something to do, when `unless` holds (say so with `notify`), or after these seconds."""
        with self._changed:
            self._changed.wait_for(
                lambda: unless() or bool(self._conversation.queue) or self.open_turn() is not None, seconds
            )

    def notify(self) -> None:
        """Let those who wait look again."""
        with self._changed:
            self._changed.notify_all()

    def open_turn(self) -> str | None:
        """The id of the turn that has begun and not ended."""
        with self._changed:
            return self._conversation.open_turn()

    def waiting(self) -> int:
        """Prompts accepted and not begun."""
        return len(self._conversation.queue)

    # Steps and outcomes

    def append(self, message: Message) -> None:
        """Add a message to the history; on disk when it returns. OSError: it isn't there."""
        with self._changed:
            message.setdefault("at", moment(self._clock()))
            self._record({"kind": "message", "n": len(self._conversation.history), "message": message})

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
            entry = {"kind": "message", "n": len(self._conversation.history), "message": message}
            self._record(entry, even_if_full=True)

    def stopped(self, id_: str) -> None:
        """Note that a turn rests because the process was asked to end, so that this counts as no failure of it."""
        with self._changed:
            self._record({"kind": "stopped", "id": id_})

    def knows(self, id_: str) -> bool:
        """Whether this prompt was ever accepted."""
        with self._changed:
            return id_ in self._conversation.prompts

    def outcome(self, id_: str) -> dict[str, Any] | None:
        """What came of a prompt, None while that is open."""
        return self._conversation.outcomes.get(id_)

    def wait_for_outcome(self, id_: str, seconds: float) -> dict[str, Any] | None:
        """The outcome once there is one, None if there is none after these seconds."""
        with self._changed:
            self._changed.wait_for(lambda: id_ in self._conversation.outcomes, seconds)
            return self._conversation.outcomes.get(id_)

    def unreported(self) -> dict[str, dict[str, Any]]:
        """Outcomes the manager hasn't taken yet, by prompt, in order."""
        with self._changed:
            return {id_: self._conversation.outcomes[id_] for id_ in self._conversation.unreported}

    def reported(self, ids: Sequence[str]) -> None:
        """The manager has taken these."""
        with self._changed:
            known = [id_ for id_ in ids if id_ in self._conversation.unreported]
            if known:
                self._record({"kind": "reported", "ids": known})

    # Reading

    def history(self, after: int = 0, limit: int | None = None) -> tuple[list[Message], int]:
        """The messages from index `after` on, and how many there are in all."""
        with self._changed:
            end = None if limit is None else after + limit
            return self._conversation.history[after:end], len(self._conversation.history)

    def turn_messages(self, id_: str) -> list[Message]:
        """What belongs to the last turn, if it is this one."""
        with self._changed:
            return self._conversation.turn(id_)

    # Documents

    def context(self) -> list[Message]:
        """What the model got last (`app.agent.context` brings it up to date)."""
        with self._changed:
            return list(self._conversation.context)

    def set_context(self, context: list[Message], *, write: bool = False) -> None:
        """Replace it; `write` at once what was expensive to make, else with the next `fold`."""
        with self._changed:
            self._conversation.context = list(context)
        if write:
            with self._folding:
                write_document(self._folder / "context.json", context)

    def documents(self) -> Documents:
        """All of it as of now."""
        with self._changed:
            return Documents(
                list(self._conversation.history),
                list(self._conversation.context),
                self._conversation.metadata(self._uuid),
            )

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
