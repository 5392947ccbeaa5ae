"""The format shared by writing and reading a backup: names, times, links, folders.

The zip's root is the project. The conversation, which lies beside the project on the volume, is in it as `.session/`. A
project's own folder of that name gets another name in the zip.

The functions are pure, except those that open folders without following links.
"""

from __future__ import annotations

import calendar
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from app.volume.descent import FOLDER_FLAGS

FORMAT_VERSION = 1
"""Of zip and sidecar together; a backup of a later version is not restored."""

BLOCK = 1 << 20
"""Bytes read or written at once: 1 MiB keeps memory flat and the calls few."""

PROJECT, CONVERSATION = "app", ".session"
"""The folders of a volume that a backup holds."""

# Names. Zip names are UTF-8 text, Linux names are any bytes. A byte that no text can hold, a backslash
# (a separator to some readers) and the colon of a leading drive letter are each stored as the private-use
# character U+EF00 + byte; a name that holds such a character itself has each of its bytes stored so.
# Hence every name comes back as it was, and `unzip` shows a legible one.
ESCAPE = 0xEF00
HIGH_BYTES = range(0x80, 0x100)
SURROGATE = 0xDC00
BACKSLASH, COLON, DOT = ord("\\"), ord(":"), ord(".")
STORING = (
    {SURROGATE + byte: chr(ESCAPE + byte) for byte in HIGH_BYTES}
    | {BACKSLASH: chr(ESCAPE + BACKSLASH)}
    | {
        ESCAPE + byte: "".join(chr(ESCAPE + unit) for unit in chr(ESCAPE + byte).encode())
        for byte in (BACKSLASH, COLON, DOT, *HIGH_BYTES)
    }
)
READING = {ESCAPE + byte: chr(SURROGATE + byte) for byte in HIGH_BYTES} | {
    ESCAPE + byte: chr(byte) for byte in (BACKSLASH, COLON)
}
DRIVE = re.compile(r"[A-Za-z]:")
OWN = re.compile(re.escape(CONVERSATION) + r"(?=/|$)")
STORED_OWN = re.compile(re.escape(chr(ESCAPE + DOT) + CONVERSATION[1:]) + r"(?=/|$)")
"""How a project's own folder of the conversation's name begins, on the volume and in the zip."""


def stored_name(path: str, *, own: bool = False) -> str:
    """The zip's name for a path relative to the root (undecodable bytes as Python's surrogates). With `own` a root
    folder of the conversation's name is the project's own."""
    name = path.translate(STORING)
    if own and OWN.match(name):
        return chr(ESCAPE + DOT) + name[1:]
    return f"{name[0]}{chr(ESCAPE + COLON)}{name[2:]}" if DRIVE.match(name) else name


def original_path(name: str) -> str:
    """The path that `stored_name` stored under this name; no other name gives the same path
    without being a duplicate of it."""
    if STORED_OWN.match(name):
        name = f".{name[1:]}"
    return name.translate(READING).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def printable(path: str) -> str:
    """A path for messages and JSON; undecodable bytes are escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# Times. A zip has two for each entry: a DOS date (from 1980, local, to 2 s) and the Unix seconds of the
# "UT" extra field, signed 32 bits (1901 to 2038), which every current reader prefers.
DOS_FIRST = 315_532_800
UNIX_FIRST, UNIX_LAST = -(2**31), 2**31 - 1
UT_TAG, UT_HAS_MTIME = 0x5455, 1


class ZipTime(datetime):
    """A date a zip can hold as DOS date, whose `timestamp()` is the file's own time even before
    1980: `stream_zip` takes the one from the fields and the other from the method."""

    unix: int = 0

    def timestamp(self) -> float:
        return self.unix


def zip_time(seconds: int) -> ZipTime:
    """The nearest time a zip can hold to `seconds` since the epoch: exact from 1901 to 2038."""
    unix = min(max(seconds, UNIX_FIRST), UNIX_LAST)
    moment = ZipTime.fromtimestamp(max(unix, DOS_FIRST), UTC)
    moment.unix = unix
    return moment


def entry_time(info: zipfile.ZipInfo) -> int:
    """When the entry was modified, seconds since the epoch: the UT field, else the DOS date as UTC."""
    extra = info.extra
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<HH", extra)
        if tag == UT_TAG and length >= 5 and len(extra) >= 9 and extra[4] & UT_HAS_MTIME:
            return int(struct.unpack_from("<i", extra, 5)[0])
        extra = extra[4 + length :]
    try:
        return calendar.timegm((*info.date_time, 0, 0, 0))
    except ValueError:
        return DOS_FIRST


# Links.


def stays_inside(path: str, target: str) -> bool:
    """Whether a link at `path` certainly leads to a place under the root.

    Certain is a relative target with `..` only at its beginning and no further up than the root: the folders above a
    link are real, while `..` after a name may lead out through another link.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    ups = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    return not target.startswith("/") and ups <= path.count("/") and ".." not in parts[ups:]


# Folders.


def open_below(root: int, path: str, create: bool = False) -> int:
    """A descriptor of the folder `path` (relative, "" is the root itself), opened one folder at a time so that no link
    is followed, even one that appears meanwhile. The caller closes it."""
    folder = os.dup(root)
    for part in filter(None, path.split("/")):
        try:
            if create:
                make_folder(part, folder)
            deeper = os.open(part, FOLDER_FLAGS, dir_fd=folder)
        finally:
            os.close(folder)
        folder = deeper
    return folder


def make_folder(name: str, parent: int) -> None:
    """Create a folder unless it exists; raises `FileExistsError` when something else has that name."""
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise


@contextmanager
def folder_below(root: int, path: str, create: bool = False) -> Iterator[int]:
    """`open_below`, closed at the end."""
    folder = open_below(root, path, create)
    try:
        yield folder
    finally:
        os.close(folder)
