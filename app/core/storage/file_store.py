"""The files under one fsspec URL: what the stores of backups and of conversations share."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from app.core.storage import object_stores


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
    def is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    @contextmanager
    def translated(self, failed: str, full: str = "") -> Iterator[None]:
        """Within the block the client's errors become `NoSpace` saying `full`, else `RetryableError` or `ArchiveError`
        saying `failed`."""
        try:
            yield
        except self.errors as error:
            raise object_stores.file_error(error, failed, full or f"{failed}: the store is full.") from error

    def names(self, folder: str) -> list[str]:
        """The names of the files and folders in a folder; empty where the folder does not exist."""
        try:
            return [path.rstrip("/").rpartition("/")[2] for path in self.fs.ls(folder, detail=False)]
        except FileNotFoundError:
            return []

    def modified(self, path: str) -> float | None:
        """When a file was last written (seconds since the epoch), None where it does not exist."""
        try:
            return float(self.fs.modified(path).timestamp())
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file. Readers see the old or the new content, never a part; a local file is synced."""
        if not self.is_local:
            self.fs.pipe_file(path, data)
            return
        folder, name = os.path.split(path)
        os.makedirs(folder, mode=0o700, exist_ok=True)
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

    def remove(self, path: str) -> None:
        """Remove a file, if it exists."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(path)

    def sync(self, *folders: str) -> None:
        """Sync the entries of local folders to the disk; those that do not exist are skipped."""
        for folder in folders if self.is_local else ():
            with suppress(FileNotFoundError):
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
