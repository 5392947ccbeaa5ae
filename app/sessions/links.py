"""Links that open a workspace once: made for whoever may, and gone with the first who follows them.

Redis holds the digest only, so that whoever reads it there can't follow it. A link that was taken stays until it
would have ended, with the visit that took it: one whose answer was lost asks again, and is let in.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

import redis

from app.sessions.keys import LINK, SESSION
from app.sessions.model import Record
from app.sessions.redis_errors import redis_errors
from app.sessions.scripts import script

LINK_BYTES = 32


@dataclass(frozen=True)
class Look:
    """What Redis tells of a visit: the session, None where there is none, and whether its link opens it."""

    record: Record | None
    linked: bool = False


class Links:
    """Makes links and follows them. `ttl` is in seconds."""

    def __init__(self, client: redis.Redis, ttl: float) -> None:
        self._redis = client
        self._take = client.register_script(script("link"))
        self._ttl = ttl

    def make(self, uuid: str, door: int) -> str:
        """The secret of a new link, for this door of the session's."""
        secret = secrets.token_urlsafe(LINK_BYTES)
        with redis_errors():
            self._redis.set(_key(secret), f"{uuid}:{door}", px=max(1, round(self._ttl * 1000)))
        return secret

    def look(self, uuid: str, secret: str = "") -> Look:
        """The session, and whether the secret is that of a link to it, which it is no more from then on. One round
        trip."""
        session, meant = SESSION.format(uuid=uuid), ""
        with redis_errors():
            if secret:
                meant, flat = self._take(keys=[session, _key(secret)], args=[secrets.token_hex(8)])
                hashed = dict(zip(flat[::2], flat[1::2], strict=True))
            else:
                hashed = self._redis.hgetall(session)
        if not hashed:
            return Look(None)
        record = Record.from_hash(hashed)
        return Look(record, meant == f"{uuid}:{record.door}")


def _key(secret: str) -> str:
    return LINK.format(digest=hashlib.sha256(secret.encode()).hexdigest())
