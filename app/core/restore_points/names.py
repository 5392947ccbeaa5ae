"""The names of restore points, and how a session's `restore_from` refers to one."""

from __future__ import annotations

import re
import secrets
import string

from app.core.sessions.model import UUID_PATTERN

ID_ALPHABET = string.digits + string.ascii_lowercase
ID_PATTERN = re.compile(r"p[0-9a-z]{15}")
REFERENCE_PATTERN = re.compile(rf"point-(?P<uuid>{UUID_PATTERN.pattern})-(?P<id>{ID_PATTERN.pattern})")


def new_id() -> str:
    """The id of a new restore point."""
    return "p" + "".join(secrets.choice(ID_ALPHABET) for _ in range(15))


def reference(uuid: str, point_id: str) -> str:
    """The restore point in a `restore_from`."""
    return f"point-{uuid}-{point_id}"


def parse(text: str) -> tuple[str, str] | None:
    """The uuid and the id in a reference, None for another text, such as the name of a backup."""
    match = REFERENCE_PATTERN.fullmatch(text)
    return (match["uuid"], match["id"]) if match else None
