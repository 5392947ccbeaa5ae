"""Restores a backup: checks everything, extracts it beside the project, then replaces project and conversation.

A zip is untrusted input: names, links, sizes and modes that could reach outside the target or fill the disk are
refused. Until the replacement the workspace is untouched (workers/archive/replace.py).
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from io import FileIO
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from app.core.backups.store import BackupStore
from app.core.errors import ArchiveError, PermanentError, RetryableError
from app.core.storage.object_stores import file_error
from app.process.private_text import private
from workers.archive import replace as replacing
from workers.archive.format import (
    BLOCK,
    CONVERSATION,
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

LONGEST_LINK = 4096
"""Bytes of a link's target; Linux's PATH_MAX."""

ENCRYPTED = 0x1
UNIX = 3
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
ZEROS = bytes(BLOCK)
UNSAFE = re.compile(r"[\\\0]")


@dataclass(frozen=True)
class Entry:
    """A file, folder or link to create. `kind` is one of `stat`'s file types, `path` is relative to the project, or to
    the conversation's folder; `layout` is set for a sparse file."""

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
    files: BackupStore,
    name: str,
    target: Path,
    max_bytes: int,
    max_entries: int,
    check: Check = never,
    *,
    user_id: str | None = None,
    exclusively: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Replace the project's folder `target`, and the conversation beside it, by the content of the backup, all or
    nothing. With a `user_id` that is not the backup's, there is no conversation afterwards.

    The running user owns the files. They are replaced within `exclusively`. Raises `BackupNotFound`; `ArchiveError`
    when the zip is damaged, holds anything that could leave the target, or exceeds the limits; `NoSpace`;
    `PermanentError` when the folder around the target is missing; `RetryableError` when another restore runs or the
    store cannot be reached; and what `check` and `exclusively` raise. After an error nothing is replaced, unless an
    interrupted run had begun to.
    """
    sidecar = files.sidecar(name)
    place = target.parent
    with _alone(place), _failing(name), closing(files.open(name)) as stored:
        if replacing.interrupted(place):
            with exclusively():
                replacing.complete(place)
        replacing.clear(place)
        _check_digest(stored, sidecar, check)
        _check_version(sidecar)
        content = _plan(stored, Vouched.of(sidecar), max_bytes, max_entries, check)
        if user_id not in (None, sidecar.get("user_id")):
            content = Content(content.project, ())
        with replacing.draft(place) as new:
            _extract(stored, content.project, new / target.name, _mode_of(target), check)
            if content.conversation or os.path.lexists(place / CONVERSATION):
                _extract(stored, content.conversation, new / CONVERSATION, 0o700, check)
            os.sync()
            check()
            with exclusively():
                replacing.put_in_place(new)


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


@dataclass(frozen=True)
class Content:
    """What a backup holds, as entries to create."""

    project: Sequence[Entry]
    conversation: Sequence[Entry]

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Content:
        """The entries, divided by their names in the zip: there, a project's own folder of the conversation's name has
        another one. Links in the conversation are left out."""
        project: list[Entry] = []
        conversation: list[Entry] = []
        for entry in entries:
            if not entry.info.orig_filename.startswith(CONVERSATION + "/"):
                project.append(entry)
            elif entry.path != CONVERSATION and entry.kind != stat.S_IFLNK:
                conversation.append(replace(entry, path=entry.path.removeprefix(CONVERSATION + "/")))
        return cls(project, conversation)


def _check_version(sidecar: dict[str, Any]) -> None:
    versions = sidecar.get("versions")
    if isinstance(versions, dict) and versions.get("archive", 0) > FORMAT_VERSION:
        raise ArchiveError(f"{sidecar['name']} was made by a later release; upgrade to restore it.")


def _check_digest(stored: BinaryIO, sidecar: dict[str, Any], check: Check) -> None:
    if digest_of(stored, check) != (sidecar.get("sha256"), sidecar.get("size")):
        raise ArchiveError(f"{sidecar['name']} is damaged: its checksum or size differs from the sidecar.")


def _plan(stored: BinaryIO, vouched: Vouched, max_bytes: int, max_entries: int, check: Check) -> Content:
    """The entries to create, all checked. A link that leads outside is refused unless the sidecar lists it, and one in
    the conversation is left out."""
    with zipfile.ZipFile(stored) as archive:
        infos = archive.infolist()
    if len(infos) > max_entries:
        raise ArchiveError(f"The backup has {len(infos)} entries; at most {max_entries} are restored.")
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise ArchiveError(f"The backup's files have {total} bytes; at most {max_bytes} are restored.")
    content = Content.of([_entry(info, vouched.layouts) for info in infos])
    for each in (content.project, content.conversation):
        _check_tree(each, check)
    for entry in content.project:
        if entry.kind == stat.S_IFLNK:
            check()
            _check_link(entry, _link_target(stored, entry), vouched.outward)
    return content


def _check_tree(entries: Sequence[Entry], check: Check) -> None:
    kinds: dict[str, int] = {}
    for entry in entries:
        if entry.path in kinds:
            raise _refused(entry.info, "it exists twice")
        kinds[entry.path] = entry.kind
    for entry in entries:
        check()
        _check_parents(entry, kinds)


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


def _extract(stored: BinaryIO, entries: Sequence[Entry], new: Path, mode: int, check: Check) -> None:
    new.mkdir(mode=mode)
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


def _mode_of(target: Path) -> int:
    return stat.S_IMODE(target.stat().st_mode) & 0o777 if target.is_dir() else 0o755


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
