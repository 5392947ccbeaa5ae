"""The backup store: for each backup a zip and a sidecar, a JSON file that describes it, in its session's folder.

    {uuid}/app-{uuid}-{time}.zip         encrypted where there is an archive key; its readers see the plain zip
    {uuid}/app-{uuid}-{time}.zip.json    likewise

Who has an archive key takes nothing for a backup that was not written with that key of its session: the encryption is
authenticated, so what anybody else put there is damaged.

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
from collections.abc import Iterator, Mapping, Set
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, BinaryIO, cast

import fsspec

from app.core.errors import (
    ArchiveError,
    BackupNotFound,
    InvalidRequest,
    PermanentError,
    RetryableError,
)
from app.core.sessions.model import UUID_PATTERN
from app.core.storage import encrypted_file, object_stores
from app.core.storage.archive_keys import NO_KEYS, Keys, SessionKeys
from app.core.storage.encrypted_file import HEADER_BYTES, Cipher, EncryptingWriter, Layout
from app.core.storage.file_store import FileStore
from app.core.storage.key_list import KeyList

log = logging.getLogger(__name__)

NAME_PATTERN = re.compile(r"app-(?P<uuid>[0-9a-z]{8})-[0-9]{8}-[0-9]{6}\.zip")
"""The form of a backup's name. Each method checks it, so that a name never leads to another path."""

PART_PATTERN = re.compile(r"\.app-[0-9a-z]{8}-[0-9]{8}-[0-9]{6}\.zip(\.json)?\.part-[0-9a-f]{16}")
SIDECAR_SUFFIX = ".json"

KNOWN = 64
"""Backups whose size and cipher are kept for the next read of a piece: a zip never changes."""

LOCK_NAME = ".publishing"
LOCK_TRIES, LOCK_PAUSE = 200, 0.05
"""10 s in all; the pause is in s. A rename and a sync take milliseconds."""

CREATE_TRIES = 5
LOCKLESS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""Errors of flock(2) on a file system without locks."""


def backup_name(uuid: str, when: float) -> str:
    """The name of a session's backup begun at `when` (seconds since the epoch), in UTC."""
    return f"app-{uuid}-{datetime.fromtimestamp(when, UTC):%Y%m%d-%H%M%S}.zip"


def session_of(name: str) -> str:
    """The uuid of the session that a backup is of; raises `BackupNotFound` for an invalid name."""
    match = NAME_PATTERN.fullmatch(name)
    if not match:
        raise BackupNotFound(name)
    return match["uuid"]


@dataclass(frozen=True)
class Stored:
    """Where a zip is stored, its bytes there, and the cipher and layout of an encrypted one."""

    path: str
    bytes: int
    cipher: Cipher | None
    layout: Layout | None

    @property
    def size(self) -> int:
        """Bytes of the plain zip."""
        return self.bytes if self.layout is None else self.layout.size


class BackupStore:
    """The zips and sidecars under one URL. New ones are encrypted by `keys`, where there are any for their session.

    All methods raise `RetryableError` when the store is unreachable, `ArchiveError` when it refuses or what it holds is
    damaged, `UnknownKey` for what is encrypted with another key, and `BackupNotFound` for an invalid name.
    """

    def __init__(self, url: str, keys: Keys = NO_KEYS) -> None:
        protocol = object_stores.protocol_of(url)
        try:
            fsspec.get_filesystem_class(protocol)
        except (ImportError, ValueError) as error:
            raise PermanentError(f"Backups can't be stored at a {protocol}:// URL: {error}") from error
        self.files = FileStore(url)
        self.keys = keys
        self._key_list = KeyList(self.files)
        self._known = lru_cache(maxsize=KNOWN)(self._look)

    def check(self) -> None:
        """Try whether the store can be used: write, read and remove a file."""
        self.files.check()

    def key_ids(self) -> tuple[str, ...]:
        """The ids of the archive keys under which anything is stored."""
        return self._key_list.read()

    def prepare(self, uuid: str) -> None:
        """Make the store ready for new content of a session: note the key that it will be under, and make the folder.
        A Job can do neither: it is given that folder alone."""
        if keys := self.keys.session(uuid):
            self._key_list.note(keys.newest)
        with self.files.translated(f"The backup store could not take a backup of {uuid}"):
            self._make_folder(f"{self.files.root}/{uuid}")

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
        """The plain zip, for reading and seeking; the caller closes it. Raises `BackupNotFound`."""
        with self._reading(name):
            return self._open(self._look(name))

    def read(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of the plain zip from `start` up to, not including, `stop`; fewer where it ends before."""
        with self._reading(name):
            found = self._known(name)
            stop = min(stop, found.size)
            if found.cipher is None or found.layout is None or start >= stop:
                return bytes(self.files.fs.cat_file(found.path, start=start, end=stop)) if start < stop else b""
            numbers, first, end = found.layout.of(start, stop)
            stored = bytes(self.files.fs.cat_file(found.path, start=first, end=end))
            begin = numbers.start * encrypted_file.CHUNK
            content = encrypted_file.decrypted(found.cipher, found.layout, numbers, stored)
            return content[start - begin : stop - begin]

    def size(self, name: str) -> int:
        """Bytes of the plain zip."""
        with self._reading(name):
            return self._look(name).size

    def exists(self, name: str) -> bool:
        """Whether the zip and its sidecar exist."""
        if not NAME_PATTERN.fullmatch(name):
            return False
        with self._reading(name):
            return self._is_whole(name)

    def is_published(self, name: str) -> bool:
        """Whether the zip and its sidecar are in the session's folder. By the folder's list: S3 tells a Job, which may
        list no more than that, of a missing file that it may not be read."""
        if not NAME_PATTERN.fullmatch(name):
            return False
        with self._reading(name):
            return {name, name + SIDECAR_SUFFIX} <= set(self.files.names(os.path.dirname(self._path(name))))

    def sidecar(self, name: str) -> dict[str, Any]:
        """The description of the backup; raises `ArchiveError` where it is damaged."""
        path = self._existing(name)
        with self._reading(name):
            data = bytes(self.files.fs.cat_file(path + SIDECAR_SUFFIX))
        try:
            recorded = json.loads(self._keys_of(name).decrypt(data, name + SIDECAR_SUFFIX))
        except ValueError as error:
            raise ArchiveError(f"The sidecar of {name} is damaged.") from error
        if not isinstance(recorded, dict) or recorded.get("name") != name:
            raise ArchiveError(f"The sidecar of {name} describes another backup.")
        return recorded

    def names(self) -> list[str]:
        """The names of all backups: zips with a sidecar. Looks into every session's folder."""
        return sorted(name for uuid, present in self._folders() for name in _whole(uuid, present))

    def names_of(self, uuid: str) -> list[str]:
        """The names of a session's backups."""
        with self._reading(f"the backups of {uuid}"):
            present = set(self.files.names(f"{self.files.root}/{uuid}"))
        return sorted(_whole(uuid, present))

    def delete(self, name: str) -> None:
        """Delete a backup, if it exists."""
        path = self._path(name)
        with self._reading(name):
            self.files.remove(path + SIDECAR_SUFFIX)
            self.files.remove(path)
            self.files.sync(os.path.dirname(path), self.files.root)
        self._known.cache_clear()

    def sweep_parts(self, older_than: float) -> int:
        """Remove the leftovers of killed workers, and return how many: temporary files without a lock (where the store
        has no locks, those last written before `older_than`, in seconds since the epoch), and zips as old without a
        sidecar. Looks into every session's folder.

        `older_than` must be longer ago than a backup may take, or a running one loses its file.
        """
        removed = 0
        for uuid, present in self._folders():
            folder = f"{self.files.root}/{uuid}"
            lone = {name for name in present if _is_of(uuid, name) and name + SIDECAR_SUFFIX not in present}
            parts = {name for name in present if PART_PATTERN.fullmatch(name)}
            removed += sum(self._sweep(f"{folder}/{name}", name in parts, older_than) for name in sorted(lone | parts))
        return removed

    def _sweep(self, path: str, part: bool, older_than: float) -> bool:
        with self._reading(os.path.basename(path)), suppress(FileNotFoundError):
            if self.files.is_local and part and (removed := _remove_unheld(path)) is not None:
                return removed
            modified = self.files.modified(path)
            if modified is not None and modified < older_than:
                self.files.remove(path)
                return True
        return False

    def _path(self, name: str) -> str:
        """Where a backup is stored."""
        return f"{self.files.root}/{session_of(name)}/{name}"

    def _is_whole(self, name: str) -> bool:
        path = self._path(name)
        return self._is_file(path + SIDECAR_SUFFIX) and self._is_file(path)

    def _existing(self, name: str) -> str:
        with self._reading(name):
            if not self._is_whole(name):
                raise BackupNotFound(name)
        return self._path(name)

    def _keys_of(self, name: str) -> SessionKeys:
        return self.keys.session(session_of(name))

    def _look(self, name: str) -> Stored:
        return self._stored(self._existing(name), name)

    def _stored(self, path: str, name: str) -> Stored:
        size = int(self.files.fs.info(path)["size"])
        cipher = Cipher.read(self._head(path, HEADER_BYTES), self._keys_of(name), name)
        return Stored(path, size, cipher, cipher.layout(size) if cipher else None)

    def _head(self, path: str, length: int) -> bytes:
        return bytes(self.files.fs.cat_file(path, start=0, end=length))

    def _open(self, found: Stored) -> BinaryIO:
        stream = cast(BinaryIO, self.files.fs.open(found.path, "rb"))
        if found.cipher is None:
            return stream
        try:
            return encrypted_file.opened(stream, found.bytes, found.cipher)
        except BaseException:
            stream.close()
            raise

    def _folders(self) -> Iterator[tuple[str, set[str]]]:
        """Every session's folder, with the names in it. One that can't be read is logged and left out."""
        root = self.files.root
        with self._reading("the list of backups"):
            present = set(self.files.names(root))
        for uuid in sorted(filter(UUID_PATTERN.fullmatch, present)):
            try:
                with self._reading(f"the backups of {uuid}"):
                    inside = set(self.files.names(f"{root}/{uuid}"))
            except ArchiveError as error:
                log.warning("left out: %s", error, extra={"uuid": uuid})
                continue
            yield uuid, inside

    def _make_folder(self, folder: str) -> None:
        for each in (self.files.root, folder) if self.files.is_local else ():
            os.makedirs(each, mode=0o700, exist_ok=True)

    def _is_file(self, path: str) -> bool:
        # fsspec's own isfile() answers False on any error: an unreachable store would look like an empty one.
        try:
            return bool(self.files.fs.info(path)["type"] == "file")
        except FileNotFoundError:
            return False

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        with self.files.translated(f"The backup store could not access {what}"):
            try:
                yield
            except FileNotFoundError as error:
                raise BackupNotFound(what) from error

    def _create(self, path: str) -> BinaryIO:
        self._make_folder(os.path.dirname(path))
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

    def _publishing(self, folder: str) -> AbstractContextManager[None]:
        """A lock for the final renames, so that one writer's zip never gets another's sidecar. Remote stores have no
        such lock and rely on the session's lease."""
        return _exclusive(f"{folder}/{LOCK_NAME}") if self.files.is_local else nullcontext()


class NewBackup:
    """A backup under its temporary name: write, read back, then commit. Made by `BackupStore.writing`. `written` are
    bytes of the plain zip.

    Raises `NoSpace` for a full disk, `RetryableError` or `ArchiveError` for any other failure.
    """

    def __init__(self, store: BackupStore, name: str) -> None:
        self.name = name
        self.written = 0
        self._store, self._files = store, store.files
        self._keys = store._keys_of(name)
        self._folder = os.path.dirname(store._path(name))
        suffix = f".part-{secrets.token_hex(8)}"
        self._part = f"{self._folder}/.{name}{suffix}"
        self._sidecar_part = f"{self._folder}/.{name}{SIDECAR_SUFFIX}{suffix}"
        self._held: list[int] = []
        self._encrypting: EncryptingWriter | None = None
        with self._errors():
            self._stream: BinaryIO | None = self._create(self._part)
            if self._keys:
                self._encrypting = EncryptingWriter(self._stream, Cipher.new(self._keys, name))

    def write(self, chunk: bytes) -> None:
        """Append to the zip."""
        if self._stream is None:
            raise ValueError("The zip of this backup is already finished.")
        with self._errors():
            (self._encrypting or self._stream).write(chunk)
        self.written += len(chunk)

    @contextmanager
    def read_back(self) -> Iterator[BinaryIO]:
        """Finish the zip and read it back from the store, as a reader will."""
        with self._errors():
            self._finish()
            stored = self._store._open(self._store._stored(self._part, self.name))
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
                text = json.dumps(sidecar, indent=1, sort_keys=True).encode()
                stream.write(self._keys.encrypt(text, self.name + SIDECAR_SUFFIX) if self._keys else text)
                store._finish(stream)
            with store._publishing(self._folder):
                if store.is_published(self.name):
                    return store.sidecar(self.name)
                store._move(self._part, path)
                store._move(self._sidecar_part, path + SIDECAR_SUFFIX)
                self._files.sync(self._folder, self._files.root)
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
            if self._encrypting is not None:
                self._encrypting.finish()
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

    def _errors(self) -> AbstractContextManager[None]:
        full = (
            f"The backups' disk is full: {self.written} bytes of {self.name} were written and are removed again. "
            "The session and every older backup are untouched."
        )
        return self._files.translated(f"{self.name} could not be written", full)


def _whole(uuid: str, present: Set[str]) -> Iterator[str]:
    """The backups in a session's folder with these names."""
    return (name for name in present if _is_of(uuid, name) and name + SIDECAR_SUFFIX in present)


def _is_of(uuid: str, name: str) -> bool:
    """Whether that is the name of a backup of the session."""
    match = NAME_PATTERN.fullmatch(name)
    return match is not None and match["uuid"] == uuid


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
