"""The cost ledger as it is read: what sessions used, by day, and the running totals.

It is written by the scripts that change records, backups and token counts (app/core/redis/lua/ledger.lua). What runs on
is added when it is read: from the session's record, and from its backups in the index. Every method raises
`StateUnavailable`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis

from app.core.costs import usage
from app.core.costs.prices import Prices
from app.core.costs.usage import KINDS, DailyUsage, Interval, bill, months_between, running_amounts
from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.scripts import Script, flatten

AT_ONCE = 200
"""Sessions read in one round trip: some 50 KB for a month."""

RECORD = (
    *("user_id", "made_by", "size", "labels", "created_at"),
    *("compute_since", "disk_since", "disk_mib", "points_since", "points_kib"),
)
"""The fields of a record that the ledger reads."""


@dataclass(frozen=True)
class Payer:
    """A session as the ledger keeps it, which outlives the record: whose it is, the API key that created it (`made_by`,
    "" if unknown), its size and labels. `created_at` is in seconds since the epoch."""

    uuid: str
    user_id: str
    made_by: str = ""
    size: str = "standard"
    labels: Mapping[str, str] | None = None
    created_at: float = 0.0

    @classmethod
    def from_hash(cls, uuid: str, hashed: Mapping[str, str | None]) -> Payer:
        return cls(
            uuid,
            hashed.get("user_id") or "",
            hashed.get("made_by") or "",
            hashed.get("size") or "standard",
            json.loads(hashed.get("labels") or "{}"),
            float(hashed.get("created_at") or 0),
        )


@dataclass(frozen=True)
class SessionUsage:
    """What a session used, by day."""

    payer: Payer
    days: DailyUsage


@dataclass(frozen=True)
class Totals:
    """Dollars of all sessions since the ledger began, by kind, what sleeping saved, and refusals for a budget. They
    only grow while prices stay the same."""

    dollars: Mapping[str, float]
    saved: float
    refusals: int


class Ledger:
    """Reads the ledger. Days are numbers (app/core/costs/usage.py), `now` is seconds since the epoch."""

    def __init__(self, client: redis.Redis, prices: Prices) -> None:
        self._redis = client
        self._shown = Script(client, "shown")
        self.prices = prices

    @redis_errors
    def payer(self, uuid: str) -> Payer | None:
        """What the ledger keeps of a session, None for nothing."""
        hashed = self._redis.hgetall(keys.LEDGER_SESSION.format(uuid=uuid))
        return Payer.from_hash(uuid, hashed) if hashed else None

    @redis_errors
    def sessions(self, first: int, last: int, user_id: str | None = None, user_prefix: str = "") -> list[str]:
        """The uuids, in order, of the sessions that may have cost something on these days: those with an entry in the
        ledger, those that exist, and those with a backup. With a `user_prefix`, of users whose id begins with it."""
        months = months_between(first, last)
        if user_id is not None:
            booked = [keys.USER_MONTH_SESSIONS.format(user_id=user_id, month=month) for month in months]
            living, backups = keys.BY_USER.format(user_id=user_id), keys.USER_BACKUPS.format(user_id=user_id)
        else:
            booked = [keys.MONTH_SESSIONS.format(month=month) for month in months]
            living, backups = keys.ALL, keys.BACKUPS
        pipe = self._redis.pipeline(transaction=False)
        for key in (*booked, living, backups):
            pipe.zrange(key, 0, -1)
        *members, names = pipe.execute()
        # app/core/backups/store.py: app-{uuid}-{day}-{time}.zip
        uuids = {name.split("-")[1] for name in names}.union(*members)
        return sorted(uuids)

    def read(self, uuids: Sequence[str], first: int, last: int, now: float) -> Iterator[SessionUsage]:
        """What these sessions used on the days from `first` to `last`, until now."""
        for start in range(0, len(uuids), AT_ONCE):
            yield from self._read(uuids[start : start + AT_ONCE], first, last, now)

    @redis_errors
    def running_totals(self, owners: Sequence[str], now: float) -> list[Counter[str]]:
        """The amounts of owners (`USER_COSTS`, `KEY_COSTS` of keys.py) in the month of `now`, in one round trip."""
        month = usage.month_of(now)
        pipe = self._redis.pipeline(transaction=False)
        for owner in owners:
            pipe.hgetall(keys.BOOKED.format(owner=owner, month=month))
            pipe.hgetall(keys.OPEN.format(owner=owner))
        answers = pipe.execute()
        return [
            running_amounts(going, now, month) + _counted(booked)
            for booked, going in zip(answers[::2], answers[1::2], strict=True)
        ]

    @redis_errors
    def totals(self, now: float) -> Totals:
        """The figures of /metrics. A full Redis shows them as they were."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hgetall(keys.TOTALS)
        pipe.hgetall(keys.OPEN.format(owner=keys.ALL_COSTS))
        pipe.get(keys.BUDGET_REFUSALS)
        booked, going, refusals = pipe.execute()
        made = bill(_counted(booked) + running_amounts(going, now), self.prices)
        figures = {kind: f"{made.dollars[kind]:.9f}" for kind in KINDS} | {"saved": f"{made.saved:.9f}"}
        digest = hashlib.sha256(json.dumps(self.prices.to_json(), sort_keys=True).encode()).hexdigest()[:16]
        shown = self._shown(shown=keys.SHOWN, prices=digest, totals=flatten(figures))
        *dollars, saved = map(float, shown)
        return Totals(dict(zip(KINDS, dollars, strict=True)), saved, int(refusals or 0))

    def _read(self, uuids: Sequence[str], first: int, last: int, now: float) -> Iterator[SessionUsage]:
        months = months_between(first, last)
        with redis_errors:
            pipe = self._redis.pipeline(transaction=False)
            for uuid in uuids:
                pipe.hmget(keys.SESSION.format(uuid=uuid), *RECORD)
                pipe.hgetall(keys.LEDGER_SESSION.format(uuid=uuid))
                pipe.zrange(keys.SESSION_BACKUPS.format(uuid=uuid), 0, -1)
                for month in months:
                    pipe.hgetall(keys.LEDGER.format(uuid=uuid, month=month))
            answers = pipe.execute()
            each = 3 + len(months)
            found = [answers[start : start + each] for start in range(0, len(answers), each)]
            backups = self._backups([name for _, _, names, *_ in found for name in names])
        for uuid, (values, kept, names, *booked) in zip(uuids, found, strict=True):
            record = dict(zip(RECORD, values, strict=True))
            payer = Payer.from_hash(uuid, record if record["user_id"] else kept)
            stored = [backups[name] for name in names if name in backups]
            if not payer.user_id and stored:
                payer = replace(payer, user_id=stored[0]["user_id"])
            if not payer.user_id:
                continue
            days = DailyUsage()
            for month, hashed in zip(months, booked, strict=True):
                start = usage.month_start(month)
                for field, amount in hashed.items():
                    days.add(start + int(field[:2]) - 1, field[3:], int(amount))
            days.add_open([*_open_of(payer.size, record), *map(_backup, stored)], now)
            yield SessionUsage(payer, days)

    def _backups(self, names: Sequence[str]) -> dict[str, Mapping[str, str]]:
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.hmget(keys.BACKUP.format(name=name), "user_id", "created_at", "size")
        read = zip(names, pipe.execute(), strict=True)
        return {name: dict(zip(("user_id", "created_at", "size"), each, strict=True)) for name, each in read if each[0]}


def _open_of(size: str, record: Mapping[str, str | None]) -> Iterator[Interval]:
    """What runs on of a record."""
    if since := record["compute_since"]:
        yield Interval(f"c:{size}", usage.ticks(float(since), 1000), 1000)
    if since := record["disk_since"]:
        yield Interval(f"d:{size}:{record['disk_mib']}", usage.ticks(float(since), 1))
    if since := record["points_since"]:
        yield Interval("r", usage.ticks(float(since), 1), 1, int(record["points_kib"] or 0))


def _backup(stored: Mapping[str, str]) -> Interval:
    return Interval("b", usage.ticks(float(stored["created_at"]), 1), 1, -(-int(stored["size"]) // 1024))


def _counted(hashed: Mapping[str, str]) -> Counter[str]:
    return Counter({kind: int(amount) for kind, amount in hashed.items()})


def shown_usage(amounts: Mapping[str, int], prices: Prices) -> dict[str, Any]:
    """Amounts and what they cost, as answers show them: dollars are rounded to six places, each by itself."""
    made = bill(amounts, prices)
    return {
        "compute_seconds": {size: float(seconds) for size, seconds in made.compute_seconds.items()},
        "storage_gib_hours": usage.rounded(made.disk_gib_hours),
        "backup_gib_hours": usage.rounded(made.backup_gib_hours),
        "point_gib_hours": usage.rounded(made.point_gib_hours),
        "tokens": {model: {"prompt": read, "completion": wrote} for model, (read, wrote) in made.tokens.items()},
        "dollars": {
            **{kind: usage.rounded(made.dollars[kind]) for kind in KINDS},
            "total": usage.rounded(made.total),
        },
        "saved_dollars": usage.rounded(made.saved),
    }
