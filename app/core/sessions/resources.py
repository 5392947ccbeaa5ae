"""What a workspace uses, as its agent reports it once a minute: an hour of samples, and the disk.

The samples of a session are a ring of 60 fields in a hash, which expires an hour after the last. The used part of the
volume is noted for the record, where a sleeping session keeps it. The workspace's user may have forged all of it: it is
shown, and nothing is decided or billed by it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.scripts import Script
from app.core.sessions.model import Record

MINUTE = 60
MINUTES = 60
"""Samples kept."""

KEPT = MINUTE * MINUTES
"""s for which they are kept after the last."""

GAP = 2
"""Minutes without a report for which the sample before them stands: reports are not as regular as minutes."""

MIB = 1_048_576

WRITTEN = re.compile(r"(\d{1,10}) (\d{1,5}\.\d{4}) (\d{1,16}) (\d{1,16})", re.ASCII)
"""A sample in Redis: its minute, and its fields."""


@dataclass(frozen=True)
class Sample:
    """CPU in cores, memory and disk in bytes."""

    cpu: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0


Minutes = Mapping[int, Sample]
"""Samples by their minute, counted from 1970-01-01."""


class Resources:
    """Every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._write = Script(client, "measured")

    @redis_errors
    def note(self, uuid: str, sample: Sample, now: float) -> bool:
        """Note the sample of this minute; a second one takes its place. False when the session does not exist, or is
        being deleted."""
        minute = int(now // MINUTE)
        text = f"{minute} {sample.cpu:.4f} {sample.memory_bytes} {sample.disk_bytes}"
        noted = self._write(
            session=keys.SESSION.format(uuid=uuid),
            resources=keys.RESOURCES.format(uuid=uuid),
            field=minute % MINUTES,
            sample=text,
            kept=KEPT,
            disk_mib=sample.disk_bytes // MIB,
        )
        return bool(noted)

    @redis_errors
    def read(self, uuid: str) -> Minutes:
        """The samples that are kept. A compromised gateway may have written anything."""
        texts = self._redis.hvals(keys.RESOURCES.format(uuid=uuid))
        found = filter(None, map(WRITTEN.fullmatch, texts))
        return {int(each[1]): Sample(float(each[2]), int(each[3]), int(each[4])) for each in found}


def hour(known: Minutes, record: Record, now: float) -> list[tuple[int, Sample]]:
    """The last 60 whole minutes, oldest first. One without a sample, as while asleep, has the disk only."""
    end = int(now // MINUTE)
    disk = next((known[minute].disk_bytes for minute in sorted(known)), record.disk_used_mib * MIB)
    found = []
    for minute in range(end - MINUTES, end):
        sample = _newest(known, minute)
        disk = sample.disk_bytes if sample else disk
        found.append((minute, sample or Sample(disk_bytes=disk)))
    return found


def present(known: Minutes, record: Record, now: float) -> Sample:
    """What the workspace uses now; asleep its disk only."""
    sample = _newest(known, int(now // MINUTE)) if record.replicas else None
    return sample or Sample(disk_bytes=record.disk_used_mib * MIB)


def _newest(known: Minutes, minute: int) -> Sample | None:
    """The sample of a minute, or of the last before it that stands for it."""
    return next((known[each] for each in range(minute, minute - GAP - 1, -1) if each in known), None)
