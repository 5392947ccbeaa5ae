"""The files under one fsspec URL: what the stores of backups and of conversations share."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from app.core.errors import ArchiveError, RetryableError
from app.core.storage import object_stores

NO_FOLDER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ELOOP})
"""Errors of a path whose folder is missing or is none."""

AWAY = "the store's folder is not there. Mount its disk, or put the folder back; it is tried again."


def make_private(folder: str) -> None:
    """Create a local folder, and those above it that are missing, for its owner only."""
    if not os.path.isdir(folder):
        make_private(os.path.dirname(folder))
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)


class FileStore:
    """Files by their full path below `root`. The client is made at its first use, in the process that uses it.

    Methods raise the client's own errors (`errors`); `translated` turns them into ours.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @cached_property
    def fs(self) -> Any:
        return object_stores.filesystem(self._url)

    @cached_property
    def errors(self) -> tuple[type[Exception], ...]:
        return object_stores.errors(self._url)

    @cached_property
    def root(self) -> str:
        return str(self.fs._strip_protocol(self._url)).rstrip("/")

    @property
    def protocol(self) -> str:
        return object_stores.protocol_of(self._url)

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    @contextmanager
    def translated(self, failed: str, full: str = "") -> Iterator[None]:
        """Within the block the client's errors become `NoSpace` saying `full`, else `RetryableError` or `ArchiveError`
        saying `failed`. A local store without its folder is away: a `RetryableError`, whatever call met that first."""
        try:
            yield
        except self.errors as error:
            if self.is_local and getattr(error, "errno", None) in NO_FOLDER and not os.path.isdir(self.root):
                raise RetryableError(f"{failed}: {AWAY}") from error
            raise object_stores.file_error(error, failed, full or f"{failed}: the store is full.") from error

    def names(self, folder: str) -> list[str]:
        """The names of the files and folders in a folder; empty where the folder does not exist."""
        try:
            return [path.rstrip("/").rpartition("/")[2] for path in self.fs.ls(folder, detail=False)]
        except FileNotFoundError:
            return []

    def size(self, folder: str) -> int:
        """Bytes of all files in a folder; 0 where the folder does not exist."""
        return int(self.fs.du(folder)) if self.names(folder) else 0

    def modified(self, path: str) -> float | None:
        """When a file was last written (seconds since the epoch), None where it does not exist."""
        try:
            return float(self.fs.modified(path).timestamp())
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file. Readers see the old or the new content, never a part; a local file is synced."""
        if not self.is_local:
            self.fs.pipe_file(path, data, **object_stores.whole_writes(self._url, len(data)))
            return
        folder, name = os.path.split(path)
        make_private(folder)
        part = f"{folder}/.{name}.part-{secrets.token_hex(8)}"
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(part)

    def read(self, path: str) -> bytes:
        """A whole file; raises `FileNotFoundError`."""
        return bytes(self.fs.cat_file(path))

    def read_all(self, paths: list[str]) -> dict[str, bytes]:
        """Those of the files that exist, by path: at once where the store can."""
        found = self.fs.cat(paths, on_error="return") if paths else {}
        for error in found.values():
            if isinstance(error, Exception) and not isinstance(error, FileNotFoundError):
                raise error
        return {path: content for path, content in found.items() if isinstance(content, bytes)}

    def remove(self, path: str) -> None:
        """Remove a file, if it exists."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(path)

    def remove_folder(self, path: str) -> None:
        """Remove a folder with all files in it, if it exists."""
        with suppress(FileNotFoundError):
            self.fs.rm(path, recursive=True)

    def check(self, folder: str = "") -> None:
        """Write a small file, read it and remove it: in this folder, by default the root. Raises `RetryableError` or
        `ArchiveError`."""
        data = secrets.token_hex(8).encode()
        path = f"{folder or self.root}/.check-{data.decode()}"
        with self.translated("The store can't be used"):
            self.write(path, data)
            try:
                read = bytes(self.fs.cat_file(path))
            finally:
                self.remove(path)
        if read != data:
            raise ArchiveError("The store returned something else than was written.")

    def sync(self, *folders: str) -> None:
        """Sync the entries of local folders to the disk; those that do not exist are skipped."""
        for folder in folders if self.is_local else ():
            with suppress(FileNotFoundError):
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
