"""The undo points as the agent uses them: made while the model is first asked, complete before the first tool call.

A point is the state of the project's files at the start of a prompt. (A checkpoint is something else: the manager's
copy of the conversation.) Files change when tools run, so a turn waits for its point only before its first call. A
point that can't be made is logged, and the turn runs without: the log and `missing` say so.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.agent.settings import AgentSettings
from app.agent.tools import child

log = logging.getLogger(__name__)

FOLDER_NAME = ".undo"
"""Beside the project's folder: on its volume, and in no backup or restore point."""

PROGRAM = Path(__file__).with_name("helper.py")

SAVE_SECONDS = 120.0
"""A first point of 50,000 files takes some seconds; a volume that hangs must not hold a helper forever."""

WAIT_SECONDS = 45.0
"""A tool waits this long for the point, at most; what was stored by then is kept for the next one."""

RESTORE_SECONDS = 300.0
LIST_SECONDS = 20.0

FILE_MAX_BYTES = 104_857_600
"""The content of a larger file is in no undo point, and undoing leaves it alone: what large files hold is seldom a
prompt's work, and each change of one costs its size."""

MISSING_KEPT = 20
"""Prompts without a point, told in the list."""

NO_POINT, NO_ROOM = "no_point", "no_room"
"""Errors of the helper (`app.agent.undo.helper`)."""


class UndoFailed(Exception):
    """A point could not be made or restored: the text for people, and the helper's code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class UndoPoints:
    """One workspace's undo points. Thread-safe. `hidden` and `environment` are those of commands."""

    def __init__(self, settings: AgentSettings, environment: Mapping[str, str], hidden: Path | None) -> None:
        self._settings = settings
        self._environment = environment
        self._hidden = hidden
        self._saving: threading.Thread | None = None
        self._given_up = threading.Event()
        self.missing: OrderedDict[str, str] = OrderedDict()
        """Prompts whose point could not be made, with the reason."""

    def begin(self, message_id: str, *, untouched: bool) -> None:
        """Begin the point of a prompt whose turn begins. Not `untouched`: tools ran already, before a restart, so a
        point that is not there can't be made."""
        if not self._settings.undo_points:
            return
        self.wait(lambda: False)
        self._given_up = threading.Event()
        if untouched:
            work = threading.Thread(target=self._save, args=(message_id, self._given_up), name="undo", daemon=True)
            self._saving = work
            work.start()

    def wait(self, stop: child.Stop) -> None:
        """Wait until the point of the turn is made, or can't be, or until `stop`."""
        saving, deadline = self._saving, time.monotonic() + WAIT_SECONDS
        if saving is None:
            return
        while saving.is_alive() and not stop() and time.monotonic() < deadline:
            saving.join(child.TICK)
        if saving.is_alive():
            if stop():
                return  # The turn ends, so no tool will run.
            # After this, tools may change files: what it has seen by then must not become a point.
            self._given_up.set()
            saving.join()
        self._saving = None

    def _save(self, message_id: str, given_up: threading.Event) -> None:
        begun = time.monotonic()
        try:
            saved = self._ask("save", message_id, SAVE_SECONDS, given_up.is_set)
        except (UndoFailed, OSError) as e:
            log.warning("This prompt can't be undone: %s", e)
            self.missing[message_id] = str(e)
            while len(self.missing) > MISSING_KEPT:
                self.missing.popitem(last=False)
            return
        if saved.get("left_out_count"):
            log.warning("The undo point leaves out the content of %d files", saved["left_out_count"])
        log.info("An undo point was made in %.2f s, %d changes", time.monotonic() - begun, saved.get("changed", 0))

    def listed(self) -> list[dict[str, Any]]:
        """The points, newest first: `{"message_id", "created_at", "files"}`. Raises UndoFailed, OSError."""
        if not self._settings.undo_points or not self._beside.exists():
            return []
        points = self._ask("list", "", LIST_SECONDS).get("points", [])
        return [dict(zip(("message_id", "created_at", "files"), point, strict=True)) for point in points]

    def stage(self, message_id: str) -> int:
        """Prepare to restore a point, beside the files; how many files that will change. Raises UndoFailed, OSError."""
        if not self._settings.undo_points or not self._beside.exists():
            raise UndoFailed(NO_POINT, "there is no undo point of this prompt")
        return int(self._ask("stage", message_id, RESTORE_SECONDS)["files"])

    def swap(self, message_id: str) -> None:
        """Carry out what was staged; repeated, it completes. Raises UndoFailed, OSError."""
        done = self._ask("swap", message_id, RESTORE_SECONDS)
        if done.get("lost"):
            log.warning("%d files could not be restored: their content was too large or unreadable", done["lost"])

    @property
    def _beside(self) -> Path:
        return self._settings.folder.absolute().parent / FOLDER_NAME

    def _ask(
        self, what: str, message_id: str, seconds: float, stop: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """The helper's answer to an order."""
        settings = self._settings
        order = {
            "do": what,
            "root": str(settings.folder.absolute()),
            "beside": str(self._beside),
            "message_id": message_id,
            "now": time.time(),
            "limits": [settings.undo_points, FILE_MAX_BYTES, settings.undo_max_bytes],
            "hidden": str(self._hidden or ""),
        }
        reply = child.ask(
            [sys.executable, "-I", "-S", str(PROGRAM)],
            json.dumps(order).encode(),
            seconds=seconds,
            stop=stop,
            environment=self._environment,
        )
        if reply.ended:
            raise UndoFailed("failed", f"it took longer than {seconds:g} s" if reply.ended == "late" else "given up")
        answer = _answer(reply)
        if answer is None:
            raise UndoFailed("failed", "its process ended unexpectedly")
        if "error" in answer:
            raise UndoFailed(answer["error"], str(answer.get("detail", "")))
        return answer


def _answer(reply: child.Reply) -> dict[str, Any] | None:
    """The helper's answer; None if it was killed or gave none. A command that writes one in its place kills it."""
    with contextlib.suppress(ValueError):
        return None if reply.code else json.loads(reply.output)
    return None
