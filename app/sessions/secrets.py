"""The one secret a workspace holds: a token that says which session it is, and opens nothing else.

It is computed, not stored: a keyed hash of the session's uuid. So it survives the loss of Redis, needs
no round trip to verify, and the same one lets the manager in at the agent. It says who, not whether:
callers look at the session's record, and refuse one that is unknown or terminated.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence

from app.settings import SettingsError

TOKEN_PATTERN = re.compile(r"([0-9a-z]{8})\.([0-9a-f]{64})", re.ASCII)


class SessionSecrets:
    """Makes and verifies tokens, `{uuid}.{mac}`. Every one of `keys` verifies, the first one signs: a key
    is rotated by putting the new one in front, and taking the old one out when no workspace has its token."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"SessionSecrets({len(self._keys)} keys)"

    def token(self, uuid: str) -> str:
        """The token of this session; raises `SettingsError` where no SECRET_KEY is set."""
        if not self._keys:
            raise SettingsError("SECRET_KEY is not set; without it no workspace can have an agent.")
        return f"{uuid}.{_mac(self._keys[0], uuid)}"

    def uuid_of(self, token: str) -> str | None:
        """The session whose token this is, None for any other text. Every key is tried and every digest
        compared whole, so the time taken tells nothing."""
        match = TOKEN_PATTERN.fullmatch(token)
        if match is None:
            return None
        uuid, mac = match.groups()
        found = None
        for key in self._keys:
            if hmac.compare_digest(_mac(key, uuid), mac):
                found = uuid
        return found


def _mac(key: str, uuid: str) -> str:
    return hmac.new(key.encode(), f"workspace:{uuid}".encode(), hashlib.sha256).hexdigest()
