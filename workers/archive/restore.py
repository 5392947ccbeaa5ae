"""Restoring a backup: everything checked first, extracted beside the target, then swapped in.

A zip is input like any other: its names, links, sizes and modes are refused where they could reach
outside the target or fill the disk. Until the swap the target is untouched; a run that was killed
leaves only a `.restoring-` folder, which the next run clears away.
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

from app.sessions.backup_files import BackupFiles, file_error
from app.sessions.errors import ArchiveError, PermanentError, RetryableError
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
from workers.runtime.base import Check, never
from workers.trees import delete_tree

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
    """One thing to create. `kind` is one of `stat`'s file types, `path` relative to the root, `layout` that of a
    sparse file."""

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
    files: BackupFiles, name: str, target: Path, max_bytes: int, max_entries: int, check: Check = never
) -> None:
    """Replace the folder `target` by what the backup holds, all or nothing.

    Files belong to the running user. Raises `BackupNotFound`; `ArchiveError` when the zip is damaged,
    holds anything that could leave the target, or is beyond the limits; `NoSpace`; `PermanentError`
    when the folder around the target is missing; `RetryableError` when another run is at it or the
    store can't be reached; and what `check` does. After any of them the target is as it was.
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


# Checks: all that can be known before a byte is extracted.


@dataclass(frozen=True)
class Vouched:
    """What the sidecar says of the entries, where no workspace can write: the names of the links that the user's own
    workspace had leading outside, as a virtual environment's to its interpreter does, and the sparse files'
    layouts by name."""

    outward: Set[str]
    layouts: Mapping[str, Layout]

    @classmethod
    def of(cls, sidecar: dict[str, Any]) -> Vouched:
        return cls(frozenset(sidecar.get("outward_links", ())), read_layouts(sidecar))


def _check_version(sidecar: dict[str, Any]) -> None:
    versions = sidecar.get("versions")
    if isinstance(versions, dict) and versions.get("archive", 0) > FORMAT_VERSION:
        raise ArchiveError(f"{sidecar['name']} was made by a later release, which is needed to restore it.")


def _check_digest(stored: BinaryIO, sidecar: dict[str, Any], check: Check) -> None:
    if digest_of(stored, check) != (sidecar.get("sha256"), sidecar.get("size")):
        raise ArchiveError(f"{sidecar['name']} is damaged: it is not what was verified when it was made.")


def _plan(stored: BinaryIO, vouched: Vouched, max_bytes: int, max_entries: int, check: Check) -> list[Entry]:
    """The entries to create, once none of them can do harm. A link that leads outside and isn't vouched for is
    refused."""
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
            raise _refused(entry.info, "it is there twice")
        kinds[entry.path] = entry.kind
    for entry in entries:
        check()
        _check_parents(entry, kinds)
        if entry.kind == stat.S_IFLNK:
            _check_link(entry, _link_target(stored, entry), vouched.outward)
    return entries


def _entry(info: zipfile.ZipInfo, layouts: Mapping[str, Layout]) -> Entry:
    name = info.orig_filename
    if UNSAFE.search(name) or DRIVE.match(name) or name.startswith("/"):
        raise _refused(info, "its name is not a relative path")
    plain = name.removesuffix("/")
    if any(part in ("", ".", "..") for part in plain.split("/")):
        raise _refused(info, "its name leads outside or nowhere")
    if info.flag_bits & ENCRYPTED or info.compress_type not in METHODS:
        raise _refused(info, "it is encrypted or compressed in an unknown way")
    is_folder = name.endswith("/")
    mode = info.external_attr >> 16 if info.create_system == UNIX else 0
    kind = stat.S_IFMT(mode) or (stat.S_IFDIR if is_folder else stat.S_IFREG)
    if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK) or (kind == stat.S_IFDIR) != is_folder:
        raise _refused(info, "it is neither file, folder nor link")
    if kind != stat.S_IFREG and info.file_size > (LONGEST_LINK if kind == stat.S_IFLNK else 0):
        raise _refused(info, "it is too long for what it is")
    layout = layouts.get(name)
    if layout is not None and (kind != stat.S_IFREG or layout.stored != info.file_size):
        raise _refused(info, "its data is not what the sidecar says")
    permissions = mode & 0o777 if stat.S_IFMT(mode) else (0o755 if is_folder else 0o644)
    return Entry(info, original_path(plain), kind, permissions, layout)


def _check_parents(entry: Entry, kinds: dict[str, int]) -> None:
    parent = entry.parent
    while parent:
        if kinds.get(parent, stat.S_IFDIR) != stat.S_IFDIR:
            raise _refused(entry.info, "it lies below what is no folder")
        parent = parent.rpartition("/")[0]


def _check_link(entry: Entry, target: bytes, outward: Set[str]) -> None:
    if not target or b"\0" in target:
        raise _refused(entry.info, "it is a link to nowhere")
    if not stays_inside(entry.path, os.fsdecode(target)) and entry.info.orig_filename not in outward:
        raise _refused(entry.info, "it is a link that leaves the workspace")


def _link_target(stored: BinaryIO, entry: Entry) -> bytes:
    return b"".join(entry_content(stored, entry.info, never))


def _refused(info: zipfile.ZipInfo, why: str) -> ArchiveError:
    return ArchiveError(f"The backup is refused because of its entry {printable(info.orig_filename)!r}: {why}.")


# Extraction.


def _extract(stored: BinaryIO, entries: list[Entry], new: Path, check: Check) -> None:
    root = os.open(new, FOLDER_FLAGS)
    try:
        for parent, group in groupby(entries, key=lambda entry: entry.parent):
            with folder_below(root, parent, create=True) as folder:
                for entry in group:
                    check()
                    _place(stored, entry, folder, check)
        # Last and from the deepest up: creating in a folder moves its time and needs its write permission.
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


# The swap, and what is left of runs that were killed.


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
    """Undo runs that were killed, even one killed between the two renames of its swap."""
    for work in target.parent.glob(WORK_PREFIX + "*"):
        _put_back(work, target)
        _discard(work)


def _discard(work: Path) -> None:
    """Remove a work folder; if that fails, the outcome of the restore stands and the next run tries again."""
    try:
        delete_tree(work)
    except RetryableError as error:
        log.warning("a leftover of a restore stays for now: %s", error)


@contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """Hold the folder around the target; the kernel lets go of it when this process dies."""
    try:
        folder = os.open(parent, FOLDER_FLAGS)
    except OSError as error:
        raise PermanentError("The workspace to restore into has no folder.") from error
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
    """The errors of files and zips as ours; none of their texts names a path of this machine."""
    try:
        yield
    except OSError as error:
        full = f"The disk is full: {name} could not be restored. The files that were there are untouched."
        raise file_error(error, f"{name} could not be restored", full) from error
    except UNREADABLE as error:
        raise ArchiveError(f"{name} is not a zip that can be restored: {error}") from error
