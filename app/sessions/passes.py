"""What opens a workspace's door: a browser's cookie, a session token, and the manager's own probe.

Each is a JWT (RFC 7519, HS256) of one session, under a key of its kind derived from SECRET_KEY, so that
none passes for another. They say which `door` of the record they are for: the number grows whenever all
passes are taken back. Whether it still holds is the caller's to check, who reads the record anyway.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import jwt

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
    """Signs and reads passes. Every one of `keys` verifies, the first one signs. Lifetimes are in seconds.

    Methods that sign raise `SettingsError` where no SECRET_KEY is set; without one nothing is a pass.
    """

    def __init__(self, keys: Sequence[str], cookie_ttl: float, token_ttl: float) -> None:
        self._keys = {kind: tuple(_derived(key, kind) for key in keys) for kind in Kind}
        self._ttls = {Kind.COOKIE: cookie_ttl, Kind.FRAME: cookie_ttl, Kind.TOKEN: token_ttl, Kind.PROBE: PROBE_TTL}

    def __repr__(self) -> str:
        return f"Passes({len(self._keys[Kind.TOKEN])} keys)"

    @property
    def can_sign(self) -> bool:
        """Whether there is a SECRET_KEY."""
        return bool(self._keys[Kind.TOKEN])

    def issue(self, kind: Kind, uuid: str, door: int, now: float) -> tuple[str, Pass]:
        """A new pass: its text, and what is in it."""
        if not self.can_sign:
            raise SettingsError("SECRET_KEY is not set; without it no workspace can be opened.")
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


def _derived(key: str, kind: Kind) -> str:
    return hmac.new(key.encode(), f"pass:{kind}".encode(), hashlib.sha256).hexdigest()
