"""Writes manifests/base/system/redis-users.acl from app/core/redis/users.py, to keep the two in step.

python -m scripts.lib.redis_users
"""

from __future__ import annotations

import sys
from pathlib import Path

from app.core.redis import users

FILE = Path(__file__).resolve().parents[2] / "manifests" / "base" / "system" / "redis-users.acl"
COMMAND = "python -m scripts.lib.redis_users"


def text() -> str:
    """The content of the file."""
    return "\n".join(users.lines()) + "\n"


def main() -> int:
    FILE.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
