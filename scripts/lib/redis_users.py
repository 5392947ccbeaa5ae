"""Writes manifests/base/system/redis-users.acl from app/sessions/redis_users.py, so that the two can't drift apart.

python -m scripts.lib.redis_users
"""

from __future__ import annotations

import sys
from pathlib import Path

from app.sessions import redis_users

FILE = Path(__file__).resolve().parents[2] / "manifests" / "base" / "system" / "redis-users.acl"
COMMAND = "python -m scripts.lib.redis_users"


def text() -> str:
    """What the file must hold."""
    return "\n".join(redis_users.lines()) + "\n"


def main() -> int:
    FILE.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
