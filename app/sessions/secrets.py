"""The secrets a workspace holds: a token that says which session it is, and those that open its agent's door and its
editor's.

All are computed, not stored: keyed hashes of the session's uuid, and for its agent of the epoch of its record. So
they survive the loss of Redis, and need no round trip to verify. They are several, because the manager shows the doors'
wherever it believes the workspace to be: a pod that got a dead one's address sees them, and must not be able to pass
for the dead one's session.

The token says who and of which epoch, not whether: callers look at the session's record, and refuse one of another
epoch. Epoch 0 is that of an earlier release, whose secrets named none, and were made with SECRET_KEY itself.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.secret_keys import Purpose, keys_for
from app.settings import SettingsError

TOKEN_PATTERN = re.compile(r"([0-9a-z]{8})(?:\.([1-9][0-9]{0,9}))?\.([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class Named:
    """Whose a token is, and of which epoch."""

    uuid: str
    epoch: int


class SessionSecrets:
    """Makes and verifies tokens, `{uuid}.{epoch}.{mac}`. Of the `keys` of SECRET_KEY it takes those for workspaces,
    for agents and for editors, where they are among them. Every one verifies, the first one signs: a key is rotated by
    putting the new one in front, and taking the old one out when no workspace has its token."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._tokens = keys_for(Purpose.WORKSPACE, keys)
        self._doors = keys_for(Purpose.AGENT, keys)
        self._editors = keys_for(Purpose.EDITOR, keys)
        self._earlier = keys_for(Purpose.EARLIER, keys)

    def __repr__(self) -> str:
        return f"SessionSecrets({len(self._tokens)} keys)"

    def token(self, uuid: str, epoch: int) -> str:
        """What the workspace shows the gateway; raises `SettingsError` where there is no key for that."""
        if epoch:
            return f"{uuid}.{epoch}.{_mac(_first(self._tokens), f'{uuid}.{epoch}')}"
        # Where nothing of an earlier release runs any more this is a token that is good for nothing.
        return f"{uuid}.{_mac(_first(self._earlier or self._tokens), f'workspace:{uuid}')}"

    def doors(self, uuid: str, epoch: int) -> tuple[str, ...]:
        """What the manager shows the session's agent, the likeliest first: of this epoch, and of the one before, which
        an agent knows until it has read its file again; of each by every key, since one that was started before a
        rotation knows another than the first. Raises `SettingsError` where there is no key for that."""
        _first(self._doors)
        known = [each for each in (epoch, epoch - 1) if each > 0]
        doors = [_mac(key, f"{uuid}.{each}") for each in known for key in self._doors]
        before = [_mac(key, f"agent:{uuid}") for key in self._earlier or self._doors[:1]] if epoch <= 1 else []
        return (*doors, *before)

    def token_file(self, uuid: str, epoch: int) -> str:
        """The content of the agent's token file: its token, and on the second line what opens its door."""
        return f"{self.token(uuid, epoch)}\n{self.doors(uuid, epoch)[0]}\n"

    def editors(self, uuid: str) -> tuple[str, ...]:
        """What the ingress shows the session's editor on behalf of whoever was let in, by each key: all of them, as the
        editor may know another than the first. Raises `SettingsError` where there is no key for that."""
        _first(self._editors)
        return tuple(_mac(key, uuid) for key in self._editors)

    def editor_file(self, uuid: str) -> str:
        """The content of the editor's secret file: what opens its door, by each key, a line each. So an editor and
        whoever shows it these understand each other while they have one key in common, whichever was started first."""
        return "".join(f"{secret}\n" for secret in self.editors(uuid))

    def named_by(self, token: str) -> Named | None:
        """Whose token this is, None for any other text. Every key is tried and every digest compared whole, so the
        time taken tells nothing."""
        match = TOKEN_PATTERN.fullmatch(token)
        if match is None:
            return None
        uuid, epoch, mac = match.groups()
        keys, text = (self._tokens, f"{uuid}.{epoch}") if epoch else (self._earlier, f"workspace:{uuid}")
        found = None
        for key in keys:
            if hmac.compare_digest(_mac(key, text), mac):
                found = Named(uuid, int(epoch or 0))
        return found


def _first(keys: Sequence[str]) -> str:
    if not keys:
        raise SettingsError("SECRET_KEY is not set, or has no such key; without it no workspace can have an agent.")
    return keys[0]


def _mac(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
