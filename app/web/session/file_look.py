"""What is to see at a path in a session's workspace, and how paths are written."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Mapping
from contextlib import closing
from typing import Any, cast
from urllib.parse import quote

from app.core.errors import FileRefused
from app.core.files.model import shown
from app.web.api import ApiError, api, refusal
from app.web.session.workspace import NO_WAKE

PAGE = 200

VIEWED = 262_144
"""Bytes of a file that are shown."""

NOT_THERE = frozenset({"file_not_found", "file_denied", "file_changed", "invalid_path", "not_a_file"})
"""Errors of a look at a path that the page says in the place of what would be there: files go by themselves, also while
they are read."""


def quoted(path: str) -> str:
    """A path as it is in an address."""
    return quote(path, errors="surrogateescape")


def text_of(content: bytes, *, cut: bool) -> str | None:
    """The text of a file or, `cut`, of its beginning, which may end within a character; None for what is no text."""
    try:
        text = getincrementaldecoder("utf-8")().decode(content, final=not cut)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def there(uuid: str, path: str) -> dict[str, Any]:
    """A page of a folder's content; or the `file` that is there, or why there is nothing to see, in `refused`."""
    try:
        found = listed(uuid, path)
        entries = found["entries"]
        # What is no folder is its own entry.
        if not entries or entries[0]["path"] != found["path"]:
            return found
        file = entries[0]
        told = {"file": file, "asked": shown(path)}
        return told | (_text(uuid, path) if file["type"] == "file" else {"text": None})
    except (ApiError, FileRefused) as error:
        if error.code not in NOT_THERE:
            raise
        return {"refused": str(error)}


def listed(uuid: str, path: str, cursor: str = "") -> dict[str, Any]:
    """A page of a folder's content: each entry with its `name`, and in `at` with its path for addresses."""
    query = {"path": path or None, "cursor": cursor or None, "limit": PAGE, **NO_WAKE}
    page = api().call("GET", f"/session/{uuid}/files", query=query)
    return {"path": page["path"], "next_cursor": page["next_cursor"], "entries": [*map(_row, page["entries"])]}


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    path = entry["path"]
    return {**entry, "at": entry["raw_path"] or quoted(path), "name": path.rpartition("/")[2]}


def _text(uuid: str, path: str) -> dict[str, Any]:
    """The beginning of a file as `text`, None if it is no text; `cut` is how long that is, if there is more."""
    part = {"Range": f"bytes=0-{VIEWED - 1}"}
    streamed = api().open("GET", f"/session/{uuid}/files/{path}", query=NO_WAKE, headers=part)
    if streamed.status >= 400:
        raise refusal(streamed)
    with closing(cast(Any, streamed.pieces)):
        content = b"".join(streamed.pieces)
    # An empty file has no parts: it comes as a whole.
    whole = int(streamed.headers.get("Content-Range", "/0").rpartition("/")[2])
    cut = whole > len(content)
    return {"text": text_of(content, cut=cut), "cut": len(content) if cut else None}
