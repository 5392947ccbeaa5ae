"""What is in a workspace, as a file for the browser to keep."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from flask import Response

from app.web.api import api, refusal
from app.web.relay import part_asked, relayed
from app.web.session.workspace import NO_WAKE


def download(path: str, name: str, /, **query: Any) -> Response:
    """The bytes at a path of the API, or the part of them that the browser asks for, as a file of this name. No browser
    shows it: a tenant wrote it. Raises `ApiError`."""
    streamed = api().open("GET", path, query=query | NO_WAKE, headers=part_asked())
    if streamed.status >= 400:
        raise refusal(streamed)
    response = relayed(streamed)
    # Always in this form, which has any name: quotes and line breaks too.
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    response.headers["Content-Type"] = "application/octet-stream"
    return response
