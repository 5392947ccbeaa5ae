"""The services of a cloud that give short-lived credentials, on a loopback port: they note what they are asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

EXPIRES = "2026-01-01T01:00:00Z"
EXPIRES_AT = 1_767_229_200.0
KEY_ID = "ASIAIOSFODNN7EXAMPLE"  # pragma: allowlist secret
SECRET, TOKEN = "canary-secret-key", "canary-session-token"

ASSUMED = f"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>{KEY_ID}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken>
<Expiration>{EXPIRES}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


def refused(code: str) -> str:
    """The answer of STS with that error."""
    return f"<ErrorResponse><Error><Code>{code}</Code><Message>{SECRET}</Message></Error></ErrorResponse>"


Answer = Callable[[str], tuple[int, str]]


@dataclass
class FakeCloud:
    """`answer` gives status and body for a path; `asked` holds path and body of each request."""

    answer: Answer
    url: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@contextmanager
def serving(answer: Answer = lambda _: (200, ASSUMED)) -> Iterator[FakeCloud]:
    """A fake cloud; by default it is STS, which gives a credential."""
    cloud = FakeCloud(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(text).items()}
            cloud.asked.append((self.path, json.loads(text) if text.startswith("{") else form))
            status, content = cloud.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json" if content.startswith("{") else "text/xml")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            """Not wanted."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        cloud.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield cloud
        finally:
            server.shutdown()
            thread.join()
