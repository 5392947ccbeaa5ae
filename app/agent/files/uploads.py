"""Where files are written before they take their place, and where deleted folders go: beside the workspace, on the same
volume. No backup or restore point has it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app.agent.files.faults import staging
from app.agent.files.leases import Leases
from app.agent.protocol import UPLOAD_ID
from app.volume.deletion import delete
from app.volume.descent import FOLDER_FLAGS

FOLDER = ".uploads"
"""The name of their folder, beside the workspace's."""


class Unknown(Exception):
    """There is no such transfer, or it is not as far as the caller says: it was dropped, or an earlier agent's."""


class Uploads:
    """Files in the making, in `folder`. Thread-safe; what raises does as `staging`, and those of one upload raise
    `Unknown`."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._leases = Leases(self.drop, clock)
        self._mark = secrets.token_hex(4)

    def clear(self) -> None:
        """Delete what an earlier agent left."""
        with contextlib.suppress(OSError), self._opened() as folder:
            with os.scandir(folder) as scan:
                names = [each.name for each in scan if not each.name.startswith(self._mark)]
            for name in names:
                _remove(name, folder)

    def begin(self) -> str:
        """A new one, empty; its id."""
        id_ = self._name()
        with staging(), self._opened() as folder:
            os.close(os.open(id_, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder))
        self._leases.begin(id_)
        return id_

    def append(self, id_: str, offset: int, data: bytes) -> None:
        """Add bytes at the end, which is at `offset`; the last ones again change nothing."""
        with staging(), self._opened() as folder, self._file(id_, folder) as file:
            size = os.fstat(file).st_size
            if offset + len(data) != size:
                _check(offset == size)
                written = 0
                while written < len(data):
                    written += os.pwrite(file, data[written:], offset + written)
        self._leases.use(id_)

    @contextlib.contextmanager
    def finished(self, id_: str, size: int) -> Iterator[tuple[int, int]]:
        """The open folder and the open file, which is to be given its place; it is dropped if it gets none."""
        try:
            with self._opened() as folder, self._file(id_, folder) as file:
                _check(os.fstat(file).st_size == size)
                yield folder, file
        finally:
            self.drop(id_)

    def drop(self, id_: str) -> None:
        """Forget it, and delete what is left of it."""
        self._leases.end(id_)
        if UPLOAD_ID.fullmatch(id_):
            with contextlib.suppress(OSError), self._opened() as folder:
                os.unlink(id_, dir_fd=folder)

    def discard(self, name: str, within: int) -> None:
        """Delete a folder with all in it: it is gone at once, however long its content takes. Raises OSError."""
        trash = self._name()
        with self._opened() as folder:
            try:
                os.rename(name, trash, src_dir_fd=within, dst_dir_fd=folder)
            except OSError as e:
                # Its owner may not write to it, as is usual for downloaded modules.
                if e.errno not in (errno.EACCES, errno.EPERM):
                    raise
                delete(name, within, forced=True)
                return
        self._delete(trash)

    @contextlib.contextmanager
    def staged(self) -> Iterator[int]:
        """An open new folder, which is deleted at the end with what is in it then."""
        name = self._name()
        with staging(), self._opened() as folder:
            os.mkdir(name, 0o700, dir_fd=folder)
            new = os.open(name, FOLDER_FLAGS, dir_fd=folder)
        try:
            yield new
        finally:
            os.close(new)
            self._delete(name)

    def _delete(self, name: str) -> None:
        """Delete a folder in the background."""

        def act() -> None:
            with contextlib.suppress(OSError), self._opened() as folder:
                delete(name, folder, forced=True)

        threading.Thread(target=act, name="deletion", daemon=True).start()

    def _name(self) -> str:
        """A new one, which tells this agent's from an earlier one's."""
        return self._mark + secrets.token_hex(4)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """The folder, open. What the workspace's user put in its place is removed."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
        if not stat.S_ISDIR(os.lstat(self._folder).st_mode):
            os.unlink(self._folder)
            os.mkdir(self._folder, 0o700)
        folder = os.open(self._folder, FOLDER_FLAGS)
        try:
            yield folder
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _file(self, id_: str, folder: int) -> Iterator[int]:
        _check(self._leases.use(id_))
        try:
            file = os.open(id_, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            # The next agent, or the workspace's user, has removed it.
            raise Unknown from None
        try:
            yield file
        finally:
            os.close(file)


def _check(known: bool) -> None:
    if not known:
        raise Unknown


def _remove(name: str, folder: int) -> None:
    with contextlib.suppress(OSError):
        try:
            os.unlink(name, dir_fd=folder)
        except IsADirectoryError:
            delete(name, folder, forced=True)
