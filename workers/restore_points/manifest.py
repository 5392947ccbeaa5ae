"""The manifest of a restore point: each file of the volume as we saw it ourselves, with the SHA-256 of its content.

The engine's own hashes tell that it gives back what it has stored; the manifest tells that it has stored what was
there. It lies encrypted beside the point's sidecar, for the newest point only. Files that changed while the point was
made are left out: what the point should have of them is unknown.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from app.core.errors import ArchiveError
from app.core.storage.archive_keys import UnknownKey
from workers.archive.format import folder_below
from workers.archive.walking import FILE_FLAGS
from workers.restore_points.sidecar import FAILED, Sidecars
from workers.runtime.base import Check

SUFFIX = ".manifest"

READ = 1 << 20
"""Bytes that are read at a time."""

PERMISSIONS = 0o777
"""Of a mode: the kernel may drop the other bits where an ordinary user restores."""


class DamagedManifest(ArchiveError):
    """A manifest can't be read."""


Stamp = tuple[int, int, int, int, int]
"""Mode, size, inode, and the times (ns) of the last change of the content and of the inode: as long as it is the same,
so is the content."""


def stamp(info: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return info.st_mode, info.st_size, info.st_ino, info.st_mtime_ns, info.st_ctime_ns


@dataclass(frozen=True)
class Entry:
    """One file, folder or link. `told` is the SHA-256 (hex) of a file's content, or where a link leads."""

    stamp: Stamp
    told: str = ""

    @property
    def mode(self) -> int:
        return self.stamp[0]

    def differs(self, path: bytes, check: Check) -> str:
        """How what is at `path` differs from this: "" if it does not."""
        try:
            info = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        if stat.S_IFMT(info.st_mode) != stat.S_IFMT(self.mode):
            return "another kind"
        if stat.S_ISLNK(self.mode):
            return "" if os.fsdecode(os.readlink(path)) == self.told else "another target"
        if (info.st_mode ^ self.mode) & PERMISSIONS:
            return "another mode"
        if stat.S_ISREG(self.mode):
            if info.st_size != self.stamp[1]:
                return "another size"
            if digest(path, info.st_size, check) != self.told:
                return "another content"
        return ""


Manifest = Mapping[bytes, Entry]
"""Entries by their paths below the volume."""


def digest(path: bytes, size: int, check: Check, folder: int | None = None) -> str:
    """The SHA-256 of a file's content, of which `size` bytes are read at most: one that has grown is another file. With
    the descriptor of a `folder`, the path is below it. Raises `OSError`."""
    found = hashlib.sha256()
    with open(os.open(path, FILE_FLAGS, dir_fd=folder), "rb", buffering=0) as file:
        while size and (data := file.read(min(READ, size))):
            found.update(data)
            size -= len(data)
            check()
    return found.hexdigest()


def manifest_of(volume: Path, seen: Mapping[bytes, Stamp], known: Manifest, check: Check) -> Manifest:
    """The manifest of a point that was made since the files were `seen`: of those that are still the same. Content is
    read only of those that are not `known` from the point before. No link is followed, also none that took a folder's
    place since."""
    found = {}
    root = os.open(volume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder, paths in groupby(seen, os.path.dirname):
            with suppress(OSError), folder_below(root, os.fsdecode(folder)) as inside:
                for path in paths:
                    check()
                    if entry := _entry(inside, os.path.basename(path), seen[path], known.get(path), check):
                        found[path] = entry
    finally:
        os.close(root)
    return found


def _entry(folder: int, name: bytes, before: Stamp, known: Entry | None, check: Check) -> Entry | None:
    kind = stat.S_IFMT(before[0])
    if kind not in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR):
        return None
    told = ""
    try:
        if kind == stat.S_IFREG:
            told = known.told if known and known.stamp == before else digest(name, before[1], check, folder)
        elif kind == stat.S_IFLNK:
            told = os.fsdecode(os.readlink(name, dir_fd=folder))
        now = stamp(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except OSError:
        # It is gone, or unreadable for the engine too.
        return None
    # A folder's times change with what is in it.
    same = now[0] == before[0] if kind == stat.S_IFDIR else now == before
    return Entry(before, told) if same else None


def encoded(manifest: Manifest) -> bytes:
    """As it is stored."""
    lines = ([os.fsdecode(path), *entry.stamp, entry.told] for path, entry in manifest.items())
    return zlib.compress("\n".join(map(json.dumps, lines)).encode())


def decoded(data: bytes) -> Manifest:
    """What `encoded` was given. Raises `DamagedManifest`."""
    return dict(_decoded(data))


def _decoded(data: bytes) -> Iterator[tuple[bytes, Entry]]:
    try:
        for line in zlib.decompress(data).decode().splitlines():
            path, mode, size, inode, changed, touched, told = json.loads(line)
            yield os.fsencode(path), Entry((mode, size, inode, changed, touched), told)
    except (ValueError, TypeError, zlib.error) as error:
        raise DamagedManifest("The manifest of a restore point is malformed.") from error


@dataclass(frozen=True)
class Manifests:
    """The stored manifests of one session. Methods raise as those of `Sidecars`."""

    sidecars: Sidecars

    def read(self, point_id: str) -> Manifest | None:
        """The manifest of a point, None where there is none. Raises `DamagedManifest`."""
        store, name = self.sidecars.store, point_id + SUFFIX
        with store.translated(FAILED):
            try:
                content = store.read(f"{self.sidecars.folder}/{name}")
            except FileNotFoundError:
                return None
        try:
            return decoded(self.sidecars.keys.decrypt(content, name))
        except UnknownKey:
            raise
        except ArchiveError as error:
            raise DamagedManifest("The manifest of a restore point is damaged.") from error

    def write(self, point_id: str, manifest: Manifest) -> None:
        """Write the manifest of a point, before its sidecar."""
        store, name = self.sidecars.store, point_id + SUFFIX
        with store.translated(FAILED):
            store.write(f"{self.sidecars.folder}/{name}", self.sidecars.keys.encrypt(encoded(manifest), name))

    def keep_only(self, point_id: str) -> None:
        """Remove those of all other points."""
        store = self.sidecars.store
        with store.translated(FAILED):
            for name in store.names(self.sidecars.folder):
                if name.endswith(SUFFIX) and name != point_id + SUFFIX:
                    store.remove(f"{self.sidecars.folder}/{name}")
