"""Changing a workspace's files for callers: each call does all or nothing."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from app.agent.files.entries import Entry, entry_of, etag
from app.agent.files.faults import FileError, resolved
from app.agent.files.uploads import Uploads
from app.agent.protocol import FileFault
from app.agent.tools.sandbox_path import SandboxPath, Workspace

ANY = "*"
"""An etag that every file has."""

NEW_MODE = 0o666


class Wanted(NamedTuple):
    """What a caller wants of a file that it writes: `mode` (None: as before, or as the user's other new files), one of
    these `etags` before (None: no matter), or that there was none."""

    mode: int | None = None
    etags: Collection[str] | None = None
    new: bool = False


class Files:
    """Changes in one workspace, one at a time; `folder` is for what is under way. Raises FileError, and OSError where
    the disk can't be written."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self.uploads = Uploads(folder)
        self._workspace = workspace
        self._lock = threading.Lock()

    def check(self, path: str, wanted: Wanted) -> None:
        """Whether a file may be written there, as far as can be said before."""
        try:
            with resolved(self._workspace, path) as place:
                _check_writable(place, path, wanted)
        except FileError as e:
            if e.fault is not FileFault.FILE_NOT_FOUND:
                raise
            # A folder on the way is missing, and so is the file.
            _check_etag(None, path, wanted.etags)

    def write(self, path: str, content: bytes, wanted: Wanted) -> tuple[Entry, bool]:
        """Write a whole file; missing folders are made. The entry, and whether it is new."""
        self.check(path, wanted)
        id_ = self.uploads.begin()
        try:
            self.uploads.append(id_, 0, content)
        except BaseException:
            self.uploads.drop(id_)
            raise
        return self.finish(id_, path, len(content), wanted)

    def finish(self, id_: str, path: str, size: int, wanted: Wanted) -> tuple[Entry, bool]:
        """Give an upload of so many bytes its place."""
        with self._lock, self.uploads.finished(id_, size) as (folder, file):
            self.check(path, wanted)
            with resolved(self._workspace, path, make=True) as place:
                before = _check_writable(place, path, wanted)
                os.fchmod(file, _mode(wanted, before))
                if wanted.new:
                    _link(id_, folder, place, path)
                else:
                    os.rename(id_, place.name, src_dir_fd=folder, dst_dir_fd=place.folder)
                return Entry(place.path, os.fstat(file)), before is None

    def delete(self, path: str, etags: Collection[str] | None) -> None:
        """Delete a file, a link (not its target), or a folder with all that is in it."""
        with self._lock, resolved(self._workspace, path, follow=False) as place:
            status = _movable(place, path)
            _check_etag(status, path, etags)
            if stat.S_ISDIR(status.st_mode):
                self.uploads.discard(place.name, place.folder)
            else:
                os.unlink(place.name, dir_fd=place.folder)

    def move(self, path: str, target: str) -> Entry:
        """Move or rename a file, a link or a folder; missing folders are made, and nothing is overwritten."""
        with self._lock, resolved(self._workspace, path, follow=False) as here:
            _movable(here, path)
            with resolved(self._workspace, target, follow=False, make=True) as there:
                if there.status() is not None:
                    raise FileError(FileFault.FILE_EXISTS, f"{target} exists already")
                os.rename(here.name, there.name, src_dir_fd=here.folder, dst_dir_fd=there.folder)
                return entry_of(there.path, there.name, there.folder)

    def make_folder(self, path: str) -> tuple[Entry, bool]:
        """Make a folder, and those above it; whether it is new."""
        with self._lock, resolved(self._workspace, path, make=True) as place:
            status = place.status()
            if status is None:
                os.mkdir(place.name, dir_fd=place.folder)
            elif not stat.S_ISDIR(status.st_mode):
                raise FileError(FileFault.FILE_EXISTS, f"{path} exists already, and is no folder")
            return entry_of(place.path, place.name, place.folder), status is None

    def fill(self, path: str, act: Callable[[int], None]) -> None:
        """Change a folder by a call with its descriptor; it is made if missing."""
        with self._lock, resolved(self._workspace, path, make=True) as place:
            if place.status() is None:
                os.mkdir(place.name, dir_fd=place.folder)
            folder = place.open(os.O_RDONLY | os.O_DIRECTORY)
            try:
                act(folder)
            finally:
                os.close(folder)


def _link(id_: str, folder: int, place: SandboxPath, path: str) -> None:
    """Move an upload to a place where nothing is: unlike a renaming it overwrites nothing that was made since."""
    try:
        os.link(id_, place.name, src_dir_fd=folder, dst_dir_fd=place.folder, follow_symlinks=False)
    except FileExistsError:
        raise _unmet(path) from None
    os.unlink(id_, dir_fd=folder)


def _check_writable(place: SandboxPath, path: str, wanted: Wanted) -> os.stat_result | None:
    """The file that is replaced, None if there is none."""
    status = place.status()
    if status is not None and wanted.new:
        raise _unmet(path)
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise FileError(FileFault.NOT_A_FILE, f"{path} is no regular file, so it can't be replaced by one")
    _check_etag(status, path, wanted.etags)
    return status


def _check_etag(status: os.stat_result | None, path: str, etags: Collection[str] | None) -> None:
    if etags is None or (status is not None and ANY in etags):
        return
    if status is None or not stat.S_ISREG(status.st_mode) or etag(status) not in etags:
        raise _unmet(path)


def _unmet(path: str) -> FileError:
    return FileError(FileFault.FILE_CHANGED, f"{path} is not as the caller wants to find it")


def _movable(place: SandboxPath, path: str) -> os.stat_result:
    if place.is_root:
        raise FileError(FileFault.INVALID_PATH, "the workspace's own folder can't be moved or deleted")
    status = place.status()
    if status is None:
        raise FileError(FileFault.FILE_NOT_FOUND, f"{path}: no such file or folder")
    return status


def _mode(wanted: Wanted, before: os.stat_result | None) -> int:
    if wanted.mode is not None:
        return wanted.mode
    return NEW_MODE & ~_umask() if before is None else stat.S_IMODE(before.st_mode)


def _umask() -> int:
    """Of this process. It can only be read by setting it, so it is read where Linux shows it."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1], 8) for line in status if line.startswith("Umask:"))
