"""Restores a backup: checks everything, extracts it beside the target, then replaces the target.

A zip is untrusted input: names, links, sizes and modes that could reach outside the target or fill the disk are
refused. Until the replacement the target is untouched; an interrupted run leaves only a `.restoring-` folder, which the
next run deletes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Set
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from app.core.backups.store import BackupStore
from app.core.errors import ArchiveError, PermanentError, RetryableError
from app.core.storage.object_stores import file_error
from app.private_text import private
from workers.archive.format import (
    BLOCK,
    DRIVE,
    FOLDER_FLAGS,
    FORMAT_VERSION,
    entry_time,
    folder_below,
    make_folder,
    original_path,
    printable,
    stays_inside,
)
from workers.archive.reading import UNREADABLE, digest_of, entry_content
from workers.archive.sparse import Layout, read_layouts, spread
from workers.rmtree import delete_tree
from workers.runtime.base import Check, never

log = logging.getLogger(__name__)

WORK_PREFIX = ".restoring-"
NEW, OLD = "new", "old"

LONGEST_LINK = 4096
"""Bytes of a link's target; Linux's PATH_MAX."""

ENCRYPTED = 0x1
UNIX = 3
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
ZEROS = bytes(BLOCK)
UNSAFE = re.compile(r"[\\\0]")


@dataclass(frozen=True)
class Entry:
    """A file, folder or link to create. `kind` is one of `stat`'s file types, `path` is relative to the root, `layout`
    is set for a sparse file."""

    info: zipfile.ZipInfo
    path: str
    kind: int
    mode: int
    layout: Layout | None = None

    @property
    def parent(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def restore_backup(
    files: BackupStore, name: str, target: Path, max_bytes: int, max_entries: int, check: Check = never
) -> None:
    """Replace the folder `target` by the content of the backup, all or nothing.

    The running user owns the files. Raises `BackupNotFound`; `ArchiveError` when the zip is damaged, holds anything
    that could leave the target, or exceeds the limits; `NoSpace`; `PermanentError` when the folder around the target is
    missing; `RetryableError` when another restore runs or the store cannot be reached; and what `check` raises. After
    an error the target is unchanged.
    """
    sidecar = files.sidecar(name)
    with _alone(target.parent), _failing(name), closing(files.open(name)) as stored:
        _clear_leftovers(target)
        _check_digest(stored, sidecar, check)
        _check_version(sidecar)
        entries = _plan(stored, Vouched.of(sidecar), max_bytes, max_entries, check)
        work = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=target.parent))
        try:
            (work / NEW).mkdir(mode=_mode_of(target))
            _extract(stored, entries, work / NEW, check)
            os.sync()
            check()
            _swap(work, target)
        finally:
            _discard(work)


# Checks before anything is extracted.


@dataclass(frozen=True)
class Vouched:
    """The sidecar's statements about entries, which no workspace can change: the names of links that led outside in the
    user's own workspace, like a virtual environment's link to its interpreter, and the layouts of sparse files by
    name."""

    outward: Set[str]
    layouts: Mapping[str, Layout]

    @classmethod
    def of(cls, sidecar: dict[str, Any]) -> Vouched:
        return cls(frozenset(sidecar.get("outward_links", ())), read_layouts(sidecar))


def _check_version(sidecar: dict[str, Any]) -> None:
    versions = sidecar.get("versions")
    if isinstance(versions, dict) and versions.get("archive", 0) > FORMAT_VERSION:
        raise ArchiveError(f"{sidecar['name']} was made by a later release; upgrade to restore it.")


def _check_digest(stored: BinaryIO, sidecar: dict[str, Any], check: Check) -> None:
    if digest_of(stored, check) != (sidecar.get("sha256"), sidecar.get("size")):
        raise ArchiveError(f"{sidecar['name']} is damaged: its checksum or size differs from the sidecar.")


def _plan(stored: BinaryIO, vouched: Vouched, max_bytes: int, max_entries: int, check: Check) -> list[Entry]:
    """The entries to create, all checked. A link that leads outside is refused unless the sidecar lists it."""
    with zipfile.ZipFile(stored) as archive:
        infos = archive.infolist()
    if len(infos) > max_entries:
        raise ArchiveError(f"The backup has {len(infos)} entries; at most {max_entries} are restored.")
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise ArchiveError(f"The backup's files have {total} bytes; at most {max_bytes} are restored.")
    entries = [_entry(info, vouched.layouts) for info in infos]
    kinds: dict[str, int] = {}
    for entry in entries:
        if entry.path in kinds:
            raise _refused(entry.info, "it exists twice")
        kinds[entry.path] = entry.kind
    for entry in entries:
        check()
        _check_parents(entry, kinds)
        if entry.kind == stat.S_IFLNK:
            _check_link(entry, _link_target(stored, entry), vouched.outward)
    return entries


def _entry(info: zipfile.ZipInfo, layouts: Mapping[str, Layout]) -> Entry:
    """The entry, once its name, type and size are safe."""
    path = _path_of(info)
    if info.flag_bits & ENCRYPTED or info.compress_type not in METHODS:
        raise _refused(info, "it is encrypted, or compressed by an unknown method")
    kind, permissions = _kind_of(info)
    if kind != stat.S_IFREG and info.file_size > (LONGEST_LINK if kind == stat.S_IFLNK else 0):
        raise _refused(info, "it is too large for a folder or link")
    layout = layouts.get(info.orig_filename)
    if layout is not None and (kind != stat.S_IFREG or layout.stored != info.file_size):
        raise _refused(info, "its data differs from the sidecar")
    return Entry(info, path, kind, permissions, layout)


def _path_of(info: zipfile.ZipInfo) -> str:
    """The path to restore the entry to, relative to the root."""
    name = info.orig_filename
    if UNSAFE.search(name) or DRIVE.match(name) or name.startswith("/"):
        raise _refused(info, "its name is not a relative path")
    plain = name.removesuffix("/")
    if any(part in ("", ".", "..") for part in plain.split("/")):
        raise _refused(info, "its name leads outside or nowhere")
    return original_path(plain)


def _kind_of(info: zipfile.ZipInfo) -> tuple[int, int]:
    """The entry's type, as in `stat`, and its permissions."""
    is_folder = info.orig_filename.endswith("/")
    mode = info.external_attr >> 16 if info.create_system == UNIX else 0
    kind = stat.S_IFMT(mode) or (stat.S_IFDIR if is_folder else stat.S_IFREG)
    if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK) or (kind == stat.S_IFDIR) != is_folder:
        raise _refused(info, "it is neither a file nor a folder nor a link")
    return kind, mode & 0o777 if stat.S_IFMT(mode) else (0o755 if is_folder else 0o644)


def _check_parents(entry: Entry, kinds: dict[str, int]) -> None:
    parent = entry.parent
    while parent:
        if kinds.get(parent, stat.S_IFDIR) != stat.S_IFDIR:
            raise _refused(entry.info, "its parent is not a folder")
        parent = parent.rpartition("/")[0]


def _check_link(entry: Entry, target: bytes, outward: Set[str]) -> None:
    if not target or b"\0" in target:
        raise _refused(entry.info, "it is a link without a target")
    if not stays_inside(entry.path, os.fsdecode(target)) and entry.info.orig_filename not in outward:
        raise _refused(entry.info, "it is a link that leaves the workspace")


def _link_target(stored: BinaryIO, entry: Entry) -> bytes:
    return b"".join(entry_content(stored, entry.info, never))


def _refused(info: zipfile.ZipInfo, why: str) -> ArchiveError:
    return ArchiveError(f"The backup is refused because of its entry {private(printable(info.orig_filename))}: {why}.")


# Extraction.


def _extract(stored: BinaryIO, entries: list[Entry], new: Path, check: Check) -> None:
    root = os.open(new, FOLDER_FLAGS)
    try:
        for parent, group in groupby(entries, key=lambda entry: entry.parent):
            with folder_below(root, parent, create=True) as folder:
                for entry in group:
                    check()
                    _place(stored, entry, folder, check)
        # Last, the deepest first: creating in a folder changes its time and needs write permission.
        folders = [entry for entry in entries if entry.kind == stat.S_IFDIR]
        for entry in sorted(folders, key=lambda entry: entry.path.count("/"), reverse=True):
            check()
            with folder_below(root, entry.parent) as folder:
                os.chmod(entry.name, entry.mode, dir_fd=folder)
                _set_time(entry, folder)
    finally:
        os.close(root)


def _place(stored: BinaryIO, entry: Entry, folder: int, check: Check) -> None:
    if entry.kind == stat.S_IFDIR:
        make_folder(entry.name, folder)
    elif entry.kind == stat.S_IFLNK:
        os.symlink(os.fsdecode(_link_target(stored, entry)), entry.name, dir_fd=folder)
        _set_time(entry, folder)
    else:
        _place_file(stored, entry, folder, check)


def _place_file(stored: BinaryIO, entry: Entry, folder: int, check: Check) -> None:
    """Write one file; blocks of zeros become holes, as large images and databases have many."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(entry.name, flags, 0o600, dir_fd=folder), "wb", buffering=0) as file:
        content = entry_content(stored, entry.info, check)
        if entry.layout is None:
            _write_plain(content, entry.info.file_size, file)
        else:
            spread(content, entry.layout, file.fileno())
        os.fchmod(file.fileno(), entry.mode)
        os.utime(file.fileno(), (entry_time(entry.info),) * 2)


def _write_plain(content: Iterator[bytes], size: int, file: FileIO) -> None:
    for block in content:
        if block == ZEROS:
            file.seek(BLOCK, os.SEEK_CUR)
            continue
        rest = memoryview(block)
        while rest:
            rest = rest[file.write(rest) :]
    file.truncate(size)


def _set_time(entry: Entry, folder: int) -> None:
    os.utime(entry.name, (entry_time(entry.info),) * 2, dir_fd=folder, follow_symlinks=False)


# Replacing the target, and leftovers of interrupted runs.


def _mode_of(target: Path) -> int:
    return stat.S_IMODE(target.stat().st_mode) & 0o777 if target.is_dir() else 0o755


def _swap(work: Path, target: Path) -> None:
    with suppress(FileNotFoundError):
        os.rename(target, work / OLD)
    try:
        os.rename(work / NEW, target)
    except OSError:
        _put_back(work, target)
        raise
    folder = os.open(target.parent, FOLDER_FLAGS)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _put_back(work: Path, target: Path) -> None:
    if os.path.lexists(work / OLD) and not os.path.lexists(target):
        os.rename(work / OLD, target)


def _clear_leftovers(target: Path) -> None:
    """Undo interrupted runs, also one between the two renames of `_swap`."""
    for work in target.parent.glob(WORK_PREFIX + "*"):
        _put_back(work, target)
        _discard(work)


def _discard(work: Path) -> None:
    """Delete a work folder; a failure does not fail the restore, and the next run tries again."""
    try:
        delete_tree(work)
    except RetryableError as error:
        log.warning("a leftover of a restore was not deleted: %s", error)


@contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """Lock the folder around the target; the kernel unlocks it when this process dies."""
    try:
        folder = os.open(parent, FOLDER_FLAGS)
    except OSError as error:
        raise PermanentError("The workspace to restore has no folder.") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(folder)
        raise RetryableError("Another restore into this workspace is running.") from error
    try:
        yield
    finally:
        os.close(folder)


@contextmanager
def _failing(name: str) -> Iterator[None]:
    """Turn errors of files and zips into the service's, without paths of this machine."""
    try:
        yield
    except OSError as error:
        full = f"The disk is full: {name} could not be restored. The existing files are unchanged."
        raise file_error(error, f"{name} could not be restored", full) from error
    except UNREADABLE as error:
        raise ArchiveError(f"{name} is not a valid zip: {private(str(error))}") from error
