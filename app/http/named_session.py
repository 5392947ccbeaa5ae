"""The session that a request's path names."""

from __future__ import annotations

from flask import request

from app.core.sessions.model import UUID_PATTERN


def named_session() -> str:
    """The uuid in the path of the current request; "" for none, and for a text that is none: it comes from anybody, and
    would be no safe part of a key's name, of a log line or of a span."""
    uuid = str((request.view_args or {}).get("uuid", ""))
    return uuid if UUID_PATTERN.fullmatch(uuid) else ""
