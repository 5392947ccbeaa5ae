"""State of a data folder kept between runs, and the lock that admits one run at a time.

Keys and ports are kept, so that clients and the workspaces' URLs survive a restart.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

PORTS = range(20_000, 30_000)
"""Range of free ports: below Linux's ports of outgoing connections (32768 and up), so that a remembered port is most
likely free in the next run."""


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


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a server could listen on this port now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def remembered_port(data_dir: Path, name: str, taken: set[int]) -> int:
    """The loopback port remembered under `name`, or another free one if it is in use.

    `taken` are ports assigned in this run; the port is added to it.
    """
    file = data_dir / "ports.json"
    ports = json.loads(file.read_text()) if file.exists() else {}
    candidates = [ports[name]] if name in ports else []
    candidates += random.sample(PORTS, 100)
    for port in candidates:
        if port not in taken and is_free(port):
            taken.add(port)
            if ports.get(name) != port:
                write_private(file, json.dumps(ports | {name: port}) + "\n")
            return int(port)
    raise StartError(f"No free port for {name} among {PORTS.start}-{PORTS.stop - 1}.")


def chosen_port(name: str, text: str, address: str, taken: set[int]) -> int:
    """A port chosen with the variable `name`; `StartError` if it can't be used."""
    if not text.isdigit() or not 0 < int(text) < 65_536:
        raise StartError(f"{name}={text} is not a TCP port.")
    port = int(text)
    if port in taken or not is_free(port, address):
        raise StartError(f"Port {port} on {address} can't be used or is taken. Choose another with {name}.")
    taken.add(port)
    return port
