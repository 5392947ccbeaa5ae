"""What one tenant does with its session's token, and with that of its workspace, to be as much trouble as it can.

It is a process of its own, so that its work doesn't hold up who measures, and asks by bare sockets: on a machine that
it shares with the service, what its own calls cost is to be little.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

WAITS, STREAMS, READERS, TRICKLED = 128, 64, 32, 200
"""Waiting calls, event streams and calls that reach its agent, more than a session may hold, and connections that send
byte by byte."""

HELD = 60.0
"""s for which it keeps what it got. What it did not get it asks for again at once."""

CALLS = 5.0
"""s between two of its agent's words where it can be called."""

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
    """Where the hostile session asks, and what opens it: the API, and the gateway. Its agent may listen at `agent_port`
    only, 0 for any."""

    api: str
    uuid: str
    token: str
    gateway: str
    workspace_token: str
    agent_port: int


def attack(target: Target, order: Connection) -> None:
    """Do all of it until the order comes to end, and print how it was answered."""
    hostile = Hostile(target)
    acts: list[Callable[[], None]] = [hostile.wait] * WAITS + [hostile.stream] * STREAMS + [hostile.read] * READERS
    acts += [hostile.trickle, hostile.large_to_api, hostile.large_to_gateway, hostile.agent, hostile.call_back]
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
        with self._connect(target.api) as client:
            host = client.getsockname()[0]
        self._agent = socket.create_server((host, target.agent_port), backlog=WAITS)
        self.seen: Counter[str] = Counter()

    def again(self, act: Callable[[], None]) -> None:
        """Do it over and over."""
        while not self.over.is_set():
            with contextlib.suppress(OSError):
                act()

    def wait(self) -> None:
        """A prompt and a call that waits for its answer: the inbox fills too."""
        wanted = f"Prefer: wait={HELD:.0f}\r\n"
        with self._asked("POST", f"{self._path}/chat", b'{"message": "wait for me"}', wanted) as client:
            self._count("prompts", _status(client))

    def stream(self) -> None:
        """The events, of which it reads nothing after the first."""
        with self._asked("GET", f"{self._path}/events") as client:
            status = _status(client)
            self._count("streams", status)
            if status == "200":
                self.over.wait(HELD)

    def read(self) -> None:
        """The conversation, for which its agent is asked."""
        with self._asked("GET", f"{self._path}/messages") as client:
            self._count("conversation", _status(client))

    def agent(self) -> None:
        """Be the agent: every answer is a large document, whatever was asked."""
        client, _ = self._agent.accept()
        threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def call_back(self) -> None:
        """Say where that agent is."""
        host, port = self._agent.getsockname()
        said = json.dumps({"address": f"http://{host}:{port}", "name": "hostile", "boot": str(time.monotonic())})
        target = self._target
        data = _request("POST", target.gateway, "/agent/v1/hello", target.workspace_token, said.encode())
        with self._connect(target.gateway) as client:
            client.sendall(data)
            self._count("calls back", _status(client))
        self.over.wait(CALLS)

    def trickle(self) -> None:
        """Half of them never end their heads, half their bodies."""
        body = _request("POST", self._target.api, f"{self._path}/chat", self._target.token, b"", length=100_000)
        head = body.removesuffix(b"\r\n") + b"X-Trickled: "
        with contextlib.ExitStack() as opened:
            slow = []
            for number in range(TRICKLED):
                with contextlib.suppress(OSError):
                    client = opened.enter_context(self._connect(self._target.api))
                    client.sendall(body if number % 2 else head)
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
        with self._connect(url) as client:
            with contextlib.suppress(OSError):
                client.sendall(_request("POST", url, path, token, b"", length=len(DOCUMENT)))
                _send_document(client)
            self._count(what, _status(client))

    def _answer(self, client: socket.socket) -> None:
        self._count("its agent", "asked")
        with client, contextlib.suppress(OSError):
            client.settimeout(LIMIT)
            client.recv(PIECE)
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(DOCUMENT)}\r\n\r\n"
            client.sendall(head.encode())
            _send_document(client)

    def _asked(self, method: str, path: str, body: bytes = b"", more: str = "") -> socket.socket:
        """A connection to the API on which that was asked with the session's token."""
        client = self._connect(self._target.api)
        try:
            client.settimeout(HELD + LIMIT)
            client.sendall(_request(method, self._target.api, path, self._target.token, body, more))
        except OSError:
            client.close()
            raise
        return client

    def _connect(self, url: str) -> socket.socket:
        parts = urlsplit(url)
        return socket.create_connection((parts.hostname or "", parts.port or 80), timeout=LIMIT)

    def _count(self, what: str, how: object) -> None:
        self.seen[f"{what}: {how}"] += 1


def _request(
    method: str, url: str, path: str, token: str, body: bytes, more: str = "", length: int | None = None
) -> bytes:
    """A request as it is sent; one whose body is of another `length` goes on after it."""
    size = len(body) if length is None else length
    head = f"{method} {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nAuthorization: Bearer {token}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {size}\r\n{more}\r\n".encode() + body


def _send_document(client: socket.socket) -> None:
    for at in range(0, len(DOCUMENT), PIECE):
        client.sendall(DOCUMENT[at : at + PIECE])


def _status(client: socket.socket) -> str:
    """Of the answer that comes."""
    answer = b""
    with contextlib.suppress(OSError):
        answer = client.recv(PIECE)
    return answer[9:12].decode() or "cut off"
