"""Undoes a prompt: its files and its part of the conversation, together.

1. What must come back is written beside the files, which may fail and changes nothing.
2. One entry of the journal cuts the conversation. From here on the prompt is undone.
3. The files are swapped by renames, and another entry says that this is complete.

An agent that is killed between 2 and 3 completes it at its next start, before any turn, or when it is asked again.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from app.agent.conversation import UNDONE
from app.agent.events import Publish, outcome_event
from app.agent.state import State
from app.agent.turns import Busy, Turns
from app.agent.undo.points import NO_POINT, UndoFailed, UndoPoints

log = logging.getLogger(__name__)

TRIES = 3
RETRY_SECONDS = 2.0
"""Between two tries to complete a restore at the start."""


class Undoing:
    """Undoes prompts of `state`. `publish` gets their outcomes, also of those that had another: whoever asked may be
    gone by the end."""

    def __init__(self, state: State, turns: Turns, points: UndoPoints, publish: Publish) -> None:
        self._state = state
        self._turns = turns
        self._points = points
        self._publish = publish

    def undo(self, id_: str) -> dict[str, Any]:
        """Undo this prompt and all after it: `{"files", "messages_cut"}`. Repeated, it completes, or changes nothing.

        Raises Busy, UndoFailed, OSError. Busy means that the turn in the way is worth cancelling.
        """
        if self._state.undone(id_) is None or self._state.restoring:
            try:
                with self._turns.hold():
                    self._carry_out(id_)
            except Busy:
                if not self._state.restoring and not self._may_have_point(id_):
                    raise UndoFailed(NO_POINT, "there is no undo point of this prompt") from None
                raise
        files, ids = self._state.undone(id_) or (0, [])
        return {"files": files, "messages_cut": ids}

    def find(self, id_: str) -> bool | None:
        """Whether this prompt is undone; None if `undo` can't undo it. Raises UndoFailed, OSError."""
        if self._state.undone(id_) is not None:
            return True
        return False if self._may_have_point(id_) else None

    def _carry_out(self, id_: str) -> None:
        if self._state.restoring:
            self._swap()
        if self._state.undone(id_) is not None:
            return
        if not self._state.undoable(id_):
            raise UndoFailed(NO_POINT, "the conversation has no such prompt")
        files = self._points.stage(id_)
        for each in self._state.undo(id_, files):
            self._publish(outcome_event(each, UNDONE))
        self._swap()
        self._state.try_fold()

    def _may_have_point(self, id_: str) -> bool:
        """The point of the turn that runs may still be being made."""
        running = self._turns.current()
        if running is not None and running["id"] == id_:
            return True
        return self._state.undoable(id_) and any(point["message_id"] == id_ for point in self._points.listed())

    def _swap(self) -> None:
        self._points.swap(self._state.restoring)
        self._state.files_restored()

    def complete(self, stopping: threading.Event) -> None:
        """Complete a restore that a crash or an error interrupted, before a turn. One that can't be completed is given
        up after some tries: the conversation stays cut, and the files are partly those of later."""
        for _ in range(TRIES):
            if not self._state.restoring:
                return
            try:
                self._swap()
            except (UndoFailed, OSError) as e:
                log.error("The files of an undone prompt can't be restored: %s", e)
                if isinstance(e, UndoFailed) and e.code == NO_POINT:
                    break
                if stopping.wait(RETRY_SECONDS):
                    return
        if self._state.restoring:
            log.error("The files of an undone prompt are given up")
            try:
                self._state.files_restored()
            except OSError:
                log.warning("The conversation can't be written")
