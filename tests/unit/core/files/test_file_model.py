"""What an agent tells of files is a stranger's: it has the types of a true answer, or is refused."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.files.model import entry_of, file_of, listing_of
from tests.fake_agent import FILE

WRONG: dict[str, Any] = {
    "no object": 7,
    "another type": {**FILE, "type": "socket"},
    "no path": {**FILE, "path": None},
    "a path that is not encoded": {**FILE, "path": "a b"},
    "a size that is a text": {**FILE, "size": "1"},
    "a negative size": {**FILE, "size": -1},
    "a flag for a size": {**FILE, "size": True},
    "a mode that is a number": {**FILE, "mode": 0o644},
    "a mode that is none": {**FILE, "mode": "rw-"},
    "a time that is none": {**FILE, "modified_at": 1e12},
    "an endless time": {**FILE, "modified_at": float("inf")},
    "a target that is a number": {**FILE, "target": 7},
    "an etag of two lines": {**FILE, "etag": "a\r\nSet-Cookie: x"},
    "an endless etag": {**FILE, "etag": "a" * 65},
}


def test_a_true_answer_is_read() -> None:
    found = entry_of("k3v9x0qa", {**FILE, "path": "a%FF%20b", "type": "link", "target": "../c", "size": None})
    assert (found.uuid, found.path, found.target, found.size) == ("k3v9x0qa", "a\udcff b", "../c", None)
    page = listing_of("k3v9x0qa", {"path": ".", "entries": [FILE], "after": "a%20b"})
    assert ([each.path for each in page.entries], page.next_cursor) == (["a"], "a%20b")
    assert listing_of("k3v9x0qa", {"path": ".", "entries": [], "after": None}).next_cursor is None


@pytest.mark.parametrize("told", WRONG.values(), ids=WRONG)
def test_anything_else_is_refused(told: Any) -> None:
    with pytest.raises(ValueError, match="no "):
        entry_of("k3v9x0qa", told)
    with pytest.raises(ValueError, match="no "):
        listing_of("k3v9x0qa", {"path": ".", "entries": [told], "after": None})


@pytest.mark.parametrize("told", [{**FILE, "type": "folder"}, {**FILE, "size": None}, {**FILE, "etag": None}])
def test_a_file_has_bytes(told: Any) -> None:
    with pytest.raises(ValueError, match="no file"):
        file_of("k3v9x0qa", told)


@pytest.mark.parametrize(
    "told", [{}, {"path": "."}, {"path": ".", "entries": {}}, {"path": ".", "entries": [], "after": "a b"}]
)
def test_a_listing_has_entries(told: Any) -> None:
    with pytest.raises(ValueError, match="no "):
        listing_of("k3v9x0qa", told)
