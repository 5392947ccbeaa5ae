"""The history store: the conversation of each session as JSON documents, which outlive its volume and its record.

    {edition}-{number}-{random}.json   the messages in chunks, each written once (app/core/prompts/history_index.py)
    index.json                         the chunks, in their order
    context.json                       what the model is shown of the messages
    metadata.json                      the agent's notes on both

The store is any fsspec URL. Only the manager holds its credential: agents send their messages to the gateway. Documents
are replaced whole, and written after those they refer to. `metadata.json` is written last, so its time says when the
conversation was last stored in full.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import dropwhile, takewhile
from typing import Any

from app.core.errors import ArchiveError, InvalidRequest
from app.core.prompts.history_index import (
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
from app.core.sessions.model import UUID_PATTERN
from app.core.storage.archive_keys import NO_KEYS, ArchiveKeys
from app.core.storage.file_store import FileStore
from app.core.storage.key_list import KeyList

INDEX, CONTEXT, METADATA = "index.json", "context.json", "metadata.json"

READS = 3
"""Tries to read by the index: a chunk that was removed in the meantime was replaced, and the new index names it."""

LEFT_ALONE = 3600.0
"""s: a chunk that no index names may be about to be added; after this time its writer was killed."""

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Checkpoint:
    """A conversation as an agent keeps it: all messages, those the model is still shown, and notes on both."""

    history: Sequence[Mapping[str, Any]] = field(default_factory=list)
    context: Sequence[Mapping[str, Any]] = field(default_factory=list)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """Messages of a conversation, their number in all, and their edition."""

    messages: Messages
    total: int
    edition: str


class _Replaced(Exception):
    """A chunk was replaced since the index was read."""


class HistoryStore:
    """The conversations under one URL, at `{url}/{uuid}/`, each of at most `most` bytes.

    Documents are encrypted by `keys`; without any they are stored as they are, and only then unencrypted ones are read.

    Every method raises `RetryableError` or `ArchiveError` where the store fails, `UnknownKey` for what is encrypted
    with another key, and `InvalidRequest` for an invalid uuid.
    """

    def __init__(self, url: str, most: float = math.inf, keys: ArchiveKeys = NO_KEYS) -> None:
        self._files = FileStore(url)
        self._most = most
        self._keys = keys
        self._key_list = KeyList(self._files)

    def check(self) -> None:
        """Try whether the store can be used: write, read and remove a file."""
        self._files.check()

    def key_ids(self) -> tuple[str, ...]:
        """The ids of the archive keys under which anything is stored."""
        return self._key_list.read()

    def write(self, uuid: str, checkpoint: Checkpoint) -> None:
        """Replace the stored conversation by this one; a local store has it on the disk on return."""
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
        """Add messages to an edition of the conversation, or begin one with them; answers the new index. Raises
        `OtherConversation` where they do not continue the stored messages, `ConversationTooLong`, and `Contended`."""
        folder, index = self._folder(uuid), self.index(uuid)
        edition = index.find(piece.edition)
        if (edition.messages, edition.mark) != (piece.after, piece.mark):
            raise OtherConversation(index)
        with self._errors(uuid):
            try:
                grown = index.put(self._add(folder, uuid, edition, piece.messages, piece.then))
            except _Replaced as error:
                # The stored edition is damaged: the agent sends everything anew, and until then it stays.
                raise OtherConversation(Index()) from error
            self._replace(folder, uuid, index, grown)
            self._files.sync(folder, self._files.root)
        return grown

    def settle(self, uuid: str, head: Head, context: Messages, metadata: Mapping[str, Any]) -> None:
        """Make the edition of `head` the current conversation, with this context and metadata. Raises
        `OtherConversation` where the stored edition does not match `head`."""
        folder, index = self._folder(uuid), self.index(uuid)
        edition = index.find(head.edition)
        if edition.head() != head:
            raise OtherConversation(index)
        with self._errors(uuid):
            self._put(folder, CONTEXT, context)
            self._settle(folder, uuid, index, edition, metadata)

    def index(self, uuid: str) -> Index:
        """The conversation's index; an empty one where nothing is stored."""
        document = self._get(self._folder(uuid), uuid, INDEX)
        try:
            return Index() if document is None else Index.from_json(document)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(uuid) from error

    def read(self, uuid: str) -> Checkpoint | None:
        """The stored conversation, None where there is none. Raises `ArchiveError` where it is damaged. Holds all of it
        in memory, which `page` does not."""
        kept = self.page(uuid)
        if kept is None:
            return None
        context, metadata = self.beside(uuid)
        return Checkpoint(kept.messages, context, metadata)

    def beside(self, uuid: str) -> tuple[Messages, Mapping[str, Any]]:
        """The stored context and metadata."""
        folder = self._folder(uuid)
        context, metadata = self._get(folder, uuid, CONTEXT), self._get(folder, uuid, METADATA)
        try:
            return context_and_metadata({"context": context or [], "metadata": metadata or {}})
        except InvalidRequest as error:
            raise _damaged(uuid) from error

    def page(self, uuid: str, after: int = 0, limit: float = math.inf, size: float = math.inf) -> Page | None:
        """At most `limit` messages from number `after` on; fewer where the next chunk would make them more than `size`
        bytes. None where no conversation is stored. Only chunks with some of these messages are read."""
        folder = self._folder(uuid)
        for _ in range(READS):
            edition = self.index(uuid).current
            if edition is None:
                return None
            with suppress(_Replaced):
                return Page(self._some(folder, uuid, edition, after, limit, size), edition.messages, edition.name)
        raise _damaged(uuid)

    def renew(self, uuid: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Write the metadata again, the given or the stored one, so that the retention counts from now. Does nothing
        where no conversation is stored."""
        folder = self._folder(uuid)
        known = self._get(folder, uuid, METADATA) if metadata is None else metadata
        if known is not None:
            with self._errors(uuid):
                self._put(folder, METADATA, known)
                self._files.sync(folder, self._files.root)

    def prompts_after(self, uuid: str, when: float) -> list[str]:
        """The ids of the prompts that `cut` would remove, oldest first."""
        kept = self.read(uuid)
        removed = [] if kept is None else dropwhile(lambda message: _at(message) <= when, kept.history)
        return [str(message.get("id")) for message in removed if message.get("role") == "user"]

    def cut(self, uuid: str, until: float) -> int:
        """Keep the messages up to this time (seconds since the epoch) only, as a restore of the volume did; answers how
        many were removed. Its agent replaces what differs from its own copy when it starts."""
        kept = self.read(uuid)
        history = [] if kept is None else list(takewhile(lambda message: _at(message) <= until, kept.history))
        if kept is None or len(history) == len(kept.history):
            return 0
        context = list(takewhile(lambda message: _represents(message) <= len(history), kept.context))
        metadata = {name: value for name, value in kept.metadata.items() if name not in ("queue", "unreported")}
        self.write(uuid, Checkpoint(history, context, metadata))
        return len(kept.history) - len(history)

    def delete(self, uuid: str) -> None:
        """Delete the conversation, if there is one."""
        folder = self._folder(uuid)
        with self._errors(uuid):
            self._files.remove_folder(folder)

    def uuids(self) -> list[str]:
        """The sessions with a stored conversation, terminated ones included."""
        with self._errors("the list of sessions"):
            return sorted(name for name in self._files.names(self._files.root) if UUID_PATTERN.fullmatch(name))

    def last_written(self, uuid: str) -> float | None:
        """When the conversation was last stored in full (seconds since the epoch), else when its last part was; None
        where there is none."""
        folder = self._folder(uuid)
        with self._errors(uuid):
            return self._files.modified(f"{folder}/{METADATA}") or self._files.modified(f"{folder}/{INDEX}")

    # Chunks and their index

    def _add(self, folder: str, uuid: str, edition: Edition, messages: Messages, mark: str) -> Edition:
        """Write messages to the end of an edition; into a new version of the last chunk where that has room."""
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
        self._files.sync(folder, self._files.root)

    def _replace(self, folder: str, uuid: str, index: Index, by: Index) -> None:
        """Replace the index, and remove the chunks that the old one listed as gone. Raises `Contended`."""
        # Two writers may pass this check at once; then one has written in vain. All chunks of its index still exist, so
        # the other's index is true.
        if self.index(uuid).version != index.version:
            raise Contended(uuid)
        self._put(folder, INDEX, by.to_json())
        self._remove(folder, set(index.gone) - by.files())

    def _tidy(self, folder: str, index: Index) -> None:
        """Remove the files that killed writers left."""
        now = time.time()
        for name in set(self._files.names(folder)) - index.files() - {*index.gone, INDEX, CONTEXT, METADATA}:
            if now - (self._files.modified(f"{folder}/{name}") or now) > LEFT_ALONE:
                self._remove(folder, [name])

    def _remove(self, folder: str, names: Collection[str]) -> None:
        for name in names:
            self._files.remove(f"{folder}/{name}")

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

    def _errors(self, what: str) -> AbstractContextManager[None]:
        return self._files.translated(f"The history store could not access {what}")

    def _folder(self, uuid: str) -> str:
        if not UUID_PATTERN.fullmatch(uuid):
            raise InvalidRequest("The uuid of a session must be 8 characters of 0-9 a-z.")
        return f"{self._files.root}/{uuid}"

    def _put(self, folder: str, name: str, content: Any) -> None:
        data = _encoded(content)
        if keys := self._keys.session(_uuid_of(folder)):
            self._key_list.note(keys.newest)
            data = keys.encrypt(data, name)
        self._files.write(f"{folder}/{name}", data)

    def _get(self, folder: str, uuid: str, name: str) -> Any:
        """The JSON of a document, None where it is missing."""
        with self._errors(uuid):
            try:
                data: bytes = self._files.fs.cat_file(f"{folder}/{name}")
            except FileNotFoundError:
                return None
        data = self._keys.session(uuid).decrypt(data, name)
        try:
            document = json.loads(data.decode("utf-8", "surrogatepass"))
        except ValueError as error:
            raise _damaged(uuid) from error
        if document is None:
            raise _damaged(uuid)
        return document


def context_and_metadata(document: Any) -> tuple[Messages, Mapping[str, Any]]:
    """The context and the metadata of a checkpoint, in a JSON object; raises `InvalidRequest`."""
    if not isinstance(document, dict):
        raise InvalidRequest("A checkpoint must be a JSON object with `context` and `metadata`.")
    metadata = document.get("metadata", {})
    if not isinstance(metadata, dict):
        raise InvalidRequest("A checkpoint's `metadata` must be an object.")
    return _messages("context", document.get("context", [])), metadata


def in_chunks(messages: Messages) -> Iterator[Messages]:
    """The messages in parts of `CHUNK_BYTES`; a longer message is a part of its own."""
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


def _at(message: Mapping[str, Any]) -> float:
    """When a message was written, 0 if it does not say."""
    try:
        return datetime.fromisoformat(str(message.get("at"))).timestamp()
    except ValueError:
        return 0.0


def _represents(message: Mapping[str, Any]) -> float:
    """How many messages of the history a message of the context, and those before it, represent; infinity if it does
    not say: an agent makes its context anew where it lacks some."""
    through = message.get("through")
    return through if isinstance(through, int) else math.inf


def _uuid_of(folder: str) -> str:
    return folder.rpartition("/")[2]


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
        raise InvalidRequest(f"A checkpoint's `{name}` must be a list of objects.")
    return value
