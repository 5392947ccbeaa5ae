"""Files: what is sent, what is sent again, how they are read where connections break, and what a name may be."""

from __future__ import annotations

import gzip
import io
import os
import socket
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import httpx
import pytest

from tests.unit.clients.api import (
    UUID,
    Api,
    Body,
    Broken,
    Turn,
    answer,
    archive_of,
    asked,
    content_of,
    entry,
    listed,
    problem,
    unpacked,
    wrote,
)
from workspaces import (
    ApiError,
    Asleep,
    ConnectionFailed,
    DownloadDamaged,
    FileChanged,
    FileThere,
    InvalidAnswer,
    InvalidArchive,
    InvalidPath,
    NoSuchFile,
    NotAFile,
    TooLarge,
    WakeLate,
    WorkspaceFull,
    Workspaces,
    WorkspacesError,
)
from workspaces.folders import packed

HERE = f"/session/{UUID}/files"
TREE = f"/session/{UUID}/tree"
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


# Folders as archives


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder of this machine with all kinds of things in it."""
    folder = tmp_path / "here"
    for each in ("sub/deeper", "empty"):
        (folder / each).mkdir(parents=True)
    (folder / "empty").chmod(0o700)
    (folder / "a b\nc").write_bytes(CONTENT)
    (folder / os.fsdecode(b"\xff")).write_bytes(b"")
    (folder / ("n" * 250)).write_text("long")
    (folder / "sub/deeper/x.sh").write_text("#!/bin/sh")
    (folder / "sub/deeper/x.sh").chmod(0o750)
    (folder / "sub/read").write_text("only")
    (folder / "sub/read").chmod(0o444)
    (folder / "sub/up").symlink_to("../a b\nc")
    (folder / "out").symlink_to("/etc/passwd")
    (folder / "loop").symlink_to(".")
    return folder


def shown(folder: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """All that is in a folder: its mode, and its content or where it leads."""
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for path in folder.rglob("*"):
        content = str(path.readlink()) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


def tar(*entries: tuple[str, bytes, str | bytes]) -> bytes:
    """A tar.gz of these entries: name, type, and content or where it leads."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, kind, content in entries:
            each = tarfile.TarInfo(name)
            each.type = kind
            if isinstance(content, str):
                each.linkname = content
            else:
                each.size = len(content)
            archive.addfile(each, io.BytesIO(content) if isinstance(content, bytes) else None)
    return made.getvalue()


FILE, FOLDER, LINK, NAME = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
GOOD = tar(("a", FILE, b"new"), ("sub/b", FILE, b"b"))


def test_a_folder_is_uploaded_with_modes_and_links_and_without_owners(here: Path) -> None:
    os.mkfifo(here / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(here / "socket"))
    api = Sent(unpacked("src", 11, 3))
    made = api.client().files.upload_folder(UUID, "src", str(here), wake=False)
    assert (made.uuid, made.path, made.files, made.bytes) == (UUID, "src", 11, 3)
    assert asked(api) == [f"PUT {TREE}?path=src&wake=false"]
    headers = api.requests[0].headers
    assert (headers["Content-Type"], headers["Transfer-Encoding"]) == ("application/octet-stream", "chunked")
    (here / "pipe").unlink()
    (here / "socket").unlink()
    with tarfile.open(fileobj=io.BytesIO(api.contents[0])) as archive:
        sent = {each.name: each for each in archive}
    assert {(each.uid, each.gid, each.uname, each.gname) for each in sent.values()} == {(0, 0, "", "")}
    expected = shown(here)
    assert sent.keys() == expected.keys()
    assert all(each.mode == expected[name][0] & 0o777 for name, each in sent.items())
    assert {name: each.linkname for name, each in sent.items() if each.issym()} == {
        "sub/up": "../a b\nc",
        "out": "/etc/passwd",
        "loop": ".",
    }


def test_what_is_uploaded_is_downloaded_as_it_was(here: Path, tmp_path: Path) -> None:
    api = Sent(unpacked(), archive_of(*packed(here)))
    files = api.client().files
    files.upload_folder(UUID, ".", here)
    there = files.download_folder(UUID, NO_UTF8, str(tmp_path / "new/there"), wake=False)
    assert there == tmp_path / "new/there"
    assert shown(there) == shown(here)
    assert int((there / "sub/read").stat().st_mtime) == int((here / "sub/read").stat().st_mtime)
    assert asked(api)[1] == f"GET {TREE}?path=src%2F%FF+%C3%BC%25.py&wake=false"
    assert api.requests[1].headers["Accept"] == "application/gzip"
    assert {each.name for each in tmp_path.iterdir()} == {"here", "new"}


def test_an_empty_folder_is_uploaded_and_downloaded(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    sent = b"".join(packed(tmp_path / "empty"))
    assert gzip.decompress(sent) == bytes(1_024)
    there = Api(archive_of(sent)).client().files.download_folder(UUID, ".", tmp_path / "there")
    assert [*there.iterdir()] == []


def test_a_folder_is_packed_and_unpacked_in_little_memory(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with (tmp_path / "here/large").open("wb") as file:
        file.truncate(64_000_000)
    tracemalloc.start()
    try:
        sent = httpx.Response(200, stream=Packed(tmp_path / "here"), headers={"Content-Type": "application/gzip"})
        Api(sent).client().files.download_folder(UUID, ".", tmp_path / "there")
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert (tmp_path / "there/large").stat().st_size == 64_000_000


class Packed(Body):
    """A folder that is packed as it is read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __iter__(self) -> Iterator[bytes]:
        yield from packed(self._folder)


@pytest.mark.parametrize("failure", [LOST, problem(503, "busy", retry_after="1")])
def test_a_folder_is_sent_once(here: Path, failure: Turn) -> None:
    api = Sent(failure)
    with pytest.raises((ConnectionFailed, ApiError)):
        api.client().files.upload_folder(UUID, ".", here)
    assert len(api.contents) == 1


def test_what_is_no_folder_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    files = Api().client().files
    with pytest.raises(FileNotFoundError):
        files.upload_folder(UUID, ".", tmp_path / "none")
    with pytest.raises(NotADirectoryError):
        files.upload_folder(UUID, ".", tmp_path / "a")


def test_a_file_that_gets_shorter_ends_an_upload(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(1_000_000))
    pieces = packed(tmp_path)
    next(pieces)
    os.truncate(large, 9)
    with pytest.raises(FileChanged, match="large"):
        b"".join(pieces)


@pytest.mark.parametrize("format", [None, "zip"])
def test_an_archive_is_written_and_repeated_with_the_same_content(format: Literal["zip"] | None) -> None:
    api = Sent(LOST, unpacked("a b"))
    made = api.client().files.write_tree(UUID, "a b", standing(b"archive"), format=format, wake=False)
    assert (made.files, made.bytes) == (2, 12)
    query = "path=a+b&format=zip&wake=false" if format else "path=a+b&wake=false"
    assert (asked(api), api.contents) == ([f"PUT {TREE}?{query}"] * 2, [b"archive"] * 2)
    assert api.requests[0].headers["Content-Length"] == "7"


def test_a_folder_of_one_workspace_is_written_to_another() -> None:
    api = Sent(archive_of(GOOD), unpacked())
    files = api.client().files
    with files.stream_tree(UUID, "src") as pieces:
        files.write_tree("other", ".", pieces)
    assert asked(api) == [f"GET {TREE}?path=src", "PUT /session/other/tree?path=."]
    assert api.contents[1] == GOOD


@pytest.mark.parametrize(
    ("name", "format", "asked_for", "media"),
    [
        ("a.zip", None, "zip", "application/zip"),
        ("a.tar.gz", None, "tar.gz", "application/gzip"),
        ("a.zip", "tar.gz", "tar.gz", "application/gzip"),
        ("a", None, "tar.gz", "application/gzip"),
    ],
)
def test_an_archive_is_downloaded_as_its_name_says(
    tmp_path: Path, name: str, format: Literal["tar.gz"] | None, asked_for: str, media: str
) -> None:
    api = Api(archive_of(b"x", b"y", media=media))
    found = api.client().files.download_tree(UUID, "src", tmp_path / name, format=format)
    assert (found, found.read_bytes()) == (tmp_path / name, b"xy")
    assert asked(api) == [f"GET {TREE}?path=src&format={asked_for}"]
    assert api.requests[0].headers["Accept"] == media


@pytest.mark.parametrize(
    ("turn", "error"),
    [
        (lambda _: archive_of(GOOD[:30], breaks=True), ConnectionFailed),
        (archive_of(b"<html>", media="text/html"), InvalidAnswer),
        (problem(404, "file_not_found"), NoSuchFile),
        (problem(409, "not_a_file"), NotAFile),
    ],
)
@pytest.mark.parametrize("whole", [True, False], ids=["archive", "folder"])
def test_an_archive_that_is_not_whole_leaves_nothing_and_is_not_asked_for_again(
    tmp_path: Path, turn: Turn, error: type[WorkspacesError], whole: bool
) -> None:
    api = Api(turn)
    files = api.client().files
    with pytest.raises(error):
        (files.download_tree if whole else files.download_folder)(UUID, "src", tmp_path / "there")
    assert [*tmp_path.iterdir()] == []
    assert len(api.requests) == 1


def long_name(size: int) -> bytes:
    """A header that announces a name so long, and a block of it."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, size
    return header.tobuf(tarfile.GNU_FORMAT) + bytes(512)


def damaged() -> dict[str, bytes]:
    """Archives that are no good, by what is wrong."""
    tarred = gzip.decompress(GOOD)
    return {
        "nothing": b"",
        "no gzip": b"<html>",
        "no tar": gzip.compress(b"<html>" * 999),
        "no header": gzip.compress(tarred[:1_024] + b"x" * 512 + tarred[1_536:]),
        "no end": gzip.compress(tarred[:2_048]),
        "cut in a file": gzip.compress(tarred[:514]),
        "cut": GOOD[:-20],
        "no trailer": GOOD[:-8],
        "wrong trailer": GOOD[:-8] + b"\0" * 8,
        "more": GOOD + b"more",
        "long names of long names": gzip.compress(long_name(512) * 2_000),
        "a name of any length": gzip.compress(long_name(1 << 30)),
        "in the midst": GOOD[:40] + b"\xff" * 20 + GOOD[60:],
    }


def hostile(outside: str) -> dict[str, bytes]:
    """Archives that lead to the folder `outside`, or to what is no file, by how."""
    good = ("a", FILE, b"new")
    return {
        "above": tar(good, ("../outside/a", FILE, b"evil")),
        "above, from within": tar(good, ("sub/../../outside/a", FILE, b"evil")),
        "absolute": tar(good, (f"{outside}/a", FILE, b"evil")),
        "by a link": tar(("l", LINK, outside), ("l/a", FILE, b"evil")),
        "by a relative link": tar(("l", LINK, "../outside"), ("l/a", FILE, b"evil")),
        "by a link to a link": tar(("l", LINK, outside), ("m", LINK, "l"), ("m/a", FILE, b"evil")),
        "a folder by a link": tar(("l", LINK, outside), ("l/sub", FOLDER, b"")),
        "a link by a link": tar(("l", LINK, outside), ("l/m", LINK, "a")),
        "a second name of a file outside": tar(("m", NAME, f"{outside}/mine")),
        "a second name of a file above": tar(("m", NAME, "../outside/mine")),
        "a second name by a link": tar(("l", LINK, outside), ("m", NAME, "l/mine")),
        "a second name of a link": tar(("l", LINK, f"{outside}/mine"), ("m", NAME, "l")),
        "the folder itself": tar((".", LINK, outside)),
        "below a file": tar(good, ("a/b", FILE, b"")),
        "a file in place of a folder": tar(("a/b", FILE, b""), ("a", LINK, outside)),
        "a device": tar(good, ("null", tarfile.CHRTYPE, b"")),
        "a pipe": tar(good, ("pipe", tarfile.FIFOTYPE, b"")),
        "zero in a name": tar(good, ("é\0" * 99, FILE, b"")),
    }


@pytest.mark.parametrize("merged", [True, False], ids=["merged", "new"])
@pytest.mark.parametrize("kind", [*damaged(), *hostile("/")])
def test_nothing_is_kept_of_a_bad_archive(tmp_path: Path, kind: str, merged: bool) -> None:
    outside, there = tmp_path / "outside", tmp_path / "there"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    if merged:
        there.mkdir()
        (there / "a").write_text("from before")
    before = shown(tmp_path)
    content = (damaged() | hostile(str(outside)))[kind]
    with pytest.raises(DownloadDamaged):
        Api(archive_of(content)).client().files.download_folder(UUID, ".", there)
    assert shown(tmp_path) == before
    assert (outside / "mine").stat().st_nlink == 1


def test_a_link_of_an_archive_is_replaced_and_not_followed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    content = tar(("a", LINK, str(mine)), ("a", FILE, b"new"), ("b", NAME, "a"), ("./sub/", FOLDER, b""))
    there = Api(archive_of(content)).client().files.download_folder(UUID, ".", tmp_path / "there")
    assert (mine.read_text(), (there / "a").read_text(), (there / "b").read_text()) == ("mine", "new", "new")
    assert not (there / "a").is_symlink()


def test_a_folder_is_merged_into_one_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, there = tmp_path / "mine", tmp_path / "there"
    mine.write_text("mine")
    (there / "sub").mkdir(parents=True)
    (there / "a").symlink_to(mine)
    (there / "sub/old").write_text("stays")
    monkeypatch.chdir(there)
    content = tar(("a", FILE, b"new"), ("sub/b", FILE, b"b"), ("other/c", FILE, b"c"))
    assert Api(archive_of(content)).client().files.download_folder(UUID, ".", ".") == Path(".")
    found = {name: text for name, (_, text) in shown(there).items() if text is not None}
    assert found == {"a": b"new", "sub/b": b"b", "sub/old": b"stays", "other/c": b"c"}
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (tar(("new", FILE, b""), ("a", FOLDER, b"")), NotADirectoryError),
        (tar(("new", FILE, b""), ("l/x", FILE, b"")), NotADirectoryError),
        (tar(("new", FILE, b""), ("sub", FILE, b"")), IsADirectoryError),
    ],
    ids=["a file", "a link", "a folder"],
)
def test_nothing_is_moved_where_a_folder_meets_a_file(tmp_path: Path, content: bytes, error: type[OSError]) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "there/sub").mkdir(parents=True)
    (tmp_path / "there/a").write_text("a")
    (tmp_path / "there/l").symlink_to(tmp_path / "outside")
    before = shown(tmp_path)
    with pytest.raises(error):
        Api(archive_of(content)).client().files.download_folder(UUID, ".", tmp_path / "there")
    assert shown(tmp_path) == before


def test_a_file_is_no_folder_to_download_to(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(NotADirectoryError):
        Api().client().files.download_folder(UUID, ".", tmp_path / "a")


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (422, "invalid_archive", InvalidArchive),
        (409, "not_a_file", NotAFile),
        (409, "file_exists", FileThere),
        (413, "payload_too_large", TooLarge),
        (507, "workspace_full", WorkspaceFull),
    ],
)
def test_a_refused_archive_is_an_error_of_its_own(status: int, code: str, error: type[WorkspacesError]) -> None:
    with pytest.raises(error) as raised:
        Api(problem(status, code)).client().files.write_tree(UUID, ".", GOOD)
    assert (raised.value.code, raised.value.status) == (code, status)


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
