"""The TCP ports of a run: given by its caller, or kept in the data folder, and no other run's on this machine."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path

from scripts.lib.data_dir import StartError, write_private

PORTS = range(10_000, 12_000)
"""Below those of workspaces (`workers/runtime/local/driver.py`), which come and go, and Linux's of outgoing connections
(32768 and up), so that a remembered port is most likely free in the next run."""

CLAIM = "\0workspace-session-manager.port.{}"
"""A Unix socket's name without a file: the run that has it has the port, also before anything listens there. The kernel
frees it when the run ends, however it does."""

LOOPBACK = "127.0.0.1"


class Ports:
    """The ports of one run, which keeps those it has chosen itself in its data folder."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / "ports.json"
        self._claims: dict[int, socket.socket] = {}

    def close(self) -> None:
        """Leave them to other runs."""
        while self._claims:
            self._claims.popitem()[1].close()

    def given(self, name: str, text: str, address: str = LOOPBACK) -> int:
        """The port given with the variable `name`; `StartError` if it can't be used."""
        if not text.isdigit() or not 0 < int(text) < 65_536:
            raise StartError(f"{name}={text} is not a TCP port.")
        port = int(text)
        if not self._take(port, address):
            raise StartError(f"Port {port} on {address} can't be used or is taken. Choose another with {name}.")
        return port

    def remembered(self, name: str) -> int:
        """The loopback port remembered under `name`, or another free one if it is in use."""
        ports = json.loads(self._file.read_text()) if self._file.exists() else {}
        candidates = [ports[name]] if name in ports else []
        for port in (*candidates, *random.sample(PORTS, 100)):
            if self._take(port, LOOPBACK):
                if ports.get(name) != port:
                    write_private(self._file, json.dumps(ports | {name: port}) + "\n")
                return int(port)
        raise StartError(f"No free port for {name} among {PORTS.start}-{PORTS.stop - 1}.")

    def given_or_remembered(self, name: str, text: str) -> int:
        """The loopback port given with the variable `name`; with "0" the one remembered under it."""
        return self.remembered(name) if text == "0" else self.given(name, text)

    def _take(self, port: int, address: str) -> bool:
        """Claim a port on which a server could listen now; False where this or another run has it."""
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(CLAIM.format(port))
        except OSError:
            claim.close()
            return False
        if not is_free(port, address):
            claim.close()
            return False
        self._claims[port] = claim
        return True


def is_free(port: int, address: str) -> bool:
    """Whether a server could listen on this port now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
