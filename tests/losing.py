"""A proxy in front of Redis that loses answers: the command ran, and whoever sent it sees its connection end."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread
from urllib.parse import urlsplit, urlunsplit

from app.core.redis.scripts import source
from tests.ports import end

CHUNK = 65_536
TIMEOUT = 60
FAR_MARKS = (b"-NOSCRIPT",)
"""Answers to a command that did not run; they are never the ones to lose."""


class LosingProxy:
    """Forwards commands and answers. `lose` names, by some of their bytes, the commands whose next answers are lost;
    `lost` counts those that were."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 6379)
        self._listener = socket.create_server(("127.0.0.1", 0))
        user = f":{parts.password}@" if parts.password else ""
        self.url = urlunsplit((parts.scheme, f"{user}127.0.0.1:{self._listener.getsockname()[1]}", parts.path, "", ""))
        self._lock = Lock()
        self._marks: list[bytes] = []
        self._sockets: list[socket.socket] = []
        self.lost = 0

    def lose(self, mark: bytes, times: int = 1) -> None:
        """Lose the answers of the next commands in which these bytes are: a script is known by its digest."""
        with self._lock:
            self._marks += [mark] * times

    def run(self) -> None:
        """Until `close`."""
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target, timeout=TIMEOUT)
                far.settimeout(None)
                self._sockets += [near, far]
                Thread(target=self._serve, args=(near, far), daemon=True).start()

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            end(each)

    def _serve(self, near: socket.socket, far: socket.socket) -> None:
        """One connection. A client of ours sends a command, or a pipeline of them, and then waits."""
        asked: list[bytes] = []
        Thread(target=self._answer, args=(far, near, asked), daemon=True).start()
        with suppress(OSError):
            while chunk := near.recv(CHUNK):
                asked.append(chunk)
                far.sendall(chunk)
        end(near)
        end(far)

    def _answer(self, far: socket.socket, near: socket.socket, asked: list[bytes]) -> None:
        with suppress(OSError):
            while chunk := far.recv(CHUNK):
                sent = b"".join(asked)
                asked.clear()
                if not chunk.startswith(FAR_MARKS) and self._loses(sent):
                    break
                near.sendall(chunk)
        end(near)
        end(far)

    def _loses(self, sent: bytes) -> bool:
        with self._lock:
            for mark in self._marks:
                if mark in sent:
                    self._marks.remove(mark)
                    self.lost += 1
                    return True
        return False


def script_mark(name: str) -> bytes:
    """The bytes by which a call of this script is known."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest().encode()


@contextmanager
def losing(url: str) -> Iterator[LosingProxy]:
    """A proxy in front of the Redis at `url`."""
    proxy = LosingProxy(url)
    thread = Thread(target=proxy.run, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(TIMEOUT)
