"""A short-lived credential for a part of an object store: what a process that works for one session is given in place
of the bucket's own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Credential:
    """`variables` are the environment variables by which the store's clients, restic's too, know it: a secret. It is
    good until `expires_at`, in s since the epoch."""

    variables: Mapping[str, str] = field(repr=False)
    expires_at: float

    def to_text(self) -> str:
        """The credential for another process; `from_text` reads it. A secret."""
        return json.dumps({"variables": dict(self.variables), "expires_at": self.expires_at})

    @classmethod
    def from_text(cls, text: str) -> Credential:
        """The credential in a text of `to_text`."""
        values = json.loads(text)
        return cls(values["variables"], values["expires_at"])

    def use(self) -> None:
        """Let the clients that this process and its children make from now on use it."""
        os.environ.update(self.variables)
