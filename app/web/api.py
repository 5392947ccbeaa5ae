"""Calls of the API from the dashboard, in the same process, by the person who is signed in.

The dashboard holds no rule of its own about who may do what: each of its actions is a call of the API, checked, limited
and audited there.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import urlencode
from uuid import uuid4
from wsgiref.types import WSGIApplication

from flask import current_app, g, request
from werkzeug.test import EnvironBuilder, run_wsgi_app

from app.core.access.keyring import SIGNED_IN, Principal

EXTENSION = "dashboard_api"

OF_BODY = ("wsgi.input", "wsgi.input_terminated", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING")
"""What a WSGI environment says of a request's body."""

READS = "1200/minute"
"""The rate of the dashboard's own reads, of a person whose key has none: a page takes several calls, and asks again by
itself."""


class ApiError(Exception):
    """A call that the API refused. `detail` is for the person; `fields` are the texts about single fields."""

    def __init__(self, status: int, code: str, detail: str, fields: Mapping[str, list[str]]) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.fields = fields


@dataclass(frozen=True)
class Streamed:
    """An answer whose body is read piece by piece; whoever reads it closes it."""

    status: int
    headers: Mapping[str, str]
    pieces: Iterable[bytes]


class Api:
    """The API's application, called as the person who is signed in. `application` is the one behind the process's
    proxies: the caller's address is known already."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of a GET; raises `ApiError`. A query value of None is left out."""
        return self.call("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        """The JSON of a POST, which answers at once; raises `ApiError`."""
        return self.call("POST", path, body=body or {}, query=query)

    def delete(self, path: str, **query: Any) -> Any:
        """The JSON of a DELETE, which answers at once; raises `ApiError`."""
        return self.call("DELETE", path, query=query)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        pass_body: bool = False,
        also: Collection[int] = (),
    ) -> Any:
        """The JSON of a call, None for an empty answer; raises `ApiError` for a status that is no success and not in
        `also`."""
        streamed = self.open(method, path, body=body, query=query, headers=headers, pass_body=pass_body)
        if streamed.status >= 400 and streamed.status not in also:
            raise refusal(streamed)
        return _document(streamed)

    def open(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        pass_body: bool = False,
    ) -> Streamed:
        """The answer as it comes, whatever its status. `path` is as people write it, not percent-encoded; it and the
        query may name files whose names are no UTF-8, as Python does. `pass_body`: the body is that of the current
        request, which only the API reads."""
        sent = {"X-Request-Id": g.request_id, "Prefer": "respond-async", **(headers or {})}
        if method == "POST":
            sent["Idempotency-Key"] = request.headers.get("Idempotency-Key") or uuid4().hex
        given = {name: value for name, value in (query or {}).items() if value is not None}
        builder = EnvironBuilder(
            method=method,
            query_string=urlencode(given, doseq=True, errors="surrogateescape"),
            json=body,
            headers=list(sent.items()),
            environ_base={"REMOTE_ADDR": request.remote_addr or "127.0.0.1", SIGNED_IN: _caller(method)},
        )
        try:
            environ = builder.get_environ()
        finally:
            builder.close()
        environ["PATH_INFO"] = path.encode("utf-8", "surrogateescape").decode("latin-1")
        if pass_body:
            environ |= {name: request.environ[name] for name in OF_BODY if name in request.environ}
        pieces, status, answered = run_wsgi_app(self._application, environ)
        return Streamed(int(status.split()[0]), dict(answered.items()), pieces)


def refusal(streamed: Streamed) -> ApiError:
    """The error that a refused call answers; reads the answer."""
    answer = _document(streamed)
    problem = answer if isinstance(answer, dict) else {}
    return ApiError(
        streamed.status,
        str(problem.get("error", "unknown")),
        str(problem.get("detail", "The service could not answer; try again.")),
        problem.get("errors", {}),
    )


def _document(streamed: Streamed) -> Any:
    """The JSON of an answer, None for an empty one."""
    with closing(cast(Any, streamed.pieces)):
        text = b"".join(streamed.pieces)
    return json.loads(text) if text else None


def _caller(method: str) -> Principal:
    """The person who is signed in, with the rates of the key; for reads, if it has none for them, with `READS`."""
    person = cast(Principal, g.person.principal)
    return replace(person, limits={"default": READS, **person.limits}) if method == "GET" else person


def api() -> Api:
    """The API, for the current request's person."""
    return cast(Api, current_app.extensions[EXTENSION])
