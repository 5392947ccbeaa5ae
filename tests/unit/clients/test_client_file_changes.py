"""Changes of files: how they are followed, and what sessionctl prints of them."""

from __future__ import annotations

import json
import os

import httpx
import pytest

from tests.unit.clients.api import UUID, Api, asked, entry, problem, sse, stream
from tests.unit.clients.conftest import Sessionctl
from workspaces import (
    FilesAsleepEvent,
    FilesChangedEvent,
    FilesResetEvent,
    InvalidPath,
    NotWatched,
    StateConflict,
)
from workspaces.cli.context import FAILED

HERE = f"/session/{UUID}/changes"
ID = "0123456789abcdef"


RESET = sse(f"{ID}-0", "reset", path="src", complete=True)
CHANGED = sse(
    f"{ID}-3",
    "changed",
    path="src",
    gone=[{"path": "src/\ufffd", "raw_path": "src/%FF"}],
    entries=[entry("src/new.py"), entry("src/made", type="folder", size=None)],
)
ASLEEP = sse("0", "asleep", status="sleeping")


def test_what_changes_is_followed_and_no_call_wakes() -> None:
    api = Api(stream(RESET, ": still here\n\n", CHANGED, ASLEEP), problem(409, "illegal_state"))
    events = api.client().files.watch(UUID, "src", depth=3, glob="*.py")
    reset, changed, asleep = next(events), next(events), next(events)
    assert isinstance(reset, FilesResetEvent) and (reset.path, reset.complete) == ("src", True)
    assert isinstance(changed, FilesChangedEvent) and (changed.id, changed.path) == (f"{ID}-3", "src")
    assert [each.exact_path for each in changed.gone] == [os.fsdecode(b"src/\xff")]
    assert [(each.path, each.type) for each in changed.entries] == [("src/new.py", "file"), ("src/made", "folder")]
    assert isinstance(asleep, FilesAsleepEvent) and asleep.status == "sleeping"
    with pytest.raises(StateConflict):
        next(events)
    assert asked(api) == [f"GET {HERE}?path=src&depth=3&glob=%2A.py"] * 2
    assert [each.headers.get("Last-Event-ID") for each in api.requests] == [None, "0"]
    assert api.requests[0].headers["Accept"] == "text/event-stream"


@pytest.mark.parametrize("breaks", [True, False])
def test_changes_are_followed_on_where_the_connection_broke(breaks: bool) -> None:
    api = Api(stream(RESET, breaks=breaks), httpx.ConnectError("refused"), stream(CHANGED))
    events = api.client().workspace(UUID).watch("src", after=f"{ID}-0")
    assert [next(events).type, next(events).type] == ["reset", "changed"]
    events.close()
    assert [each.headers["Last-Event-ID"] for each in api.requests] == [f"{ID}-0"] * 3


@pytest.mark.parametrize(
    ("status", "code", "error"), [(400, "invalid_path", InvalidPath), (503, "not_watched", NotWatched)]
)
def test_what_can_not_be_followed_is_said(status: int, code: str, error: type[Exception]) -> None:
    api = Api(*[problem(status, code)] * 9)
    with pytest.raises(error):
        next(api.client().files.watch(UUID, "../out"))


def test_sessionctl_prints_a_line_for_each_change(sessionctl: Sessionctl) -> None:
    begun = sessionctl(Api(stream(RESET, CHANGED, ASLEEP), problem(409, "illegal_state")), "watch", UUID, "src")
    assert begun.code == FAILED
    assert begun.out == "gone     src/\ufffd\nchanged  src/new.py\nchanged  src/made/\n"
    assert "Watching src." in begun.err and "does not run" in begun.err


def test_sessionctl_prints_the_events_as_json(sessionctl: Sessionctl) -> None:
    reset = sse(f"{ID}-0", "reset", path=".", complete=False)
    api = Api(stream(reset, CHANGED), problem(409, "illegal_state"))
    told = sessionctl(api, "watch", UUID, "--glob", "*.py", "--json").out.splitlines()
    assert [json.loads(line)["type"] for line in told] == ["reset", "changed"]
    assert asked(api)[0] == f"GET {HERE}?path=.&depth=100&glob=%2A.py"
