"""Whether a process has the archive keys that its stores' content is under, checked at its start.

Without one of them it would find a part of that content unreadable, and later; so it refuses to start. A store that is
out of reach stops no process: it is asked again until it answers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from threading import Thread
from typing import Protocol

from app.core.errors import SessionError
from app.core.storage.archive_keys import ArchiveKeys
from app.process.settings import SettingsError

log = logging.getLogger(__name__)

PAUSE = 30.0
"""s until a store that was out of reach is asked again."""


class Listing(Protocol):
    def key_ids(self) -> tuple[str, ...]: ...


class KeyCheck:
    """The check of these stores, by what they hold."""

    def __init__(self, stores: Mapping[str, Listing], keys: ArchiveKeys, pause: Callable[[float], None] = time.sleep):
        self._unasked = dict(stores)
        self._keys = keys
        self._pause = pause

    def look(self) -> bool:
        """Ask the stores that have not answered yet; whether all have. Raises `SettingsError` for a missing key."""
        for what, store in list(self._unasked.items()):
            try:
                missing = [each for each in store.key_ids() if each not in self._keys.ids]
            except SessionError as error:
                log.warning("the archive keys of the stored %s can't be checked yet: %s", what, error)
                continue
            if missing:
                raise SettingsError(_refusal(what, missing))
            del self._unasked[what]
        return not self._unasked

    def begin(self, *, at_once: bool, done: Callable[[], None] = lambda: None) -> None:
        """Look `at_once`, and then in a thread until all stores have answered. There a missing key ends the process
        (app/process/threads.py). Calls `done` at the end."""
        if at_once and self.look():
            done()
            return
        Thread(target=self._go_on, args=(done,), name="archive-keys", daemon=True).start()

    def _go_on(self, done: Callable[[], None]) -> None:
        while not self.look():
            self._pause(PAUSE)
        done()


def _refusal(what: str, missing: list[str]) -> str:
    keys = f"the archive key {missing[0]}" if len(missing) == 1 else f"the archive keys {', '.join(missing)}"
    return (
        f"ARCHIVE_KEY: stored {what} are encrypted with {keys}, which it lacks. Add it, after a comma, behind the key "
        "that new content is to be encrypted with. If it is lost, see ARCHIVE_KEY in docs/operations.md."
    )
