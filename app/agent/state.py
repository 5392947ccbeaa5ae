"""The conversation on disk: every message and step, the queue, outcomes, and which of them were reported.

    .session/history.json   every message, oldest first; nothing is ever removed
    .session/context.json   the messages as the model gets them (`app.agent.model_context`)
    .session/metadata.json  the queue, outcomes not reported yet, the session's uuid
    .session/journal        changes since those three were written (`app.agent.disk`)
    .session/until-<time>   from a restore: the conversation is to end then, as the files do

A message is `{"id", "role": "user"|"assistant"|"tool", "content", "at", …}`, where `id` is the prompt's,
for every message of its turn. An assistant's may have `tool_calls` `[{"call_id","name","arguments"}]`
and `usage`; a tool's has `call_id`, `name`, `ok`. The last message of a turn has `outcome`:
`{"status": "processed", "response": {…}}` or `{"status": "failed", "reason", "code", "response"?: {…}}`; the response
of a failed one has what was said, done and spent by then. If the last message of the history has none, its turn was
interrupted and is resumed.

The folder is beside the workspace's. It may be a copy: of another session, or of this session at an earlier time.
`metadata.json` has the session's `uuid` from the start. Of a conversation without this session's uuid only the messages
are kept, counted by `inherited`. Open prompts of this session continue if the manager confirms them
(`app.agent.prompt_status`).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from app.agent.conversation import Conversation
from app.agent.disk import Journal, sync_folder, write_document
from app.agent.documents import (
    Documents,
    Message,
    Unreadable,
    owner,
    read_documents,
    set_aside,
)
from app.agent.prompt_status import PromptStatus
from app.agent.protocol import Failure
from app.agent.text import moment
from app.volume import UNTIL

log = logging.getLogger(__name__)

JOURNAL_BYTES = 1024 * 1024
"""A longer journal is folded even while the conversation changes: replaying it slows the next start."""

RESTORED = "The workspace was restored from a backup made while this prompt ran."
ROLLED_BACK = "The conversation was restored to a time when this prompt ran. Its outcome is not in this copy."

NOTHING: Mapping[str, Any] = MappingProxyType({})


class IdReused(ValueError):
    """This id was used before with another text."""


class QueueFull(RuntimeError):
    """The queue is full."""


@dataclass(frozen=True)
class Turn:
    """A turn to run. `resumes`: how often it was resumed since its last message."""

    id: str
    resumes: int = 0
    withdrawn: tuple[str, Failure] | None = None
    """Reason and code of a cancel that came before it started."""


class State:
    """The conversation in memory and on disk. Thread-safe."""

    def __init__(self, folder: Path, uuid: str, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._uuid = uuid
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._folding = threading.Lock()
        """Held while documents are written; acquired before `_changed`, never after it."""
        self._journal = Journal(folder / "journal")
        self._unsaved: list[dict[str, Any]] = []
        self.loaded = False
        """Whether the conversation is loaded."""
        self._conversation = Conversation(Documents())
        self._unconfirmed: list[str] = []
        self.changes = 0
        """Counts the changes worth a checkpoint."""
        self.cuts = 0
        """Counts how often messages were removed, which a copy can't follow by appending."""

    @property
    def last_prompt_at(self) -> str:
        """When a prompt was last accepted, "" if never."""
        return self._conversation.last_prompt_at

    @property
    def last_finished_at(self) -> str:
        """When a turn last ended, "" if none has."""
        return self._conversation.last_finished_at

    # Loading

    def open(self, fetch: Callable[[], Documents | None]) -> None:
        """Load the conversation from disk, or from `fetch` if the folder has no history. On return the uuid is on disk.

        If `fetch` raises, nothing is changed and this may be called again.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        documents = self._read() or self._begin(fetch())
        with self._changed:
            self._conversation = Conversation(documents)
            self._unsaved.clear()
            self._replay(self._journal.open())
            self._end_with_files()
        if owner(documents) != self._uuid:
            self._disown()
        with self._changed:
            self._unconfirmed = self._conversation.open_prompts()
            self._conversation.restored = self._conversation.restored and bool(self._unconfirmed)
            self.loaded = True
            self._changed.notify_all()

    def _read(self) -> Documents | None:
        """The documents on disk; None if there are none. Invalid ones are set aside."""
        try:
            documents = read_documents(self._folder)
        except Unreadable as e:
            log.warning("The conversation on disk is set aside: %s", e)
            documents = None
        if documents is None:
            # The journal too: it continues this history, and does not name its session.
            set_aside(self._folder, int(self._clock()))
        return documents

    def _begin(self, fetched: Documents | None) -> Documents:
        """Write the documents of a folder that has none. The history comes last: its presence implies the others'."""
        metadata = {"format": 1} if fetched is None else {**fetched.metadata, "restored": True}
        documents = replace(fetched or Documents(), metadata=metadata | {"uuid": self._uuid})
        write_document(self._folder / "metadata.json", documents.metadata)
        write_document(self._folder / "context.json", documents.context)
        write_document(self._folder / "history.json", documents.history)
        return documents

    def _end_with_files(self) -> None:
        """Remove what is later than the restored files, as a restore asks for."""
        marks = {path: until for path in self._folder.glob(f"{UNTIL}*") if (until := _until(path)) is not None}
        if not marks:
            return
        self._record({"kind": "ended", "until": min(marks.values())})
        for path in marks:
            path.unlink()
        # Before anything later is written.
        sync_folder(self._folder)

    def _disown(self) -> None:
        """End another session's conversation: nothing of it is open or reported, and its prompts' ids are free."""
        with self._changed:
            turn = self.open_turn()
            if turn is not None:
                self.finish(turn, failure=(RESTORED, Failure.RESTORED))
            self._conversation.disown()
            write_document(self._folder / "history.json", self._conversation.history)
            # Before the uuid is written, else the journal would count as this session's.
            self._journal.clear()
            self._unsaved.clear()
            write_document(self._folder / "metadata.json", self._conversation.metadata(self._uuid))

    def unconfirmed(self) -> dict[str, float]:
        """Prompts that were open on disk and not sent again since, with their age in seconds."""
        with self._changed:
            return self._conversation.ages(self._unconfirmed, self._clock())

    def confirm(self, status: PromptStatus) -> None:
        """Continue only open prompts that the manager knows as unfinished: the others ended after this copy was made.
        Prompts unknown to the manager continue too, unless this is certainly a copy."""
        with self._changed:
            ours = status.unfinished if self._conversation.restored else status.unfinished | status.unknown
            gone = [id_ for id_ in self._unconfirmed if id_ not in ours]
            turn = self.open_turn()
            if turn is not None and turn in gone:
                self.finish(turn, failure=(ROLLED_BACK, Failure.ROLLED_BACK))
                self.reported([turn])
            waiting = [prompt["id"] for prompt in self._conversation.queue if prompt["id"] in gone]
            if waiting:
                self._record({"kind": "dropped", "ids": waiting})
            self._unconfirmed = []
            self._conversation.restored = False
        if gone:
            log.warning("%d open prompts are dropped: they ended after this copy was made", len(gone))

    # The journal: every change is an entry, applied in the same way now and after a crash

    def _replay(self, entries: Sequence[Mapping[str, Any]]) -> None:
        for entry in entries:
            try:
                self._conversation.apply(entry)
            except (KeyError, TypeError):
                log.warning("An invalid entry of the journal is skipped")

    def _record(self, entry: dict[str, Any], *, even_if_full: bool = False) -> None:
        """Write an entry and apply it. OSError changes nothing; `even_if_full` applies it without writing it."""
        self._unsaved.append(entry)
        try:
            while self._unsaved:
                self._journal.add(self._unsaved[0])
                self._unsaved.pop(0)
        except OSError:
            if not even_if_full:
                self._unsaved.pop()
                raise
            log.warning("The outcome of a turn can't be written and is kept in memory")
        self._conversation.apply(entry)
        self.changes += 1
        self._changed.notify_all()

    # Prompts

    def wait_until_loaded(self, seconds: float) -> bool:
        """Whether the conversation is loaded, waiting at most these seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.loaded, seconds)

    def accept(self, id_: str, text: str, *, limit: int) -> bool:
        """Queue a prompt; on disk on return. False if it was accepted before. Raises IdReused, QueueFull, OSError."""
        with self._changed:
            known = self._conversation.prompts.get(id_)
            if id_ in self._conversation.undone:
                return False
            if known is not None:
                if known != text:
                    raise IdReused(id_)
                if id_ in self._unconfirmed:
                    self._unconfirmed.remove(id_)
                return False
            if len(self._conversation.queue) >= limit:
                raise QueueFull
            prompt = {"id": id_, "content": text, "at": moment(self._clock())}
            self._record({"kind": "prompt", "prompt": prompt})
            return True

    def next_turn(self) -> Turn | None:
        """The turn to run: the interrupted one, else that of the first queued prompt, which this starts."""
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
            return Turn(id_, resumes, (str(withdrawn[0]), Failure.of(withdrawn[1])) if withdrawn else None)

    def withdraw(self, id_: str, *, reason: str, code: Failure) -> bool:
        """Let a queued prompt fail at its turn, which keeps the order. False if it isn't queued."""
        with self._changed:
            if not any(prompt["id"] == id_ for prompt in self._conversation.queue):
                return False
            self._record({"kind": "withdrawn", "id": id_, "reason": reason, "code": code})
            return True

    def wait_for_prompt(self, seconds: float, *, unless: Callable[[], bool]) -> None:
        """Wait for a turn to run, for `unless` (call `notify` when it changes), or these seconds."""
        with self._changed:
            self._changed.wait_for(
                lambda: unless() or bool(self._conversation.queue) or self.open_turn() is not None, seconds
            )

    def notify(self) -> None:
        """Wake up waiting threads."""
        with self._changed:
            self._changed.notify_all()

    def open_turn(self) -> str | None:
        """The id of the turn that has started and not ended."""
        with self._changed:
            return self._conversation.open_turn()

    def waiting(self) -> int:
        """Prompts accepted and not started."""
        return len(self._conversation.queue)

    # Steps and outcomes

    def append(self, message: Message) -> None:
        """Append a message to the history; on disk on return. OSError changes nothing."""
        with self._changed:
            message.setdefault("at", moment(self._clock()))
            self._record({"kind": "message", "n": len(self._conversation.history), "message": message})

    def finish(
        self,
        id_: str,
        *,
        failure: tuple[str, Failure],
        text: str = "",
        usage: Mapping[str, int] = NOTHING,
        response: Mapping[str, Any] = NOTHING,
    ) -> None:
        """End the open turn without an answer: reason for people, code for programs. `text` is what there was of one,
        `usage` what it cost; `response` is of the whole turn.

        This applies even if it can't be written, so that a full disk does not repeat a turn forever.
        """
        reason, code = failure
        with self._changed:
            if self.open_turn() != id_:
                return
            outcome: dict[str, Any] = {"status": "failed", "reason": reason, "code": code}
            if response:
                outcome["response"] = dict(response)
            message: Message = {"id": id_, "role": "assistant", "content": text, "at": moment(self._clock())}
            if usage:
                message["usage"] = dict(usage)
            message["outcome"] = outcome
            entry = {"kind": "message", "n": len(self._conversation.history), "message": message}
            self._record(entry, even_if_full=True)

    def stopped(self, id_: str) -> None:
        """Note that a turn is interrupted by a shutdown, which is no failure of it."""
        with self._changed:
            self._record({"kind": "stopped", "id": id_})

    def knows(self, id_: str) -> bool:
        """Whether this prompt was ever accepted."""
        with self._changed:
            return id_ in self._conversation.prompts or id_ in self._conversation.undone

    def outcome(self, id_: str) -> dict[str, Any] | None:
        """A prompt's outcome, None while it is open."""
        return self._conversation.outcomes.get(id_)

    def wait_for_outcome(self, id_: str, seconds: float) -> dict[str, Any] | None:
        """The outcome, None if there is none after these seconds."""
        with self._changed:
            self._changed.wait_for(lambda: id_ in self._conversation.outcomes, seconds)
            return self._conversation.outcomes.get(id_)

    def unreported(self) -> dict[str, dict[str, Any]]:
        """Outcomes not reported to the manager yet, by prompt, in order."""
        with self._changed:
            return {id_: self._conversation.outcomes[id_] for id_ in self._conversation.unreported}

    def reported(self, ids: Sequence[str]) -> None:
        """Note that the manager has these prompts' outcomes."""
        with self._changed:
            known = [id_ for id_ in ids if id_ in self._conversation.unreported]
            if known:
                self._record({"kind": "reported", "ids": known})

    # Undoing prompts (`app.agent.undo`)

    def undoable(self, id_: str) -> bool:
        """Whether the conversation can be cut before this prompt."""
        with self._changed:
            return self._conversation.undoable(id_) is not None

    def undone(self, id_: str) -> tuple[int, list[str]] | None:
        """The files changed and the prompts cut when this one was undone; None if it was not, or by an earlier one."""
        with self._changed:
            ids = [each for each, to in self._conversation.undone.items() if to == id_]
            restore = self._conversation.restoring or self._conversation.last_restore or {}
            return (restore["files"] if restore.get("to") == id_ else 0, ids) if ids else None

    @property
    def restoring(self) -> str:
        """The prompt whose files are still to be restored; the conversation is cut already. "" for none."""
        with self._changed:
            return (self._conversation.restoring or {}).get("to", "")

    def undo(self, id_: str, files: int) -> list[str]:
        """Remove this prompt and all after it, which never run again, and note that `files` files are to be restored.
        On disk on return: the prompts that were removed. Raises OSError."""
        with self._changed:
            cut = self._conversation.undoable(id_)
            if cut is None:
                return []
            n, ids = cut
            self._record({"kind": "undone", "n": n, "ids": ids, "to": id_, "files": files})
            self.cuts += 1
            self._unconfirmed = [each for each in self._unconfirmed if each not in ids]
            return ids

    def files_restored(self) -> None:
        """Note that the restore of files is complete, or will never be."""
        with self._changed:
            self._record({"kind": "files_restored"})

    # Reading

    def history(self, after: int = 0, limit: int | None = None) -> tuple[list[Message], int]:
        """The messages from index `after` on, and the total."""
        with self._changed:
            end = None if limit is None else after + limit
            return self._conversation.history[after:end], len(self._conversation.history)

    def turn_messages(self, id_: str) -> list[Message]:
        """The messages of the last turn, if it has this id."""
        with self._changed:
            return self._conversation.turn(id_)

    # Documents

    def context(self) -> list[Message]:
        """The context the model got last (`app.agent.model_context` updates it)."""
        with self._changed:
            return list(self._conversation.context)

    def set_context(self, context: list[Message], *, write: bool = False) -> None:
        """Replace the context; `write` it at once if it was expensive to make, else with the next `fold`."""
        with self._changed:
            self._conversation.context = list(context)
        if write:
            with self._folding:
                write_document(self._folder / "context.json", context)

    def documents(self) -> Documents:
        """The documents as of now."""
        with self._changed:
            return Documents(
                list(self._conversation.history),
                list(self._conversation.context),
                self._conversation.metadata(self._uuid),
            )

    def fold(self) -> None:
        """Write the documents and clear the journal. OSError leaves both unchanged.

        If the conversation changes meanwhile, the journal is kept; some of its entries are in the documents too. What
        is there already is not written again: an unchanged volume needs no new restore point.
        """
        with self._folding:
            with self._changed:
                if not self._unsaved and not self._journal.size and (self._folder / "metadata.json").exists():
                    return
                documents, changes = self.documents(), self.changes
            self._write(documents)
            with self._changed:
                if self.changes != changes:
                    if self._journal.size < JOURNAL_BYTES:
                        return
                    self._write(self.documents())
                self._unsaved.clear()
                self._journal.clear()

    def try_fold(self) -> None:
        """`fold`, with a failure logged: the journal holds all changes."""
        try:
            self.fold()
        except OSError as e:
            log.warning("The documents can't be written (%s); the journal holds all changes", type(e).__name__)

    def _write(self, documents: Documents) -> None:
        write_document(self._folder / "history.json", documents.history)
        write_document(self._folder / "context.json", documents.context)
        write_document(self._folder / "metadata.json", documents.metadata)

    def close(self) -> None:
        """Close the files."""
        with self._changed:
            self._journal.close()


def _until(mark: Path) -> float | None:
    """The time that such a file names, None if it is none."""
    try:
        until = float(mark.name.removeprefix(UNTIL))
    except ValueError:
        return None
    return until if math.isfinite(until) and mark.is_file() else None
