"""Events in words."""

from __future__ import annotations

from typing import Any

import pytest

from app.web.session.happenings import TYPES, happening

AT = "2026-11-20T08:00:00.000Z"


@pytest.mark.parametrize(
    ("kind", "data", "text", "detail"),
    [
        ("state", {"status": "active"}, "Awake", ""),
        ("state", {"status": "sleeping"}, "Going to sleep", ""),
        ("phase", {"phase": "stopped", "ms": 575}, "No process runs any more", "after 575 ms"),
        ("state", {"status": "failed", "reason": "No image."}, "Failed", "No image."),
        ("phase", {"phase": "enqueued", "ms": 1_300}, "Queue done", "after 1.3 s"),
        ("phase", {"phase": "deleting", "ms": 5}, "Deleting", "after 5 ms"),
        (
            "phase",
            {"phase": "restoring", "ms": 5, "files": 1, "bytes": 304_000_000, "of": AT},
            "Restoring",
            "1 file, 304 MB, of 20 Nov 2026, 08:00 UTC, after 5 ms",
        ),
        ("backup", {"status": "done", "name": "app.zip"}, "Backed up", "app.zip"),
        ("backup", {"status": "failed", "reason": "No room."}, "Backup failed", "No room."),
        (
            "risk",
            {"jobs": {"count": 1, "names": ["make"]}, "complete": True},
            "Stopped with unsaved work",
            "1 program running in a terminal: make",
        ),
        ("restore_point", {"status": "done", "unchanged": True}, "Saved", "nothing had changed"),
        ("restore_point", {"status": "failed", "reason": "Away."}, "No restore point could be made", "Away."),
        ("files_lost", {"files_of": AT}, "The volume was lost", f"restoring the files of {AT}"),
        ("files_restored", {"files_of": AT}, "Files restored", f"those of {AT}"),
        ("rolled_back", {"status": "done", "files_of": AT}, "Rolled back", f"to the files of {AT}"),
        ("rolled_back", {"status": "done", "message_id": "m1"}, "Rolled back", "to before message m1"),
        ("rolled_back", {"status": "failed", "reason": "Away."}, "Rollback called off", "Away."),
        ("forked_from", {"uuid": "k3v9x0qa", "files_of": AT}, "Forked", f"from k3v9x0qa, with the files of {AT}"),
        ("revoked", {"access_epoch": 2}, "All access revoked", ""),
    ],
)
def test_each_event_is_said_in_words(kind: str, data: dict[str, Any], text: str, detail: str) -> None:
    shown = happening({"type": kind, "at": AT, "data": data})
    assert (shown.text, shown.detail) == (text, detail)


@pytest.mark.parametrize("kind", TYPES)
def test_an_event_of_a_later_release_may_lack_any_field(kind: str) -> None:
    assert happening({"type": kind, "at": AT, "data": {}}).text
