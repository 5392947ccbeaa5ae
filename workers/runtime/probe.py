"""Asks an editor whether it answers, without ever waiting for it: one that is busy starting must not
delay what is to be seen of the others.

The connection is closed after one question, because code-server counts open connections as use.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress

ANSWERS = (b"HTTP/1.0 200", b"HTTP/1.1 200")
PATIENCE = 0.3
"""Seconds until an unanswered question is asked again."""


class Probe:
    """One question at a time to one loopback port; `host` is whom to ask for behind a proxy, `bearer` what its door
    wants to be shown."""

    def __init__(self, port: int, host: str = "localhost", bearer: str = "") -> None:
        self._port = port
        shown = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
        self._question = f"GET /healthz HTTP/1.0\r\nHost: {host}\r\n{shown}\r\n".encode()
        self._socket: socket.socket | None = None
        self._answer = b""
        self._sent = False
        self._deadline = 0.0

    @property
    def waiting_on(self) -> socket.socket | None:
        """Readable when there is something to hear; None when no question is out."""
        return self._socket if self._sent else None

    def answered(self, now: float) -> bool:
        """Carry the question on as far as it goes at once; True when the answer was 200.

        `now` is in monotonic seconds. A refused connection is asked again at the next call.
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
            self._socket.send(self._question)
            self._sent = True
        heard = self._socket.recv(64)
        self._answer += heard
        if len(self._answer) >= len(ANSWERS[0]):
            good = self._answer.startswith(ANSWERS)
            self.close()
            return good
        if not heard:
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
