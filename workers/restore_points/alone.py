"""The lock on a session's restore points in a local store: one maker, or several that restore.

A worker has the session's lease, but an orphan of a killed worker may still run: restic inherits the lock. Remote
stores have no such locks; there the lease and restic's own locks must do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.core.errors import RetryableError
from app.core.storage.file_store import FileStore, make_private
from workers.runtime.base import Check

NAME = ".lock"
PATIENCE, POLL = 60.0, 0.1
"""s that another may take, and between two tries; flock(2) has no timeout."""

LOCKLESS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""Errors of flock(2) on a file system without locks."""


@contextmanager
def alone(
    store: FileStore, uuid: str, check: Check, *, shared: bool = False, reading: bool = False
) -> Iterator[int | None]:
    """Hold the session's lock; yields its descriptor, None where the store has no locks. Who is `reading` writes
    nothing, not even the lock's file. Raises `RetryableError` when it is not free in time, and what `check` raises."""
    if not store.is_local:
        yield None
        return
    with store.translated("The store of restore points can't be used"):
        folder = f"{store.root}/{uuid}"
        if not reading:
            make_private(folder)
        flags = os.O_RDONLY if reading else os.O_RDWR | os.O_CREAT
        try:
            descriptor = os.open(f"{folder}/{NAME}", flags | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            if not (reading and os.path.isdir(folder)):
                raise
            # Deleted by hand, as perhaps all the rest.
            descriptor = -1
    if descriptor < 0:
        yield None
        return
    try:
        yield descriptor if _locked(descriptor, check, shared) else None
    finally:
        os.close(descriptor)


def _locked(descriptor: int, check: Check, shared: bool) -> bool:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return True
        except BlockingIOError as error:
            check()
            if time.monotonic() > deadline:
                raise RetryableError("Other work on this session's restore points does not end.") from error
            time.sleep(POLL)
        except OSError as error:
            if error.errno in LOCKLESS:
                return False
            raise
