"""Deletes a folder with all that is in it, of any depth, also while others change it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from app.volume.descent import FOLDER_FLAGS, Descent


def delete(path: str | Path, within: int | None = None, *, forced: bool = False) -> None:
    """Delete the folder `path`, which may be relative to the one with the descriptor `within`. No link is followed.
    `forced` deletes also what lies in folders that their owner may not read or change. Raises `OSError`; what others
    delete meanwhile is no error."""
    if forced:
        _open_to_owner(path, within)
    with Descent(path, within) as place:
        above: list[tuple[str, list[str]]] = []
        folders = _without_files(place.folder)
        while folders or above:
            if not folders:
                name, folders = above.pop()
                place.leave()
                with suppress(FileNotFoundError):
                    os.rmdir(name, dir_fd=place.folder)
                continue
            name = folders.pop()
            with suppress(FileNotFoundError):
                if forced:
                    _open_to_owner(name, place.folder)
                place.enter(name)
                above.append((name, folders))
                folders = _without_files(place.folder)
    os.rmdir(path, dir_fd=within)


def _open_to_owner(path: str | Path, within: int | None) -> None:
    folder = os.open(path, os.O_PATH | FOLDER_FLAGS, dir_fd=within)
    try:
        mode = os.fstat(folder).st_mode
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            # Another's folder may be open to its group.
            with suppress(PermissionError):
                os.chmod(f"/proc/self/fd/{folder}", stat.S_IMODE(mode) | stat.S_IRWXU)
    finally:
        os.close(folder)


def _without_files(folder: int) -> list[str]:
    """Delete what is no folder, and return the names of the folders."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except FileNotFoundError:
        # It was deleted meanwhile.
        return []
    for entry in found:
        if not entry.is_dir(follow_symlinks=False):
            with suppress(FileNotFoundError):
                os.unlink(entry.name, dir_fd=folder)
    return [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
