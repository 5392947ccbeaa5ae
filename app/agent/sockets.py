"""The listening sockets of a network, and the processes that have them, by /proc (proc(5)). Another user's processes
show nothing of what they have open."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

from app.agent.tools.runner import descendants

LISTENS = "0A"
"""The state of a listening socket in /proc/net/tcp."""

TABLES = ("tcp", "tcp6")

WORD = 8
"""Hexadecimal digits of a part of an address, which the tables write in the machine's own order of bytes."""


class Socket(NamedTuple):
    """A listening socket."""

    port: int
    loopback: bool
    """Whether it can be reached through the loopback of its network."""
    link: str
    """What a descriptor of it leads to."""


class Descriptor(NamedTuple):
    """What a process has open: `path` leads to `link`."""

    path: str
    link: str

    @property
    def there(self) -> bool:
        """Whether the process still has it. Much cheaper than to find it: the tables take the kernel milliseconds."""
        with contextlib.suppress(OSError):
            return os.readlink(self.path) == self.link
        return False


def listening(pid: int) -> Iterator[Socket]:
    """The listening sockets in the network of a process; none of one that has ended."""
    for table in TABLES:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
            next(file, "")
            for line in file:
                _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
                if state == LISTENS:
                    address, _, port = local.rpartition(":")
                    yield Socket(int(port, 16), _by_loopback(address), f"socket:[{inode}]")


def find_listener(port: int, pid: int) -> Descriptor | None:
    """A socket by which a process below `pid` listens on this TCP port, at any of its addresses."""
    links = {each.link for each in listening(pid) if each.port == port}
    if not links:
        return None
    return next((each for below in descendants(pid) for each in _open_files(below) if each.link in links), None)


def holders(links: set[str]) -> dict[str, list[int]]:
    """The processes that have these open, the lowest id first, which is that of a server rather than of its workers."""
    found: dict[str, list[int]] = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        for link in {each.link for each in _open_files(pid)} & links:
            found.setdefault(link, []).append(pid)
    return found


def _by_loopback(address: str) -> bool:
    """Whether loopback leads to an address, given as the tables write it."""
    words = [bytes.fromhex(address[at : at + WORD]) for at in range(0, len(address), WORD)]
    found = ipaddress.ip_address(b"".join(each[::-1] if sys.byteorder == "little" else each for each in words))
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    return found.is_unspecified or found.is_loopback


def _open_files(pid: int) -> Iterator[Descriptor]:
    """What a process has open."""
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for fd in os.listdir(folder):
            with contextlib.suppress(OSError):
                yield Descriptor(f"{folder}/{fd}", os.readlink(f"{folder}/{fd}"))
