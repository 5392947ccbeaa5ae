"""Files in a workspace."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from workspaces.content import FileContent
from workspaces.decoding import decode
from workspaces.downloads import appearing
from workspaces.errors import InvalidAnswer, InvalidPath
from workspaces.kept_bytes import OCTETS, read_bytes
from workspaces.models import FileEntry, FileList
from workspaces.pages import Pages
from workspaces.resources.base import Resource, given, operation
from workspaces.resources.base import path as quoted
from workspaces.sse import Stream

Content = str | bytes | IO[bytes] | Stream[bytes]
"""What a file is to hold: a text in UTF-8, bytes, a file object from where it stands, or what `stream` answers."""


class Files(Resource):
    """The calls on files. A `path` is relative to the workspace's folder; one that is no UTF-8 is given as
    `os.fsdecode` gives it, and as an entry's `exact_path` is. A call wakes a session that sleeps; with `wake=False` it
    raises `Asleep` instead. `WakeLate` is raised if that takes too long: repeat the call then. Raises `NoSuchFile`,
    `NotAFile`, and `InvalidPath` for a path that leads out of the workspace."""

    @operation("listFiles")
    def list(
        self,
        uuid: str,
        path: str = ".",
        *,
        depth: int | None = None,
        glob: str | None = None,
        wake: bool | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Pages[FileList, FileEntry]:
        """What is in a folder, in the order of a walk, sorted by name: `depth` folders deep, by default 1. `glob` is
        matched against the path below `path`, and the name. What is no folder lists itself. `limit` is of one page."""

        def fetch(cursor: str | None) -> FileList:
            query = {"path": path, "depth": depth, "glob": glob, "wake": wake, "limit": limit, "cursor": cursor}
            return self._get(FileList, quoted("session", uuid, "files"), query=query)

        return Pages(fetch, lambda page: page.entries, cursor)

    def info(self, uuid: str, path: str, *, wake: bool | None = None) -> FileEntry:
        """One file or folder, without what is in it."""
        for entry in self.list(uuid, path, depth=0, wake=wake).page().entries:
            return entry
        raise InvalidAnswer("The answer lacks the file that was asked for.")

    @operation("readFile", OCTETS)
    def stream(self, uuid: str, path: str, *, wake: bool | None = None) -> Stream[bytes]:
        """The bytes of a file, in pieces. A connection that breaks is resumed where it broke; raises `FileChanged` if
        the file is another one by then."""
        return Stream(read_bytes(self._http, _path(uuid, path), {"wake": wake}))

    def read(self, uuid: str, path: str, *, wake: bool | None = None) -> bytes:
        """The bytes of a file, as `stream`, in memory."""
        with self.stream(uuid, path, wake=wake) as pieces:
            return b"".join(pieces)

    def download(
        self, uuid: str, path: str, target: Path | str, *, mode: str | None = None, wake: bool | None = None
    ) -> Path:
        """Download a file to `target`, a file or a folder, as `stream`; answers where it is. `mode` is that of the new
        file, as "755". Leaves nothing unless the file is whole."""
        to = Path(target)
        if to.is_dir():
            to /= PurePosixPath(path).name
        bits = None if mode is None else int(mode, 8) & 0o777
        with self.stream(uuid, path, wake=wake) as pieces, appearing(to, bits) as file:
            file.writelines(pieces)
        return to

    @operation("writeFile")
    def write(
        self,
        uuid: str,
        path: str,
        content: Content,
        *,
        mode: str | None = None,
        if_match: str | None = None,
        new: bool = False,
        wake: bool | None = None,
    ) -> FileEntry:
        """Write a file, all of it or nothing, and the folders above it; answers it with its `etag`. `mode` is as "755".
        With `if_match` only in place of the file with that `etag`, with `new` only where there is none: else raises
        `FileChanged`. Such a call is not repeated when its answer got lost, and one whose `content` can't be read twice
        is never repeated. Raises `TooLarge` and `WorkspaceFull`."""
        headers = {"Content-Type": OCTETS} | _match(if_match) | ({"If-None-Match": "*"} if new else {})
        sent: bytes | Iterable[bytes]
        once = False
        if isinstance(content, str | bytes):
            sent = content.encode() if isinstance(content, str) else content
        elif isinstance(content, Stream):
            sent, once = content, True
        else:
            sent = FileContent(content)
            once = not sent.repeatable
            if sent.size is not None:
                headers["Content-Length"] = str(sent.size)
        query = {"mode": mode, "wake": wake}
        return decode(
            FileEntry,
            self._http.json("PUT", _path(uuid, path), query=query, content=sent, headers=headers, once=once),
        )

    @operation("deleteFile", "")
    def delete(self, uuid: str, path: str, *, if_match: str | None = None, wake: bool | None = None) -> None:
        """Delete a file, a link, or a folder with all that is in it. With `if_match` only the file with that `etag`:
        else raises `FileChanged`."""
        self._http.text("DELETE", _path(uuid, path), query={"wake": wake}, headers=_match(if_match))

    @operation("changeFile")
    def change(
        self,
        uuid: str,
        path: str,
        *,
        move_to: str | None = None,
        make: Literal["folder"] | None = None,
        wake: bool | None = None,
        idempotency_key: str | None = None,
    ) -> FileEntry:
        """What `move` and `make_folder` do, by one of `move_to` and `make`."""
        if move_to is not None and not _is_utf8(move_to):
            raise InvalidPath(f"{move_to!r} is no UTF-8, as a new path must be.")
        return self._post(
            FileEntry,
            _path(uuid, path),
            query={"wake": wake},
            body=given(move_to=move_to, make=make),
            idempotency_key=idempotency_key,
        )

    def move(self, uuid: str, path: str, to: str, *, wake: bool | None = None) -> FileEntry:
        """Give a file or a folder another path; raises `FileThere` if something is there."""
        return self.change(uuid, path, move_to=to, wake=wake)

    def make_folder(self, uuid: str, path: str, *, wake: bool | None = None) -> FileEntry:
        """Make a folder, and those above it; one that is there stays as it is."""
        return self.change(uuid, path, make="folder", wake=wake)


def _is_utf8(path: str) -> bool:
    """Whether a path's bytes are UTF-8."""
    return not any("\udc80" <= each <= "\udcff" for each in path)


def _path(uuid: str, path: str) -> str:
    """The path of a file in the API. A part `..` would be left out of the URL with the part before it, on the way."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.startswith("/") or ".." in parts:
        raise InvalidPath(f"{path!r} is no path of a file below the workspace's folder, without `..`.")
    return quoted("session", uuid, "files", *parts)


def _match(etag: str | None) -> dict[str, Any]:
    return given(**{"If-Match": etag})
