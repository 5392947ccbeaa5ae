"""Writing a backup: the tree streamed into a zip, read back, and only then published.

The workspace may be running and hostile meanwhile. So no link is ever followed, a FIFO put in a
file's place can't block, and a file is taken as it was between two equal looks at it; where no two
looks are equal, the backup holds what was read and names the file as changed.

Memory is flat but for the names: a small file is read whole, which lets it be read again before
anything of it is in the zip; a large one is streamed, and when it changed meanwhile the whole zip is
written a second time, since what was streamed can't be taken back.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import stat
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from isal import isal_zlib
from stream_zip import NO_COMPRESSION_32, NO_COMPRESSION_64, ZIP_32, ZIP_64, MemberFile, Method, ZipError, stream_zip

from app.sessions.backup_files import BackupFiles, NewBackup
from app.sessions.backups import identity_fields
from app.sessions.errors import ArchiveError, PermanentError, RetryableError
from app.sessions.model import Identity
from workers.archive.conversation import conversation
from workers.archive.format import (
    BLOCK,
    FOLDER_FLAGS,
    FORMAT_VERSION,
    folder_below,
    printable,
    stays_inside,
    stored_name,
    zip_time,
)
from workers.archive.verify import Expected, verify
from workers.runtime.base import BackupSummary

log = logging.getLogger(__name__)

DISTRIBUTION = "workspace-session-manager"

SMALL = 8 * BLOCK
"""Files up to this many bytes are read whole: nearly all of a workspace's, and no burden on memory."""

LOOKS = 3
"""How often a small file is read in the hope that it holds still."""

PASSES = 2
"""How often the whole zip is written when a large file changed meanwhile."""

LISTED = 100
"""How many changed or skipped paths are named; a runaway log folder must not fill a record."""

LEVEL = 1
"""ISA-L's fastest level that compresses: 280 MB/s where zlib's default reaches 44."""

CLASSIC_BYTES = 1 << 31
CLASSIC_ENTRIES = 60_000
"""Beyond these an entry is written as zip64, well before the classic format ends (4 GiB, 65,535
entries); below them even the oldest tools read the zip."""

FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

VANISHED = (FileNotFoundError, NotADirectoryError)


@dataclass
class Tally:
    """What went into a zip so far. `unsettled` says that a large file changed while it was streamed."""

    entries: int = 0
    files: int = 0
    content_bytes: int = 0
    announced: int = 0
    changed: dict[str, None] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    outward_links: list[str] = field(default_factory=list)
    unsettled: bool = False

    def classic(self, size: int) -> bool:
        """Count an entry of about `size` bytes; whether it still fits the classic format."""
        self.entries += 1
        self.announced += size + 512
        return self.announced < CLASSIC_BYTES and self.entries < CLASSIC_ENTRIES


def write_backup(root: Path, files: BackupFiles, name: str, identity: Identity, now: float) -> BackupSummary:
    """Back up what is in `root` as `name`, made at `now` (seconds since the epoch).

    Nothing appears under that name unless all of it was read back and is good; a backup that is there
    already is left alone and described. Raises `PermanentError` when `root` is no folder, `ArchiveError`
    naming a path that may not be read, `NoSpace`, and `RetryableError`.
    """
    if files.exists(name):
        return _summary(files.sidecar(name))
    for final in (False,) * (PASSES - 1) + (True,):
        with files.writing(name) as part, _opened(root) as folder:
            tally = Tally()
            digest = _write(folder, part, tally)
            if tally.unsettled and not final:
                continue
            with part.read_back() as stored:
                verify(stored, name, Expected(digest, part.written, tally.entries, tally.content_bytes))
            described = _sidecar(name, identity, now, part.written, digest, tally)
            described["conversation"] = conversation(folder)
            return _summary(part.commit(described))
    raise AssertionError("the last pass returns or raises")


def _sidecar(name: str, identity: Identity, now: float, size: int, digest: str, tally: Tally) -> dict[str, Any]:
    return {
        "name": name,
        "uuid": identity.uuid,
        "user_id": identity.user_id,
        "created_at": now,
        "size": size,
        "files": tally.files,
        "content_bytes": tally.content_bytes,
        "sha256": digest,
        "verified": True,
        "entries": tally.entries,
        "changed": list(tally.changed)[:LISTED],
        "changed_count": len(tally.changed),
        "skipped": tally.skipped[:LISTED],
        "skipped_count": len(tally.skipped),
        "outward_links": tally.outward_links,
        "versions": {"manager": _manager_version(), "archive": FORMAT_VERSION},
        "identity": identity_fields(identity),
    }


def _summary(sidecar: dict[str, Any]) -> BackupSummary:
    return BackupSummary(
        created_at=sidecar["created_at"],
        size=sidecar["size"],
        files=sidecar["files"],
        content_bytes=sidecar["content_bytes"],
        sha256=sidecar["sha256"],
        changed=tuple(sidecar["changed"]),
    )


def _manager_version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _write(folder: int, part: NewBackup, tally: Tally) -> str:
    """Stream the tree into the new backup; the SHA-256 of what was written."""
    digest = hashlib.sha256()
    chunks = stream_zip(_tree(folder, tally), chunk_size=BLOCK, get_compressobj=_compressor)
    try:
        for chunk in chunks:
            digest.update(chunk)
            part.write(chunk)
    except ZipError as error:
        raise ArchiveError(f"A zip can't hold this workspace ({type(error).__name__}).") from error
    return digest.hexdigest()


def _compressor() -> Any:
    return isal_zlib.compressobj(level=LEVEL, wbits=-zlib.MAX_WBITS)


@contextmanager
def _opened(root: Path) -> Iterator[int]:
    try:
        folder = os.open(root, FOLDER_FLAGS)
    except VANISHED as error:
        raise PermanentError("The workspace has no folder of files to back up.") from error
    except OSError as error:
        raise ArchiveError(f"The workspace's files can't be opened ({os.strerror(error.errno or 0)}).") from error
    try:
        yield folder
    finally:
        os.close(folder)


def _tree(root: int, tally: Tally) -> Iterator[MemberFile]:
    """Every entry under `root`, a folder before what is in it, names in order."""
    pending = [""]
    while pending:
        path = pending.pop()
        subfolders: list[str] = []
        with _reading(path, tally), folder_below(root, path) as folder:
            prefix = path + "/" if path else ""
            for name in sorted(os.listdir(folder)):
                inner = prefix + name
                with _reading(inner, tally):
                    info = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        subfolders.append(inner)
                        yield _plain(inner + "/", info, b"", tally)
                    elif stat.S_ISLNK(info.st_mode):
                        yield _link(folder, name, inner, info, tally)
                    elif stat.S_ISREG(info.st_mode):
                        yield from _file(folder, name, inner, tally)
                    else:
                        log.info("not a file, left out of the backup: %s", printable(inner))
                        tally.skipped.append(printable(inner))
        pending.extend(reversed(subfolders))


@contextmanager
def _reading(path: str, tally: Tally) -> Iterator[None]:
    """What vanished or became something else since it was listed is noted and passed over; what may
    not be read fails the backup, since a backup that lacks a file is none."""
    try:
        yield
    except PermissionError as error:
        raise ArchiveError(f"{printable(path) or 'The workspace'} can't be read: permission denied.") from error
    except (*VANISHED, Replaced):
        tally.changed[printable(path)] = None
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> RetryableError:
    return RetryableError(f"{printable(path) or 'The workspace'} can't be read ({os.strerror(error.errno or 0)}).")


class Replaced(Exception):
    """Something else stands where a file or link was a moment ago."""


def _link(folder: int, name: str, path: str, info: os.stat_result, tally: Tally) -> MemberFile:
    try:
        target = os.readlink(name, dir_fd=folder)
    except OSError as error:
        raise Replaced from error
    if not stays_inside(path, target):
        tally.outward_links.append(stored_name(path))
    tally.files += 1
    return _plain(path, info, os.fsencode(target), tally)


def _plain(path: str, info: os.stat_result, data: bytes, tally: Tally) -> MemberFile:
    """An entry stored without compression: folders, links, empty files."""
    method = NO_COMPRESSION_32 if tally.classic(len(data)) else NO_COMPRESSION_64
    return _member(path, info, method, (data,) if data else ())


def _member(path: str, info: os.stat_result, method: Method, chunks: Iterable[bytes]) -> MemberFile:
    # Set-uid, set-gid and sticky bits are left out: a restored file has another owner.
    mode = stat.S_IFMT(info.st_mode) | (info.st_mode & 0o777)
    return stored_name(path), zip_time(info.st_mtime_ns // 10**9), mode, method, chunks


def _file(folder: int, name: str, path: str, tally: Tally) -> Iterator[MemberFile]:
    """The entry of a regular file: one, none if it vanished."""
    for _ in range(LOOKS):
        with _open_file(folder, name) as file:
            before = os.fstat(file.fileno())
            if before.st_size > SMALL:
                method = ZIP_32 if tally.classic(before.st_size) else ZIP_64
                tally.files += 1
                with closing(_stream(file, path, before, tally)) as chunks:
                    yield _member(path, before, method, chunks)
                return
            data = file.read(before.st_size + 1)
            after = os.fstat(file.fileno())
        if _same(before, after) and len(data) == before.st_size:
            break
    else:
        tally.changed[printable(path)] = None
    tally.files += 1
    tally.content_bytes += len(data)
    if not data:
        yield _plain(path, after, data, tally)
        return
    yield _member(path, after, ZIP_32 if tally.classic(len(data)) else ZIP_64, (data,))


@contextmanager
def _open_file(folder: int, name: str) -> Iterator[BinaryIO]:
    try:
        file = os.open(name, FILE_FLAGS, dir_fd=folder)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        # A link (ELOOP) or a socket (ENXIO) took its place.
        raise Replaced from error
    with open(file, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise Replaced
        yield stream


def _stream(file: BinaryIO, path: str, before: os.stat_result, tally: Tally) -> Generator[bytes, None, None]:
    """A large file as it is read, no more of it than it had at first: one that grows faster than it
    is read would never end."""
    left = before.st_size
    while left and (block := _next_block(file, path, left)):
        left -= len(block)
        tally.content_bytes += len(block)
        yield block
    if left or not _same(before, os.fstat(file.fileno())):
        tally.unsettled = True
        tally.changed[printable(path)] = None


def _next_block(file: BinaryIO, path: str, left: int) -> bytes:
    try:
        return file.read(min(BLOCK, left))
    except OSError as error:
        raise _unreadable(path, error) from error


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    looks = [(s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in (before, after)]
    return looks[0] == looks[1]
