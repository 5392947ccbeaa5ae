"""What opens a workspace's door: a browser's cookie, a session token, and the manager's own probe.

Each is a JWT (RFC 7519, HS256) of one session, under a key of its kind (app/secret_keys.py), so that
none passes for another. They say which `door` of the record they are for: the number grows whenever all
passes are taken back. Whether it still holds is the caller's to check, who reads the record anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import jwt

from app.secret_keys import Purpose, keys_for
from app.sessions.model import UUID_PATTERN
from app.settings import SettingsError

ALGORITHM = "HS256"
COOKIE = "__Host-workspace"
"""The cookie's name. No other host can set one of this prefix (RFC 6265bis): a workspace gives itself no visitors."""

FRAME_COOKIE = "__Host-workspace-embedded"
"""The one that a browser is given within another page's frame, and keeps for that page's site alone."""

COOKIES = (COOKIE, FRAME_COOKIE)

PROBE_TTL = 3_600.0
"""s: of the manager's own; the workspace's start is long over by then."""

LONGEST = 2_000
"""Characters: of a longer text nobody asks whether it is a pass."""


class Kind(StrEnum):
    """What a pass is good for; it is the `aud` of its JWT. A browser adds cookies by itself; what is in a frame's is
    good within a frame only."""

    COOKIE = "workspace"
    FRAME = "frame"
    TOKEN = "session"
    PROBE = "probe"


PURPOSES = {
    Kind.COOKIE: Purpose.COOKIE,
    Kind.FRAME: Purpose.COOKIE,
    Kind.TOKEN: Purpose.SESSION,
    Kind.PROBE: Purpose.PROBE,
}
"""Who makes one kind of cookie makes the other; each says of itself which it is."""

BY_BROWSER = frozenset({Kind.COOKIE, Kind.FRAME})
"""What a browser adds by itself, whichever page asks."""


@dataclass(frozen=True)
class Pass:
    """One that was signed here and has not expired; times are seconds since the epoch."""

    kind: Kind
    uuid: str
    door: int
    issued_at: float
    expires_at: float


class Passes:
    """Signs and reads passes, with those `keys` of SECRET_KEY that are for them. Every one verifies, the first one
    signs. Lifetimes are in seconds.

    Methods that sign raise `SettingsError` where there is no key for that; without one nothing is a pass.
    """

    def __init__(self, keys: Sequence[str], cookie_ttl: float, token_ttl: float) -> None:
        self._keys = {kind: keys_for(purpose, keys) for kind, purpose in PURPOSES.items()}
        self._ttls = {Kind.COOKIE: cookie_ttl, Kind.FRAME: cookie_ttl, Kind.TOKEN: token_ttl, Kind.PROBE: PROBE_TTL}

    def __repr__(self) -> str:
        return f"Passes({len(self._keys[Kind.TOKEN])} keys)"

    def can_sign(self, kind: Kind) -> bool:
        """Whether there is a key for passes of this kind."""
        return bool(self._keys[kind])

    def issue(self, kind: Kind, uuid: str, door: int, now: float) -> tuple[str, Pass]:
        """A new pass: its text, and what is in it."""
        if not self.can_sign(kind):
            raise SettingsError("SECRET_KEY is not set, or has no such key; without it no workspace can be opened.")
        # Whole seconds, as the RFC's dates are commonly read.
        issued = Pass(kind, uuid, door, int(now), int(now + self._ttls[kind]))
        claims = {"aud": kind, "sub": uuid, "door": door, "iat": issued.issued_at, "exp": issued.expires_at}
        return jwt.encode(claims, self._keys[kind][0], algorithm=ALGORITHM), issued

    def read(self, kind: Kind, text: str, now: float) -> Pass | None:
        """The pass of this kind that a text is; None for any other, and for one that has expired."""
        if not text or len(text) > LONGEST:
            return None
        for key in self._keys[kind]:
            try:
                claims = jwt.decode(
                    text,
                    key,
                    algorithms=[ALGORITHM],
                    audience=str(kind),
                    # Times are compared below, with the time that was passed in.
                    options={"verify_exp": False, "verify_iat": False, "verify_nbf": False, "require": ["sub", "exp"]},
                )
                found = Pass(kind, str(claims["sub"]), int(claims["door"]), float(claims["iat"]), float(claims["exp"]))
            except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
                continue
            good = UUID_PATTERN.fullmatch(found.uuid) and now < found.expires_at
            return found if good else None
        return None
