"""Packs a folder into an archive, whose bytes come as they are made.

The folder may be changed meanwhile. What appears or vanishes may be in the archive or not; a file is in it with as many
bytes as it had when its turn came. One that can't be read, or that gets shorter while it is read, ends the archive: its
reader must not take it for whole.
"""

from __future__ import annotations

import os
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import NamedTuple

from app.agent.files.entries import EARLIEST, Entry, entry_of
from app.agent.files.faults import FileError, naming
from app.agent.files.reading import names
from app.agent.protocol import ArchiveFormat, FileFault
from app.agent.tools.sandbox_path import DEPTH
from app.volume.descent import FOLDER_FLAGS

BLOCK = 1_048_576
"""Bytes read at once, and those of a file up to which it is read whole before it is described."""

LEVEL = 1
"""Of compression: 2.6 to 3.5 times as fast as the default, and 8 to 23 % larger (binaries, Python sources)."""

FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
GZIP = 31
"""zlib's `wbits` for a gzip stream."""

DOS_FIRST, DOS_LAST = 315_532_800.0, 4_354_819_198.0
"""The times that a zip can hold: from 1980 to 2107."""


class Member(NamedTuple):
    """What gets a place in an archive: `content` has `size` bytes, and comes in blocks."""

    entry: Entry
    size: int
    content: Iterator[bytes]


def packed(folder: int, how: ArchiveFormat) -> Generator[bytes, None, None]:
    """The bytes of an archive with what is in the open folder. Raises FileError."""
    with closing(_members(folder, "", DEPTH)) as members:
        yield from PACKERS[how](members)


def _members(folder: int, prefix: str, depth: int) -> Generator[Member, None, None]:
    """What is in a folder, by name, a folder's own right after it. Devices, pipes and sockets are left out."""
    for name in names(folder, ""):
        path = prefix + name
        try:
            with naming(path):
                entry = entry_of(path, name, folder)
                mode = entry.status.st_mode
                if stat.S_ISREG(mode):
                    with open(os.open(name, FILE_FLAGS, dir_fd=folder), "rb", buffering=0) as file:
                        yield from _file(path, file.fileno())
                elif stat.S_ISLNK(mode):
                    yield Member(entry, 0, iter(()))
                elif stat.S_ISDIR(mode):
                    yield Member(entry, 0, iter(()))
                    yield from _below(folder, name, path, depth - 1)
        except FileError as e:
            if e.fault is not FileFault.FILE_NOT_FOUND:
                raise


def _below(folder: int, name: str, path: str, depth: int) -> Generator[Member, None, None]:
    if not depth:
        raise FileError(FileFault.INVALID_PATH, f"{path} is too deep to be packed")
    below = os.open(name, FOLDER_FLAGS, dir_fd=folder)
    try:
        yield from _members(below, f"{path}/", depth)
    finally:
        os.close(below)


def _file(path: str, file: int) -> Iterator[Member]:
    """The open file; nothing if it is none any more."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        return
    first = os.pread(file, BLOCK, 0)
    # It may have grown in between.
    size = max(status.st_size, BLOCK) if len(first) == BLOCK else len(first)
    yield Member(Entry(path, status), size, _content(path, file, first, size))


def _content(path: str, file: int, first: bytes, size: int) -> Iterator[bytes]:
    done = len(first)
    yield first
    while done < size:
        block = os.pread(file, min(BLOCK, size - done), done)
        if not block:
            raise FileError(FileFault.FILE_CHANGED, f"{path} got shorter while it was read")
        done += len(block)
        yield block


def _tar_gz(members: Iterator[Member]) -> Iterator[bytes]:
    compressor = zlib.compressobj(LEVEL, wbits=GZIP)
    for member in members:
        yield compressor.compress(_tar_header(member))
        for block in member.content:
            yield compressor.compress(block)
        yield compressor.compress(bytes(-member.size % tarfile.BLOCKSIZE))
    yield compressor.compress(bytes(2 * tarfile.BLOCKSIZE))
    yield compressor.flush()


def _tar_header(member: Member) -> bytes:
    entry = member.entry
    info = tarfile.TarInfo(entry.path)
    info.mode = stat.S_IMODE(entry.status.st_mode) & 0o777
    info.mtime = int(max(EARLIEST, entry.status.st_mtime))
    info.size = member.size
    if stat.S_ISDIR(entry.status.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(entry.status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, entry.target
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class _Sink:
    """What a zip is written to: it keeps the bytes until they are taken."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def write(self, data: bytes) -> int:
        self._kept += data
        return len(data)

    def flush(self) -> None:
        """Nothing is behind."""

    def take(self) -> bytes:
        taken = bytes(self._kept)
        self._kept.clear()
        return taken


def _zip(members: Iterator[Member]) -> Iterator[bytes]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:  # type: ignore[call-overload]  # it needs no more of a file than that
        for member in members:
            with archive.open(_zip_info(member), "w") as place:
                if member.entry.target:
                    place.write(os.fsencode(member.entry.target))
                for block in member.content:
                    place.write(block)
                    yield sink.take()
            yield sink.take()
    yield sink.take()


def _zip_info(member: Member) -> zipfile.ZipInfo:
    """Its entry. Names are text: a byte that is no UTF-8 becomes U+FFFD."""
    status = member.entry.status
    name = os.fsencode(member.entry.path).decode("utf-8", "replace")
    moment = time.gmtime(min(max(DOS_FIRST, status.st_mtime), DOS_LAST))
    info = zipfile.ZipInfo(f"{name}/" if stat.S_ISDIR(status.st_mode) else name, moment[:6])
    info.external_attr = (stat.S_IFMT(status.st_mode) | stat.S_IMODE(status.st_mode) & 0o777) << 16
    info.file_size = member.size
    if stat.S_ISREG(status.st_mode):
        info.compress_type = zipfile.ZIP_DEFLATED
        info._compresslevel = LEVEL  # type: ignore[attr-defined]  # `compress_level` from Python 3.13 on
    return info


PACKERS: Mapping[ArchiveFormat, Callable[[Iterator[Member]], Iterator[bytes]]] = {
    ArchiveFormat.TAR_GZ: _tar_gz,
    ArchiveFormat.ZIP: _zip,
}
