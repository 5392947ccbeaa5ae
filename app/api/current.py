"""What views need: the core of this process, and facts about the current request."""

from __future__ import annotations

from typing import cast

from flask import current_app, g

from app.core.composition import Core

EXTENSION = "workspace_sessions"
KEYRING = "keyring"


def core() -> Core:
    """The core of this process."""
    return cast(Core, current_app.extensions[EXTENSION])


def request_id() -> str:
    """The id of the current request."""
    return cast(str, g.request_id)
