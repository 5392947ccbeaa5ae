"""Files: what is sent, what is sent again, how they are read where connections break, and what a name may be."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import pytest

from tests.unit.clients.api import (
    UUID,
    Api,
    Body,
    Broken,
    Turn,
    answer,
    asked,
    content_of,
    entry,
    listed,
    problem,
    wrote,
)
from workspaces import (
    ApiError,
    Asleep,
    ConnectionFailed,
    FileChanged,
    FileThere,
    InvalidAnswer,
    InvalidPath,
    NoSuchFile,
    NotAFile,
    TooLarge,
    WakeLate,
    WorkspaceFull,
    Workspaces,
    WorkspacesError,
)

HERE = f"/session/{UUID}/files"
CONTENT = bytes(range(256)) * 1_000
LOST = httpx.ReadTimeout("no answer")
NO_UTF8 = os.fsdecode(b"src/\xff \xc3\xbc%.py")
"""A path as `os.listdir` gives it; the next one is the same in a URL."""
NO_UTF8_QUOTED = "src/%FF%20%C3%BC%25.py"


class Sent(Api):
    """Reads the content of each request as a connection does, in pieces and anew for a repetition."""

    def __init__(self, *turns: Turn) -> None:
        super().__init__(*turns)
        self.contents: list[bytes] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        stream = request.stream
        assert isinstance(stream, httpx.SyncByteStream)
        pieces = [*stream]
        assert all(len(piece) <= 65_536 for piece in pieces)
        self.contents.append(b"".join(pieces))
        turn = self.turns.pop(0)
        self.requests.append(request)
        if isinstance(turn, Exception):
            raise turn
        assert isinstance(turn, httpx.Response)
        return turn


class Pipe(io.BytesIO):
    """A file object that can be read once."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation


# Listing


def test_all_pages_are_listed() -> None:
    api = Api(
        listed(entry("a.py"), next_cursor="c1"), listed(entry("b", type="folder", size=None, mode="755", etag=None))
    )
    found = [*api.client().files.list(UUID, "src dir", depth=3, glob="*.py", wake=False)]
    assert [(each.path, each.type, each.size, each.etag) for each in found] == [
        ("a.py", "file", 12, '"v1"'),
        ("b", "folder", None, None),
    ]
    first = f"GET {HERE}?path=src+dir&depth=3&glob=%2A.py&wake=false"
    assert asked(api) == [first, f"{first}&cursor=c1"]


def test_one_file_is_looked_at_without_what_is_in_it() -> None:
    api = Api(listed(entry("l", type="link", target="../b")), listed())
    assert api.client().files.info(UUID, "l").target == "../b"
    assert asked(api) == [f"GET {HERE}?path=l&depth=0"]
    with pytest.raises(InvalidAnswer):
        api.client().files.info(UUID, "l")


# Names


def test_a_name_that_is_no_utf8_is_asked_for_by_its_bytes() -> None:
    api = Api(listed(entry("src/\ufffd ü%.py", raw_path=NO_UTF8_QUOTED)), listed(), content_of(b"x"))
    files = api.client().files
    (found,) = files.list(UUID)
    assert found.exact_path == NO_UTF8
    assert [*files.list(UUID, found.exact_path)] == []
    assert files.read(UUID, found.exact_path) == b"x"
    assert asked(api)[1:] == [f"GET {HERE}?path=src%2F%FF+%C3%BC%25.py", f"GET {HERE}/{NO_UTF8_QUOTED}"]


def test_the_path_of_another_name_is_its_own() -> None:
    (found,) = Api(listed(entry("ü%41"))).client().files.list(UUID)
    assert found.exact_path == "ü%41"


def test_the_slashes_of_a_path_stay_and_all_else_is_quoted() -> None:
    api = Api(content_of(b""))
    api.client().files.read(UUID, "./a//?x=#/%2e%2e;/\n/")
    assert asked(api) == [f"GET {HERE}/a/%3Fx%3D%23/%252e%252e%3B/%0A"]


@pytest.mark.parametrize("path", ["", ".", "./", "/etc/passwd", "..", "../x", "a/../../../sessions", "a/.."])
def test_a_path_never_leads_to_another_call(path: str) -> None:
    files = Api().client().files
    calls: list[Callable[[], Any]] = [
        lambda: files.read(UUID, path),
        lambda: files.write(UUID, path, ""),
        lambda: files.delete(UUID, path),
        lambda: files.move(UUID, path, "b"),
        lambda: files.make_folder(UUID, path),
    ]
    for call in calls:
        with pytest.raises(InvalidPath) as raised:
            call()
        assert raised.value.code == "invalid_path"


# Reading


def part(status: int, content: bytes, *, of: int, breaks: bool = False, etag: str = '"v1"') -> httpx.Response:
    """An answer that promises `of` bytes and brings these."""
    body = Broken(content) if breaks else Body(content)
    return httpx.Response(status, stream=body, headers={"Content-Length": str(of), "ETag": etag})


def broken() -> list[Turn]:
    """The answers to a read that breaks off three times."""
    size = len(CONTENT)
    return [
        part(200, CONTENT[:1_000], of=size, breaks=True),
        httpx.ConnectError("refused"),
        part(206, CONTENT[1_000:5_000], of=size - 1_000),
        part(206, CONTENT[5_000:], of=size - 5_000),
    ]


def test_a_file_is_read_on_where_the_connection_broke_if_it_is_the_same() -> None:
    api = Api(*broken())
    assert api.client().files.read(UUID, "a b", wake=False) == CONTENT
    assert {*asked(api)} == {f"GET {HERE}/a%20b?wake=false"}
    last = len(CONTENT) - 1
    assert [(each.headers.get("Range"), each.headers.get("If-Match")) for each in api.requests] == [
        (None, None),
        *[(f"bytes=1000-{last}", '"v1"')] * 2,
        (f"bytes=5000-{last}", '"v1"'),
    ]
    assert api.requests[0].headers["Accept"] == "application/octet-stream"


@pytest.mark.parametrize(
    "next_turn",
    [problem(412, "file_changed"), httpx.Response(412), part(206, b"yz", of=2, etag='"v2"'), content_of(b"xyz")],
    ids=["refused", "by status", "another etag", "whole"],
)
def test_a_file_that_changes_while_it_is_read_is_an_error(next_turn: httpx.Response) -> None:
    error: type[WorkspacesError] = InvalidAnswer if next_turn.status_code == 200 else FileChanged
    with Api(part(200, b"x", of=3), next_turn).client().files.stream(UUID, "a") as pieces:
        assert next(pieces) == b"x"
        with pytest.raises(error):
            next(pieces)


@pytest.mark.parametrize("to", [".", "new.py"])
def test_a_download_goes_to_a_file_or_into_a_folder(tmp_path: Path, to: str) -> None:
    api = Api(*broken())
    found = api.client().files.download(UUID, "src/a.py", tmp_path / to, mode="4750")
    assert found == tmp_path / ("a.py" if to == "." else to)
    assert (found.read_bytes(), found.stat().st_mode & 0o7777) == (CONTENT, 0o750)
    assert [*tmp_path.iterdir()] == [found]


@pytest.mark.parametrize(
    ("turns", "error"),
    [
        ([part(200, b"x", of=2), problem(412, "file_changed")], FileChanged),
        ([part(200, b"x", of=2), *[httpx.ConnectError("refused")] * 9], ConnectionFailed),
        ([problem(404, "file_not_found")], NoSuchFile),
    ],
)
def test_a_download_that_is_not_whole_leaves_nothing(
    tmp_path: Path, turns: list[Turn], error: type[WorkspacesError]
) -> None:
    (tmp_path / "a.py").write_bytes(b"from before")
    with pytest.raises(error):
        Api(*turns).client().files.download(UUID, "src/a.py", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.py"]
    assert (tmp_path / "a.py").read_bytes() == b"from before"


def test_a_download_has_the_longest_name_that_a_file_may_have(tmp_path: Path) -> None:
    found = Api(content_of(b"x")).client().files.download(UUID, "n" * 255, tmp_path)
    assert found.read_bytes() == b"x"


# Writing


def test_a_file_is_written_and_answered_with_its_etag() -> None:
    api = Sent(wrote("src/ü"), wrote(), wrote(status=200))
    files = api.client().files
    found = files.write(UUID, "src/ü", "text ü", mode="755", wake=False)
    assert (found.path, found.uuid, found.etag) == ("src/ü", UUID, '"v2"')
    files.write(UUID, "a", b"\xff", if_match=found.etag)
    files.write(UUID, "a", b"", new=True)
    assert api.contents == ["text ü".encode(), b"\xff", b""]
    assert asked(api) == [f"PUT {HERE}/src/%C3%BC?mode=755&wake=false", *[f"PUT {HERE}/a"] * 2]
    first, second, third = (each.headers for each in api.requests)
    assert (first["Content-Type"], first["Content-Length"]) == ("application/octet-stream", "7")
    assert not {"if-match", "if-none-match", "idempotency-key"} & {*first}
    assert (second["If-Match"], third["If-None-Match"], third["Content-Length"]) == ('"v2"', "*", "0")


def test_a_file_object_is_sent_from_where_it_stands_in_pieces() -> None:
    api = Sent(wrote())
    file = io.BytesIO(CONTENT)
    file.seek(10)
    api.client().files.write(UUID, "a", file)
    assert api.contents == [CONTENT[10:]]
    headers = api.requests[0].headers
    assert (headers["Content-Length"], "Transfer-Encoding" in headers) == (str(len(CONTENT) - 10), False)


def test_a_file_that_grows_while_it_is_sent_is_sent_as_long_as_it_was() -> None:
    class Growing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            found = super().read(size)
            self.write(b"more")
            self.seek(-4, io.SEEK_CUR)
            return found

    api = Sent(wrote())
    api.client().files.write(UUID, "a", Growing(b"begin"))
    assert api.contents == [b"begin"]


def test_a_pipe_is_sent_without_a_length() -> None:
    api = Sent(wrote())
    api.client().files.write(UUID, "a", Pipe(CONTENT))
    assert api.contents == [CONTENT]
    headers = api.requests[0].headers
    assert (headers["Transfer-Encoding"], "Content-Length" in headers) == ("chunked", False)


def test_what_is_read_of_one_file_is_sent_to_another() -> None:
    api = Sent(content_of(CONTENT), wrote())
    files = api.client().files
    with files.stream(UUID, "a") as pieces:
        first = next(pieces)
        assert first == CONTENT
        files.write("other", "b", pieces)
    assert asked(api) == [f"GET {HERE}/a", "PUT /session/other/files/b"]


def standing(content: bytes) -> BinaryIO:
    file = io.BytesIO(b"before" + content)
    file.seek(6)
    return file


@pytest.mark.parametrize("failure", [LOST, httpx.ConnectError("refused"), problem(503, "busy", retry_after="1")])
@pytest.mark.parametrize("content", [b"new", standing(b"new")], ids=["bytes", "file"])
def test_a_write_is_repeated_with_the_same_content(content: bytes | BinaryIO, failure: Turn) -> None:
    api = Sent(failure, wrote())
    if not isinstance(content, bytes):
        content.seek(6)
    api.client().files.write(UUID, "a", content)
    assert api.contents == [b"new"] * 2


@pytest.mark.parametrize("precondition", [{"if_match": '"v1"'}, {"new": True}])
def test_a_write_on_a_condition_is_not_repeated_when_its_answer_got_lost(precondition: dict[str, Any]) -> None:
    """It would find what it has written itself."""
    with pytest.raises(ConnectionFailed):
        Sent(LOST).client().files.write(UUID, "a", "new", **precondition)
    api = Sent(problem(503, "busy", retry_after="1"), wrote())
    api.client().files.write(UUID, "a", "new", **precondition)
    assert api.contents == [b"new"] * 2


@pytest.mark.parametrize("failure", [LOST, problem(503, "busy", retry_after="1")])
def test_what_can_be_read_once_is_sent_once(failure: Turn) -> None:
    api = Sent(failure)
    with pytest.raises((ConnectionFailed, ApiError)):
        api.client().files.write(UUID, "a", Pipe(b"new"))
    assert api.contents == [b"new"]


# Deleting and moving


def test_a_file_is_deleted() -> None:
    api = Api(httpx.Response(204), httpx.Response(204))
    files = api.client().files
    files.delete(UUID, "a b", wake=False)
    files.delete(UUID, "a", if_match='"v1"')
    assert asked(api) == [f"DELETE {HERE}/a%20b?wake=false", f"DELETE {HERE}/a"]
    assert [each.headers.get("If-Match") for each in api.requests] == [None, '"v1"']


def test_a_file_is_moved_and_a_folder_made() -> None:
    api = Api(answer(entry("b/c")), LOST, answer(entry("d", type="folder"), 201))
    files = api.client().files
    assert files.move(UUID, "a", "b/c", wake=False).path == "b/c"
    assert files.make_folder(UUID, "d").type == "folder"
    assert asked(api) == [f"POST {HERE}/a?wake=false", *[f"POST {HERE}/d"] * 2]
    assert api.bodies == [{"move_to": "b/c"}, *[{"make": "folder"}] * 2]
    assert api.requests[1].headers["Idempotency-Key"] == api.requests[2].headers["Idempotency-Key"]


def test_a_new_path_must_be_utf8() -> None:
    with pytest.raises(InvalidPath):
        Api().client().files.move(UUID, NO_UTF8, NO_UTF8)


# Refusals


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (409, "asleep", Asleep),
        (504, "wake_late", WakeLate),
        (404, "file_not_found", NoSuchFile),
        (409, "not_a_file", NotAFile),
        (409, "file_exists", FileThere),
        (412, "file_changed", FileChanged),
        (400, "invalid_path", InvalidPath),
        (413, "payload_too_large", TooLarge),
        (507, "workspace_full", WorkspaceFull),
    ],
)
def test_a_refusal_is_an_error_of_its_own(status: int, code: str, error: type[WorkspacesError]) -> None:
    calls: list[Callable[[Workspaces], Any]] = [
        lambda client: client.files.read(UUID, "a"),
        lambda client: client.files.write(UUID, "a", "x"),
        lambda client: client.files.move(UUID, "a", "b"),
        lambda client: client.files.info(UUID, "a"),
    ]
    for call in calls:
        with pytest.raises(error) as raised:
            call(Api(problem(status, code)).client())
        assert (raised.value.code, raised.value.status) == (code, status)
