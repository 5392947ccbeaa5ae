"""The stream of changes of files, with a real agent behind it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.agent.files import watch
from app.core.composition import Core
from app.core.files import changes
from app.core.sessions.model import Status
from tests.events import Events
from tests.unit.api.helpers import Client, check_problem, move
from tests.unit.api.real_agent import Workspace


class Stream:
    """What a client is told, event by event."""

    def __init__(self, client: Client, uuid: str, query: str = "", **headers: str) -> None:
        self.answer = client.get(
            f"/session/{uuid}/changes?{query}",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        self.lines = (line for part in self.answer.response for line in part.decode().split("\n"))
        self.events = Events(self.lines)

    def __next__(self) -> tuple[str, Any]:
        return next(self.events)

    def changed(self, *paths: str) -> None:
        """Takes in changes until these have been told, and no other."""
        left = set(paths)
        while left:
            kind, data = next(self)
            assert kind == "changed", data
            told = {each["path"] for each in (*data["entries"], *data["gone"])}
            assert told <= set(paths)
            left -= told


@pytest.fixture
def follow(client: Client, uuid: str, workspace: Workspace) -> Iterator[Any]:
    opened = []

    def begin(query: str = "", **headers: str) -> Stream:
        opened.append(stream := Stream(client, uuid, query, **headers))
        return stream

    yield begin
    for stream in opened:
        stream.answer.close()


def test_changes_come_as_they_happen(follow: Any, workspace: Workspace, uuid: str) -> None:
    stream = follow("depth=9")
    assert next(stream) == ("reset", {"path": ".", "complete": True})
    (workspace.app / "hello.py").write_text("print('hi')\n")
    kind, data = next(stream)
    assert (kind, data["path"], data["gone"]) == ("changed", ".", [])
    (entry,) = data["entries"]
    assert (entry["uuid"], entry["path"], entry["type"], entry["size"]) == (uuid, "hello.py", "file", 12)
    (workspace.app / "src").mkdir()
    (workspace.app / "hello.py").rename(workspace.app / "src" / "hello.py")
    stream.changed("src", "hello.py", "src/hello.py")
    shutil.rmtree(workspace.app / "src")
    stream.changed("src/hello.py", "src")


def test_a_stream_goes_on_after_what_its_client_knows(follow: Any, workspace: Workspace) -> None:
    first = follow()
    next(first)
    (workspace.app / "one").touch()
    first.changed("one")
    known = first.events.last_id
    (workspace.app / "two").touch()
    again = follow(Last_Event_ID=known)
    again.changed("two")
    for unknown in ("0", f"{'0' * 16}-1", f"{known}9"):
        assert next(follow(Last_Event_ID=unknown))[0] == "reset"


@pytest.mark.parametrize("id_", ["", "1-2-3", "x", "0" * 40, "é"])
def test_what_is_no_id_of_an_event_is_refused(client: Client, uuid: str, workspace: Workspace, id_: str) -> None:
    answer = client.get(f"/session/{uuid}/changes", headers={"Last-Event-ID": id_})
    check_problem(answer, 400, "invalid_request")


def test_only_what_is_asked_for_is_told(follow: Any, workspace: Workspace) -> None:
    (workspace.app / "src" / "deep").mkdir(parents=True)
    stream = follow("path=src&glob=*.py")
    assert next(stream) == ("reset", {"path": "src", "complete": True})
    for path in ("other.py", "src/one.txt", "src/deep/two.py", "src/three.py"):
        (workspace.app / path).touch()
    stream.changed("src/three.py")


def test_names_that_are_no_text(follow: Any, workspace: Workspace) -> None:
    stream = follow("depth=2")
    next(stream)
    Path(os.fsdecode(os.fsencode(workspace.app) + b"/\xff")).touch()
    _, data = next(stream)
    assert [(each["path"], each["raw_path"]) for each in data["entries"]] == [("\ufffd", "%FF")]
    Path(os.fsdecode(os.fsencode(workspace.app) + b"/\xff")).unlink()
    _, data = next(stream)
    assert data["gone"] == [{"path": "\ufffd", "raw_path": "%FF"}]


def test_what_is_not_there_is_an_answer_and_no_stream(client: Client, uuid: str, workspace: Workspace) -> None:
    for query, status, code in (
        ("path=none", 404, "file_not_found"),
        ("path=../app", 400, "invalid_path"),
        ("path=node_modules/left-pad", 404, "file_not_found"),
        ("depth=101", 400, "invalid_request"),
        ("wake=true", 400, "invalid_request"),
    ):
        check_problem(client.get(f"/session/{uuid}/changes?{query}"), status, code)
    (workspace.app / "node_modules").mkdir()
    check_problem(client.get(f"/session/{uuid}/changes?path=node_modules"), 400, "invalid_path")
    check_problem(client.get("/session/zzzzzzzz/changes"), 404, "session_not_found")


def test_a_machine_that_watches_no_more_says_so(
    client: Client, uuid: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(watch, "INotify", no_more)
    answer = client.get(f"/session/{uuid}/changes")
    check_problem(answer, 503, "not_watched")
    assert "Retry-After" in answer.headers


def test_who_follows_wakes_nothing_and_is_no_use(
    follow: Any, core: Core, uuid: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "QUIET", 0.1)
    stream = follow()
    next(stream)
    workspace.sleep()
    assert next(stream) == ("asleep", {"status": "sleeping"})
    assert next(follow()) == ("asleep", {"status": "sleeping"})
    # It is still there.
    assert any(line == ": still here" for line in stream.lines)
    assert core.store.get(uuid).status is Status.SLEEPING
    assert "files" not in core.activity.read(uuid)
    workspace.wake()
    assert next(stream) == ("reset", {"path": ".", "complete": True})
    (workspace.app / "after").touch()
    stream.changed("after")


def test_a_new_agent_is_a_reason_to_look(follow: Any, workspace: Workspace) -> None:
    stream = follow()
    next(stream)
    workspace.stop()
    (workspace.app / "meanwhile").touch()
    workspace.start()
    assert next(stream)[0] == "reset"


def test_a_stream_ends_with_its_session(follow: Any, core: Core, uuid: str, workspace: Workspace) -> None:
    stream = follow()
    next(stream)
    workspace.sleep()
    assert next(stream)[0] == "asleep"
    move(core, uuid, Status.TERMINATING)
    assert list(stream.events) == []
