"""Deletes folders of users, which may be read-only, unreadable, or written to meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from app.core.errors import RetryableError


def delete_tree(path: Path) -> None:
    """Delete a folder and its content, also unreadable parts; a missing folder is fine. Raises `RetryableError` when it
    cannot be deleted."""
    for _ in range(3):
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            # Missing, or another process deletes it as well.
            pass
        except PermissionError:
            _make_accessible(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
                raise RetryableError(f"A user's folder cannot be deleted: {error.strerror}.") from error
        if not os.path.lexists(path):
            return
    raise RetryableError("A user's folder cannot be deleted: it is protected, or something keeps writing to it.")


def _make_accessible(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.chmod(0o700)
    for parent, names, _ in os.walk(path):
        # os.walk descends only after this, so each folder is made readable before it is listed.
        for name in names:
            folder = Path(parent, name)
            if not folder.is_symlink():
                with contextlib.suppress(OSError):
                    folder.chmod(0o700)
