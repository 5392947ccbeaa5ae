"""Values in the words of pages."""

from __future__ import annotations

from typing import Any

import pytest

from app.look.words import restored_files, size


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (
            {"files": 10_000, "bytes": 304_000_000, "of": "2026-05-03T14:02:11.000Z"},
            "10,000 files, 304 MB, of 3 May 2026, 14:02 UTC",
        ),
        ({"files": 1, "bytes": 0, "of": None}, "1 file, 0 B"),
        ({"of": "2026-05-03T14:02:11+02:00"}, "of 3 May 2026, 12:02 UTC"),
        ({}, ""),
    ],
)
def test_what_a_restore_brings_is_said_as_far_as_it_is_known(known: dict[str, Any], words: str) -> None:
    assert restored_files(known) == words


@pytest.mark.parametrize(("value", "words"), [(None, "–"), (999, "999 B"), (1_200_000, "1.2 MB"), (2e15, "2000.0 TB")])
def test_bytes_have_the_unit_that_people_read(value: float | None, words: str) -> None:
    assert size(value) == words
