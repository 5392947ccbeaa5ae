"""Folders as archives: a local one is packed while it is sent, and one that comes is unpacked beside its place, which
it gets when all of it was read. What comes is not trusted: whatever an archive says, nothing is written outside."""

from __future__ import annotations

import errno
import gzip
import io
import os
import secrets
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Final, Self

from workspaces.content import PIECE
from workspaces.errors import DownloadDamaged, FileChanged

CODEC: Final = "utf-8"
ERRORS: Final = "surrogateescape"
"""How the bytes of a name are a text, as of `os.fsdecode`."""

BLOCK: Final = tarfile.BLOCKSIZE
"""Bytes of a header; contents are filled up to whole ones."""

FASTEST: Final = 1
"""The compression: a client sends faster than it packs better."""

LONGEST: Final = 1_048_576
"""Bytes of a header that tells a long name or more: it is read at once."""

LONG: Final = frozenset({tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X"})
"""The types of such headers; `X` is Solaris's."""

GZIP: Final = 16 + zlib.MAX_WBITS
"""A stream of zlib with the header and the trailer of gzip."""


DAMAGE: Final = (
    *(tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError),
    *(ValueError, ArithmeticError, RecursionError),
)
"""What is raised for a bad archive; the last ones for numbers, names and headers that nobody writes."""


def packed(folder: Path) -> Iterator[bytes]:
    """What is in a folder as tar.gz, in pieces: files, folders, and links as links, without their owners. All else is
    left out. Raises `OSError` for what can't be read, and `FileChanged` for a file that gets shorter meanwhile."""
    os.scandir(folder).close()
    return _zipped(_archive(folder))


def _zipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(FASTEST, wbits=GZIP)
    for piece in pieces:
        if done := packer.compress(piece):
            yield done
    yield packer.flush()


def _archive(folder: Path) -> Iterator[bytes]:
    """The tar, without `TarFile`: that keeps every entry, and takes the content of a file in one piece."""
    for name in _walk(folder):
        path = folder / name
        entry = _entry(path, name)
        if entry is not None:
            yield entry.tobuf(tarfile.GNU_FORMAT, CODEC, ERRORS)
            if entry.isreg():
                yield from _content(path, entry.size)
    yield bytes(2 * BLOCK)


def _walk(folder: Path) -> Iterator[str]:
    """The paths of all that is in a folder, each folder before what is in it; links are not followed."""
    waiting = sorted(os.listdir(folder), reverse=True)
    while waiting:
        name = waiting.pop()
        yield name
        path = folder / name
        if _is_folder(path):
            waiting += [f"{name}/{each}" for each in sorted(os.listdir(path), reverse=True)]


def _entry(path: Path, name: str) -> tarfile.TarInfo | None:
    """The header of what is at `path`; None for a socket, a pipe or a device."""
    found = path.lstat()
    entry = tarfile.TarInfo(name)
    entry.mode = found.st_mode & 0o777
    entry.mtime = int(found.st_mtime)
    if stat.S_ISDIR(found.st_mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(found.st_mode):
        entry.type = tarfile.SYMTYPE
        entry.linkname = os.readlink(path)
    elif stat.S_ISREG(found.st_mode):
        entry.size = found.st_size
    else:
        return None
    return entry


def _content(path: Path, size: int) -> Iterator[bytes]:
    """So many bytes of a file, as its header promised them, and the rest of the last block."""
    left = size
    with path.open("rb") as file:
        while left:
            piece = file.read(min(PIECE, left))
            if not piece:
                raise FileChanged(f"{str(path)!r} got shorter while it was sent; send the folder again.")
            left -= len(piece)
            yield piece
    yield bytes(-size % BLOCK)


def unpack(pieces: Iterator[bytes], target: Path) -> None:
    """Make the folder `target` of a tar.gz; one that is there is merged into: files of the same names are replaced,
    others stay. Nothing of it gets its place before the whole archive was read. Raises `DownloadDamaged`, and `OSError`
    where a folder meets a file."""
    target = target.resolve()
    if target.exists() and not target.is_dir():
        raise _no_folder(target)
    nearest = next(each for each in (target, *target.parents) if each.is_dir())
    part = nearest / f".{secrets.token_hex(8)}.part"
    part.mkdir()
    try:
        _unpack_into(part, pieces)
        if nearest == target:
            _merge(part, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unpack_into(folder: Path, pieces: Iterator[bytes]) -> None:
    try:
        plain = _Plain(gzip.GzipFile(fileobj=io.BufferedReader(_Pieces(pieces), PIECE), mode="rb"))
        reader = io.BufferedReader(plain, PIECE)
        with tarfile.open(fileobj=reader, mode="r|", encoding=CODEC, errors=ERRORS, tarinfo=_Header) as archive:
            while (entry := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]
                _place(folder, archive, entry)
        while reader.read(PIECE):
            pass
        if not plain.used <= archive.offset <= plain.size - BLOCK:
            raise tarfile.ReadError("its end is not where its entries end")
    except DAMAGE as error:
        raise DownloadDamaged(f"The archive is damaged, so nothing of it was kept: {error}") from error


class _Header(tarfile.TarInfo):
    """A header of an archive that is not trusted."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type in LONG and found.size > LONGEST:
            raise tarfile.ReadError("a header is too long")
        return found


class _Pieces(io.RawIOBase):
    """A file to read of these bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


class _Plain(io.RawIOBase):
    """An archive that is unzipped as it is read: how many bytes there were, and where the last one ended that is not
    zero. `tarfile` takes any header that it can't read for the archive's end, which is zeros alone."""

    def __init__(self, zipped: gzip.GzipFile) -> None:
        self._zipped = zipped
        self.size = self.used = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._zipped.read(len(buffer))
        if used := len(piece.rstrip(b"\0")):
            self.used = self.size + used
        self.size += len(piece)
        buffer[: len(piece)] = piece
        return len(piece)


def _place(folder: Path, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
    """Write one entry. A link is kept wherever it leads, as it is never followed here: each folder on the way to an
    entry is one that was made here."""
    parts = _parts(entry.name)
    if not parts and entry.isdir():
        return
    place = _free_place(folder, parts, entry)
    if entry.isdir():
        place.mkdir(exist_ok=True)
        place.chmod(entry.mode & 0o777 | 0o700)
    elif entry.issym():
        place.symlink_to(entry.linkname)
    elif entry.islnk():
        place.hardlink_to(_first_of(folder, entry))
    elif entry.isreg() and (content := archive.extractfile(entry)) is not None:
        with place.open("xb") as file:
            shutil.copyfileobj(content, file, PIECE)
        os.utime(place, (entry.mtime, entry.mtime))
        place.chmod(entry.mode & 0o777)
    else:
        raise tarfile.ReadError(f"{entry.name!r} is no file, folder or link")


def _parts(name: str) -> list[str]:
    """The parts of an entry's path, each the name of something in the folder before it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or any(part == ".." or PurePath(part).name != part for part in parts):
        raise tarfile.ReadError(f"{name!r} leads out of the folder")
    return parts


def _free_place(folder: Path, parts: list[str], entry: tarfile.TarInfo) -> Path:
    """Where an entry comes: the folders above it are made, and an earlier entry of its name is replaced."""
    if not parts:
        raise tarfile.ReadError(f"{entry.name!r} is the folder, and no folder")
    for part in parts[:-1]:
        folder /= part
        if not _is_folder(folder):
            if os.path.lexists(folder):
                raise tarfile.ReadError(f"{entry.name!r} lies in what is no folder")
            folder.mkdir()
    place = folder / parts[-1]
    if not (entry.isdir() and _is_folder(place)) and os.path.lexists(place):
        if _is_folder(place):
            raise tarfile.ReadError(f"{entry.name!r} is a folder, and something else")
        place.unlink()
    return place


def _first_of(folder: Path, entry: tarfile.TarInfo) -> Path:
    """The file of the archive that a further name is of."""
    *above, name = _parts(entry.linkname) or [""]
    for part in above:
        folder /= part
        if not _is_folder(folder):
            raise tarfile.ReadError(f"{entry.name!r} is of a file that is not there")
    first = folder / name
    if first.is_symlink() or not first.is_file():
        raise tarfile.ReadError(f"{entry.name!r} is of a file that is not there")
    return first


def _merge(part: Path, target: Path) -> None:
    """Move all that is in `part` to its place in `target`; nothing is moved if a folder meets a file."""
    for source, place in [*_moves(part, target)]:
        source.replace(place)


def _moves(part: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """What is to be moved where: a folder as a whole if there is none of its name."""
    waiting = [(part, target)]
    while waiting:
        above, below = waiting.pop()
        for source in above.iterdir():
            place = below / source.name
            if not os.path.lexists(place) or not (_is_folder(source) or _is_folder(place)):
                yield source, place
            elif not _is_folder(source):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
            elif not _is_folder(place):
                raise _no_folder(place)
            else:
                waiting.append((source, place))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _no_folder(path: Path) -> OSError:
    return NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
