"""All files that `python -m scripts.generate` writes."""

from __future__ import annotations

from pathlib import Path

from app.core.redis import users
from scripts.generate import cost_page, redis_rights, reference
from scripts.monitoring import files as monitoring

REDIS_USERS = Path(__file__).resolve().parents[2] / "manifests" / "base" / "system" / "redis-users.acl"

PARTS = (*reference.PARTS, cost_page.PART, redis_rights.PART)


def files() -> dict[Path, str]:
    """The text of each file as it should be. Raises `MarkersMissing`, `Undocumented`, `UnnamedKey`."""
    pages = {part.path: part.path.read_text() for part in PARTS}
    for part in PARTS:
        pages[part.path] = part.replaced(pages[part.path])
    return {**pages, REDIS_USERS: "\n".join(users.lines()) + "\n", **monitoring.files()}
