"""Copies a file into a workspace, out of one, or from one to another."""

from __future__ import annotations

import os
import sys
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import typer

from workspaces.cli.output import relay_bytes
from workspaces.errors import NoSuchFile
from workspaces.models import FileEntry, FileType
from workspaces.resources.files import Content, Files


class Place(NamedTuple):
    """Where a file is: in the workspace of `uuid`, or on this machine where that is ""."""

    uuid: str
    path: str


STANDARD: Final = Place("", "-")
"""Standard input or output."""


def place_of(text: str) -> Place:
    """What SESSION:PATH or a local path names. A local one with a colon in its first part is written as ./a:b."""
    uuid, colon, path = text.partition(":")
    return Place(uuid, path) if colon and uuid and "/" not in uuid else Place("", text)


class Copier:
    """Copies files by these calls. What can't be copied is a usage error."""

    def __init__(self, calls: Files, *, wake: bool) -> None:
        self._calls = calls
        self._wake = wake

    def print_out(self, source: Place) -> None:
        """Copy a workspace's file to standard output."""
        self._found(source)
        with self._calls.stream(source.uuid, source.path, wake=self._wake) as pieces:
            relay_bytes(pieces, sys.stdout)

    def download(self, source: Place, target: str) -> Path:
        """Copy a workspace's file to this machine; answers where it is."""
        found = self._found(source)
        to = _local_target(target, PurePosixPath(source.path).name)
        return self._calls.download(source.uuid, source.path, to, mode=_mode(found), wake=self._wake)

    def upload(self, source: Place, target: Place) -> FileEntry:
        """Copy a file of this machine, or standard input, to a workspace."""
        if source == STANDARD:
            return self._write(target, "", sys.stdin.buffer, None)
        local = Path(source.path)
        if local.is_dir():
            raise _a_folder(source.path)
        with local.open("rb") as file:
            return self._write(target, local.name, file, f"{os.fstat(file.fileno()).st_mode & 0o777:03o}")

    def between(self, source: Place, target: Place) -> FileEntry:
        """Copy a file of one workspace to another, or within one; it passes through here."""
        found = self._found(source)
        with self._calls.stream(source.uuid, source.path, wake=self._wake) as pieces:
            return self._write(target, PurePosixPath(source.path).name, pieces, _mode(found))

    def _found(self, source: Place) -> FileEntry:
        found = self._calls.info(source.uuid, source.path or ".", wake=self._wake)
        if found.type == FileType.FOLDER:
            raise _a_folder(":".join(source))
        return found

    def _write(self, target: Place, name: str, content: Content, mode: str | None) -> FileEntry:
        path = target.path
        if self._is_folder(target):
            if not name:
                raise typer.BadParameter("standard input has no name: give one.", param_hint="TARGET")
            path = str(PurePosixPath(path) / name)
        return self._calls.write(target.uuid, path, content, mode=mode, wake=self._wake)

    def _is_folder(self, target: Place) -> bool:
        if not target.path or target.path.endswith("/"):
            return True
        try:
            return self._calls.info(target.uuid, target.path, wake=self._wake).type == FileType.FOLDER
        except NoSuchFile:
            return False


def _local_target(text: str, name: str) -> Path:
    path = Path(text)
    if text.endswith("/") or path.is_dir():
        path /= name
    if path.exists() and not path.is_file():
        raise typer.BadParameter(f"{str(path)!r} is there, and no file.", param_hint="TARGET")
    return path


def _mode(found: FileEntry) -> str | None:
    """The mode of a copy: a link's own says nothing of the file."""
    return found.mode if found.type == FileType.FILE else None


def _a_folder(text: str) -> typer.BadParameter:
    return typer.BadParameter(f"{text!r} is a folder, and only files are copied.", param_hint="SOURCE")
