"""Writes manifests/base/system/redis-users.acl, and what it means into docs/security.md, from app/core/redis/users.py.

python -m scripts.lib.redis_users
"""

from __future__ import annotations

import sys
from pathlib import Path

from app.core.redis import users
from scripts.lib import redis_rights
from scripts.lib.marked import MarkersMissing

FILE = Path(__file__).resolve().parents[2] / "manifests" / "base" / "system" / "redis-users.acl"
COMMAND = "python -m scripts.lib.redis_users"


def text() -> str:
    """The content of the file."""
    return "\n".join(users.lines()) + "\n"


def main() -> int:
    FILE.write_text(text())
    try:
        redis_rights.PAGE.write_text(redis_rights.replaced(redis_rights.PAGE.read_text()))
    except (MarkersMissing, redis_rights.UnnamedKey) as error:
        print(f"redis_users: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
