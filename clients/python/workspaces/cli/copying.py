"""Copies a file or a folder into a workspace, out of one, or from one to another."""

from __future__ import annotations

import os
import sys
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import typer

from workspaces.cli.output import relay_bytes
from workspaces.errors import NoSuchFile
from workspaces.models import FileEntry, FileType, Tree
from workspaces.resources.files import Content, Files


class Place(NamedTuple):
    """Where a file or a folder is: in the workspace of `uuid`, or on this machine where that is ""."""

    uuid: str
    path: str


STANDARD: Final = Place("", "-")
"""Standard input or output."""


def place_of(text: str) -> Place:
    """What SESSION:PATH or a local path names. A local one with a colon in its first part is written as ./a:b."""
    uuid, colon, path = text.partition(":")
    return Place(uuid, path) if colon and uuid and "/" not in uuid else Place("", text)


class Copier:
    """Copies files and folders by these calls. What can't be copied is a usage error."""

    def __init__(self, calls: Files, *, wake: bool) -> None:
        self._calls = calls
        self._wake = wake

    def print_out(self, source: Place) -> None:
        """Copy a workspace's file to standard output, or a folder as tar.gz."""
        is_folder = self._look(source).type == FileType.FOLDER
        stream = self._calls.stream_tree if is_folder else self._calls.stream
        with stream(source.uuid, _plain(source.path), wake=self._wake) as pieces:
            relay_bytes(pieces, sys.stdout)

    def download(self, source: Place, target: str) -> Path:
        """Copy a workspace's file or folder to this machine; answers where it is."""
        found, path = self._look(source), _plain(source.path)
        if found.type == FileType.FOLDER:
            folder = _local_folder(target, _name(source.path))
            return self._calls.download_folder(source.uuid, path, folder, wake=self._wake)
        to = _local_file(target, PurePosixPath(path).name)
        return self._calls.download(source.uuid, path, to, mode=_mode(found), wake=self._wake)

    def upload(self, source: Place, target: Place) -> FileEntry | Tree:
        """Copy a file or a folder of this machine, or standard input, to a workspace."""
        if source == STANDARD:
            return self._write(target, "", sys.stdin.buffer, None)
        local = Path(source.path)
        if local.is_dir():
            to = self._folder(target, _name(source.path))
            return self._calls.upload_folder(target.uuid, to, local, wake=self._wake)
        with local.open("rb") as file:
            return self._write(target, local.name, file, f"{os.fstat(file.fileno()).st_mode & 0o777:03o}")

    def between(self, source: Place, target: Place) -> FileEntry | Tree:
        """Copy a file or a folder of one workspace to another, or within one; it passes through here."""
        found, path = self._look(source), _plain(source.path)
        if found.type == FileType.FOLDER:
            to = self._folder(target, _name(source.path))
            with self._calls.stream_tree(source.uuid, path, wake=self._wake) as pieces:
                return self._calls.write_tree(target.uuid, to, pieces, wake=self._wake)
        with self._calls.stream(source.uuid, path, wake=self._wake) as pieces:
            return self._write(target, PurePosixPath(path).name, pieces, _mode(found))

    def _look(self, place: Place) -> FileEntry:
        return self._calls.info(place.uuid, _plain(place.path), wake=self._wake)

    def _write(self, target: Place, name: str, content: Content, mode: str | None) -> FileEntry:
        path = target.path
        if _is_into(path) or self._type(target) == FileType.FOLDER:
            if not name:
                raise typer.BadParameter("standard input has no name: give one.", param_hint="TARGET")
            path = str(PurePosixPath(path) / name)
        return self._calls.write(target.uuid, path, content, mode=mode, wake=self._wake)

    def _folder(self, target: Place, name: str) -> str:
        """The folder of a workspace that a copy of a folder becomes; without a name it is the target itself."""
        kind = FileType.FOLDER if _is_into(target.path) else self._type(target)
        path = _plain(target.path)
        if name and kind == FileType.FOLDER:
            path = str(PurePosixPath(path) / name)
            kind = self._type(Place(target.uuid, path))
        if kind not in (None, FileType.FOLDER):
            raise _no_folder(path)
        return path

    def _type(self, place: Place) -> str | None:
        """The type of what is there, None if nothing is."""
        try:
            return self._look(place).type
        except NoSuchFile:
            return None


def _is_into(path: str) -> bool:
    """Whether a path in a workspace says that a copy goes into the folder, without a look at it."""
    return not path or path.endswith("/")


def _plain(path: str) -> str:
    """A path in a workspace without what says nothing of where it leads."""
    return str(PurePosixPath(path))


def _name(path: str) -> str:
    """The name that a folder's copy has in another folder; "" if its content is copied there, as by `cp`."""
    name = path.rstrip("/").rpartition("/")[2]
    return "" if name in (".", "..") else name


def _local_file(text: str, name: str) -> Path:
    path = Path(text)
    if text.endswith("/") or path.is_dir():
        path /= name
    if path.exists() and not path.is_file():
        raise typer.BadParameter(f"{str(path)!r} is there, and no file.", param_hint="TARGET")
    return path


def _local_folder(text: str, name: str) -> Path:
    """The folder of this machine that a copy of a folder becomes. A link in a folder leads nowhere: its name may come
    from a workspace."""
    path = Path(text)
    if name and (text.endswith("/") or path.is_dir()):
        path /= name
        if path.is_symlink():
            raise _no_folder(str(path))
    if path.exists() and not path.is_dir():
        raise _no_folder(str(path))
    return path


def _mode(found: FileEntry) -> str | None:
    """The mode of a copy: a link's own says nothing of the file."""
    return found.mode if found.type == FileType.FILE else None


def _no_folder(path: str) -> typer.BadParameter:
    return typer.BadParameter(f"{path!r} is there, and no folder.", param_hint="TARGET")
