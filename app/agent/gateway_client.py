"""Calls to the manager's gateway, with the standard library alone: the first call comes before other imports."""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

TIMEOUT = 5.0
"""Seconds for a call, unless it carries a conversation."""

FIRST_WAIT = 0.05
LONGEST_WAIT = 15.0

ANSWER_BYTES = 256 * 1024 * 1024


class GatewayDown(Exception):
    """The gateway did not answer. The text contains no secret."""


class Answer(NamedTuple):
    """The gateway's response."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def document(self) -> dict[str, Any] | None:
        """The JSON object in the body, None if it holds none."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return None
        return document if isinstance(document, dict) else None


class Gateway:
    """A connection to the gateway, kept open between calls. Not thread-safe: each thread needs its own."""

    def __init__(self, url: str, token: Callable[[], str]) -> None:
        self._url = urlsplit(url)
        self._token = token
        self._connection: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, document: Any = None, *, timeout: float = TIMEOUT) -> Answer:
        """Send a JSON document, or no body. Raises GatewayDown."""
        body = None if document is None else json.dumps(document, ensure_ascii=False).encode()
        headers = {"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"}
        try:
            connection = self._open(timeout)
            connection.request(method, self._url.path.rstrip("/") + path, body=body, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, response.read(ANSWER_BYTES))
        except (OSError, http.client.HTTPException, ValueError) as e:
            self.close()
            raise GatewayDown(type(e).__name__) from e

    def _open(self, timeout: float) -> http.client.HTTPConnection:
        if self._connection is None:
            secure = self._url.scheme == "https"
            kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
            self._connection = kind(self._url.hostname or "", self._url.port, timeout=timeout)
        self._connection.timeout = timeout
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout)
        return self._connection

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def waits(chance: Callable[[], float] = random.random) -> Callable[[], float]:
    """Exponential backoff: returns the seconds to wait after each failure, up to a limit, with jitter."""
    wait = FIRST_WAIT

    def next_wait() -> float:
        nonlocal wait
        now, wait = wait, min(2 * wait, LONGEST_WAIT)
        return now * (0.5 + chance() / 2)

    return next_wait


def attempts(stopping: threading.Event) -> Iterator[None]:
    """Yield for each attempt, with a backoff between two, until `stopping` is set."""
    next_wait = waits()
    while not stopping.is_set():
        yield
        stopping.wait(next_wait())


def call_home(gateway: Gateway, hello: dict[str, str], stopping: threading.Event) -> None:
    """Report this agent's address until the manager accepts it: at first it may not know the session yet."""
    for _ in attempts(stopping):
        try:
            if gateway.call("POST", "/agent/v1/hello", hello).ok:
                return
        except GatewayDown:
            pass
