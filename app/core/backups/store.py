"""The backup store: for each backup a zip and a sidecar, a JSON file that describes it.

A backup exists when both files do. Files are written under temporary names, and the sidecar gets its final name last;
deleting takes the sidecar first. So a worker killed at any point leaves nothing that looks like a whole backup, only
leftovers that `sweep_parts` removes.

The store is any fsspec URL. Local files and their folder are synced to the disk, so that a verified backup survives a
power failure. A writer locks its temporary files until it ends, so that the sweep can tell which are abandoned.
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
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

import fsspec

from app.core.errors import (
    ArchiveError,
    BackupNotFound,
    InvalidRequest,
    PermanentError,
    RetryableError,
)
from app.core.storage import object_stores
from app.core.storage.file_store import FileStore
from app.core.storage.object_stores import file_error

log = logging.getLogger(__name__)

NAME_PATTERN = re.compile(r"app-(?P<uuid>[0-9a-z]{8})-[0-9]{8}-[0-9]{6}\.zip")
"""The form of a backup's name. Each method checks it, so that a name never leads to another path."""

PART_PATTERN = re.compile(r"\.app-[0-9a-z]{8}-[0-9]{8}-[0-9]{6}\.zip(\.json)?\.part-[0-9a-f]{16}")
SIDECAR_SUFFIX = ".json"

LOCK_NAME = ".publishing"
LOCK_TRIES, LOCK_PAUSE = 200, 0.05
"""10 s in all; the pause is in s. A rename and a sync take milliseconds."""

CREATE_TRIES = 5
LOCKLESS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""Errors of flock(2) on a file system without locks."""


def backup_name(uuid: str, when: float) -> str:
    """The name of a session's backup begun at `when` (seconds since the epoch), in UTC."""
    return f"app-{uuid}-{datetime.fromtimestamp(when, UTC):%Y%m%d-%H%M%S}.zip"


class BackupStore:
    """The zips and sidecars under one URL.

    All methods raise `RetryableError` when the store is unreachable, `ArchiveError` when it refuses, and
    `BackupNotFound` for an invalid name.
    """

    def __init__(self, url: str) -> None:
        protocol = object_stores.protocol_of(url)
        try:
            fsspec.get_filesystem_class(protocol)
        except (ImportError, ValueError) as error:
            raise PermanentError(f"Backups can't be stored at a {protocol}:// URL: {error}") from error
        self.files = FileStore(url)

    @contextmanager
    def writing(self, name: str) -> Iterator[NewBackup]:
        """A new backup to write; unless it is committed, its files are removed at the end."""
        if not NAME_PATTERN.fullmatch(name):
            raise InvalidRequest(f"{name} is not a valid name of a backup.")
        part = NewBackup(self, name)
        try:
            yield part
        finally:
            part.close()

    def open(self, name: str) -> BinaryIO:
        """The zip, for reading and seeking; the caller closes it. Raises `BackupNotFound`."""
        path = self._existing(name)
        with self._reading(name):
            return cast(BinaryIO, self.files.fs.open(path, "rb"))

    def read(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of the zip from `start` up to, not including, `stop`; fewer where it ends before."""
        path = self._path(name)
        with self._reading(name):
            return bytes(self.files.fs.cat_file(path, start=start, end=stop))

    def size(self, name: str) -> int:
        """Bytes of the stored zip."""
        path = self._existing(name)
        with self._reading(name):
            return int(self.files.fs.info(path)["size"])

    def exists(self, name: str) -> bool:
        """Whether the zip and its sidecar exist."""
        if not NAME_PATTERN.fullmatch(name):
            return False
        path = self._path(name)
        with self._reading(name):
            return self._is_file(path + SIDECAR_SUFFIX) and self._is_file(path)

    def sidecar(self, name: str) -> dict[str, Any]:
        """The description of the backup; raises `ArchiveError` where it is damaged."""
        path = self._existing(name)
        with self._reading(name):
            text = self.files.fs.cat_file(path + SIDECAR_SUFFIX)
        try:
            recorded = json.loads(text)
        except ValueError as error:
            raise ArchiveError(f"The sidecar of {name} is damaged.") from error
        if not isinstance(recorded, dict) or recorded.get("name") != name:
            raise ArchiveError(f"The sidecar of {name} describes another backup.")
        return recorded

    def names(self) -> list[str]:
        """The names of all backups: zips with a sidecar."""
        present = set(self._names())
        return sorted(n for n in present if NAME_PATTERN.fullmatch(n) and n + SIDECAR_SUFFIX in present)

    def delete(self, name: str) -> None:
        """Delete a backup, if it exists."""
        path = self._path(name)
        with self._reading(name):
            for each in (path + SIDECAR_SUFFIX, path):
                self.files.remove(each)
            self.files.sync(self.files.root)

    def sweep_parts(self, older_than: float) -> int:
        """Remove the leftovers of killed workers, and return how many: temporary files without a lock (where the store
        has no locks, those last written before `older_than`, in seconds since the epoch), and zips as old without a
        sidecar.

        `older_than` must be longer ago than a backup may take, or a running one loses its file.
        """
        present = set(self._names())
        lone = {name for name in present if NAME_PATTERN.fullmatch(name) and name + SIDECAR_SUFFIX not in present}
        parts = {name for name in present if PART_PATTERN.fullmatch(name)}
        return sum(self._sweep(name, name in parts, older_than) for name in sorted(lone | parts))

    def _sweep(self, name: str, part: bool, older_than: float) -> bool:
        path = f"{self.files.root}/{name}"
        with self._reading(name), suppress(FileNotFoundError):
            if self.files.is_local and part and (removed := _remove_unheld(path)) is not None:
                return removed
            modified = self.files.modified(path)
            if modified is not None and modified < older_than:
                self.files.remove(path)
                return True
        return False

    def _path(self, name: str) -> str:
        if not NAME_PATTERN.fullmatch(name):
            raise BackupNotFound(name)
        return f"{self.files.root}/{name}"

    def _existing(self, name: str) -> str:
        path = self._path(name)
        if not self.exists(name):
            raise BackupNotFound(name)
        return path

    def _is_file(self, path: str) -> bool:
        # fsspec's own isfile() answers False on any error: an unreachable store would look like an empty one.
        try:
            return bool(self.files.fs.info(path)["type"] == "file")
        except FileNotFoundError:
            return False

    def _names(self) -> list[str]:
        with self._reading("the list of backups"):
            return self.files.names(self.files.root)

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        with self.files.translated(f"The backup store could not access {what}"):
            try:
                yield
            except FileNotFoundError as error:
                raise BackupNotFound(what) from error

    def _create(self, path: str) -> BinaryIO:
        if self.files.is_local:
            os.makedirs(self.files.root, mode=0o700, exist_ok=True)
        stream = cast(BinaryIO, self.files.fs.open(path, "wb"))
        if self.files.is_local:
            os.chmod(path, 0o600)
        return stream

    def _hold(self, path: str) -> int | None:
        """A descriptor that locks one of our files until it is closed, None where the store has no locks. Raises
        `FileNotFoundError` when a sweep has just removed the file."""
        return _locked(path) if self.files.is_local else None

    def _finish(self, stream: BinaryIO) -> None:
        """Close what was written; a local file is synced to the disk first."""
        if self.files.is_local:
            stream.flush()
            os.fsync(stream.fileno())
        stream.close()

    def _move(self, source: str, target: str) -> None:
        if self.files.is_local:
            os.replace(source, target)
        else:
            # Copying and removing mean the same for every store; moving does not.
            self.files.fs.cp_file(source, target)
            self.files.remove(source)

    def _publishing(self) -> AbstractContextManager[None]:
        """A lock for the final renames, so that one writer's zip never gets another's sidecar. Remote stores have no
        such lock and rely on the session's lease."""
        return _exclusive(f"{self.files.root}/{LOCK_NAME}") if self.files.is_local else nullcontext()


class NewBackup:
    """A backup under its temporary name: write, read back, then commit. Made by `BackupStore.writing`.

    Raises `NoSpace` for a full disk, `RetryableError` or `ArchiveError` for any other failure.
    """

    def __init__(self, store: BackupStore, name: str) -> None:
        self.name = name
        self.written = 0
        self._store, self._files = store, store.files
        suffix = f".part-{secrets.token_hex(8)}"
        self._part = f"{store.files.root}/.{name}{suffix}"
        self._sidecar_part = f"{store.files.root}/.{name}{SIDECAR_SUFFIX}{suffix}"
        self._held: list[int] = []
        with self._errors():
            self._stream: BinaryIO | None = self._create(self._part)

    def write(self, chunk: bytes) -> None:
        """Append to the zip."""
        if self._stream is None:
            raise ValueError("The zip of this backup is already finished.")
        with self._errors():
            self._stream.write(chunk)
        self.written += len(chunk)

    @contextmanager
    def read_back(self) -> Iterator[BinaryIO]:
        """Finish the zip and read it back from the store."""
        with self._errors():
            self._finish()
            stored = cast(BinaryIO, self._files.fs.open(self._part, "rb"))
        try:
            yield stored
        finally:
            stored.close()

    def commit(self, sidecar: Mapping[str, Any]) -> dict[str, Any]:
        """Publish the backup and return its sidecar. Where another writer published the same name first, that backup
        stays, and its sidecar is returned."""
        store = self._store
        path = store._path(self.name)
        with self._errors():
            self._finish()
            with closing(self._create(self._sidecar_part)) as stream:
                stream.write(json.dumps(sidecar, indent=1, sort_keys=True).encode())
                store._finish(stream)
            with store._publishing():
                if store.exists(self.name):
                    return store.sidecar(self.name)
                store._move(self._part, path)
                store._move(self._sidecar_part, path + SIDECAR_SUFFIX)
                self._files.sync(self._files.root)
        return dict(sidecar)

    def close(self) -> None:
        """Remove the temporary files. A failure is only logged: the sweep will remove them, and the error that led here
        matters more."""
        try:
            if self._stream is not None:
                self._stream.close()
        except self._files.errors as error:
            log.warning("could not close the unfinished backup %s: %s", self.name, type(error).__name__)
        for part in (self._part, self._sidecar_part):
            try:
                self._files.remove(part)
            except self._files.errors as error:
                log.warning(
                    "could not remove a temporary file of %s, the sweep will: %s", self.name, type(error).__name__
                )
        while self._held:
            os.close(self._held.pop())

    def _finish(self) -> None:
        if self._stream is not None:
            self._store._finish(self._stream)
            self._stream = None

    def _create(self, path: str) -> BinaryIO:
        """A new file, locked until `close`. A sweep can remove it only before it is locked."""
        for _ in range(CREATE_TRIES):
            stream = self._store._create(path)
            try:
                held = self._store._hold(path)
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
        raise RetryableError(f"{self.name} could not be created: something keeps removing its file.")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._files.errors as error:
            full = (
                f"The backups' disk is full: {self.written} bytes of {self.name} were written and are removed "
                "again. The session and every older backup are untouched."
            )
            raise file_error(error, f"{self.name} could not be written", full) from error


def _locked(path: str) -> int | None:
    """A descriptor that locks an existing file until it is closed or its process ends; None where the file system has
    no locks. Raises `BlockingIOError` for a locked file, `FileNotFoundError` for a removed one."""
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
    """Remove a file unless it is locked, and answer whether; None where locks can't be checked."""
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
    """Hold a lock file, which the kernel frees when its holder dies. It is held for two renames, so a holder that keeps
    it for all `LOCK_TRIES` hangs."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(LOCK_TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(LOCK_PAUSE)
        else:
            raise RetryableError("Publishing another backup takes too long; retry.")
        yield
    finally:
        os.close(lock)
