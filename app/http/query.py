"""Parameters of a request's query that name files: such a name may have bytes that are no text."""

from __future__ import annotations

from urllib.parse import parse_qs

from flask import request


def queried(name: str) -> str:
    """A parameter of the query as Python names files, "" without it. Flask's has lost the bytes that are no UTF-8."""
    query = parse_qs(request.query_string.decode("latin-1"), errors="surrogateescape")
    return query.get(name, [""])[0]
