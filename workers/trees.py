"""Deleting folders that were a user's: read-only, unreadable, or being written to meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from app.sessions.errors import RetryableError


def delete_tree(path: Path) -> None:
    """Delete a folder and all in it, also what its owner made unreadable; gone already is fine.

    Raises `RetryableError` when something keeps it from going.
    """
    for _ in range(3):
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            # Gone, or another process deletes it as well and was faster.
            pass
        except PermissionError:
            _make_accessible(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
                raise RetryableError(f"A user's folder can't be deleted: {error.strerror}.") from error
        if not os.path.lexists(path):
            return
    raise RetryableError("A user's folder can't be deleted: something keeps writing or guarding it.")


def _make_accessible(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.chmod(0o700)
    for parent, names, _ in os.walk(path):
        # os.walk descends only after this, so each folder is opened up before it is listed.
        for name in names:
            folder = Path(parent, name)
            if not folder.is_symlink():
                with contextlib.suppress(OSError):
                    folder.chmod(0o700)
