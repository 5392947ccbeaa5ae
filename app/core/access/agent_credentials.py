"""The secrets of a workspace: its token, which it shows the gateway; the agent secret and the editor secret, which the
manager shows the workspace; and the disconnect secret, which is shown to nobody (app/core/access/revocation.py).

All are computed, not stored: keyed hashes of the session's uuid, for token and agent also of the record's epoch. So
they survive the loss of Redis and need no round trip to verify. They differ because the manager sends the agent and
editor secrets to the address where it believes the workspace to be: a pod that got a dead pod's address sees them, and
must not be able to use them as the dead pod's token.

The token names a session and an epoch. Callers must check both against the record, and refuse another epoch. Epoch 0 is
that of a workspace whose epoch is not known; no record has it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.process.secret_keys import Purpose, keys_for
from app.process.settings import SettingsError

TOKEN_PATTERN = re.compile(r"([0-9a-z]{8})\.(0|[1-9][0-9]{0,9})\.([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class TokenOwner:
    """The session a token belongs to, and its epoch."""

    uuid: str
    epoch: int


class AgentCredentials:
    """Makes and verifies tokens, `{uuid}.{epoch}.{mac}`, and makes the other secrets. Of the `keys` in SECRET_KEY it
    uses those for workspaces, agents, editors and disconnects. The first key signs, all verify: to rotate, put a new
    key in front, and remove the old one once no workspace has a token made with it."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._tokens = keys_for(Purpose.WORKSPACE, keys)
        self._agents = keys_for(Purpose.AGENT, keys)
        self._editors = keys_for(Purpose.EDITOR, keys)
        self._disconnects = keys_for(Purpose.DISCONNECT, keys)

    def __repr__(self) -> str:
        return f"AgentCredentials({len(self._tokens)} keys)"

    def token(self, uuid: str, epoch: int) -> str:
        """What the workspace shows the gateway. Raises `SettingsError` without a key for it."""
        return f"{uuid}.{epoch}.{_mac(_first(self._tokens), f'{uuid}.{epoch}')}"

    def agent_secrets(self, uuid: str, epoch: int) -> tuple[str, ...]:
        """What the manager shows the session's agent, the likeliest first. Those of the epoch before are included: an
        agent knows that one until it reads its file again. So are those by older keys, for agents started before a
        rotation. Raises `SettingsError` without a key for them."""
        _first(self._agents)
        known = [each for each in (epoch, epoch - 1) if each >= 0]
        return tuple(_mac(key, f"{uuid}.{each}") for each in known for key in self._agents)

    def token_file(self, uuid: str, epoch: int) -> str:
        """The content of the agent's token file: its token, and on the second line its agent secret."""
        return f"{self.token(uuid, epoch)}\n{self.agent_secrets(uuid, epoch)[0]}\n"

    def editor_secrets(self, uuid: str) -> tuple[str, ...]:
        """What the ingress shows the session's editor for an admitted request, one by each key: the editor may know
        another than the first. Raises `SettingsError` without a key for them."""
        _first(self._editors)
        return tuple(_mac(key, uuid) for key in self._editors)

    def disconnect_secrets(self, uuid: str) -> tuple[str, ...]:
        """What authenticates orders to the session's editor to end connections, one by each key, as above. Raises
        `SettingsError` without a key for them."""
        _first(self._disconnects)
        return tuple(_mac(key, uuid) for key in self._disconnects)

    def editor_file(self, uuid: str) -> str:
        """The content of the editor's secret file: a line with each editor secret, and one with each disconnect secret
        behind `disconnect=`. So the editor and who calls it need only one key in common, whichever was started
        first."""
        disconnects = (f"disconnect={secret}" for secret in self.disconnect_secrets(uuid))
        return "".join(f"{line}\n" for line in (*self.editor_secrets(uuid), *disconnects))

    def owner_of(self, token: str) -> TokenOwner | None:
        """The owner of a valid token, None for any other text. Every key is tried and every digest compared whole, so
        the time taken reveals nothing."""
        match = TOKEN_PATTERN.fullmatch(token)
        if match is None:
            return None
        uuid, epoch, mac = match.groups()
        found = None
        for key in self._tokens:
            if hmac.compare_digest(_mac(key, f"{uuid}.{epoch}"), mac):
                found = TokenOwner(uuid, int(epoch))
        return found


def claimed_by(token: str) -> str:
    """The session a text in the form of a token names, unverified; "" for any other text."""
    match = TOKEN_PATTERN.fullmatch(token)
    return match[1] if match else ""


def _first(keys: Sequence[str]) -> str:
    if not keys:
        raise SettingsError(
            "SECRET_KEY is not set, or lacks the key for this purpose; no workspace can have an agent without it."
        )
    return keys[0]


def _mac(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
