"""Probes whether an editor answers, without blocking: an editor that is busy starting must not delay the observation of
others.

The connection is closed after each request, because code-server counts open connections as use.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress

from app.editor.code_server import CODE_SERVER

ANSWERS = (b"HTTP/1.0 200", b"HTTP/1.1 200")
PATIENCE = 0.3
"""Seconds until an unanswered request is repeated."""


class Probe:
    """One request at a time to one loopback port. `host` is the workspace's host name where a proxy listens there, and
    `bearer` the token for its forward auth."""

    def __init__(self, port: int, host: str = "localhost", bearer: str = "") -> None:
        self._port = port
        authorization = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
        self._request = f"GET {CODE_SERVER.health} HTTP/1.0\r\nHost: {host}\r\n{authorization}\r\n".encode()
        self._socket: socket.socket | None = None
        self._answer = b""
        self._sent = False
        self._deadline = 0.0

    @property
    def waiting_on(self) -> socket.socket | None:
        """Readable when a response arrives; None when no request was sent."""
        return self._socket if self._sent else None

    def answered(self, now: float) -> bool:
        """Advance the request as far as possible without waiting; True when the response was 200.

        `now` is in monotonic seconds. After a refused connection the next call tries again.
        """
        if self._socket is not None and now > self._deadline:
            self.close()
        try:
            return self._advance(now)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False

    def close(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
        self._socket, self._answer, self._sent = None, b"", False

    def _advance(self, now: float) -> bool:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._socket.setblocking(False)
            self._deadline = now + PATIENCE
            with suppress(BlockingIOError):
                self._socket.connect(("127.0.0.1", self._port))
        if not self._sent:
            self._socket.send(self._request)
            self._sent = True
        received = self._socket.recv(64)
        self._answer += received
        if len(self._answer) >= len(ANSWERS[0]):
            good = self._answer.startswith(ANSWERS)
            self.close()
            return good
        if not received:
            self.close()
        return False


def answers(port: int, patience: float = PATIENCE, host: str = "localhost", bearer: str = "") -> bool:
    """Whether the editor on this port, or `host` behind the proxy on it, answers within `patience` seconds."""
    probe = Probe(port, host, bearer)
    deadline = time.monotonic() + patience
    try:
        while (now := time.monotonic()) < deadline:
            if probe.answered(now):
                return True
            if probe.waiting_on is None:
                return False
            select.select([probe.waiting_on], [], [], deadline - now)
        return False
    finally:
        probe.close()
