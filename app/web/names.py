"""Names in the dashboard's addresses: they become parts of the API's paths, so none may hold anything else."""

from __future__ import annotations

from flask import Flask, request
from werkzeug.exceptions import NotFound

from app.core.backups.store import NAME_PATTERN
from app.core.prompts.inbox import ID_PATTERN
from app.core.redis.dead_letters import LETTER_ID_PATTERN
from app.core.restore_points import names as restore_points
from app.core.sessions.model import UUID_PATTERN

PATTERNS = {
    "uuid": UUID_PATTERN,
    "name": NAME_PATTERN,
    "point_id": restore_points.ID_PATTERN,
    "message_id": ID_PATTERN,
    "letter_id": LETTER_ID_PATTERN,
}
"""By the name of the argument in the route."""


def register_names(app: Flask) -> None:
    """Answer 404 to addresses whose names are not well formed. Register it after the guard."""
    app.before_request(_check)


def _check() -> None:
    for name, text in (request.view_args or {}).items():
        if name in PATTERNS and not PATTERNS[name].fullmatch(text):
            raise NotFound
