"""A fingerprint of a volume's files: as long as it is the same, no file changed.

It is a digest of names, kinds, sizes and times (also the one that no program can set), not of content, so it takes
0.1 s for 10,000 files. Where a walk takes too long the answer is "" for unknown, and then something may have changed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from app.volume.excluded import PARTS, TAG, is_cache, matcher, patterns

MOST_ENTRIES = 300_000
PATIENCE = 10.0
"""s of a walk: as long as a point of so many unchanged files would take."""

LOOK_EVERY = 1_000
"""Entries between two calls of `check`."""

Note = Callable[[bytes, os.stat_result], None]


def fingerprint(volume: Path, check: Callable[[], None] = lambda: None, note: Note = lambda path, info: None) -> str:
    """The fingerprint of what restore points hold of a volume; "" if unknown. `check` may raise to end the walk; `note`
    is told each path, below the volume, as it is seen."""
    excludes = matcher(patterns(volume))
    digest = hashlib.sha256(repr(patterns(volume)).encode("utf-8", "surrogateescape"))
    root = os.fsencode(volume)
    deadline, seen = time.monotonic() + PATIENCE, 0
    pending = [os.fsencode(part) for part in reversed(PARTS)]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
            tagged = any(entry.name == TAG.encode() for entry in inside) and is_cache(os.path.join(root, folder))
            for entry in inside:
                # At each: long patterns and a long path take up to a second, also where nothing is seen.
                if time.monotonic() > deadline:
                    return ""
                path = folder + b"/" + entry.name
                if excludes(path) or (tagged and entry.name != TAG.encode()):
                    continue
                info = entry.stat(follow_symlinks=False)
                digest.update(path + b"\0")
                digest.update(_told(info))
                note(path, info)
                if stat.S_ISDIR(info.st_mode):
                    pending.append(path)
                seen += 1
                if seen % LOOK_EVERY == 0:
                    check()
                    if seen > MOST_ENTRIES:
                        return ""
        except FileNotFoundError:
            if folder in map(os.fsencode, PARTS):
                digest.update(folder + b" is missing\0")
                continue
            return ""
        except PermissionError:
            # restic can't read it either.
            digest.update(folder + b" is unreadable\0")
        except OSError:
            return ""
    return digest.hexdigest()


def _told(info: os.stat_result) -> bytes:
    """Of a folder only what a point keeps: its times change with files that are left out."""
    if stat.S_ISDIR(info.st_mode):
        return b"%o %d\0" % (info.st_mode, info.st_ino)
    times = (info.st_mtime_ns, info.st_ctime_ns)
    return b"%o %d %d %d %d\0" % (info.st_mode, info.st_ino, info.st_size, *times)
