"""A web product as its users' browsers see it: a sign-in that opens workspaces, and a page that shows one in a frame.

It answers under every name that leads to this machine, so it is whichever site a test says.
"""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

Opener = Callable[[str, str], str]
"""From a workspace's uuid and a path in it to where the product sends its user's browser."""


@dataclass
class Product:
    """`port` is where it listens; `asked` which workspaces and paths browsers were sent to its sign-in with; `opener`
    is what the product does about it."""

    port: int
    asked: list[tuple[str, str]] = field(default_factory=list)
    opener: Opener | None = None

    def origin(self, host: str) -> str:
        """Its origin by one of its names."""
        return f"http://{host}:{self.port}"

    @property
    def login_url(self) -> str:
        return f"{self.origin('127.0.0.1')}/sign-in?from=ide"

    def page_with(self, host: str, src: str) -> str:
        """The URL of its page that shows `src` in a frame."""
        return f"{self.origin(host)}/frame?{src}"


@contextmanager
def product() -> Iterator[Product]:
    """The product, until the end of the block."""
    made: list[Product] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path == "/sign-in":
                self._sign_in(made[0], {name: values[0] for name, values in parse_qs(query).items()})
            elif path == "/frame":
                self._answer(
                    200, f'<h1>Product</h1><iframe src="{html.escape(query)}" width="1000" height="700"></iframe>'
                )
            else:
                self._answer(404, "")

        def _sign_in(self, own: Product, told: dict[str, str]) -> None:
            own.asked.append((told["workspace"], told["return_to"]))
            assert own.opener is not None
            self._answer(302, "", Location=own.opener(*own.asked[-1]))

        def _answer(self, status: int, body: str, **headers: str) -> None:
            content = f"<!doctype html>{body}".encode()
            self.send_response(status)
            for name, value in {"Content-Type": "text/html", "Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing of it is for the tests' output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.append(Product(server.server_port))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield made[0]
        server.shutdown()
        thread.join()
