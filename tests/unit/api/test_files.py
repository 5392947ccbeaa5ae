"""The calls on files, with a real agent behind them."""

from __future__ import annotations

import errno
import os
import time
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlencode

import pytest
from flask.testing import FlaskClient

from app.agent.protocol import FILE_PIECE
from app.core.composition import Core
from app.core.redis import task_queue
from app.core.sessions.model import Status
from tests.fake_agent import FakeAgent
from tests.unit.api.helpers import Client, check_problem, meanwhile, move
from tests.unit.api.real_agent import Workspace
from tests.waiting import wait_for

LONG = bytes(range(256)) * (3 * FILE_PIECE // 256) + b"end"
"""Of several pieces, the last one short."""


class Files:
    """The calls on the files of one session."""

    def __init__(self, client: Client, uuid: str) -> None:
        self.client = client
        self.here = f"/session/{uuid}/files"

    def page(self, query: str = "") -> Any:
        return self.client.get(f"{self.here}?{query}")

    def names(self, query: str = "") -> list[str]:
        return [each["path"] for each in self.page(query).json["entries"]]

    def read(self, path: str, **headers: str) -> Any:
        return self.client.get(f"{self.here}/{quote(path)}", headers=named(headers))

    def write(self, path: str, content: bytes = b"", query: str = "", **headers: str) -> Any:
        return self.client.put(f"{self.here}/{quote(path)}?{query}", data=content, headers=named(headers))

    def delete(self, path: str, **headers: str) -> Any:
        return self.client.delete(f"{self.here}/{quote(path)}", headers=named(headers))

    def change(self, path: str, **body: Any) -> Any:
        return self.client.post(f"{self.here}/{quote(path)}", json=body)


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def files(client: Client, uuid: str, workspace: Workspace) -> Files:
    return Files(client, uuid)


@pytest.mark.parametrize("content", [b"", b"print('hi')\n", b"\xff\0" * 7, bytes(FILE_PIECE), LONG])
def test_what_is_written_is_read(files: Files, workspace: Workspace, content: bytes) -> None:
    written = files.write("src/deep/hello.py", content)
    assert (written.status_code, written.json["path"], written.json["size"]) == (201, "src/deep/hello.py", len(content))
    assert (workspace.app / "src/deep/hello.py").read_bytes() == content
    read = files.read("src/deep/hello.py")
    assert (read.status_code, read.data, read.content_type) == (200, content, "application/octet-stream")
    assert read.headers["ETag"] == written.headers["ETag"]
    assert read.content_length == len(content)
    assert os.listdir(workspace.app.parent / ".uploads") == []


def test_a_file_is_replaced_whole_and_keeps_its_mode(files: Files, workspace: Workspace) -> None:
    assert files.write("run", b"1", "mode=755").json["mode"] == "755"
    replaced = files.write("run", LONG)
    assert (replaced.status_code, replaced.json["mode"]) == (200, "755")
    assert files.write("run", b"2", "mode=0600").json["mode"] == "600"
    assert oct((workspace.app / "run").stat().st_mode) == "0o100600"


def test_a_file_of_the_epoch_or_of_before_has_a_time(files: Files, workspace: Workspace) -> None:
    """As those have that are unpacked of an archive without times."""
    files.write("old", b"")
    for seconds in (0, -1_000):
        os.utime(workspace.app / "old", (seconds, seconds))
        (entry,) = files.page("path=old").json["entries"]
        assert entry["modified_at"] == "1970-01-01T00:00:00.000Z"
        assert files.read("old").headers["Last-Modified"] == "Thu, 01 Jan 1970 00:00:00 GMT"


def test_a_body_that_the_client_ends_early_changes_nothing(files: Files, workspace: Workspace) -> None:
    files.write("kept", b"before")
    for content in (b"short", LONG):
        answer = files.client.put(
            f"{files.here}/kept",
            environ_overrides={
                "wsgi.input": BytesIO(content),
                "wsgi.input_terminated": True,
                "CONTENT_LENGTH": str(len(content) + 1),
            },
        )
        check_problem(answer, 400, "invalid_request")
    assert (workspace.app / "kept").read_bytes() == b"before"
    assert os.listdir(workspace.app.parent / ".uploads") == []


def test_parts_and_conditions_of_a_read(files: Files) -> None:
    etag = files.write("data", LONG).headers["ETag"]
    begin = FILE_PIECE - 2
    part = files.read("data", Range=f"bytes={begin}-{begin + 3}")
    assert (part.status_code, part.data) == (206, LONG[begin : begin + 4])
    assert part.headers["Content-Range"] == f"bytes {begin}-{begin + 3}/{len(LONG)}"
    assert files.read("data", Range="bytes=-3").data == b"end"
    check_problem(files.read("data", Range=f"bytes={len(LONG)}-"), 416, "range_not_satisfiable")
    assert files.read("data", If_None_Match=etag).status_code == 304
    assert files.read("data", If_Match=etag).status_code == 200
    check_problem(files.read("data", If_Match='"other"'), 412, "file_changed")
    assert files.read("data", Range="bytes=0-1", If_Range='"other"').data == LONG
    head = files.client.head(f"{files.here}/data")
    assert (head.status_code, head.data, head.content_length) == (200, b"", len(LONG))


def test_conditions_of_a_write(files: Files, workspace: Workspace) -> None:
    check_problem(files.write("a/new", b"", If_Match="*"), 412, "file_changed")
    assert not (workspace.app / "a").exists()
    first = files.write("a/new", b"1", If_None_Match="*")
    assert first.status_code == 201
    for content in (b"2", LONG):
        check_problem(files.write("a/new", content, If_None_Match="*"), 412, "file_changed")
        for other in ('"other"', 'W/"other"', f"W/{first.headers['ETag']}", "", ","):
            check_problem(files.write("a/new", content, If_Match=other), 412, "file_changed")
            check_problem(files.delete("a/new", If_Match=other), 412, "file_changed")
    second = files.write("a/new", LONG, If_Match=f'"other", {first.headers["ETag"]}')
    assert (second.status_code, second.headers["ETag"] != first.headers["ETag"]) == (200, True)
    assert files.write("a/new", b"3", If_Match="*").status_code == 200
    check_problem(files.write("a/new", b"", If_None_Match='"x"'), 400, "invalid_request")
    check_problem(files.write("a/new", b"", Content_Range="bytes 0-0/5"), 400, "invalid_request")
    check_problem(files.delete("a/new", If_Match=second.headers["ETag"]), 412, "file_changed")
    assert (workspace.app / "a/new").read_bytes() == b"3"


def test_a_file_changed_in_between_is_not_mixed(files: Files, workspace: Workspace) -> None:
    """One that grows is read to the end it had; one that is replaced or cut short breaks off."""
    path = workspace.app / "data"
    for change, whole in (("grow", True), ("replace", False), ("cut", False)):
        files.write("data", LONG)
        # Not the checked client's own, which reads to the end.
        answered: Any = FlaskClient.open(files.client, f"{files.here}/data", buffered=False)
        answer = iter(answered.response)
        read = next(answer)
        if change == "grow":
            with path.open("ab") as file:
                file.write(b"more")
        elif change == "replace":
            files.write("data", LONG)
        else:
            os.truncate(path, 7)
        if whole:
            assert read + b"".join(answer) == LONG
        else:
            with pytest.raises(Exception, match="not, or no longer"):
                list(answer)


@pytest.mark.parametrize("content", [b"short", LONG])
def test_one_replaced_before_its_first_bytes_are_read_is_looked_at_anew(
    files: Files, workspace: Workspace, core: Core, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """The answer is the new one; only a file that is replaced after each look is told as changed."""
    look, replaced = core.files.entry, iter([content, None])

    def and_replaced(*asked: Any) -> Any:
        found = look(*asked)
        if (new := next(replaced, None)) is not None:
            files.write("data", new)
        return found

    files.write("data", b"before")
    monkeypatch.setattr(core.files, "entry", and_replaced)
    answer = files.read("data")
    assert (answer.status_code, answer.data) == (200, content)
    replaced = iter([b"%d" % number for number in range(9)])
    check_problem(files.read("data"), 412, "file_changed")


def test_a_workspace_that_ends_before_the_first_bytes_is_told_as_a_problem(
    files: Files, workspace: Workspace, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = core.files.entry

    def and_asleep(*asked: Any) -> Any:
        found = look(*asked)
        workspace.sleep()
        return found

    files.write("data", b"here")
    monkeypatch.setattr(core.files, "entry", and_asleep)
    check_problem(files.read("data"), 409, "illegal_state")


def test_a_folder_is_listed_by_name_in_pages(files: Files, workspace: Workspace) -> None:
    for name in ("b/2", "b/1", "a", "c d", "c%20b", "new\nline", "ü"):
        files.write(name, b"x")
    (workspace.app / "link").symlink_to("b/1")
    os.mkfifo(workspace.app / "pipe")
    assert files.names() == ["a", "b", "c d", "c%20b", "link", "new\nline", "pipe", "ü"]
    assert files.names("path=b") == ["b/1", "b/2"]
    everything = ["a", "b", "b/1", "b/2", "c d", "c%20b", "link", "new\nline", "pipe", "ü"]
    assert files.names("depth=2") == everything
    cursor, paged = "", []
    for _ in everything:
        page = files.page(urlencode({"depth": 9, "limit": 2, **({"cursor": cursor} if cursor else {})})).json
        paged += [each["path"] for each in page["entries"]]
        if not (cursor := page["next_cursor"]):
            break
    assert paged == everything
    by_path = {each["path"]: each for each in files.page("depth=2").json["entries"]}
    assert (by_path["b/1"]["type"], by_path["b/1"]["size"], by_path["b/1"]["mode"]) == ("file", 1, "644")
    assert (by_path["b"]["type"], by_path["b"]["size"]) == ("folder", None)
    assert (by_path["link"]["type"], by_path["link"]["target"]) == ("link", "b/1")
    assert by_path["pipe"]["type"] == "other"
    assert by_path["a"]["modified_at"].startswith("20")


def test_one_entry_and_those_like_a_pattern(files: Files, workspace: Workspace) -> None:
    for name in ("a.py", "b/c.py", "b/c.txt", "b/d/e.py"):
        files.write(name)
    (workspace.app / "to").symlink_to("b")
    assert files.names("depth=9&glob=*.py") == ["a.py", "b/c.py", "b/d/e.py"]
    assert files.names("depth=9&glob=b/c*") == ["b/c.py", "b/c.txt"]
    assert files.names("path=b&depth=2&glob=d/*") == ["b/d/e.py"]
    assert files.names("path=a.py") == ["a.py"]
    assert files.names("path=b&depth=0") == ["b"]
    [link] = files.page("path=to&depth=0").json["entries"]
    assert (link["type"], link["target"]) == ("link", "b")
    assert files.names("path=to&depth=1")[0] == "b/c.py"
    check_problem(files.page("path=missing"), 404, "file_not_found")
    check_problem(files.page("path=b&cursor=a.py"), 400, "invalid_path")


def test_names_that_are_no_text(files: Files, workspace: Workspace) -> None:
    """They are listed with their bytes, by which they are read, moved and deleted."""
    name = b"a\xff%20/b\xfe \n?#;"
    at = workspace.app / os.fsdecode(name)
    at.parent.mkdir()
    at.write_bytes(b"x")
    folder, file = files.page("depth=2").json["entries"]
    assert (folder["path"], folder["raw_path"]) == ("a\ufffd%20", "a%FF%2520")
    assert files.page(f"path={folder['raw_path']}").json["entries"][0]["raw_path"] == file["raw_path"]

    def call(method: str, raw: str, **more: Any) -> Any:
        path = unquote_to_bytes(f"{files.here}/{raw}").decode("latin-1")
        return files.client.open(files.here, method=method, environ_overrides={"PATH_INFO": path}, **more)

    assert call("GET", file["raw_path"]).data == b"x"
    assert call("PUT", file["raw_path"], data=b"y").status_code == 200
    assert at.read_bytes() == b"y"
    assert call("POST", file["raw_path"], json={"move_to": "text"}).json["path"] == "text"
    assert call("DELETE", folder["raw_path"]).status_code == 204
    assert files.names() == ["text"]


def test_what_is_deleted_is_gone_with_all_in_it(files: Files, workspace: Workspace) -> None:
    files.write("b/d/e")
    (workspace.app / "to").symlink_to("b")
    (workspace.app / "b/d").chmod(0o500)
    assert files.delete("to").status_code == 204
    assert files.names("depth=3") == ["b", "b/d", "b/d/e"]
    (workspace.app / "b").chmod(0o500)
    assert files.delete("b").status_code == 204
    assert files.names() == []
    wait_for(lambda: not os.listdir(workspace.app.parent / ".uploads"), "its content to be deleted")
    check_problem(files.delete("b"), 404, "file_not_found")
    check_problem(files.delete("."), 400, "invalid_path")


def test_what_is_moved_overwrites_nothing(files: Files, workspace: Workspace) -> None:
    files.write("a/b", b"1")
    files.write("other", b"2")
    assert files.change("a", move_to="x/y").json["path"] == "x/y"
    assert files.names("depth=3") == ["other", "x", "x/y", "x/y/b"]
    check_problem(files.change("x/y/b", move_to="other"), 409, "file_exists")
    check_problem(files.change("other", move_to="x"), 409, "file_exists")
    check_problem(files.change("x", move_to="x/y/z"), 400, "invalid_path")
    check_problem(files.change("missing", move_to="z"), 404, "file_not_found")
    check_problem(files.change(".", move_to="z"), 400, "invalid_path")
    assert (workspace.app / "other").read_bytes() == b"2"


def test_a_folder_is_made(files: Files, workspace: Workspace) -> None:
    made = files.change("a/b", make="folder")
    assert (made.status_code, made.json["type"], made.json["path"]) == (201, "folder", "a/b")
    assert files.change("a/b", make="folder").status_code == 200
    files.write("file")
    check_problem(files.change("file", make="folder"), 409, "file_exists")
    for body in ({}, {"make": "file"}, {"make": "folder", "move_to": "x"}, {"move_to": ""}, {"more": 1}):
        check_problem(files.change("c", **body), 400, "invalid_request")


@pytest.mark.parametrize("path", ["../.session/history.json", "/etc/passwd", "a/../../token", "out", "out/x", "a\0b"])
def test_no_path_leads_out(files: Files, workspace: Workspace, path: str) -> None:
    (workspace.app / "out").symlink_to("../home")
    (workspace.app / "a").mkdir()
    (workspace.app.parent / "home" / "x").write_text("secret")
    check_problem(files.read(path), 400, "invalid_path")
    check_problem(files.write(path), 400, "invalid_path")
    assert files.change("a", move_to=path).status_code in (400, 409)
    assert files.page(urlencode({"path": path})).status_code == 400
    assert sorted(os.listdir(workspace.app.parent / "home")) == ["x"]
    assert (workspace.app.parent / "home" / "x").read_text() == "secret"


def test_what_is_no_file(files: Files, workspace: Workspace) -> None:
    files.write("folder/file")
    os.mkfifo(workspace.app / "pipe")
    (workspace.app / "loop").symlink_to("loop")
    for path in ("folder", "pipe", "."):
        check_problem(files.read(path), 409, "not_a_file")
        check_problem(files.write(path, b"x"), 409, "not_a_file")
        check_problem(files.write(path, LONG), 409, "not_a_file")
    for path in ("folder/file/x", "missing", "missing/x"):
        assert files.read(path).status_code in (404, 409)
    check_problem(files.write("folder/file/x"), 409, "not_a_file")
    check_problem(files.read("loop"), 400, "invalid_path")


def test_links_are_followed_inside(files: Files, workspace: Workspace) -> None:
    files.write("folder/file", b"1")
    (workspace.app / "short").symlink_to("folder/file")
    (workspace.app / "absolute").symlink_to(workspace.app / "folder")
    (workspace.app / "dangling").symlink_to("folder/new")
    assert files.read("short").data == files.read("absolute/file").data == b"1"
    assert files.write("short", b"2").json["path"] == "folder/file"
    assert (workspace.app / "short").is_symlink()
    assert (workspace.app / "folder/file").read_bytes() == b"2"
    assert files.write("dangling", b"3").json["path"] == "folder/new"


def test_a_full_disk_is_said_and_nothing_is_changed(
    files: Files, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write("kept", b"before")

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("app.agent.files.uploads.os.pwrite", full)
    check_problem(files.write("kept", b"after"), 507, "workspace_full")
    check_problem(files.write("kept", LONG), 507, "workspace_full")
    monkeypatch.undo()
    assert (workspace.app / "kept").read_bytes() == b"before"
    assert os.listdir(workspace.app.parent / ".uploads") == []


@pytest.mark.settings(body_budget_bytes=3 * FILE_PIECE + 100_000, files_at_once=100)
def test_long_files_that_pass_hold_a_part_of_the_budget_and_no_more_than_that(files: Files, core: Core) -> None:
    assert files.write("a", LONG).status_code == 201
    answer: Any = FlaskClient.open(files.client, f"{files.here}/a", buffered=False)
    check_problem(files.read("a"), 503, "busy")
    answer.close()
    assert files.read("a").data == LONG
    assert core.budget.left == 3 * FILE_PIECE + 100_000


def test_an_agent_that_gives_little_at_a_time_is_not_asked_on(
    files: Files, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write("a", LONG)
    asked = []

    def little(*arguments: Any) -> bytes:
        asked.append(arguments)
        return b"x"

    monkeypatch.setattr("app.agent.files.reading.read", little)
    assert files.read("a").data == b"x"
    assert len(asked) == 1


@pytest.mark.settings(file_max_bytes=10)
def test_a_larger_file_is_a_413(files: Files, workspace: Workspace) -> None:
    assert files.write("a", b"x" * 10).status_code == 201
    check_problem(files.write("b", b"x" * 11), 413, "payload_too_large")
    assert files.names() == ["a"]


def test_a_sleeping_session_is_woken(files: Files, core: Core, uuid: str, workspace: Workspace) -> None:
    files.write("a", b"1")
    workspace.sleep()
    for answer in (
        files.page("wake=false"),
        files.client.get(f"{files.here}/a?wake=false"),
        files.write("b", LONG, "wake=false"),
    ):
        check_problem(answer, 409, "asleep")
    meanwhile(lambda: core.store.get(uuid).status is Status.WAKING, workspace.wake)
    assert files.read("a").data == b"1"
    assert core.store.get(uuid).task == task_queue.WAKE
    assert core.activity.read(uuid)["files"].at > time.time() - 60


def test_an_upload_that_outlives_its_agent_changes_nothing(files: Files, workspace: Workspace, uuid: str) -> None:
    """The next agent knows nothing of it, and keeps nothing of it."""
    files.write("kept", b"before")

    class Body:
        def __init__(self) -> None:
            self.parts = iter([LONG[:FILE_PIECE]] * 5)

        def read(self, size: int = -1) -> bytes:
            part = next(self.parts, b"")
            if not part:
                workspace.stop()
                workspace.start()
            return part

    answer = files.client.put(
        f"{files.here}/kept", environ_overrides={"wsgi.input": Body(), "wsgi.input_terminated": True}
    )
    check_problem(answer, 503, "temporarily_unavailable")
    assert (workspace.app / "kept").read_bytes() == b"before"
    uploads = workspace.app.parent / ".uploads"
    wait_for(lambda: not os.listdir(uploads), "the next agent to remove what is left")


def test_a_session_that_is_put_to_sleep_meanwhile_is_not_woken(
    files: Files, core: Core, uuid: str, workspace: Workspace
) -> None:
    """Neither by a write nor by a read; both say or show that they broke off."""
    files.write("kept", LONG)

    class Body:
        def __init__(self) -> None:
            self.parts = iter([LONG[:FILE_PIECE]] * 3)

        def read(self, size: int = -1) -> bytes:
            part = next(self.parts, b"")
            if not part and core.store.get(uuid).status is not Status.SLEEPING:
                workspace.sleep()
            return part

    answer = files.client.put(
        f"{files.here}/kept", environ_overrides={"wsgi.input": Body(), "wsgi.input_terminated": True}
    )
    check_problem(answer, 409, "illegal_state")
    assert core.store.get(uuid).status is Status.SLEEPING
    workspace.wake()
    answered: Any = FlaskClient.open(files.client, f"{files.here}/kept", buffered=False)
    pieces = iter(answered.response)
    assert next(pieces) == LONG[:FILE_PIECE]
    workspace.sleep()
    with pytest.raises(Exception, match="was ended"):
        list(pieces)


def test_a_session_that_cannot_run(client: Client, core: Core, uuid: str) -> None:
    move(core, uuid, Status.FAILED, reason="no volume")
    check_problem(Files(client, uuid).read("a"), 409, "illegal_state")
    check_problem(Files(client, "zzzzzzzz").write("a"), 404, "session_not_found")


def test_an_agent_that_lies_or_hangs_costs_a_503(client: Client, core: Core, uuid: str, agent: FakeAgent) -> None:
    """Whatever it answers: no page of another kind, no file without its size, no endless list."""
    core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    files = Files(client, uuid)
    for raw in (b"{}", b"[]", b'{"entries": 7}', b'{"path": "a", "type": "folder"}', b"\xff", b"[" * 10_000):
        agent.raw_response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(raw), raw)
        assert files.page().status_code == 503
        assert files.read("a").status_code == 503
        assert files.write("a", b"x").status_code == 503
        assert files.write("a", LONG).status_code == 503


def test_wrong_queries(files: Files, tmp_path: Path) -> None:
    for query in (
        "depth=-1",
        "depth=101",
        "limit=0",
        "limit=1001",
        "cursor=",
        "cursor=%0a",
        "more=1",
        "path=",
        "path=%00",
    ):
        check_problem(files.page(query), 400, "invalid_request")
    for query in ("mode=888", "mode=7", "mode=1777", "mode=", "more=1"):
        check_problem(files.write("a", b"", query), 400, "invalid_request")
    assert files.names() == []
