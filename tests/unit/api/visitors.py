"""Headers of visitors, as browsers and programs send them and as the ingress passes them on."""

from __future__ import annotations

from werkzeug.datastructures import Headers

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
