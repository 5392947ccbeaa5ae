"""The secrets a workspace holds: a token that says which session it is, and those that open its agent's door and its
editor's.

All are computed, not stored: keyed hashes of the session's uuid. So they survive the loss of Redis, and need
no round trip to verify. They are several, because the manager shows the doors' wherever it believes the workspace to
be: a pod that got a dead one's address sees them, and must not be able to pass for the dead one's session.

The token says who, not whether: callers look at the session's record, and refuse one that is unknown or terminated.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence

from app.settings import SettingsError

TOKEN, DOOR, EDITOR = "workspace", "agent", "editor"
"""What a hash is for, which is hashed along."""

TOKEN_PATTERN = re.compile(r"([0-9a-z]{8})\.([0-9a-f]{64})", re.ASCII)


class SessionSecrets:
    """Makes and verifies tokens, `{uuid}.{mac}`. Every one of `keys` verifies, the first one signs: a key
    is rotated by putting the new one in front, and taking the old one out when no workspace has its token."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"SessionSecrets({len(self._keys)} keys)"

    def token(self, uuid: str) -> str:
        """What the workspace shows the gateway; raises `SettingsError` where no SECRET_KEY is set."""
        return f"{uuid}.{_mac(self._signing_keys()[0], TOKEN, uuid)}"

    def doors(self, uuid: str) -> tuple[str, ...]:
        """What the manager shows the session's agent, by each key: one that was started before a rotation knows
        another than the first. Raises `SettingsError` where no SECRET_KEY is set."""
        return tuple(_mac(key, DOOR, uuid) for key in self._signing_keys())

    def token_file(self, uuid: str) -> str:
        """The content of the agent's token file: its token, and on the second line what opens its door."""
        return f"{self.token(uuid)}\n{self.doors(uuid)[0]}\n"

    def editors(self, uuid: str) -> tuple[str, ...]:
        """What the ingress shows the session's editor on behalf of whoever was let in, by each key: all of them, as the
        editor may know another than the first. Raises `SettingsError` where no SECRET_KEY is set."""
        return tuple(_mac(key, EDITOR, uuid) for key in self._signing_keys())

    def editor_file(self, uuid: str) -> str:
        """The content of the editor's secret file: what opens its door, by each key, a line each. So an editor and
        whoever shows it these understand each other while they have one key in common, whichever was started first."""
        return "".join(f"{secret}\n" for secret in self.editors(uuid))

    def uuid_of(self, token: str) -> str | None:
        """The session whose token this is, None for any other text. Every key is tried and every digest
        compared whole, so the time taken tells nothing."""
        match = TOKEN_PATTERN.fullmatch(token)
        if match is None:
            return None
        uuid, mac = match.groups()
        found = None
        for key in self._keys:
            if hmac.compare_digest(_mac(key, TOKEN, uuid), mac):
                found = uuid
        return found

    def _signing_keys(self) -> tuple[str, ...]:
        if not self._keys:
            raise SettingsError("SECRET_KEY is not set; without it no workspace can have an agent.")
        return self._keys


def _mac(key: str, purpose: str, uuid: str) -> str:
    return hmac.new(key.encode(), f"{purpose}:{uuid}".encode(), hashlib.sha256).hexdigest()
