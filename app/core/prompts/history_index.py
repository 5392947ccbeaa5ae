"""The index of a stored conversation: which chunks hold its messages, and how far they reach.

An *edition* is one course of a conversation, to which messages are only ever added. An agent whose conversation
differs, because its workspace was restored to an earlier state, begins a new edition beside the current one, and
replaces it once the new one is whole. The `mark` is the agent's checksum of all messages so far; here it is only
compared.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.core.errors import InvalidRequest, RetryableError, SessionError

CHUNK_BYTES = 1_048_576
"""Of JSON; a longer message has a chunk of its own. Reading or adding a few messages handles little more."""

NAME_PATTERN = re.compile(r"[0-9a-z]{1,32}")
"""Of an edition, whose name begins its chunks' names; a mark has the same form, or is empty."""


class OtherConversation(SessionError):
    """The messages do not continue the stored ones. `index` says how far these reach."""

    code = "other_conversation"

    def __init__(self, index: Index) -> None:
        super().__init__("These messages do not continue the stored ones; continue from where the stored ones end.")
        self.index = index


class Contended(RetryableError):
    """Another writer changed the stored conversation since it was read."""

    code = "contended"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"Another writer changed the stored conversation of {uuid}; retry.")


class ConversationTooLong(SessionError):
    """The conversation exceeds `HISTORY_MAX_BYTES`."""

    code = "conversation_too_long"

    def __init__(self, most: float) -> None:
        super().__init__(f"The conversation is longer than the limit of {most:.0f} bytes (HISTORY_MAX_BYTES).")


@dataclass(frozen=True)
class Chunk:
    """A file of messages: their number, and the bytes of their JSON."""

    name: str
    messages: int
    size: int


@dataclass(frozen=True)
class Head:
    """How far an edition reaches: the number of its messages, and their mark."""

    edition: str
    messages: int = 0
    mark: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"edition": self.edition, "messages": self.messages, "mark": self.mark}

    @classmethod
    def from_json(cls, document: Any) -> Head:
        """The head in a JSON object, which may have other fields; raises `InvalidRequest`."""
        said = document if isinstance(document, dict) else {}
        return cls(edition_name(said.get("edition")), count(said.get("messages")), mark_text(said.get("mark")))


@dataclass(frozen=True)
class Edition:
    """The messages of one course of the conversation, in the order of the chunks."""

    name: str
    mark: str = ""
    chunks: tuple[Chunk, ...] = ()

    @property
    def messages(self) -> int:
        return sum(chunk.messages for chunk in self.chunks)

    @property
    def size(self) -> int:
        return sum(chunk.size for chunk in self.chunks)

    def open_chunk(self, more: int) -> Chunk | None:
        """The last chunk, if it has room for so many bytes more."""
        last = self.chunks[-1] if self.chunks else None
        return last if last is not None and last.size + more <= CHUNK_BYTES else None

    def grown(self, chunk: Chunk, mark: str, *, instead: Chunk | None) -> Edition:
        """The edition with this chunk at the end, or with it `instead` of the last."""
        kept = self.chunks[:-1] if instead is not None else self.chunks
        return replace(self, mark=mark, chunks=(*kept, chunk))

    def new_name(self) -> str:
        """A name for a chunk. No file is written twice, so that an older index always names the same content."""
        return f"{self.name}-{len(self.chunks):06}-{secrets.token_hex(4)}.json"

    def files(self) -> set[str]:
        """The names of its chunks."""
        return {chunk.name for chunk in self.chunks}

    def head(self) -> Head:
        return Head(self.name, self.messages, self.mark)

    def to_json(self) -> dict[str, Any]:
        chunks = [[chunk.name, chunk.messages, chunk.size] for chunk in self.chunks]
        return {"name": self.name, "mark": self.mark, "chunks": chunks}

    @classmethod
    def from_json(cls, document: Any) -> Edition | None:
        """Raises `ValueError`, `TypeError` or `KeyError` for an invalid document; None stays None."""
        if document is None:
            return None
        chunks = tuple(Chunk(str(name), int(messages), int(size)) for name, messages, size in document["chunks"])
        return cls(str(document["name"]), str(document["mark"]), chunks)


@dataclass(frozen=True)
class Index:
    """The current edition, and the one that will replace it once that is whole. `version` grows with each change.
    `gone` are the chunks that the last change dropped; the next one removes their files."""

    current: Edition | None = None
    following: Edition | None = None
    version: int = 0
    gone: tuple[str, ...] = ()

    def find(self, name: str) -> Edition:
        """The edition of this name; an empty one where there is none."""
        both = (each for each in (self.current, self.following) if each is not None)
        return next((each for each in both if each.name == name), Edition(name))

    def put(self, edition: Edition) -> Index:
        """The index with this state of an edition; a new edition replaces the one that was to follow."""
        if self.current is not None and self.current.name == edition.name:
            return self._changed(edition, self.following)
        return self._changed(self.current, edition)

    def settled(self, edition: Edition) -> Index:
        """The index with this edition as the current one, and none to follow."""
        return self._changed(edition, None)

    def _changed(self, current: Edition | None, following: Edition | None) -> Index:
        by = Index(current, following, self.version + 1)
        return replace(by, gone=tuple(sorted(self.files() - by.files())))

    def files(self) -> set[str]:
        """The names of all chunks."""
        return {name for each in (self.current, self.following) if each is not None for name in each.files()}

    def heads(self) -> dict[str, Any]:
        """Where an agent may continue, for JSON: `{"current": Head or None, "following": Head or None}`."""
        both = {"current": self.current, "following": self.following}
        return {name: None if each is None else each.head().to_json() for name, each in both.items()}

    def to_json(self) -> dict[str, Any]:
        both = {"current": self.current, "following": self.following}
        editions = {name: None if each is None else each.to_json() for name, each in both.items()}
        return {"format": 1, "version": self.version, "gone": list(self.gone), **editions}

    @classmethod
    def from_json(cls, document: Any) -> Index:
        """Raises what `Edition.from_json` raises."""
        current, following = (Edition.from_json(document[name]) for name in ("current", "following"))
        return cls(current, following, int(document["version"]), tuple(map(str, document["gone"])))


@dataclass(frozen=True)
class Piece:
    """Messages that continue an edition of `after` messages, marked `mark`; `then` is the mark after them."""

    edition: str
    after: int
    mark: str
    then: str
    messages: Sequence[Mapping[str, Any]]

    @classmethod
    def from_json(cls, document: Any) -> Piece:
        """The piece in a JSON object; raises `InvalidRequest`."""
        said = document if isinstance(document, dict) else {}
        edition, after, mark, then = (said.get(name) for name in ("edition", "after", "mark", "then"))
        messages = said.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
            raise InvalidRequest("`messages` must be a list of at least one object.")
        return cls(edition_name(edition), count(after), mark_text(mark), mark_text(then), messages)


def edition_name(value: object) -> str:
    """A valid name of an edition, which becomes a part of file names; raises `InvalidRequest`."""
    if not isinstance(value, str) or not NAME_PATTERN.fullmatch(value):
        raise InvalidRequest("`edition` must be 1 to 32 characters of 0-9 a-z.")
    return value


def mark_text(value: object) -> str:
    """A valid mark; raises `InvalidRequest`."""
    if not isinstance(value, str) or (value and not NAME_PATTERN.fullmatch(value)):
        raise InvalidRequest("A mark must be at most 32 characters of 0-9 a-z.")
    return value


def count(value: object) -> int:
    """A number of messages; raises `InvalidRequest`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequest("A number of messages must be an integer from 0 on.")
    return value
