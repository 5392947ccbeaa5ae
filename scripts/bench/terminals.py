"""How long a key that is typed into a terminal of a workspace takes to be seen, against the same by hand.

Each is a terminal in raw mode in which `cat` answers, so that the time is that of the way there and back. By hand means
a pseudo-terminal of this process's.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import tempfile
import tty
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from scripts.bench.execs import shown, timed
from scripts.bench.table import Row
from scripts.bench.wake import KEY, call, service

ROUNDS = 300
COMMAND = "stty raw -echo; echo ready; exec cat"
TIMEOUT = 60


def run() -> list[Row]:
    """Measure in rounds that alternate; rows of label, value and target."""
    by_hand, typed = [], []
    with (
        tempfile.TemporaryDirectory(prefix="bench-terminals-") as folder,
        service(Path(folder) / "data") as url,
        cat_by_hand() as cat,
    ):
        uuid = call(url, "POST", "/session/create", {"user_id": "bench"}, "wait=30")["uuid"]
        asked = {"command": COMMAND, "tty": {"rows": 30, "columns": 100}, "id": "it"}
        call(url, "POST", f"/session/{uuid}/exec", asked, "respond-async")
        terminal = Terminal(url, f"/session/{uuid}/exec/it")
        for at in range(ROUNDS):
            by_hand.append(timed(lambda: key_by_hand(cat)))
            typed.append(timed(lambda at=at: terminal.key(at)))  # type: ignore[misc]
        terminal.close()
        call(url, "DELETE", f"/session/{uuid}?backup=false")
    return [
        ("a key by hand, p50 / p95 (ms)", shown(by_hand), ""),
        ("a key in a workspace's terminal, p50 / p95 (ms)", shown(typed), ""),
    ]


class Terminal:
    """A command of a workspace, followed on one connection and typed into on another."""

    def __init__(self, url: str, path: str) -> None:
        self._path = path
        self._headers = {"X-API-Key": KEY}
        self._calls, self._stream = (
            http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT) for _ in range(2)
        )
        self._stream.request("GET", path, headers={**self._headers, "Accept": "text/event-stream"})
        self._events = self._stream.getresponse()
        while "ready" not in self._text():
            pass

    def key(self, at: int) -> None:
        """Type a key, and wait until it is seen."""
        self._calls.request("PUT", f"{self._path}/input?at={at}", b"x", self._headers)
        answer = self._calls.getresponse()
        told = json.loads(answer.read())
        if told.get("input_bytes") != at + 1 or self._text() != "x":
            raise RuntimeError(f"the key was not typed: {told}")

    def _text(self) -> str:
        """The next that the command wrote."""
        while line := self._events.readline():
            if line.startswith(b"data: "):
                return str(json.loads(line[6:]).get("text", ""))
        raise RuntimeError("the stream has ended")

    def close(self) -> None:
        self._calls.close()
        self._stream.close()


@contextlib.contextmanager
def cat_by_hand() -> Iterator[int]:
    """This end of a terminal in which `cat` answers."""
    ours, its = os.openpty()
    tty.setraw(its)
    with subprocess.Popen(["cat"], stdin=its, stdout=its) as cat:
        os.close(its)
        yield ours
        cat.terminate()
    os.close(ours)


def key_by_hand(cat: int) -> None:
    os.write(cat, b"x")
    if os.read(cat, 1) != b"x":
        raise RuntimeError("the key was not seen")
