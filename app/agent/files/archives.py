"""Reads archives, which may be anybody's: what they hold, in their order."""

from __future__ import annotations

import calendar
import errno
import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from enum import Enum, auto
from typing import IO, NamedTuple, cast

from app.agent.files.faults import FileError
from app.agent.protocol import ArchiveFormat, FileFault

BLOCK = 1_048_576
"""Bytes of a file's content held at once."""

HELD = 16_777_216
"""Bytes of what describes an archive's content held at once: a zip's list of entries (of some 100,000), or one header
of a tar."""

LONGEST_TARGET = 4_096
"""Bytes of a link's target, as in Linux."""

METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
ENCRYPTED = 0x1
UNIX = 3

UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    ArithmeticError,
    LookupError,
    RuntimeError,
)
"""What the libraries raise for damaged and hostile archives, beside errors of the file."""


class Kind(Enum):
    """What a member is. `HARD_LINK` is another name of a file that came before."""

    FILE = auto()
    FOLDER = auto()
    LINK = auto()
    HARD_LINK = auto()


class Member(NamedTuple):
    """`name` is as the archive has it, and may lead anywhere; so may `target`, a link's. `content` is read before the
    next member is asked for."""

    name: str
    kind: Kind
    mode: int
    modified_at: float
    size: int = 0
    target: str = ""
    content: Callable[[], Iterator[bytes]] = lambda: iter(())


def members(file: io.FileIO, how: ArchiveFormat) -> Generator[Member, None, None]:
    """What is in the archive. Raises FileError where it is damaged, which may be seen at its very end."""
    with _reading(), closing(READERS[how](file)) as found:
        yield from found


def refused(why: str) -> FileError:
    return FileError(FileFault.INVALID_ARCHIVE, f"the archive can't be unpacked: {why}")


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except UNREADABLE as e:
        raise refused(f"it is damaged, or of another format ({type(e).__name__})") from e
    except OSError as e:
        # A damaged one leads to places before its beginning. What else fails is the disk.
        if not isinstance(e, gzip.BadGzipFile) and e.errno != errno.EINVAL:
            raise
        raise refused("it is damaged, or of another format") from e


def _blocks(opened: Callable[[], IO[bytes]], size: int) -> Iterator[bytes]:
    """The content of a member, which has so many bytes."""
    with _reading(), opened() as content:
        while block := content.read(BLOCK):
            size -= len(block)
            yield block
        if size:
            raise EOFError


class _Gzip(gzip.GzipFile):
    """A gzip stream, of which nobody reads much at once; `last` is what was read last."""

    last = b""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= HELD:
            raise ValueError("too much at once")
        self.last = super().read(size)
        return self.last


def _tar_gz(file: io.FileIO) -> Generator[Member, None, None]:
    with (
        _Gzip(fileobj=file, mode="rb") as stream,
        tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as archive,
    ):
        while (found := archive.next()) is not None:
            # The library keeps them all.
            archive.members.clear()  # type: ignore[attr-defined]
            if found.size < 0:
                raise ValueError("size")
            yield _tar_member(archive, found)
        # It takes what is no header for the end.
        if stream.last != bytes(tarfile.BLOCKSIZE):
            raise EOFError
        after = 0
        while block := stream.read(BLOCK):
            after += len(block)
            if after > HELD:
                raise refused("too much follows its end")


def _tar_member(archive: tarfile.TarFile, found: tarfile.TarInfo) -> Member:
    name, mode, modified_at = found.name, found.mode & 0o777, float(found.mtime)
    if found.isdir():
        return Member(name, Kind.FOLDER, mode, modified_at)
    if found.issym() or found.islnk():
        kind = Kind.LINK if found.issym() else Kind.HARD_LINK
        return Member(name, kind, mode, modified_at, target=found.linkname)
    if not found.isreg():
        raise refused(f"{name} is neither a file nor a folder nor a link")
    size = found.size
    return Member(
        name,
        Kind.FILE,
        mode,
        modified_at,
        size,
        content=lambda: _blocks(lambda: cast(IO[bytes], archive.extractfile(found)), size),
    )


class _Seekable(io.BufferedReader):
    """A file of which nobody reads much at once."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > HELD:
            raise refused("its list of entries is too long; tar.gz has no such list")
        return super().read(size)


def _zip(file: io.FileIO) -> Generator[Member, None, None]:
    with zipfile.ZipFile(_Seekable(file)) as archive:
        for info in archive.infolist():
            yield _zip_member(archive, info)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    name = info.filename
    if info.flag_bits & ENCRYPTED or info.compress_type not in METHODS:
        raise refused(f"{name} is encrypted, or compressed by another method than deflate")
    mode = info.external_attr >> 16 if info.create_system == UNIX else 0
    permissions = mode & 0o777 if stat.S_IFMT(mode) else 0o755 if info.is_dir() else 0o644
    modified_at = float(calendar.timegm((*info.date_time, 0, 0, 0)))
    if info.is_dir():
        return Member(name, Kind.FOLDER, permissions, modified_at)
    if stat.S_ISLNK(mode):
        if info.file_size > LONGEST_TARGET:
            raise refused(f"{name} is a link with too long a target")
        return Member(name, Kind.LINK, permissions, modified_at, target=os.fsdecode(archive.read(info)))
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise refused(f"{name} is neither a file nor a folder nor a link")
    size = info.file_size
    return Member(
        name, Kind.FILE, permissions, modified_at, size, content=lambda: _blocks(lambda: archive.open(info), size)
    )


READERS: Mapping[ArchiveFormat, Callable[[io.FileIO], Generator[Member, None, None]]] = {
    ArchiveFormat.TAR_GZ: _tar_gz,
    ArchiveFormat.ZIP: _zip,
}
