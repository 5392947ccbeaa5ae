"""Gives a workspace the token of its session's current epoch."""

from __future__ import annotations

import time
from collections.abc import Callable

from app.core.composition import Core
from app.core.errors import SessionNotFound, Superseded
from app.core.sessions.model import GONE, Record
from workers.runtime.base import Runtime

TRIES = 5
"""How often the token is written until the epoch stays the same: two concurrent writers may write in the wrong
order."""


def renew(core: Core, runtime: Runtime, uuid: str, clock: Callable[[], float] = time.time) -> None:
    """Give the session's agent, the running one and the next, the token of the record's epoch. Does nothing for a
    session that is deleted or has no workspace yet."""
    written = -1
    for _ in range(TRIES):
        try:
            record = _with_epoch(core, core.store.get(uuid), clock())
        except SessionNotFound:
            return
        if record.epoch == written or record.status in GONE or not record.provisioned:
            return
        runtime.renew(uuid, record.epoch)
        written = record.epoch


def _with_epoch(core: Core, record: Record, now: float) -> Record:
    """The record, with a first epoch if it had none."""
    if record.epoch or record.status in GONE:
        return record
    try:
        return core.store.change(record.uuid, now, expect={"epoch": 0}, next_epoch=True).record
    except Superseded:
        return core.store.get(record.uuid)
