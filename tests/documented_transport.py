"""A transport of httpx that holds every answer of a running service against the service's own OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator

import httpx

from app.api.event_schemas import STREAM
from tests.documented import Document
from tests.events import Events


class DocumentedTransport(httpx.BaseTransport):
    """`document` has what was checked."""

    def __init__(self, url: str) -> None:
        self._inner = httpx.HTTPTransport()
        self.document = Document(httpx.get(f"{url}/openapi.json", timeout=60).json())

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        content_type = response.headers.get("Content-Type", "")
        assert isinstance(response.stream, httpx.SyncByteStream)
        if content_type.startswith(STREAM):
            response.stream = _Checked(self.document, request, response.stream)
        elif not content_type.startswith("application/zip"):
            body = response.read()
            self.document.check(request.method, request.url.path, response.status_code, content_type, body)
        return response

    def close(self) -> None:
        self._inner.close()


class _Checked(httpx.SyncByteStream):
    """A stream; its events are checked as they pass."""

    def __init__(self, document: Document, request: httpx.Request, parts: httpx.SyncByteStream) -> None:
        self._document = document
        self._request = request
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        text = ""
        for part in self._parts:
            text += part.decode()
            whole, _, text = text.rpartition("\n\n")
            for kind, data in Events([*whole.split("\n"), ""]):
                self._document.check_event(self._request.method, self._request.url.path, kind, data)
            yield part

    def close(self) -> None:
        self._parts.close()
