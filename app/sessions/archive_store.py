"""The conversations' store: three JSON documents for each session, which outlive its volume and its record.

It is any fsspec URL, and only the manager holds its credential: agents hand their documents to the
gateway or to a worker. Each document is replaced whole. `metadata.json` is written last, so its time says
when the conversation was last stored in full.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from fsspec.implementations.local import LocalFileSystem

from app.sessions import object_stores
from app.sessions.backup_files import file_error
from app.sessions.errors import ArchiveError, InvalidRequest
from app.sessions.model import UUID_PATTERN
from app.settings import SettingsError

HISTORY, CONTEXT, METADATA = "history.json", "context.json", "metadata.json"
DOCUMENTS = (HISTORY, CONTEXT, METADATA)
"""In the order they are written."""

PLAIN = (b"[", b"{")
"""How a document begins that is not encrypted; an encrypted one begins with the version byte 0x80 in base64, `g`."""


@dataclass(frozen=True)
class Checkpoint:
    """A conversation as an agent keeps it: all messages, those the model is still shown, and what is known of both."""

    history: Sequence[Mapping[str, Any]] = field(default_factory=list)
    context: Sequence[Mapping[str, Any]] = field(default_factory=list)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The JSON object agents and the gateway exchange."""
        return {"history": list(self.history), "context": list(self.context), "metadata": dict(self.metadata)}

    @classmethod
    def from_json(cls, document: Any) -> Checkpoint:
        """The checkpoint in a JSON object; raises `InvalidRequest` when it is none."""
        if not isinstance(document, dict):
            raise InvalidRequest("A checkpoint is a JSON object with history, context and metadata.")
        metadata = document.get("metadata", {})
        if not isinstance(metadata, dict):
            raise InvalidRequest("A checkpoint's metadata is an object.")
        history = _messages("history", document.get("history"))
        return cls(history, _messages("context", document.get("context", [])), metadata)


class Archive:
    """Conversations under one URL, `{url}/{uuid}/`. With a `key` (of Fernet; several separated by commas, of
    which the first encrypts and all decrypt) new documents are encrypted, and old ones are read either way.

    Raises `SettingsError` for a key that is none; every method raises `RetryableError` or `ArchiveError`
    where the store refuses, `InvalidRequest` for a name that is not a session's.
    """

    def __init__(self, url: str, key: str = "") -> None:
        self._url = url
        self._cipher = _cipher(key)

    @cached_property
    def _fs(self) -> Any:
        # At the first use, which is in the process that uses it.
        return object_stores.filesystem(self._url)

    @cached_property
    def _root(self) -> str:
        return str(self._fs._strip_protocol(self._url)).rstrip("/")

    @property
    def _local(self) -> bool:
        return isinstance(self._fs, LocalFileSystem)

    def write(self, uuid: str, checkpoint: Checkpoint) -> None:
        """Store the conversation in place of the one before; on the disk, where the store is one."""
        folder = self._folder(uuid)
        with self._errors(uuid):
            for name, content in zip(
                DOCUMENTS, (checkpoint.history, checkpoint.context, checkpoint.metadata), strict=True
            ):
                self._put(folder, name, content)
            self._sync(folder)

    def read(self, uuid: str) -> Checkpoint | None:
        """The conversation as it was last stored, None when there is none; `ArchiveError` when it can't be
        understood."""
        folder = self._folder(uuid)
        history = self._get(folder, uuid, HISTORY)
        if history is None:
            return None
        context, metadata = self._get(folder, uuid, CONTEXT), self._get(folder, uuid, METADATA)
        try:
            return Checkpoint.from_json({"history": history, "context": context or [], "metadata": metadata or {}})
        except InvalidRequest as error:
            raise ArchiveError(f"The stored conversation of {uuid} is damaged.") from error

    def renew(self, uuid: str, metadata: Mapping[str, Any]) -> None:
        """Replace only what is known of the conversation; its retention counts from now."""
        folder = self._folder(uuid)
        with self._errors(uuid):
            self._put(folder, METADATA, metadata)
            self._sync(folder)

    def delete(self, uuid: str) -> None:
        """Forget the conversation; none is no error."""
        folder = self._folder(uuid)
        with self._errors(uuid), suppress(FileNotFoundError):
            self._fs.rm(folder, recursive=True)

    def uuids(self) -> list[str]:
        """The sessions that have a conversation here, living or not."""
        with self._errors("the list of sessions"):
            try:
                names = [path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(self._root, detail=False)]
            except FileNotFoundError:
                return []
        return sorted(name for name in names if UUID_PATTERN.fullmatch(name))

    def last_written(self, uuid: str) -> float | None:
        """When the conversation was last stored (seconds since the epoch), None when there is none."""
        path = f"{self._folder(uuid)}/{METADATA}"
        with self._errors(uuid):
            try:
                return float(self._fs.modified(path).timestamp())
            except FileNotFoundError:
                return None

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except object_stores.errors(self._url) as error:
            text = f"The archive could not handle {what}"
            raise file_error(error, text, text + ": it is full.") from error

    def _folder(self, uuid: str) -> str:
        if not UUID_PATTERN.fullmatch(uuid):
            raise InvalidRequest("A conversation is stored by its session's uuid.")
        return f"{self._root}/{uuid}"

    def _put(self, folder: str, name: str, content: Any) -> None:
        data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        if self._cipher is not None:
            data = self._cipher.encrypt(data)
        path = f"{folder}/{name}"
        if not self._local:
            # An object appears whole or not at all.
            self._fs.pipe_file(path, data)
            return
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

    def _get(self, folder: str, uuid: str, name: str) -> Any:
        with self._errors(uuid):
            try:
                data: bytes = self._fs.cat_file(f"{folder}/{name}")
            except FileNotFoundError:
                return None
        if not data.startswith(PLAIN):
            data = self._decrypted(uuid, data)
        try:
            return json.loads(data.decode("utf-8", "surrogatepass"))
        except ValueError as error:
            raise ArchiveError(f"The stored conversation of {uuid} is damaged.") from error

    def _decrypted(self, uuid: str, data: bytes) -> bytes:
        if self._cipher is None:
            raise ArchiveError(f"The stored conversation of {uuid} is encrypted and no ARCHIVE_KEY is set.")
        try:
            return self._cipher.decrypt(data)
        except InvalidToken as error:
            raise ArchiveError(f"The stored conversation of {uuid} is damaged, or ARCHIVE_KEY is another.") from error

    def _sync(self, folder: str) -> None:
        if not self._local:
            return
        for path in (folder, self._root):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _messages(name: str, value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise InvalidRequest(f"A checkpoint's {name} is a list of objects.")
    return value


def _cipher(key: str) -> MultiFernet | None:
    try:
        ciphers = [Fernet(each.strip()) for each in key.split(",") if each.strip()]
    except ValueError as error:
        raise SettingsError("ARCHIVE_KEY must be 32 bytes in URL-safe base64, as Fernet.generate_key makes.") from error
    return MultiFernet(ciphers) if ciphers else None
