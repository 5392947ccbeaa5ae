"""Visitors, and their headers as browsers and programs send them and as the ingress passes them on."""

from __future__ import annotations

from typing import Any

from flask import Flask
from werkzeug.datastructures import Headers

from app.main import create_forward_auth
from tests.unit.api.helpers import Client, core_of

SAFARI = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15"
PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none", "Accept": PAGE}
OLD_BROWSER = {"User-Agent": SAFARI, "Accept": PAGE}
POLL = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "application/json"}
HANDSHAKE = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
BACKGROUND: dict[str, dict[str, str]] = {
    "poll": POLL,
    "script": {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script", "Accept": "*/*"},
    "favicon": {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image", "Accept": "image/*"},
    "frame": NAVIGATION | {"Sec-Fetch-Dest": "iframe"},
    "prefetch": NAVIGATION | {"Sec-Purpose": "prefetch;prerender"},
    "old prefetch": OLD_BROWSER | {"X-Moz": "prefetch"},
    "crawler": {"User-Agent": "Mozilla/5.0 (compatible; Examplebot/2.1; +http://example.com/bot)", "Accept": PAGE},
    "link preview": {"User-Agent": "facebookexternalhit/1.1", "Accept": PAGE},
    "program": {"User-Agent": "curl/8.5", "Accept": "*/*"},
    "nothing said": {},
}
"""Requests that nobody makes in person."""


def asked(host: str, uri: str = "/", method: str = "GET", **headers: str) -> Headers:
    """What Traefik sends for a request of `uri` at `host`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    told = {"X-Forwarded-Host": host, "X-Forwarded-Uri": uri, "X-Forwarded-Method": method}
    return Headers(told | {"X-Forwarded-Proto": "http"} | named)


def asked_by_nginx(host: str, uri: str = "/", server: str = "", service: str = "", **headers: str) -> dict[str, Any]:
    """What ingress-nginx sends for a request of `uri` at `host`, as arguments of a test client's call."""
    told = {"X-Original-URL": f"http://{host}{uri}", "X-Original-Method": "GET"} | headers
    return {"query_string": {"proxy": "nginx", "host": server or host, "service": service}, "headers": told}


def forward_auth_client(app: Flask) -> Client:
    """Of what the ingress asks, over the same Redis."""
    return create_forward_auth(core_of(app).settings).test_client(use_cookies=False)


class Visitor:
    """A browser, with the cookies it was given, or a program with none. `visit` is a request through the ingress."""

    def __init__(self, app: Flask, uuid: str) -> None:
        self.client = forward_auth_client(app)
        self.host = f"vs-code-{uuid}.localhost"
        self.cookies: dict[str, str] = {}

    def visit(self, uri: str = "/", method: str = "GET", *, host: str = "", **headers: str) -> Any:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        told = asked(host or self.host, uri, method, **({"Cookie": cookies} if cookies else {}), **headers)
        answer = self.client.get("/auth/verify", headers=told)
        for line in answer.headers.getlist("Set-Cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def navigate(self, uri: str = "/", **headers: str) -> Any:
        return self.visit(uri, **(NAVIGATION | headers))


def link(client: Client, uuid: str, **body: str) -> str:
    """The path and query of a new link."""
    answer = client.post(f"/session/{uuid}/open", json=body)
    assert answer.status_code == 200, answer.text
    return "/" + str(answer.json["url"]).partition("localhost/")[2]
