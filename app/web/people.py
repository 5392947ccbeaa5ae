"""People who are signed in. Redis has the hash of their cookie's secret, so that a copy of it opens nothing."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass

import redis

from app.core.access.keyring import OF_PROVIDER, Keyring, Principal
from app.core.redis.errors import redis_errors
from app.core.redis.keys import SIGN_INS, SIGNED_IN
from app.core.redis.scripts import Script

AT_ONCE = 50
"""Sign-ins of one API key, or of one person of the provider, at a time: a team that shares a key, each of it in some
browsers on some machines. They take some 30 KB of Redis; without a limit, whoever has any key could fill it."""


@dataclass(frozen=True)
class Person:
    """Who is signed in. `csrf` must come with every change this person asks for; `by_key`: signed in with an API key,
    else by OIDC."""

    principal: Principal
    csrf: str
    by_key: bool

    @property
    def shown_name(self) -> str:
        """The name as the person knows it: without the mark of the provider's people, which the audit shows."""
        return self.principal.name.removeprefix(OF_PROVIDER)

    @property
    def may_change(self) -> bool:
        return self.principal.may_change


class People:
    """The people who are signed in. Whoever came with an API key stays until the key is no longer valid, or until
    `seconds` after the last request; whoever came by OIDC for `seconds`, as the provider may have taken the role back.
    Every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis, keyring: Keyring, seconds: float) -> None:
        self._redis = client
        self._keyring = keyring
        self._seconds = int(seconds)
        self._enter = Script(client, "sign_in")

    @redis_errors
    def sign_in(self, principal: Principal, *, by_key: bool) -> str:
        """Sign a person in; answers the secret for the cookie, new each time. Above `AT_ONCE` the oldest ends."""
        secret = secrets.token_urlsafe(32)
        kept = {
            "name": principal.name,
            "digest": principal.digest,
            "role": principal.role,
            "by_key": by_key,
            "csrf": secrets.token_urlsafe(32),
        }
        self._enter(
            sign_in=_name(secret),
            sign_ins=SIGN_INS.format(digest=principal.digest),
            person=json.dumps(kept),
            seconds=self._seconds,
            most=AT_ONCE,
        )
        return secret

    @redis_errors
    def find(self, secret: str, *, active: bool = True) -> Person | None:
        """The person with this cookie, None if there is none. `active`: the person asks for something, which puts a
        sign-out by idleness off."""
        text = self._redis.get(_name(secret)) if secret else None
        if not text:
            return None
        kept = json.loads(text)
        if not kept["by_key"]:
            principal = Principal(name=kept["name"], digest=kept["digest"], role=kept["role"])
            return Person(principal, kept["csrf"], by_key=False)
        owner = self._keyring.by_digest(kept["digest"])
        if owner is None:
            return None
        if active:
            both = self._redis.pipeline(transaction=False)
            for name in (_name(secret), SIGN_INS.format(digest=owner.digest)):
                both.expire(name, self._seconds)
            both.execute()
        return Person(owner, kept["csrf"], by_key=True)

    @redis_errors
    def sign_out(self, secret: str) -> None:
        """Forget a person; the cookie opens nothing afterwards."""
        self._redis.delete(_name(secret))


def _name(secret: str) -> str:
    return SIGNED_IN.format(digest=hashlib.sha256(secret.encode()).hexdigest())
