"""Proxies of servers on loopback, for tests in which these must answer differently."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

PASSED_OVER = frozenset({"connection", "transfer-encoding", "keep-alive"})
"""Headers of one connection only."""


class Forwarder(BaseHTTPRequestHandler):
    """Passes each request on to the port `behind` of loopback. Subclasses change the answers."""

    protocol_version = "HTTP/1.1"
    behind: int

    def do_GET(self) -> None:
        self.forward(self.body())

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def body(self) -> bytes:
        """The content of the request."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def forward(self, body: bytes) -> None:
        """Answer with what the server behind answers."""
        behind = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=60)
        behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in PASSED_OVER | {"content-length"}:
                behind.putheader(name, value)
        behind.putheader("Content-Length", str(len(body)))
        behind.endheaders(body)
        answer = behind.getresponse()
        content = answer.read()
        self.send_response(self.status(answer.status))
        for name, value in answer.getheaders():
            if name.lower() not in PASSED_OVER:
                self.send_header(name, value)
        if answer.getheader("Content-Length") is None:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        behind.close()

    def status(self, answered: int) -> int:
        """The status of the answer, where the server behind answered that one."""
        return answered

    def log_message(self, *_: object) -> None:
        """Not wanted."""


@contextmanager
def proxy(kind: type[Forwarder], host: str = "127.0.0.1") -> Iterator[int]:
    """A proxy at a port of the host; yields the port."""
    with ThreadingHTTPServer((host, 0), kind) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
