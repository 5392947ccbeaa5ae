"""State of a data folder kept between runs, and the lock that admits one run at a time.

Keys and ports are kept, so that clients and the workspaces' URLs survive a restart.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path


class StartError(Exception):
    """The service can't start; the text says why and what to do."""


@contextlib.contextmanager
def only_run(data_dir: Path) -> Iterator[None]:
    """Lock the data folder; raises `StartError` if another run holds it."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (data_dir / "run.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StartError(
                f"Another scripts/run (process {lock.read().strip() or 'unknown'}) serves {data_dir}. "
                "Stop it, or choose another folder with DATA_DIR."
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def random_secret() -> str:
    return secrets.token_urlsafe(32)


def remembered_secret(path: Path, new: Callable[[], str] = random_secret) -> str:
    """The secret in the file; made by `new` on first use, readable only by its owner."""
    with contextlib.suppress(FileNotFoundError):
        if text := path.read_text().strip():
            return text
    text = new()
    write_private(path, text + "\n")
    return text


def write_private(path: Path, text: str) -> None:
    """Write the file atomically, with mode 0600 from the start."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
