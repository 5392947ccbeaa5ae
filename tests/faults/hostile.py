"""What one tenant does with its session's token, and with that of its workspace, to be as much trouble as it can.

It is a process of its own, so that its work doesn't hold up who measures.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

import requests

WAITS, STREAMS, TRICKLED = 128, 64, 200
"""Waiting calls and event streams, more than a session may hold, and connections that send byte by byte."""

HELD = 60.0
"""s for which it keeps what it got."""

REFUSED = 5.0
"""s after which it asks again for what was refused, as the answer tells it: what is played is all that it can hold. How
often it may ask is a matter of rate limits."""

DRIP = 0.5
"""s between two bytes."""

LARGE = 64 * 1024 * 1024
"""Bytes of a hostile document."""

DOCUMENT = b"[" + b"{}," * (LARGE // 3) + b"{}]"
PIECE = 1024 * 1024
LIMIT = 30.0
"""s that the answer to one call may take, besides what is waited for."""


@dataclass(frozen=True)
class Target:
    """Where the hostile session asks, and what opens it: the API, and the gateway."""

    api: str
    uuid: str
    token: str
    gateway: str
    workspace_token: str


def attack(target: Target, order: Connection) -> None:
    """Do all of it until the order comes to end, and print how it was answered."""
    hostile = Hostile(target)
    acts: list[Callable[[], None]] = [hostile.wait] * WAITS + [hostile.stream] * STREAMS
    acts += [hostile.trickle, hostile.large_to_api, hostile.large_to_gateway]
    for act in acts:
        threading.Thread(target=hostile.again, args=(act,), daemon=True).start()
    with contextlib.suppress(EOFError):
        order.recv()
    hostile.over.set()
    print(f"the hostile session was answered: {dict(sorted(hostile.seen.items()))}", flush=True)


class Hostile:
    """Its acts, until `over` is set; `seen` counts how each was answered."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.over = threading.Event()
        self._path = f"/session/{target.uuid}"
        self._headers = {"Authorization": f"Bearer {target.token}"}
        self.seen: Counter[str] = Counter()

    def again(self, act: Callable[[], None]) -> None:
        """Do it over and over."""
        while not self.over.is_set():
            with contextlib.suppress(OSError, requests.RequestException):
                act()
            self.over.wait(REFUSED)

    def wait(self) -> None:
        """A prompt and a call that waits for its answer: the inbox fills too."""
        headers = self._headers | {"Prefer": f"wait={HELD:.0f}"}
        url, body = f"{self._target.api}{self._path}/chat", {"message": "wait for me"}
        self._count("prompts", requests.post(url, json=body, headers=headers, timeout=HELD + LIMIT).status_code)

    def stream(self) -> None:
        """The events, of which it reads nothing after the first."""
        url = f"{self._target.api}{self._path}/events"
        with requests.get(url, headers=self._headers, stream=True, timeout=LIMIT) as answer:
            self._count("streams", answer.status_code)
            if answer.ok:
                self.over.wait(HELD)

    def trickle(self) -> None:
        """Half of them never end their heads, half their bodies."""
        head = f"POST {self._path}/chat HTTP/1.1\r\nHost: {urlsplit(self._target.api).netloc}\r\nX-Trickled: "
        body = f"{head}x\r\nAuthorization: Bearer {self._target.token}\r\nContent-Length: 100000\r\n\r\n"
        with contextlib.ExitStack() as opened:
            slow = []
            for number in range(TRICKLED):
                with contextlib.suppress(OSError):
                    client = opened.enter_context(self._connect(self._target.api))
                    client.sendall((body if number % 2 else head).encode())
                    slow.append(client)
            began = time.monotonic()
            while slow and time.monotonic() - began < HELD and not self.over.wait(DRIP):
                for client in list(slow):
                    try:
                        client.sendall(b"x")
                    except OSError:
                        self._count("trickled", "cut off")
                        slow.remove(client)

    def large_to_api(self) -> None:
        """A prompt of many empty objects."""
        self._large("large to the API", self._target.api, f"{self._path}/chat", self._target.token)

    def large_to_gateway(self) -> None:
        """A question to the model of many empty objects."""
        path, token = "/llm/v1/chat/completions", self._target.workspace_token
        self._large("large to the gateway", self._target.gateway, path, token)

    def _large(self, what: str, url: str, path: str, token: str) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nAuthorization: Bearer {token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(DOCUMENT)}\r\n\r\n"
        with self._connect(url) as client:
            with contextlib.suppress(OSError):
                client.sendall(head.encode())
                for at in range(0, len(DOCUMENT), PIECE):
                    client.sendall(DOCUMENT[at : at + PIECE])
            answer = b""
            with contextlib.suppress(OSError):
                answer = client.recv(PIECE)
            self._count(what, answer[9:12].decode() or "cut off")

    def _connect(self, url: str) -> socket.socket:
        parts = urlsplit(url)
        return socket.create_connection((parts.hostname or "", parts.port or 80), timeout=LIMIT)

    def _count(self, what: str, how: object) -> None:
        self.seen[f"{what}: {how}"] += 1
