"""The conversations' store: JSON documents for each session, which outlive its volume and its record.

    {edition}-{number}-{random}.json   the messages in chunks, each written once (app/sessions/archive_index.py)
    index.json                         the chunks there are, in their order
    context.json                       what the model is shown of them
    metadata.json                      what the agent knows of both
    history.json                       all messages, where an earlier release stored them last

It is any fsspec URL, and only the manager holds its credential: agents hand their messages to the
gateway or to a worker. A document is replaced whole, and written after what it refers to. `metadata.json` is written
last, so its time says when the conversation was last stored in full.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from fsspec.implementations.local import LocalFileSystem

from app.sessions import object_stores
from app.sessions.archive_index import (
    CHUNK_BYTES,
    Chunk,
    Contended,
    ConversationTooLong,
    Edition,
    Head,
    Index,
    OtherConversation,
    Piece,
)
from app.sessions.backup_files import file_error
from app.sessions.errors import ArchiveError, InvalidRequest
from app.sessions.model import UUID_PATTERN
from app.settings import SettingsError

HISTORY, INDEX, CONTEXT, METADATA = "history.json", "index.json", "context.json", "metadata.json"

READS = 3
"""Tries to read what the index says: a chunk that is gone meanwhile was replaced, and the index knows by what."""

LEFT_ALONE = 3600.0
"""s: a chunk that no index knows may be one that is just being added; after this it is a killed writer's."""

Messages = Sequence[Mapping[str, Any]]

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


@dataclass(frozen=True)
class Page:
    """Some messages of a conversation, how many it has in all, and which edition they are of."""

    messages: Messages
    total: int
    edition: str = ""


class _Replaced(Exception):
    """A chunk isn't there any more."""


class Archive:
    """Conversations under one URL, `{url}/{uuid}/`, each of `most` bytes at most. With a `key` (of Fernet; several
    separated by commas, of which the first encrypts and all decrypt) new documents are encrypted, and old ones are
    read either way.

    Raises `SettingsError` for a key that is none; every method raises `RetryableError` or `ArchiveError`
    where the store refuses, `InvalidRequest` for a name that is not a session's.
    """

    def __init__(self, url: str, key: str = "", most: float = math.inf) -> None:
        self._url = url
        self._cipher = _cipher(key)
        self._most = most

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
        folder, index = self._folder(uuid), self.index(uuid)
        edition = Edition(secrets.token_hex(8))
        with self._errors(uuid):
            try:
                for messages in in_chunks(checkpoint.history):
                    edition = self._add(folder, uuid, edition, messages, "")
                self._put(folder, CONTEXT, checkpoint.context)
            except BaseException:
                self._remove(folder, edition.files())
                raise
            self._settle(folder, uuid, index, edition, checkpoint.metadata)

    def append(self, uuid: str, piece: Piece) -> Index:
        """Add messages to an edition of the conversation, or begin one with them; answers how far it is then. Raises
        `OtherConversation` where they don't go on from what is there, `ConversationTooLong`, and `Contended`."""
        folder, index = self._folder(uuid), self.index(uuid)
        edition = index.find(piece.edition)
        if (edition.messages, edition.mark) != (piece.after, piece.mark):
            raise OtherConversation(index)
        with self._errors(uuid):
            try:
                grown = index.put(self._add(folder, uuid, edition, piece.messages, piece.then))
            except _Replaced as error:
                # What is kept can't be added to any more. It stays until the agent has brought all of it again.
                raise OtherConversation(Index()) from error
            self._replace(folder, uuid, index, grown)
            self._sync(folder)
        return grown

    def settle(self, uuid: str, head: Head, context: Messages, metadata: Mapping[str, Any]) -> None:
        """The conversation is whole with the messages that `head` tells of: they are the ones that are kept from now
        on, with this context and metadata. Raises `OtherConversation` where these are not what is there."""
        folder, index = self._folder(uuid), self.index(uuid)
        edition = index.find(head.edition)
        if edition.head() != head:
            raise OtherConversation(index)
        with self._errors(uuid):
            self._put(folder, CONTEXT, context)
            self._settle(folder, uuid, index, edition, metadata)

    def index(self, uuid: str) -> Index:
        """How far the conversation is kept in chunks; an empty index when it isn't."""
        document = self._get(self._folder(uuid), uuid, INDEX)
        try:
            return Index() if document is None else Index.from_json(document)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(uuid) from error

    def read(self, uuid: str) -> Checkpoint | None:
        """The conversation as it was last stored, None when there is none; `ArchiveError` when it can't be
        understood. It takes all of it into memory, which `page` does not."""
        kept = self.page(uuid)
        if kept is None:
            return None
        context, metadata = self.beside(uuid)
        return Checkpoint(kept.messages, context, metadata)

    def beside(self, uuid: str) -> tuple[Messages, Mapping[str, Any]]:
        """The context and the metadata that were stored last."""
        folder = self._folder(uuid)
        context, metadata = self._get(folder, uuid, CONTEXT), self._get(folder, uuid, METADATA)
        try:
            checked = Checkpoint.from_json({"history": [], "context": context or [], "metadata": metadata or {}})
        except InvalidRequest as error:
            raise _damaged(uuid) from error
        return checked.context, checked.metadata

    def page(self, uuid: str, after: int = 0, limit: float = math.inf, size: float = math.inf) -> Page | None:
        """The messages from number `after` on: `limit` of them, or fewer, where those of the next chunk would make
        it more than `size` bytes. None when no conversation is kept. Only chunks that hold some of them are read."""
        folder = self._folder(uuid)
        for attempt in range(READS):
            edition = self.index(uuid).current
            if edition is not None:
                with suppress(_Replaced):
                    return Page(self._some(folder, uuid, edition, after, limit, size), edition.messages, edition.name)
                continue
            history = self._get(folder, uuid, HISTORY)
            if history is not None:
                return Page(_part(_checked(uuid, history), after, limit), len(history))
            if attempt:
                return None
        raise _damaged(uuid)

    def renew(self, uuid: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Replace what is known of the conversation, if anything new is; its retention counts from now. Nothing is
        done where none is kept."""
        folder = self._folder(uuid)
        known = self._get(folder, uuid, METADATA) if metadata is None else metadata
        if known is not None:
            with self._errors(uuid):
                self._put(folder, METADATA, known)
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
        """When the conversation was last stored (seconds since the epoch), None when there is none; of one that never
        was stored whole, when its last part was."""
        folder = self._folder(uuid)
        with self._errors(uuid):
            return self._written(f"{folder}/{METADATA}") or self._written(f"{folder}/{INDEX}")

    def _written(self, path: str) -> float | None:
        try:
            return float(self._fs.modified(path).timestamp())
        except FileNotFoundError:
            return None

    # Chunks and their index

    def _add(self, folder: str, uuid: str, edition: Edition, messages: Messages, mark: str) -> Edition:
        """Write messages to the end of an edition; where the last chunk has room, together with what that has."""
        size = len(_encoded(messages))
        if edition.size + size > self._most:
            raise ConversationTooLong(self._most)
        last = edition.open_chunk(size)
        if last is not None:
            messages, size = [*self._messages(folder, uuid, last), *messages], last.size + size
        chunk = Chunk(edition.new_name(), len(messages), size)
        self._put(folder, chunk.name, messages)
        return edition.grown(chunk, mark, instead=last)

    def _settle(self, folder: str, uuid: str, index: Index, edition: Edition, metadata: Mapping[str, Any]) -> None:
        whole = index.settled(edition)
        if (index.current, index.following) != (edition, None):
            self._replace(folder, uuid, index, whole)
        if index.current is None or index.current.name != edition.name:
            self._tidy(folder, whole)
        self._put(folder, METADATA, metadata)
        self._sync(folder)

    def _replace(self, folder: str, uuid: str, index: Index, by: Index) -> None:
        """Put an index in the place of one, and remove the chunks that were out of use by that already. Raises
        `Contended`."""
        # Of two that pass here at once one has written for nothing. All that its index told of is there still, so the
        # other's is true.
        if self.index(uuid).version != index.version:
            raise Contended(uuid)
        self._put(folder, INDEX, by.to_json())
        self._remove(folder, set(index.gone) - by.files())

    def _tidy(self, folder: str, index: Index) -> None:
        """Remove what the chunks of this index replace: all messages in one, and what killed writers left."""
        names = {path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(folder, detail=False)}
        now = time.time()
        for name in names - index.files() - {*index.gone, INDEX, CONTEXT, METADATA}:
            if name == HISTORY or now - (self._written(f"{folder}/{name}") or now) > LEFT_ALONE:
                self._remove(folder, [name])

    def _remove(self, folder: str, names: Collection[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError):
                self._fs.rm_file(f"{folder}/{name}")

    def _some(
        self, folder: str, uuid: str, edition: Edition, after: int, limit: float, size: float
    ) -> Sequence[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        end = 0
        for chunk in edition.chunks:
            begin, end = end, end + chunk.messages
            if end <= after:
                continue
            size -= chunk.size
            if found and (size < 0 or len(found) >= limit):
                break
            found += _part(self._messages(folder, uuid, chunk), max(0, after - begin), math.inf)
        return _part(found, 0, limit)

    def _messages(self, folder: str, uuid: str, chunk: Chunk) -> Messages:
        content = self._get(folder, uuid, chunk.name)
        if content is None:
            raise _Replaced
        messages = _checked(uuid, content)
        if len(messages) != chunk.messages:
            raise _damaged(uuid)
        return messages

    # Documents

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
        data = _encoded(content)
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
            raise _damaged(uuid) from error

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


def in_chunks(messages: Messages) -> Iterator[Messages]:
    """The messages in parts of `CHUNK_BYTES`; a longer message is one of its own."""
    part: list[Mapping[str, Any]] = []
    size = 0
    for message in messages:
        more = len(_encoded(message)) + 1
        if part and size + more > CHUNK_BYTES:
            yield part
            part, size = [], 0
        part.append(message)
        size += more
    if part:
        yield part


def _encoded(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _part(messages: Messages, after: int, limit: float) -> Messages:
    return messages[after:] if limit == math.inf else messages[after : after + int(limit)]


def _damaged(uuid: str) -> ArchiveError:
    return ArchiveError(f"The stored conversation of {uuid} is damaged.")


def _checked(uuid: str, messages: Any) -> Messages:
    try:
        return _messages("history", messages)
    except InvalidRequest as error:
        raise _damaged(uuid) from error


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
