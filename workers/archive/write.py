"""Writes a backup: streams the files into a zip, reads it back, and publishes it.

The workspace may be running, and hostile. So no link is ever followed, a FIFO in the place of a file cannot block, and
a file is stored when its state is the same before and after reading; if it never is, the backup holds what was read and
names the file as changed. A backup is refused when many files vanished or the folder was replaced meanwhile, when files
are unreadable (unless it may be partial), and when it could not be restored.

Memory is constant except for names: a small file is read whole, so it can be read again before it enters the zip; a
large one is streamed, and if it changed meanwhile the whole zip is written a second time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import stat
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from isal import isal_zlib
from stream_zip import NO_COMPRESSION_32, NO_COMPRESSION_64, ZIP_32, ZIP_64, MemberFile, Method, ZipError, stream_zip

from app.core.backups.index import identity_fields
from app.core.backups.store import BackupStore, NewBackup
from app.core.errors import ArchiveError, FilesGone, PermanentError, RetryableError
from app.core.sessions.model import Identity
from app.process.private_text import private
from workers.archive.conversation import conversation
from workers.archive.format import (
    BLOCK,
    FORMAT_VERSION,
    printable,
    stays_inside,
    zip_time,
)
from workers.archive.source import Source, opened
from workers.archive.sparse import PIECES, Layout, layout_of
from workers.archive.terms import Terms, TooMuch, Unreadable, incomplete, refusal
from workers.archive.verify import Expected, verify
from workers.archive.walking import VANISHED, Found, Replaced, open_file
from workers.runtime.base import BackupSummary

log = logging.getLogger(__name__)

DISTRIBUTION = "workspace-session-manager"

SMALL = 8 * BLOCK
"""Bytes up to which a file is read whole: nearly all files of a workspace."""

LOOKS = 3
"""How often a small file is read until it did not change meanwhile."""

PASSES = 2
"""How often the whole zip is written when a large file changed meanwhile or many files vanished."""

MANY, MANY_SHARE = 50, 0.005
"""How many files, or what share of all, may vanish while they are read. More vanish when somebody deletes the workspace
(of 40,000 files in 100 folders 274 were missed, with 14,239 in them) or a large part of it."""

LISTED = 100
"""How many changed or skipped paths are named, so that they do not fill a record."""

LEVEL = 1
"""ISA-L's fastest level that compresses: 280 MB/s where zlib's default reaches 44."""

CLASSIC_BYTES = 1 << 31
CLASSIC_ENTRIES = 60_000
"""Beyond these an entry is written as zip64, well before the classic format ends (4 GiB, 65,535
entries); below them even the oldest tools read the zip."""

ANY = Terms()


@dataclass
class Stats:
    """What the zip holds so far. `unsettled` says that a large file changed while it was streamed; `announced` counts
    bytes of the zip, `restored` those that a restore will write."""

    terms: Terms
    entries: int = 0
    files: int = 0
    content_bytes: int = 0
    announced: int = 0
    restored: int = 0
    vanished: int = 0
    pieces: int = 0
    unreadable_count: int = 0
    changed: dict[str, None] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    outward_links: list[str] = field(default_factory=list)
    sparse: dict[str, Layout] = field(default_factory=dict)
    unsettled: bool = False

    def classic(self, size: int) -> bool:
        """Count an entry of `size` bytes; whether it still fits the classic format. `TooMuch` when a restore would
        refuse it."""
        self.entries += 1
        self.announced += size + 512
        self.restored += size
        if self.entries > self.terms.max_entries or self.restored > self.terms.max_bytes:
            raise TooMuch
        return self.announced < CLASSIC_BYTES and self.entries < CLASSIC_ENTRIES

    def missed(self, path: str, error: Exception) -> None:
        """Note a path that vanished, was replaced, or is unreadable, which raises `Unreadable` when the backup must be
        complete. Any other error is raised."""
        if isinstance(error, PermissionError):
            if not self.terms.partial:
                raise Unreadable from error
            self.unreadable_count += 1
            if self.unreadable_count <= LISTED:
                self.unreadable.append(printable(path))
        elif isinstance(error, (*VANISHED, Replaced)):
            self.vanished += isinstance(error, VANISHED)
            self.changed[printable(path)] = None
        elif isinstance(error, OSError):
            raise _unread(path, error) from error
        else:
            raise error

    @property
    def dissolved(self) -> bool:
        """Whether so many files vanished that the rest does not represent the workspace."""
        return self.vanished > max(MANY, MANY_SHARE * self.entries)


def write_backup(
    root: Path, files: BackupStore, name: str, identity: Identity, now: float, terms: Terms = ANY
) -> BackupSummary:
    """Back up the project's folder `root`, and the conversation beside it, as `name`, made at `now` (seconds since the
    epoch).

    Nothing appears under that name unless all of it was read back and is valid; an existing backup of that name is
    returned unchanged. Raises `FilesGone` when `root` was removed meanwhile, `BackupIncomplete` and `PermanentError` by
    the terms and when `root` is not a folder, `ArchiveError`, `NoSpace`, `RetryableError`, and what `terms.check`
    raises.
    """
    if files.is_published(name):
        return _summary(files.sidecar(name), terms)
    for final in (False,) * (PASSES - 1) + (True,):
        with files.writing(name) as part, _opened(root) as source:
            stats = Stats(terms)
            try:
                digest = _write(source, part, stats)
            except (TooMuch, Unreadable) as why:
                raise refusal(why, source, terms) from why
            _check_in_place(root, source.project, identity.uuid)
            if (stats.unsettled or stats.dissolved) and not final:
                continue
            if stats.dissolved:
                raise RetryableError(f"{stats.vanished} files or folders vanished while they were backed up.")
            with part.read_back() as stored:
                verify(stored, name, _expected(digest, part.written, stats), terms.check)
            described = _sidecar(name, identity, now, part.written, digest, stats)
            described["conversation"] = conversation(source.volume)
            # If the folder is still in place all files were complete: a removal renames it before it deletes files.
            _check_in_place(root, source.project, identity.uuid)
            terms.check()
            return _summary(part.commit(described), terms)
    raise AssertionError("the last pass returns or raises")


def _check_in_place(root: Path, folder: int, uuid: str) -> None:
    """Raise unless the folder that was read is still the workspace's."""
    try:
        there = os.stat(root, follow_symlinks=False)
    except VANISHED as error:
        raise FilesGone(uuid) from error
    if not os.path.samestat(there, os.fstat(folder)):
        raise RetryableError("The workspace's files were replaced while they were backed up.")


def _expected(digest: str, size: int, stats: Stats) -> Expected:
    stored = {name: layout.stored for name, layout in stats.sparse.items()}
    return Expected(digest, size, stats.entries, stats.content_bytes, stored)


def _sidecar(name: str, identity: Identity, now: float, size: int, digest: str, stats: Stats) -> dict[str, Any]:
    return {
        "name": name,
        "uuid": identity.uuid,
        "user_id": identity.user_id,
        "created_at": now,
        "size": size,
        "files": stats.files,
        "content_bytes": stats.content_bytes,
        "sha256": digest,
        "verified": True,
        "entries": stats.entries,
        "changed": list(stats.changed)[:LISTED],
        "changed_count": len(stats.changed),
        "skipped": stats.skipped[:LISTED],
        "skipped_count": len(stats.skipped),
        "complete": not stats.unreadable_count,
        "unreadable": stats.unreadable,
        "unreadable_count": stats.unreadable_count,
        "outward_links": stats.outward_links,
        "sparse": {name: layout.to_json() for name, layout in stats.sparse.items()},
        "versions": {"manager": _manager_version(), "archive": FORMAT_VERSION},
        "identity": identity_fields(identity),
    }


def _summary(sidecar: dict[str, Any], terms: Terms) -> BackupSummary:
    """The summary of a sidecar, maybe of another writer; `BackupIncomplete` when the terms do not allow it."""
    summary = BackupSummary(
        created_at=sidecar["created_at"],
        size=sidecar["size"],
        files=sidecar["files"],
        content_bytes=sidecar["content_bytes"],
        sha256=sidecar["sha256"],
        changed=tuple(sidecar["changed"]),
        unreadable=tuple(sidecar["unreadable"]),
        unreadable_count=sidecar["unreadable_count"],
    )
    if summary.unreadable_count and not terms.partial:
        raise incomplete(summary.unreadable_count, summary.unreadable)
    return summary


def _manager_version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _write(source: Source, part: NewBackup, stats: Stats) -> str:
    """Stream the tree into the new backup; the SHA-256 of what was written."""
    digest = hashlib.sha256()
    chunks = stream_zip(_tree(source, stats), chunk_size=BLOCK, get_compressobj=_compressor)
    try:
        for chunk in chunks:
            digest.update(chunk)
            part.write(chunk)
    except ZipError as error:
        raise ArchiveError(f"A zip cannot hold this workspace ({type(error).__name__}).") from error
    return digest.hexdigest()


def _compressor() -> Any:
    return isal_zlib.compressobj(level=LEVEL, wbits=-zlib.MAX_WBITS)


@contextmanager
def _opened(root: Path) -> Iterator[Source]:
    with ExitStack() as stack:
        try:
            source = stack.enter_context(opened(root))
        except VANISHED as error:
            raise PermanentError("The workspace has no folder of files to back up.") from error
        except PermissionError as error:
            raise incomplete(1, [""]) from error
        except OSError as error:
            raise ArchiveError(f"The workspace's files cannot be opened ({os.strerror(error.errno or 0)}).") from error
        yield source


def _tree(source: Source, stats: Stats) -> Iterator[MemberFile]:
    """Every entry, a folder before its content, names in order."""
    for found in source.walk(stats.missed, stats.terms.check):
        try:
            yield from _members(found, stats)
        except (OSError, Replaced) as error:
            stats.missed(found.path, error)


def _members(found: Found, stats: Stats) -> Iterator[MemberFile]:
    """The zip entry of a found path: one, or none if it vanished or is a special file."""
    if stat.S_ISDIR(found.info.st_mode):
        yield _plain(found.stored + "/", found.info, b"", stats)
    elif stat.S_ISLNK(found.info.st_mode):
        yield _link(found, stats)
    elif stat.S_ISREG(found.info.st_mode):
        yield from _file(found, stats)
    else:
        # Its name is in the sidecar.
        log.info("a special file is left out of a backup")
        stats.skipped.append(printable(found.path))


def _unread(path: str, error: OSError) -> RetryableError:
    named = private(printable(path)) if path else "The workspace"
    return RetryableError(f"{named} cannot be read ({os.strerror(error.errno or 0)}).")


def _link(found: Found, stats: Stats) -> MemberFile:
    try:
        target = os.readlink(found.name, dir_fd=found.folder)
    except OSError as error:
        raise Replaced from error
    if not stays_inside(found.path, target):
        stats.outward_links.append(found.stored)
    stats.files += 1
    return _plain(found.stored, found.info, os.fsencode(target), stats)


def _plain(name: str, info: os.stat_result, data: bytes, stats: Stats) -> MemberFile:
    """An entry stored without compression: folders, links, empty files."""
    method = NO_COMPRESSION_32 if stats.classic(len(data)) else NO_COMPRESSION_64
    return _member(name, info, method, (data,) if data else ())


def _member(name: str, info: os.stat_result, method: Method, chunks: Iterable[bytes]) -> MemberFile:
    # Set-uid, set-gid and sticky bits are left out: a restored file has another owner.
    mode = stat.S_IFMT(info.st_mode) | (info.st_mode & 0o777)
    return name, zip_time(info.st_mtime_ns // 10**9), mode, method, chunks


def _file(found: Found, stats: Stats) -> Iterator[MemberFile]:
    """The entry of a regular file: one, or none if it vanished."""
    for _ in range(LOOKS):
        with open_file(found.folder, found.name) as file:
            before = os.fstat(file.fileno())
            if before.st_size > SMALL:
                yield from _large(file, found, before, stats)
                return
            data = file.read(before.st_size + 1)
            after = os.fstat(file.fileno())
        if _same(before, after) and len(data) == before.st_size:
            break
    else:
        stats.changed[printable(found.path)] = None
    stats.files += 1
    stats.content_bytes += len(data)
    if not data:
        yield _plain(found.stored, after, data, stats)
        return
    yield _member(found.stored, after, ZIP_32 if stats.classic(len(data)) else ZIP_64, (data,))


def _large(file: BinaryIO, found: Found, before: os.stat_result, stats: Stats) -> Iterator[MemberFile]:
    whole = Layout(before.st_size, ((0, before.st_size),))
    sparse = layout_of(file.fileno(), before.st_size, PIECES - stats.pieces, stats.terms.check)
    layout = sparse or whole
    stats.pieces += len(layout.data) + 1 if sparse else 0
    method = ZIP_32 if stats.classic(layout.stored) else ZIP_64
    stats.files += 1
    with closing(_stream(file, found, before, layout, stats)) as chunks:
        yield _member(found.stored, before, method, chunks)


def _stream(
    file: BinaryIO, found: Found, before: os.stat_result, layout: Layout, stats: Stats
) -> Generator[bytes, None, None]:
    """The data of a large file, up to its first size: a file that grows faster than it is read would never end. For a
    sparse file, the layout of what was read is noted."""
    read = []
    left = 0
    for start, length in layout.data:
        file.seek(start)
        left = length
        while left and (block := _next_block(file, found.path, left)):
            stats.terms.check()
            left -= len(block)
            stats.content_bytes += len(block)
            yield block
        read.append((start, length - left))
        if left:
            break
    if layout.stored < layout.size:
        stats.sparse[found.stored] = Layout(sum(read[-1]) if left else layout.size, tuple(read))
    if left or not _same(before, os.fstat(file.fileno())):
        stats.unsettled = True
        stats.changed[printable(found.path)] = None


def _next_block(file: BinaryIO, path: str, left: int) -> bytes:
    try:
        return file.read(min(BLOCK, left))
    except OSError as error:
        raise _unread(path, error) from error


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    looks = [(s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in (before, after)]
    return looks[0] == looks[1]
