"""The manager as the agent sees it: hello, events and checkpoints are kept, the model is a stub server."""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections import defaultdict, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from app.core.prompts.history_index import Head, OtherConversation, Piece
from app.core.prompts.history_store import HistoryStore

TOKEN = "abcd1234.secret-of-this-session"
AGENT_SECRET = "secret-of-the-agent"


class FakeGateway:
    """Over real HTTP, on 127.0.0.1. `failures[path]` are statuses the next calls of a path are answered with. Of the
    prompts an agent asks about, those in `ended` have ended, and what was known of those in `lost` is lost; `asked`
    is what it asked. `ended_token` was good before, and was shown `refused` times since."""

    def __init__(self, model_url: str, *, token: str = TOKEN) -> None:
        self.model_url = model_url
        self.token = token
        self.hellos: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.batches: list[dict[str, Any]] = []
        self.uuid = token.partition(".")[0]
        self.archive = HistoryStore(f"memory://gateway-{os.urandom(8).hex()}")
        self.pieces: list[dict[str, Any]] = []
        self.saved = 0
        self.page_bytes = 1_000
        self.activity: list[dict[str, Any]] = []
        self.again = False
        self.opened_ports: list[int] = []
        self.asked: list[dict[str, float]] = []
        self.ended: set[str] = set()
        self.lost: set[str] = set()
        self.failures: dict[str, deque[int]] = defaultdict(deque)
        self.problem: dict[str, Any] = {"error": "made_up", "detail": "made up"}
        self.ended_token = ""
        self.refused = 0
        self._changed = threading.Condition()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.gateway = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    def fail_model(self, status: int, problem: dict[str, Any]) -> None:
        """Answer the next call of the model with this, instead of passing it on."""
        self.problem = problem
        self.failures["/llm"].append(status)

    def renew(self, token: str) -> None:
        """Another token is good from now on, and the one of before has ended."""
        with self._changed:
            self.ended_token, self.token = self.token, token

    def refuse(self) -> dict[str, str]:
        """What an ended token is told."""
        with self._changed:
            self.refused += 1
            self._changed.notify_all()
        return {"error": "token_ended", "detail": "It has ended."}

    @property
    def checkpoint(self) -> dict[str, Any] | None:
        """The conversation that is kept."""
        kept = self.archive.read(self.uuid)
        return None if kept is None else vars(kept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def wait(self, condition, timeout: float = 60.0):
        """What `condition` returns once that is true."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(f"not after {timeout} s; events: {[event['type'] for event in self.events]}")
            return condition()

    def terminal(self, message_id: str) -> list[dict[str, Any]]:
        """The reports of how this message ended."""
        return [e for e in self.events if e["message_id"] == message_id and e["type"] in ("processed", "failed")]

    def outcome(self, message_id: str, timeout: float = 60.0) -> dict[str, Any]:
        """The first report of how this message ended, waited for."""
        return self.wait(lambda: self.terminal(message_id), timeout)[0]

    def take(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        path, _, query = path.partition("?")
        with self._changed:
            self._changed.notify_all()
            if self.failures[path]:
                return self.failures[path].popleft(), {"error": "made_up"}
            if path == "/agent/v1/hello":
                self.hellos.append(body)
            elif path == "/agent/v1/events":
                self.batches.append(body)
                self.events += body["events"]
            elif path == "/agent/v1/activity":
                self.activity.append(body["signals"])
                return 200, {"again": self.again, "opened_ports": self.opened_ports}
            elif path == "/agent/v1/unfinished":
                self.asked.append(body["prompts"])
                others = body["prompts"].keys() - self.ended - self.lost
                return 200, {"unfinished": sorted(others), "unknown": sorted(self.lost & body["prompts"].keys())}
            elif path in ("/agent/v1/checkpoint", "/agent/v1/history"):
                return self._conversation(method, path, dict(parse_qsl(query, keep_blank_values=True)), body)
            else:
                return 404, {"error": "not_found"}
            return 204, None

    def _conversation(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """As app/gateway/conversations.py does it."""
        try:
            if method == "POST":
                self.pieces.append(body)
                return 200, self.archive.append(self.uuid, Piece.from_json(body)).heads()
            if method == "PUT":
                self.archive.settle(self.uuid, Head.from_json(body), body["context"], body["metadata"])
                self.saved += 1
                return 204, None
        except OtherConversation as error:
            return 409, {"error": error.code, **error.index.heads()}
        current = self.archive.index(self.uuid).current
        if "head" in query:
            return 200, self.archive.index(self.uuid).heads()
        if current is None:
            return 404, {"error": "checkpoint_not_found"}
        if path.endswith("history"):
            page = self.archive.page(self.uuid, int(query["after"]), size=self.page_bytes)
            assert page is not None
            return 200, {"messages": page.messages, "total": page.total, "edition": page.edition}
        context, metadata = self.archive.beside(self.uuid)
        return 200, {"context": context, "metadata": metadata, **current.head().to_json()}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(60)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Nothing: a test's output is its own."""

    def do_POST(self) -> None:
        gateway: FakeGateway = self.server.gateway  # type: ignore[attr-defined]
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        shown = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if shown == gateway.ended_token:
            return self._answer(401, gateway.refuse())
        if shown != gateway.token:
            return self._answer(401, {"error": "unauthorized", "detail": "wrong secret"})
        if self.path.startswith("/llm/"):
            return self._pass_on(gateway, raw)
        self._answer(*gateway.take(self.command, self.path, json.loads(raw) if raw else None))

    do_GET = do_PUT = do_POST

    def _answer(self, status: int, body: Any) -> None:
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", "application/problem+json" if status >= 400 else "application/json")
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _pass_on(self, gateway: FakeGateway, raw: bytes) -> None:
        path = self.path.removeprefix("/llm")
        if gateway.failures["/llm"]:
            return self._answer(gateway.failures["/llm"].popleft(), gateway.problem)
        connection = http.client.HTTPConnection(urlsplit(gateway.model_url).netloc, timeout=60)
        try:
            connection.request("POST", path, raw, {"Content-Type": "application/json"})
            response = connection.getresponse()
            self.send_response(response.status)
            self.send_header("Content-Type", response.headers["Content-Type"])
            if "Retry-After" in response.headers:
                self.send_header("Retry-After", response.headers["Retry-After"])
            self.send_header("Connection", "close")
            self.close_connection = True
            if response.status == 200:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if response.status != 200:
                self.wfile.write(response.read())
                return
            # A cut stream raises here, and the chunked body ends without its last chunk: cut here too.
            while data := response.read1(65536):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")
        except (OSError, http.client.HTTPException):
            self.close_connection = True
        finally:
            connection.close()
