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
from uuid import uuid4
from wsgiref.types import WSGIApplication

from flask import current_app, g, request
from werkzeug.test import EnvironBuilder, run_wsgi_app

from app.core.access.keyring import SIGNED_IN, Principal

EXTENSION = "dashboard_api"

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
        also: Collection[int] = (),
    ) -> Any:
        """The JSON of a call, None for an empty answer; raises `ApiError` for a status that is no success and not in
        `also`."""
        streamed = self.open(method, path, body=body, query=query)
        with closing(cast(Any, streamed.pieces)):
            text = b"".join(streamed.pieces)
        answer = json.loads(text) if text else None
        if streamed.status >= 400 and streamed.status not in also:
            problem = answer if isinstance(answer, dict) else {}
            raise ApiError(
                streamed.status,
                str(problem.get("error", "unknown")),
                str(problem.get("detail", "The service could not answer; try again.")),
                problem.get("errors", {}),
            )
        return answer

    def open(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Streamed:
        """The answer as it comes, whatever its status."""
        sent = {"X-Request-Id": g.request_id, "Prefer": "respond-async", **(headers or {})}
        if method == "POST":
            sent["Idempotency-Key"] = request.headers.get("Idempotency-Key") or uuid4().hex
        builder = EnvironBuilder(
            path=path,
            method=method,
            query_string={name: value for name, value in (query or {}).items() if value is not None},
            json=body,
            headers=list(sent.items()),
            environ_base={"REMOTE_ADDR": request.remote_addr or "127.0.0.1", SIGNED_IN: _caller(method)},
        )
        try:
            environ = builder.get_environ()
        finally:
            builder.close()
        pieces, status, answered = run_wsgi_app(self._application, environ)
        return Streamed(int(status.split()[0]), dict(answered.items()), pieces)


def _caller(method: str) -> Principal:
    """The person who is signed in, with the rates of the key; for reads, if it has none for them, with `READS`."""
    person = cast(Principal, g.person.principal)
    return replace(person, limits={"default": READS, **person.limits}) if method == "GET" else person


def api() -> Api:
    """The API, for the current request's person."""
    return cast(Api, current_app.extensions[EXTENSION])
