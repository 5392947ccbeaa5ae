"""Gives a workspace the token of its session's current epoch."""

from __future__ import annotations

from app.core.composition import Core
from app.core.errors import SessionNotFound
from app.core.sessions.model import GONE
from workers.runtime.base import Runtime

TRIES = 5
"""How often the token is written until the epoch stays the same: two concurrent writers may write in the wrong
order."""


def renew(core: Core, runtime: Runtime, uuid: str) -> None:
    """Give the session's agent, the running one and the next, the token of the record's epoch. Does nothing for a
    session that is deleted or has no workspace yet."""
    written = -1
    for _ in range(TRIES):
        try:
            record = core.store.get(uuid)
        except SessionNotFound:
            return
        if record.epoch == written or record.status in GONE or not record.provisioned:
            return
        runtime.renew(uuid, record.epoch)
        written = record.epoch
