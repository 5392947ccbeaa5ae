"""What the resources share."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

from workspaces.decoding import decode
from workspaces.http import JSON, Http

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

OPERATION = "__operation__"

MOST_WAIT = 60.0
"""s: the service waits no longer for an end state in one call, unless its operator allows more."""


def operation(operation_id: str, media: str = JSON) -> Callable[[F], F]:
    """Names the operation of the OpenAPI document that a method calls, and the type of the answer it asks for. A test
    holds both against the document, with the method's parameters."""

    def mark(method: F) -> F:
        setattr(method, OPERATION, (operation_id, media))
        return method

    return mark


def path(*parts: str) -> str:
    """The path of these parts, each quoted: a name never leads elsewhere. A file's may be no UTF-8."""
    return "".join(f"/{quote(part, safe='', errors='surrogateescape')}" for part in parts)


def given(**values: Any) -> dict[str, Any]:
    """The values that are not None: None stands for the service's default."""
    return {name: value for name, value in values.items() if value is not None}


def new_id() -> str:
    """An id for a prompt or a command, which a repeated call has too, so that nothing is done twice."""
    return secrets.token_hex(8)


class Resource:
    """The calls about one kind of thing."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def _get(self, kind: type[T], where: str, **options: Any) -> T:
        return decode(kind, self._http.json("GET", where, **options))

    def _post(self, kind: type[T], where: str, **options: Any) -> T:
        return decode(kind, self._http.json("POST", where, **options))
