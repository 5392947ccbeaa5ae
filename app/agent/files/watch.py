"""Watches the folders of a workspace by inotify(7).

Each folder is opened as all files of a workspace are, and watched by its descriptor: a link in its place leads nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable

from inotify_simple import Event, INotify, flags

from app.agent.files.journal import Journal
from app.agent.tools.sandbox_path import ToolError, Workspace
from app.agent.tools.searcher import SKIPPED_FOLDERS

MOST_FOLDERS = 10_000
"""Watched in a workspace. The kernel allows a user a number of them on all of a machine, and takes a KiB for each."""

ABANDONED = 60.0
"""Seconds after which nobody asks any more."""

LOOK = 1.0
"""Seconds between two looks whether anybody still asks."""

GATHERED = 0.1
"""Seconds of changes that are read together: many changes of a file become one."""

MASK = (
    (flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO)
    | (flags.MODIFY | flags.CLOSE_WRITE | flags.ATTRIB)
    | (flags.ONLYDIR | flags.EXCL_UNLINK)
)
SELF = flags.DELETE_SELF | flags.MOVE_SELF
LOST = flags.Q_OVERFLOW | flags.UNMOUNT


class NoRoom(Exception):
    """One more folder can't be watched."""


class Watch:
    """Notes in its `journal` what changes, from now on until it is `over`: when nobody has asked for a while, when the
    kernel dropped changes, when the workspace's folder is another one, and when one was `complete` and is not any more.
    What is in `SKIPPED_FOLDERS` is not watched; and of more than `MOST_FOLDERS` the deepest are not, which is not
    `complete`. Raises OSError where the kernel can't watch at all."""

    def __init__(self, workspace: Workspace, clock: Callable[[], float] = time.monotonic) -> None:
        self.journal = Journal()
        self.complete = True
        self._workspace = workspace
        self._clock = clock
        self._asked = clock()
        self._folders: dict[int, str] = {}
        self._inotify = INotify()
        try:
            try:
                self._add(".")
            except NoRoom:
                self.complete = False
            if not self._folders:
                raise OSError(errno.ENOSPC, "no room for the workspace's folder")
            threading.Thread(target=self._run, name="changes", daemon=True).start()
        except BaseException:
            self._inotify.close()
            raise

    def ask(self) -> bool:
        """Note that somebody asks; whether there is still an answer."""
        self._asked = self._clock()
        return not self.journal.over

    def _run(self) -> None:
        try:
            while self._clock() - self._asked < ABANDONED:
                for event in self._inotify.read(timeout=int(LOOK * 1000), read_delay=int(GATHERED * 1000)):
                    if not self._note(event):
                        return
                self.journal.announce()
        finally:
            self.journal.end()
            self._inotify.close()

    def _note(self, event: Event) -> bool:
        """Note an event; whether the next one is to be noted too."""
        if event.mask & LOST:
            return False
        folder = self._folders.get(event.wd)
        if event.mask & flags.IGNORED:
            self._folders.pop(event.wd, None)
            return folder != "."
        if folder is None:
            return True
        if event.mask & SELF:
            return False
        path = _below(folder, event.name)
        is_folder = bool(event.mask & flags.ISDIR)
        moved = is_folder and bool(event.mask & flags.MOVED_FROM)
        if moved:
            self._forget(path)
        self.journal.note(path, moved=moved)
        if is_folder and event.mask & (flags.CREATE | flags.MOVED_TO) and event.name not in SKIPPED_FOLDERS:
            try:
                # What was made in it before it was watched has no event.
                self._add(path, self.journal.note)
            except NoRoom:
                return not self.complete
        return True

    def _add(self, top: str, found: Callable[[str], None] = lambda _: None) -> None:
        """Watch a folder and those in it, the upper ones first, and call `found` with all that is there. Raises
        `NoRoom`."""
        ahead = deque([top])
        while ahead:
            path = ahead.popleft()
            # One that is gone, or not to be read, has nothing to tell.
            with contextlib.suppress(ToolError), self._workspace.resolve(path, follow=False) as place:
                # Else a link took the place of a folder above.
                if place.path != path:
                    continue
                folder = place.open(os.O_RDONLY | os.O_DIRECTORY)
                try:
                    self._watch(folder, path)
                    with os.scandir(folder) as scan:
                        for each in scan:
                            below = _below(path, each.name)
                            found(below)
                            if each.is_dir(follow_symlinks=False) and each.name not in SKIPPED_FOLDERS:
                                ahead.append(below)
                finally:
                    os.close(folder)

    def _watch(self, folder: int, path: str) -> None:
        if len(self._folders) >= MOST_FOLDERS:
            raise NoRoom
        mask = MASK | (SELF if path == "." else 0)
        try:
            watch = self._inotify.add_watch(f"/proc/self/fd/{folder}", mask)
        except OSError:
            raise NoRoom from None
        self._folders[watch] = path

    def _forget(self, moved: str) -> None:
        """Watch a folder that left, and those in it, no longer: they have other paths now, or none."""
        for watch, path in list(self._folders.items()):
            if path == moved or path.startswith(f"{moved}/"):
                del self._folders[watch]
                # It is gone by now.
                with contextlib.suppress(OSError):
                    self._inotify.rm_watch(watch)


def _below(folder: str, name: str) -> str:
    """The path of a name in a folder; of the folder itself for none."""
    if not name:
        return folder
    return name if folder == "." else f"{folder}/{name}"
