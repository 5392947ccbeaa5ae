"""Giving a workspace the token of its session's epoch, where that is another than it has."""

from __future__ import annotations

import time
from collections.abc import Callable

from app.sessions.core import Core
from app.sessions.errors import SessionNotFound, Superseded
from app.sessions.model import GONE, Record
from workers.runtime.base import Runtime

LOOKS = 5
"""How often the epoch is looked at again after it was written: two who write at once may do it in the wrong order."""


def renew(core: Core, runtime: Runtime, uuid: str, clock: Callable[[], float] = time.time) -> None:
    """Have the session's agent, the one that runs and the next, show the token of the record's epoch. A session that is
    deleted, or has no workspace yet, needs none."""
    written = -1
    for _ in range(LOOKS):
        try:
            record = _with_epoch(core, core.store.get(uuid), clock())
        except SessionNotFound:
            return
        if record.epoch == written or record.status in GONE or not record.provisioned:
            return
        runtime.renew(uuid, record.epoch)
        written = record.epoch


def _with_epoch(core: Core, record: Record, now: float) -> Record:
    """The record, with a first epoch where it had none."""
    if record.epoch or record.status in GONE:
        return record
    try:
        return core.store.change(record.uuid, now, expect={"epoch": 0}, next_epoch=True).record
    except Superseded:
        return core.store.get(record.uuid)
