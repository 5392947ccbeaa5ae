"""The backups' store: for each backup a zip and, beside it, a sidecar JSON that vouches for it.

A backup exists when both files do. Whoever writes one writes under temporary names, and the sidecar
gets its final name last; deleting takes the sidecar first. So a worker killed at any point leaves no
half of a backup that passes for a whole one, only leftovers that `sweep_parts` removes.

The store is any fsspec URL. Local files are also synced to the disk, the folder included, so that
what was verified is still there after the power failed; and a writer holds a lock on its temporary ones, which ends
with it, so that the sweep knows what nobody writes any more.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from app.sessions import object_stores
from app.sessions.errors import (
    ArchiveError,
    BackupNotFound,
    InvalidRequest,
    NoSpace,
    PermanentError,
    RetryableError,
    SessionError,
)

log = logging.getLogger(__name__)

NAME_PATTERN = re.compile(r"app-(?P<uuid>[0-9a-z]{8})-[0-9]{8}-[0-9]{6}\.zip")
"""The name of every backup. Each method checks it, so no path or other object can be reached by a name."""

PART_PATTERN = re.compile(r"\.app-[0-9a-z]{8}-[0-9]{8}-[0-9]{6}\.zip(\.json)?\.part-[0-9a-f]{16}")
SIDECAR_SUFFIX = ".json"

LOCK_NAME = ".publishing"
LOCK_TRIES, LOCK_PAUSE = 200, 0.05
"""For 10 s, in seconds between two tries: a rename and a sync take milliseconds."""

CREATE_TRIES = 5
LOCKLESS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""What flock(2) says on a file system without locks."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
HOPELESS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EFBIG, errno.EINVAL}
)
"""What an operator has to repair; trying again does not help. Any other error may pass by itself."""


def backup_name(uuid: str, when: float) -> str:
    """The name of a session's backup begun at `when` (seconds since the epoch; the name is in UTC)."""
    return f"app-{uuid}-{datetime.fromtimestamp(when, UTC):%Y%m%d-%H%M%S}.zip"


def file_error(error: Exception, failed: str, full: str) -> SessionError:
    """Ours for an error of a file system or an object store's client: `NoSpace` saying `full`, else `ArchiveError` or
    `RetryableError` saying `failed` and the system's reason. Paths in `error` are left out."""
    number = getattr(error, "errno", None)
    if number in FULL:
        return NoSpace(full)
    reason = os.strerror(number) if number else f"the store did not answer as expected, {type(error).__name__}"
    kind = ArchiveError if number in HOPELESS else RetryableError
    return kind(f"{failed} ({reason}).")


class BackupFiles:
    """The zips and sidecars under one URL.

    All methods raise `RetryableError` when the store can't be reached and `ArchiveError` when it
    refuses; a name that is not a backup's is `BackupNotFound`.
    """

    def __init__(self, url: str) -> None:
        protocol = object_stores.protocol_of(url)
        try:
            fsspec.get_filesystem_class(protocol)
        except (ImportError, ValueError) as error:
            raise PermanentError(f"No backups can be kept at a {protocol}:// URL: {error}") from error
        self._url = url

    @cached_property
    def _fs(self) -> Any:
        # At the first use, which is in the process that uses it.
        return object_stores.filesystem(self._url)

    @cached_property
    def _failures(self) -> tuple[type[Exception], ...]:
        return object_stores.errors(self._url)

    @cached_property
    def _root(self) -> str:
        return str(self._fs._strip_protocol(self._url)).rstrip("/")

    @property
    def _local(self) -> bool:
        return isinstance(self._fs, LocalFileSystem)

    @contextmanager
    def writing(self, name: str) -> Iterator[NewBackup]:
        """A new backup to be written; unless it is committed, nothing of it is left at the end."""
        if not NAME_PATTERN.fullmatch(name):
            raise InvalidRequest(f"{name} is not the name of a backup.")
        part = NewBackup(self, name)
        try:
            yield part
        finally:
            part.close()

    def open(self, name: str) -> BinaryIO:
        """The zip, for reading and seeking; the caller closes it. `BackupNotFound` when there is none."""
        path = self._existing(name)
        with self._reading(name):
            return cast(BinaryIO, self._fs.open(path, "rb"))

    def read(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of the zip from `start` up to, not including, `stop`; fewer where it ends before."""
        path = self._path(name)
        with self._reading(name):
            return bytes(self._fs.cat_file(path, start=start, end=stop))

    def size(self, name: str) -> int:
        """Bytes of the zip as it is stored."""
        path = self._existing(name)
        with self._reading(name):
            return int(self._fs.info(path)["size"])

    def exists(self, name: str) -> bool:
        """Whether the zip and its sidecar are both there."""
        if not NAME_PATTERN.fullmatch(name):
            return False
        path = self._path(name)
        with self._reading(name):
            return self._is_file(path + SIDECAR_SUFFIX) and self._is_file(path)

    def sidecar(self, name: str) -> dict[str, Any]:
        """What was recorded with the backup; `ArchiveError` when it can't be understood."""
        path = self._existing(name)
        with self._reading(name):
            text = self._fs.cat_file(path + SIDECAR_SUFFIX)
        try:
            recorded = json.loads(text)
        except ValueError as error:
            raise ArchiveError(f"The sidecar of {name} is damaged.") from error
        if not isinstance(recorded, dict) or recorded.get("name") != name:
            raise ArchiveError(f"The sidecar of {name} is not this backup's.")
        return recorded

    def names(self) -> list[str]:
        """The names of all backups: zips that have their sidecar."""
        present = set(self._names())
        return sorted(n for n in present if NAME_PATTERN.fullmatch(n) and n + SIDECAR_SUFFIX in present)

    def delete(self, name: str) -> None:
        """Delete a backup; one that is gone already is no error."""
        path = self._path(name)
        with self._reading(name):
            for each in (path + SIDECAR_SUFFIX, path):
                self._remove(each)
            self._sync_root()

    def sweep_parts(self, older_than: float) -> int:
        """Remove what killed workers left: temporary files that nobody holds, where the store can tell, else those last
        written before `older_than` (seconds since the epoch); and zips as old as that which never got their sidecar.
        Returns how many.

        Choose a moment longer ago than a backup may take, or a running one loses its file.
        """
        present = set(self._names())
        lone = {name for name in present if NAME_PATTERN.fullmatch(name) and name + SIDECAR_SUFFIX not in present}
        parts = {name for name in present if PART_PATTERN.fullmatch(name)}
        return sum(self._sweep(name, name in parts, older_than) for name in sorted(lone | parts))

    def _sweep(self, name: str, part: bool, older_than: float) -> bool:
        path = f"{self._root}/{name}"
        with self._reading(name), suppress(FileNotFoundError):
            if self._local and part and (removed := _remove_unheld(path)) is not None:
                return removed
            if self._fs.modified(path).timestamp() < older_than:
                self._remove(path)
                return True
        return False

    def _path(self, name: str) -> str:
        if not NAME_PATTERN.fullmatch(name):
            raise BackupNotFound(name)
        return f"{self._root}/{name}"

    def _existing(self, name: str) -> str:
        path = self._path(name)
        if not self.exists(name):
            raise BackupNotFound(name)
        return path

    def _is_file(self, path: str) -> bool:
        # fsspec's own isfile() says no on any error: an unreachable store would look like an empty one.
        try:
            return bool(self._fs.info(path)["type"] == "file")
        except FileNotFoundError:
            return False

    def _names(self) -> list[str]:
        with self._reading("the list of backups"):
            try:
                return [path.rpartition("/")[2] for path in self._fs.ls(self._root, detail=False)]
            except FileNotFoundError:
                return []

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise BackupNotFound(what) from error
        except self._failures as error:
            text = f"The store could not handle {what}"
            raise file_error(error, text, text + ": it is full.") from error

    def _create(self, path: str) -> BinaryIO:
        if self._local:
            os.makedirs(self._root, mode=0o700, exist_ok=True)
        stream = cast(BinaryIO, self._fs.open(path, "wb"))
        if self._local:
            os.chmod(path, 0o600)
        return stream

    def _hold(self, path: str) -> int | None:
        """A descriptor by which a file of ours is held until it is closed, None where the store has no such locks.
        `FileNotFoundError` when a sweep was faster."""
        return _locked(path) if self._local else None

    def _finish(self, stream: BinaryIO) -> None:
        """Close what was written; a local file is on the disk afterwards."""
        if self._local:
            stream.flush()
            os.fsync(stream.fileno())
        stream.close()

    def _move(self, source: str, target: str) -> None:
        if self._local:
            os.replace(source, target)
        else:
            # Both are asked of every store; of moving, each makes something else.
            self._fs.cp_file(source, target)
            self._remove(source)

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm_file(path)

    def _sync_root(self) -> None:
        if not self._local or not os.path.isdir(self._root):
            return
        folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _publishing(self) -> AbstractContextManager[None]:
        """Held while names become final, so that the zip of one writer never meets the sidecar of
        another. Remote stores have no such lock: there the session's lease has to do."""
        return _exclusive(f"{self._root}/{LOCK_NAME}") if self._local else nullcontext()


class NewBackup:
    """A backup under its temporary name: write, read back, then commit. Made by `BackupFiles.writing`.

    A full disk is `NoSpace`; any other failure is `RetryableError` or `ArchiveError`.
    """

    def __init__(self, files: BackupFiles, name: str) -> None:
        self.name = name
        self.written = 0
        self._files = files
        suffix = f".part-{secrets.token_hex(8)}"
        self._part = f"{files._root}/.{name}{suffix}"
        self._sidecar_part = f"{files._root}/.{name}{SIDECAR_SUFFIX}{suffix}"
        self._held: list[int] = []
        with self._errors():
            self._stream: BinaryIO | None = self._create(self._part)

    def write(self, chunk: bytes) -> None:
        """Append to the zip."""
        if self._stream is None:
            raise ValueError("this backup was already finished")
        with self._errors():
            self._stream.write(chunk)
        self.written += len(chunk)

    @contextmanager
    def read_back(self) -> Iterator[BinaryIO]:
        """End the writing and read what the store holds."""
        with self._errors():
            if self._stream is not None:
                self._files._finish(self._stream)
                self._stream = None
            stored = cast(BinaryIO, self._files._fs.open(self._part, "rb"))
        try:
            yield stored
        finally:
            stored.close()

    def commit(self, sidecar: Mapping[str, Any]) -> dict[str, Any]:
        """Make it a backup and return the sidecar that stands now: that of another writer when it
        published the same name first, whose backup is then left as it is."""
        files = self._files
        path = files._path(self.name)
        with self._errors():
            if self._stream is not None:
                files._finish(self._stream)
                self._stream = None
            stream = self._create(self._sidecar_part)
            try:
                stream.write(json.dumps(sidecar, indent=1, sort_keys=True).encode())
                files._finish(stream)
            finally:
                stream.close()
            with files._publishing():
                if files.exists(self.name):
                    return files.sidecar(self.name)
                files._move(self._part, path)
                files._move(self._sidecar_part, path + SIDECAR_SUFFIX)
                files._sync_root()
        return dict(sidecar)

    def close(self) -> None:
        """Remove what is left under temporary names; a failure to do so is logged, as the sweep
        will do it and the error that led here matters more."""
        try:
            if self._stream is not None:
                self._stream.close()
        except self._files._failures as error:
            log.warning("closing the unfinished %s failed: %s", self.name, type(error).__name__)
        for part in (self._part, self._sidecar_part):
            try:
                self._files._remove(part)
            except self._files._failures as error:
                log.warning("a leftover of %s stays until the next sweep: %s", self.name, type(error).__name__)
        while self._held:
            os.close(self._held.pop())

    def _create(self, path: str) -> BinaryIO:
        """A new file, held until `close`. A sweep can take one only between its creation and its lock."""
        for _ in range(CREATE_TRIES):
            stream = self._files._create(path)
            try:
                held = self._files._hold(path)
            except (FileNotFoundError, BlockingIOError):
                stream.close()
                time.sleep(LOCK_PAUSE)
                continue
            except BaseException:
                stream.close()
                raise
            if held is not None:
                self._held.append(held)
            return stream
        raise RetryableError(f"{self.name} could not be begun: its file is taken away again and again.")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._files._failures as error:
            full = (
                f"The backups' disk is full: {self.written} bytes of {self.name} were written and are removed "
                "again. The session and every older backup are untouched."
            )
            raise file_error(error, f"{self.name} could not be written", full) from error


def _locked(path: str) -> int | None:
    """A descriptor that holds an existing file, None where its file system has no locks. Closing it lets go; so does
    the holder's death. `BlockingIOError` when someone else holds it, `FileNotFoundError` when it is gone."""
    lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lock), os.stat(path)):
            raise FileNotFoundError(path)
    except OSError as error:
        os.close(lock)
        if error.errno in LOCKLESS:
            return None
        raise
    return lock


def _remove_unheld(path: str) -> bool | None:
    """Remove a file that nobody holds: whether it was; None when that can't be told."""
    try:
        lock = _locked(path)
    except BlockingIOError:
        return False
    except PermissionError:
        return None
    if lock is None:
        return None
    try:
        os.unlink(path)
    finally:
        os.close(lock)
    return True


@contextmanager
def _exclusive(path: str) -> Iterator[None]:
    """Hold a lock file; the kernel frees it when its holder dies. It is held for two renames, so
    whoever can't have it within `LOCK_TRIES` faces a holder that hangs."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(LOCK_TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(LOCK_PAUSE)
        else:
            raise RetryableError("Another backup is being published and does not come to an end.")
        yield
    finally:
        os.close(lock)
