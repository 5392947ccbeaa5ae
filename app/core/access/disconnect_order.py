"""Orders to a session's editor to end the connections of earlier access epochs, and the editor's confirmation.

The agent passes both on, and programs of the user may stand in its way: so an order and its confirmation are
authenticated by a secret that only the manager and the editor's process have, and each order has a nonce of its own.
app/editor/guard.js has the other side.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from secrets import token_hex


@dataclass(frozen=True)
class DisconnectOrder:
    """An order to end the connections made before `access_epoch`. The editor may know any of the `secrets`."""

    secrets: Sequence[str] = field(repr=False)
    access_epoch: int
    nonce: str = field(default_factory=lambda: token_hex(16))

    def __str__(self) -> str:
        """The order as it is sent: access epoch, nonce, and a MAC by each secret."""
        return " ".join([str(self.access_epoch), self.nonce, *self._macs("disconnect")])

    def confirmed_by(self, text: object) -> bool:
        """Whether this is the editor's confirmation of this order."""
        given = text if isinstance(text, str) and text.isascii() else ""
        return any(hmac.compare_digest(given, mac) for mac in self._macs("disconnected"))

    def _macs(self, said: str) -> list[str]:
        text = f"{said} {self.access_epoch} {self.nonce}".encode()
        return [hmac.new(secret.encode(), text, hashlib.sha256).hexdigest() for secret in self.secrets]
