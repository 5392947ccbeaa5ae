"""Files in workspaces, as an agent tells of them: with the types of a true answer, as the workspace's user controls the
agent."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from app.agent.protocol import CHANGES_POSITION, from_raw
from app.core.agents.answers import matching, moment, truth, whole

FILE, FOLDER, LINK, OTHER = "file", "folder", "link", "other"
KINDS = (FILE, FOLDER, LINK, OTHER)

MODE_PATTERN = re.compile(r"[0-7]{3,4}")
ETAG_PATTERN = re.compile(r"[!-~]{1,64}")
RAW_PATTERN = re.compile(r"[!-~]{0,100000}")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file, a folder, a link or something else (`type`) at `path`, from the workspace's folder. A byte of a name that
    is no UTF-8 is a lone surrogate. `size` is in bytes, None for what is no file; `etag` is "" for that; `target` is
    None for what is no link."""

    uuid: str
    path: str
    type: str
    size: int | None
    mode: str
    modified_at: float
    target: str | None
    etag: str


@dataclass(frozen=True)
class Listing:
    """A page of what is in the folder `path`; `next_cursor` is None at the end."""

    uuid: str
    path: str
    entries: Sequence[Entry]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a caller follows: the changes at `path`, and `depth` levels below it at names or paths like `glob`."""

    path: str
    depth: int
    glob: str


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What changed at `path` and below it: where nothing is any more, with all below it (`gone`), and then the
    `entries` that are there. With `anew` the changes before are not told: all may be different. `position` is where the
    next changes go on; not `complete` if the workspace has more folders than it watches."""

    path: str
    position: str
    complete: bool
    anew: bool
    entries: Sequence[Entry]
    gone: Sequence[str]

    @property
    def empty(self) -> bool:
        return not (self.entries or self.gone)


@dataclass(frozen=True, kw_only=True)
class NewFile:
    """A file to be written at `path`: with the permissions `mode`, None for those it had or the user's usual ones;
    only instead of one with one of these `etags`, None for any or none; or only a `new` one."""

    path: str
    mode: int | None = None
    etags: Collection[str] | None = None
    new: bool = False


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What an archive brought into the folder `path`: `files`, with links, and the files' `bytes`."""

    uuid: str
    path: str
    files: int
    bytes: int


def shown(path: str) -> str:
    """A path as text: a byte that is no UTF-8 is U+FFFD."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def entry_of(uuid: str, told: Any) -> Entry:
    """The entry in an agent's answer. Raises ValueError for what is none."""
    if not isinstance(told, dict) or told.get("type") not in KINDS:
        raise ValueError("no entry")
    size, target, etag = told.get("size"), told.get("target"), told.get("etag")
    return Entry(
        uuid=uuid,
        path=_path(told.get("path")),
        type=told["type"],
        size=None if size is None else whole(size),
        mode=matching(told.get("mode"), MODE_PATTERN),
        modified_at=moment(told.get("modified_at")),
        target=None if target is None else _path(target),
        etag="" if etag is None else matching(etag, ETAG_PATTERN),
    )


def file_of(uuid: str, told: Any) -> Entry:
    """The same, of what must be a file."""
    found = entry_of(uuid, told)
    if found.type != FILE or found.size is None or not found.etag:
        raise ValueError("no file")
    return found


def listing_of(uuid: str, told: Any) -> Listing:
    """The page in an agent's answer. Raises ValueError for what is none."""
    if not isinstance(told, dict) or not isinstance(told.get("entries"), list):
        raise ValueError("no listing")
    after = told.get("after")
    entries = [entry_of(uuid, each) for each in told["entries"]]
    return Listing(uuid, _path(told.get("path")), entries, None if not after else matching(after, RAW_PATTERN))


def changes_of(uuid: str, told: Any) -> Changes:
    """The changes in an agent's answer. Raises ValueError for what is none."""
    if (
        not isinstance(told, dict)
        or not isinstance(told.get("entries"), list)
        or not isinstance(told.get("gone"), list)
    ):
        raise ValueError("no changes")
    return Changes(
        path=_path(told.get("path")),
        position=matching(told.get("position"), CHANGES_POSITION),
        complete=truth(told.get("complete")),
        anew=truth(told.get("anew")),
        entries=[entry_of(uuid, each) for each in told["entries"]],
        gone=[_path(each) for each in told["gone"]],
    )


def _path(value: Any) -> str:
    return from_raw(matching(value, RAW_PATTERN))
