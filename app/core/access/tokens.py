"""Access tokens of a workspace: a browser's cookie, a session token, and the manager's own probe.

Each is a JWT (RFC 7519, HS256) for one session, signed with a key of its kind (app/process/secret_keys.py), so that
one kind is never accepted as another. It names the record's `access_epoch`, which grows with each revocation. Callers
read the record anyway and must compare the epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import jwt

from app.core.sessions.model import UUID_PATTERN
from app.process.secret_keys import Purpose, keys_for
from app.process.settings import SettingsError

ALGORITHM = "HS256"
COOKIE = "__Host-workspace"
"""The cookie's name. No other host can set a cookie with this prefix (RFC 6265bis), so no workspace can forge it."""

FRAME_COOKIE = "__Host-workspace-embedded"
"""The cookie for a workspace in another page's frame, which the browser keeps for that page's site alone."""

COOKIES = (COOKIE, FRAME_COOKIE)

TOKEN_TTL = 900.0
"""s: a session token is in a page's scripts, and the page asks its backend for another."""

PROBE_TTL = 3_600.0
"""s: much longer than a workspace takes to start."""

LONGEST = 2_000
"""Characters; a longer text is rejected unread."""


class Kind(StrEnum):
    """The `aud` of the JWT: what an access token is for. The frame's cookie is valid within a frame only."""

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
"""Both kinds of cookie share a key; their `aud` tells them apart."""

BY_BROWSER = frozenset({Kind.COOKIE, Kind.FRAME})
"""The kinds that a browser sends by itself, whichever page makes the request."""


@dataclass(frozen=True)
class AccessToken:
    """A token with a valid signature that has not expired; times are seconds since the epoch. `port` is the port of the
    workspace whose cookie it is, 0 for that of the workspace itself."""

    kind: Kind
    uuid: str
    access_epoch: int
    issued_at: float
    expires_at: float
    port: int = 0


class AccessTokens:
    """Signs and reads access tokens with the `keys` of SECRET_KEY for them: the first signs, all verify.
    `cookie_ttl` is in seconds. Without a key for a kind, signing raises `SettingsError` and no token of it is valid."""

    def __init__(self, keys: Sequence[str], cookie_ttl: float) -> None:
        self._keys = {kind: keys_for(purpose, keys) for kind, purpose in PURPOSES.items()}
        self._ttls = {Kind.COOKIE: cookie_ttl, Kind.FRAME: cookie_ttl, Kind.TOKEN: TOKEN_TTL, Kind.PROBE: PROBE_TTL}

    def __repr__(self) -> str:
        return f"AccessTokens({len(self._keys[Kind.TOKEN])} keys)"

    def can_sign(self, kind: Kind) -> bool:
        """Whether there is a key for tokens of this kind."""
        return bool(self._keys[kind])

    def issue(self, kind: Kind, uuid: str, access_epoch: int, now: float, port: int = 0) -> tuple[str, AccessToken]:
        """A new token: its text and its content."""
        if not self.can_sign(kind):
            raise SettingsError(
                "SECRET_KEY is not set, or lacks the key for this purpose; no workspace can be opened without it."
            )
        # Whole seconds, as the RFC's dates are commonly read.
        issued = AccessToken(kind, uuid, access_epoch, int(now), int(now + self._ttls[kind]), port)
        claims = {
            "aud": kind,
            "sub": uuid,
            "access_epoch": access_epoch,
            "iat": issued.issued_at,
            "exp": issued.expires_at,
            **({"port": port} if port else {}),
        }
        return jwt.encode(claims, self._keys[kind][0], algorithm=ALGORITHM), issued

    def read(self, kind: Kind, text: str, now: float) -> AccessToken | None:
        """The content of a token of this kind; None for an invalid, foreign or expired one."""
        if not text or len(text) > LONGEST:
            return None
        for key in self._keys[kind]:
            try:
                claims = jwt.decode(
                    text,
                    key,
                    algorithms=[ALGORITHM],
                    audience=str(kind),
                    # `now` is compared below: it is passed in.
                    options={"verify_exp": False, "verify_iat": False, "verify_nbf": False, "require": ["sub", "exp"]},
                )
                found = AccessToken(
                    kind,
                    str(claims["sub"]),
                    int(claims["access_epoch"]),
                    float(claims["iat"]),
                    float(claims["exp"]),
                    int(claims.get("port", 0)),
                )
            except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
                continue
            good = UUID_PATTERN.fullmatch(found.uuid) and now < found.expires_at
            return found if good else None
        return None
