"""Which ports the processes of a service listen on, by /proc (proc(5))."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from app.agent.tools.runner import descendants

LISTENS = "0A"
"""The state of a listening socket in /proc/net/tcp."""

TABLES = ("tcp", "tcp6")


class Listener(NamedTuple):
    """A listening socket, and a descriptor that a process has of it."""

    descriptor: str
    socket: str

    @property
    def there(self) -> bool:
        """Whether the process still has it. Much cheaper than to find it: the tables take the kernel milliseconds."""
        with contextlib.suppress(OSError):
            return os.readlink(self.descriptor) == self.socket
        return False


def find_listener(port: int, pid: int) -> Listener | None:
    """A socket by which a process below `pid` listens on this TCP port, at any of its addresses. Another user's
    processes show nothing."""
    sockets = {f"socket:[{inode}]" for at, inode in _listening(pid) if at == port}
    if not sockets:
        return None
    return next((each for below in descendants(pid) for each in _open_files(below) if each.socket in sockets), None)


def _listening(pid: int) -> Iterator[tuple[int, str]]:
    """The port and inode of each listening socket in the network of a process."""
    for table in TABLES:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
            next(file, "")
            for line in file:
                _, address, _, state, _, _, _, _, _, inode, *_ = line.split()
                if state == LISTENS:
                    yield int(address.rpartition(":")[2], 16), inode


def _open_files(pid: int) -> Iterator[Listener]:
    """What a process has open."""
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for fd in os.listdir(folder):
            with contextlib.suppress(OSError):
                yield Listener(f"{folder}/{fd}", os.readlink(f"{folder}/{fd}"))
