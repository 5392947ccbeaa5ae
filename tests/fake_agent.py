"""An agent over real HTTP, as far as the manager sees one: it keeps what it accepts, and drops what it has seen.

A test ends turns by hand (`answers`), and makes it misbehave: `statuses` are sent for the next prompts instead of
taking them, `die_after_taking` takes a prompt and breaks the connection before it has said so. `saved` is whether it
can store its conversation. `services` are those that it has, `logs` what these
wrote, and `ports` its ports but for those where nothing is. The editor beside it confirms
orders by `disconnect_secret`. `raw_response` is sent instead of any response, headers and all, and `endless` after it
until the connection is cut off; `sent` is how many bytes of that were written.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SO_SNDBUF, SOL_SOCKET
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.waiting import PATIENCE

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

NO_RESPONSES = [
    b"",
    b"\xff\x00\r\n\r\n",
    b"HTTP/1.1 9x9 OK\r\n\r\n",
    b"HTTP/1.1 " + b"9" * 5_000 + b" OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"Content-Type: message/rfc822\r\r" * 1_500 + b"\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n{",
    CHUNKED + b"-1\r\n{}",
    CHUNKED + b"-5\r\n{}",
    CHUNKED + b"-" + b"F" * 5_000 + b"\r\n{}",
    CHUNKED + b"x\r\n{}",
    CHUNKED + b"5\r\n{}",
]
"""What no HTTP client can make an answer of. The parser of headers recurses with each nested message."""


EXEC: Mapping[str, Any] = {
    "id": "x1",
    "command": "true",
    "cwd": ".",
    "detached": False,
    "state": "exited",
    "exit_code": 0,
    "signal": None,
    "reason": None,
    "left": 0,
    "started_at": 1.0,
    "ended_at": 2.0,
    "ms": 1000,
    "stdout": "",
    "stderr": "",
    "truncated": False,
    "sizes": {"stdout": 0, "stderr": 0},
    "kept": {"stdout": 0, "stderr": 0},
    "tty": None,
    "input_bytes": 0,
}
"""A command that has ended."""


FILE: Mapping[str, Any] = {
    "path": "a",
    "type": "file",
    "size": 0,
    "mode": "644",
    "modified_at": 1.0,
    "target": None,
    "etag": "1-0-1",
    "new": True,
}
"""A file that was written."""


UNPACKED: Mapping[str, Any] = {"upload": "0" * 16, "done": True, "files": 0, "bytes": 0}
"""An archive that is sent, and was unpacked."""


SERVICE: Mapping[str, Any] = {
    "name": "web",
    "command": "true",
    "cwd": ".",
    "port": 3000,
    "restart": "on_failure",
    "autostart": False,
    "state": "running",
    "exit_code": None,
    "signal": None,
    "reason": None,
    "starts": 1,
    "started_at": 1.0,
    "ended_at": None,
    "log_bytes": 0,
}
"""A service that is up."""


PORT: Mapping[str, Any] = {"port": 3000, "state": "listening", "process": "node", "service": "web"}
"""A port where a service listens."""

NO_PORT: Mapping[str, Any] = {"state": "stopped", "process": None, "service": None}
"""What is at a port where nothing listens."""


class FakeAgent:
    """What one agent was asked and has. `accepted` are the ids of prompts in the order it took them, each once."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.accepted: list[str] = []
        self.texts: dict[str, str] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.repeated: list[str] = []
        self.statuses: list[int] = []
        self.die_after_taking = 0
        self.hang = False
        self.hung = Event()
        self.trickle = False
        self.raw_answer: bytes | None = None
        self.raw_response: bytes | None = None
        self.endless = b""
        self.sent = 0
        self.cut_off = Event()
        self.history: list[dict[str, Any]] = []
        self.history_limit = 1_000
        self.unsaved_work: dict[str, Any] = {"complete": True}
        self.saved = True
        self.fingerprint = ""
        self.restored: dict[str, Any] = {}
        self.undone: set[str] = set()
        self.running = False
        self.services: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, bytes] = {}
        self.ports: dict[int, dict[str, Any]] = {}
        self.disconnect_secret = ""
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.tokens: list[str] = []
        self.stopping = Event()

    def take(self, message_id: str, text: str) -> tuple[int, dict[str, Any]]:
        """What `POST /chat` does with a prompt."""
        if self.texts.get(message_id, text) != text:
            return 422, {}
        if message_id in self.texts:
            self.repeated.append(message_id)
            return 200, {"id": message_id, "status": "accepted"} | self.answers.get(message_id, {})
        self.texts[message_id] = text
        self.accepted.append(message_id)
        return 202, {"id": message_id, "status": "accepted"}

    def start(self, wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """What `POST /services` does."""
        new = wanted["name"] not in self.services
        told = {name: value for name, value in wanted.items() if name in SERVICE}
        self.services[wanted["name"]] = {**SERVICE, **told}
        return 200, {**self.services[wanted["name"]], "new": new}

    def about(self, method: str, path: str, query: Mapping[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """What the calls on the services do, but for that which starts one."""
        _, _, name, call = (*path.split("/"), "", "")[:4]
        if not name:
            return 200, {"services": list(self.services.values())}
        if name not in self.services:
            return 404, {"error": "service_not_found"}
        if method == "DELETE":
            del self.services[name]
            return 200, {}
        if call != "log":
            return 200, self.services[name]
        log = self.logs.get(name, b"")
        start = int(query["offset"][0]) if "offset" in query else 0
        start = max(0, len(log) - int(query["tail"][0])) if "tail" in query else start
        piece = log[start : start + 65_536]
        said = {"text": piece.decode(errors="replace"), "next": start + len(piece), "size": len(log)}
        return 200, {"service": self.services[name], **said}

    def at(self, port: str) -> dict[str, Any]:
        """What the calls on ports answer; "" for that on all."""
        if not port:
            return {"ports": list(self.ports.values())}
        return self.ports.get(int(port), {"port": int(port), **NO_PORT})

    def restore(self, message_id: str) -> int:
        """The status of a request to restore a checkpoint: there is one if it is known what that restores, once no turn
        runs."""
        if not self.restored:
            return 404
        if self.running:
            return 409
        self.undone.add(message_id)
        return 200


def confirmation(order: str, secret: str) -> str:
    """What an editor with this secret answers to an order to end connections."""
    epoch, nonce, *_ = order.split()
    return hmac.digest(secret.encode(), f"disconnected {epoch} {nonce}".encode(), "sha256").hex()


class Handler(BaseHTTPRequestHandler):
    """The agent's HTTP side."""

    agent: FakeAgent

    def do_PUT(self) -> None:
        """A file, or a piece of one."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._note({})
        self._say(200, dict(FILE))

    def do_DELETE(self) -> None:
        self._note({})
        if not self._about_services():
            self._say(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        self._note(body)
        if self.path == "/cancel":
            self.agent.running = False
            self._say(200, {"cancelled": None})
        elif self.path in ("/resume", "/disconnect") and self.agent.statuses:
            self._say(self.agent.statuses.pop(0), {})
        elif self.path in ("/notice", "/resume"):
            self._say(200, {})
        elif self.path == "/disconnect":
            self._say(200, {"confirmation": confirmation(body["order"], self.agent.disconnect_secret)})
        elif self.path == "/unsaved-work":
            self._say(200, self.agent.unsaved_work)
        elif self.path == "/fingerprint":
            self._say(200, {"fingerprint": self.agent.fingerprint})
        elif self.path.startswith("/files/"):
            self._say(200, {**FILE, **UNPACKED})
        elif self.path == "/services":
            self._say(*self.agent.start(body))
        elif self._about_services():
            return
        elif self.path.startswith("/execs"):
            self._say(200, {**EXEC, "id": body.get("id", EXEC["id"])})
        elif self.path.startswith("/checkpoints/"):
            self._say(self.agent.restore(self.path.split("/")[2]), self.agent.restored)
        elif self.path == "/checkpoint":
            self._say(200, {"saved": self.agent.saved, "messages": len(self.agent.history)})
        elif self.agent.statuses and (status := self.agent.statuses.pop(0)):
            self._say(status, {})
        else:
            status, said = self.agent.take(body["id"], body["message"])
            if self.agent.die_after_taking:
                self.agent.die_after_taking -= 1
                self.close_connection = True
            else:
                self._say(status, said)

    def do_GET(self) -> None:
        self._note({})
        if self._about_services():
            return
        if self.path.startswith("/ports"):
            self._say(200, self.agent.at(urlsplit(self.path).path.removeprefix("/ports").strip("/")))
            return
        if self.path.startswith("/execs"):
            self._say(200, dict(EXEC) if self.path.startswith("/execs/") else {"execs": [dict(EXEC)]})
            return
        if self.path.startswith("/checkpoints/"):
            known = {"restored": self.path.split("/")[2] in self.agent.undone}
            self._say(200 if self.agent.restored else 404, known)
            return
        query = parse_qs(urlsplit(self.path).query)
        after, limit = int(query["after"][0]), int(query["limit"][0])
        some = self.agent.history[after : after + min(limit, self.agent.history_limit)]
        self._say(200, {"messages": some, "total": len(self.agent.history)})

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests look at `requests`."""

    def _about_services(self) -> bool:
        """Answer a call on services; whether it is one."""
        url = urlsplit(self.path)
        if not url.path.startswith("/services"):
            return False
        self._say(*self.agent.about(self.command, url.path, parse_qs(url.query)))
        return True

    def _note(self, body: dict[str, Any]) -> None:
        self.agent.requests.append((self.command, urlsplit(self.path).path, body))
        self.agent.tokens.append(self.headers.get("Authorization", ""))

    def _say(self, status: int, body: dict[str, Any]) -> None:
        if self.agent.hang:
            self.agent.hung.set()
            self.agent.stopping.wait(PATIENCE)
        if self.agent.raw_response is not None:
            self._say_raw(self.agent.raw_response)
            return
        content = self.agent.raw_answer or json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        try:
            while self.agent.trickle and not self.agent.stopping.wait(0.01):  # meant: a pause
                self.wfile.write(b" ")
            self.wfile.write(content)
        except OSError:
            self.close_connection = True

    def _say_raw(self, response: bytes) -> None:
        self.close_connection = True
        # Otherwise the kernel would take megabytes that nobody reads.
        self.connection.setsockopt(SOL_SOCKET, SO_SNDBUF, 65_536)
        try:
            self.wfile.write(response)
            while self.agent.endless:
                self.wfile.write(self.agent.endless)
                self.agent.sent += len(self.agent.endless)
        except OSError:
            self.agent.cut_off.set()


@contextmanager
def fake_agent(port: int = 0) -> Iterator[FakeAgent]:
    """An agent that listens on loopback until the block ends."""
    handler = type("OwnHandler", (Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    agent = handler.agent = FakeAgent(f"http://127.0.0.1:{server.server_address[1]}")  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield agent
    finally:
        agent.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
