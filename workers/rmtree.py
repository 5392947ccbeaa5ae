"""Deletes folders of users, which may be read-only, unreadable, or written to meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

from app.core.errors import RetryableError
from app.volume.deletion import delete

TRIES = 3


def delete_tree(path: Path) -> None:
    """Delete a folder and its content, also unreadable parts; a missing folder is fine. Raises `RetryableError` when it
    cannot be deleted."""
    for left in reversed(range(TRIES)):
        try:
            delete(path, forced=True)
        except OSError as error:
            # Others may write to it, move it, or delete it as well.
            if not os.path.lexists(path):
                return
            if not left:
                raise RetryableError(f"A user's folder cannot be deleted: {error.strerror}.") from error
        else:
            return
