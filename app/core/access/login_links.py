"""Single-use login links, each to one workspace or to one of its ports.

Redis holds only the digest of a link's secret, which is no use to a reader. A used link stays until it expires, with
the id of the lookup that used it: a lookup whose answer was lost is repeated with the same id, and succeeds.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

import redis

from app.core.redis.errors import redis_errors
from app.core.redis.keys import LINK, SESSION
from app.core.redis.scripts import Script, pairs
from app.core.sessions.model import Record
from app.core.sessions.store import ask

LINK_BYTES = 32
LINK_TTL = 30.0
"""s: a link is meant for an immediate redirect."""


@dataclass(frozen=True)
class Lookup:
    """The session of a forwarded request, None if it does not exist, and whether its login link was valid."""

    record: Record | None
    linked: bool = False


class LoginLinks:
    """Makes and redeems links."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._take = Script(client, "link")

    @redis_errors
    def make(self, uuid: str, access_epoch: int, port: int = 0) -> str:
        """The secret of a new link to the workspace, or to this port of it, for this access epoch of the session."""
        secret = secrets.token_urlsafe(LINK_BYTES)
        self._redis.set(_key(secret), _meant(uuid, access_epoch, port), px=round(LINK_TTL * 1000))
        return secret

    @redis_errors
    def lookup(self, uuid: str, secret: str = "", port: int = 0) -> Lookup:
        """The session, and whether the secret was that of an unused link to it, or to this port of it. One round
        trip."""
        session, meant = SESSION.format(uuid=uuid), ""
        if secret:
            meant, flat = self._take(session=session, link=_key(secret), lookup=secrets.token_hex(8))
            hashed = pairs(flat)
            noted = {}
        else:
            pipe = self._redis.pipeline(transaction=False)
            ask(pipe, uuid)
            hashed, noted = pipe.execute()
        if not hashed:
            return Lookup(None)
        record = Record.from_hash(hashed, noted)
        return Lookup(record, meant == _meant(uuid, record.access_epoch, port))


def _key(secret: str) -> str:
    return LINK.format(digest=hashlib.sha256(secret.encode()).hexdigest())


def _meant(uuid: str, access_epoch: int, port: int) -> str:
    """What Redis holds of a link: where it leads."""
    return f"{uuid}:{access_epoch}:{port}"
