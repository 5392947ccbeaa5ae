"""Files in a workspace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, NamedTuple

from workspaces.content import FileContent
from workspaces.decoding import decode
from workspaces.downloads import appearing
from workspaces.errors import InvalidAnswer, InvalidPath
from workspaces.events import FILE_TYPES, Event, typed
from workspaces.folders import packed, unpack
from workspaces.kept_bytes import OCTETS, read_bytes, read_once
from workspaces.models import FileEntry, FileList, Tree
from workspaces.pages import Pages
from workspaces.resources.base import Resource, T, given, operation
from workspaces.resources.base import path as quoted
from workspaces.sse import STREAM, Stream, follow

Content = str | bytes | IO[bytes] | Stream[bytes]
"""What a file is to hold: a text in UTF-8, bytes, a file object from where it stands, or what `stream` answers."""

Format = Literal["tar.gz", "zip"]
"""What an archive is."""

GZIP, ZIP = "application/gzip", "application/zip"
"""The types of the archives."""

UNPACKING = 900.0
"""s that the service may take to unpack what it has got, without a word in between."""


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

    @operation("followFiles", STREAM)
    def watch(
        self, uuid: str, path: str = ".", *, depth: int | None = None, glob: str | None = None, after: str | None = None
    ) -> Stream[Event]:
        """Follow what changes at a path and below it, as far as `list` has it: first a `FilesResetEvent`, which says to
        list it, then a `FilesChangedEvent` for what changes as it comes; another reset where changes can't be told.
        This wakes nothing and keeps nothing awake: of a session that sleeps it brings a `FilesAsleepEvent`, and a reset
        once it is awake. What is in `.git`, `node_modules`, `__pycache__` and `.venv` is left out. Begins after the
        event with the id `after`, if given; a connection that breaks is resumed. Raises `NotWatched`, and
        `StateConflict` once the session is deleted."""
        query = {"path": path, "depth": depth, "glob": glob}
        raw = follow(self._http, quoted("session", uuid, "changes"), after, query=query)
        return Stream(typed(each, FILE_TYPES) for each in raw)

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
        headers = _match(if_match) | ({"If-None-Match": "*"} if new else {})
        return self._put(FileEntry, _path(uuid, path), content, {"mode": mode, "wake": wake}, headers)

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

    @operation("readTree", GZIP)
    def stream_tree(
        self, uuid: str, path: str = ".", *, format: Format | None = None, wake: bool | None = None
    ) -> Stream[bytes]:
        """All that is in a folder as an archive, in pieces; the names in it are relative to the folder. `format` is
        "tar.gz" by default, or "zip". Raises `ConnectionFailed` if the connection breaks: it can't be resumed."""
        query = {"path": path, "format": format, "wake": wake}
        return Stream(read_once(self._http, quoted("session", uuid, "tree"), query, ZIP if format == "zip" else GZIP))

    def download_tree(
        self, uuid: str, path: str, target: Path | str, *, format: Format | None = None, wake: bool | None = None
    ) -> Path:
        """Download all that is in a folder as the archive `target`, as `stream_tree`; answers where it is. `format` is
        by default that of its name: "zip" for one that ends with `.zip`. Leaves nothing unless the archive is whole."""
        to = Path(target)
        format = format or ("zip" if to.suffix.lower() == ".zip" else "tar.gz")
        with self.stream_tree(uuid, path, format=format, wake=wake) as pieces, appearing(to) as file:
            file.writelines(pieces)
        return to

    def download_folder(self, uuid: str, path: str, folder: Path | str, *, wake: bool | None = None) -> Path:
        """Download all that is in a folder to the local `folder`, which is made if it is not there; answers where it
        is. In one that is there, files of the same names are replaced, others stay. Links stay links. Leaves nothing
        unless all of it came; raises `DownloadDamaged`, and `OSError` where a folder meets a file."""
        to = Path(folder)
        with self.stream_tree(uuid, path, wake=wake) as pieces:
            unpack(pieces, to)
        return to

    @operation("writeTree")
    def write_tree(
        self,
        uuid: str,
        path: str,
        content: Content,
        *,
        format: Format | None = None,
        wake: bool | None = None,
    ) -> Tree:
        """Unpack an archive in a folder, which is made if it is not there: files of the same names are replaced, others
        stay. Nothing is placed unless the whole archive is good. `format` is "tar.gz" by default, or "zip". A call
        whose `content` can't be read twice is never repeated. Raises `InvalidArchive`, `NotAFile` for a `path` that is
        no folder, `FileThere` where a folder meets a file, `TooLarge` and `WorkspaceFull`."""
        query = {"path": path, "format": format, "wake": wake}
        return self._put(Tree, quoted("session", uuid, "tree"), content, query, read_timeout=UNPACKING)

    def upload_folder(self, uuid: str, path: str, folder: Path | str, *, wake: bool | None = None) -> Tree:
        """Upload all that is in the local `folder`, as `write_tree`, which is sent once: files, folders, and links as
        links, with their modes and without their owners. Raises `OSError` for what can't be read; nothing is placed
        then."""
        return self.write_tree(uuid, path, Stream(packed(Path(folder))), wake=wake)

    def _put(
        self,
        kind: type[T],
        where: str,
        content: Content,
        query: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        read_timeout: float | None = None,
    ) -> T:
        """Send a content; with the headers of a condition, if there is one."""
        sending = _sending(content)
        sent = {"Content-Type": OCTETS} | dict(headers or {})
        if sending.size is not None:
            sent["Content-Length"] = str(sending.size)
        return decode(
            kind,
            self._http.json(
                "PUT",
                where,
                query=query,
                content=sending.content,
                headers=sent,
                once=sending.once,
                read_timeout=read_timeout,
            ),
        )


class _Sending(NamedTuple):
    """A content as it is sent: whether that is possible `once`, and its size if it has to be told."""

    content: bytes | Iterable[bytes]
    once: bool = False
    size: int | None = None


def _sending(content: Content) -> _Sending:
    if isinstance(content, str):
        return _Sending(content.encode())
    if isinstance(content, bytes):
        return _Sending(content)
    if isinstance(content, Stream):
        return _Sending(content, once=True)
    file = FileContent(content)
    return _Sending(file, once=not file.repeatable, size=file.size)


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
