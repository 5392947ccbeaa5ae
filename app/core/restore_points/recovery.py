"""The recovery of sessions from the store, which an operator asks for when Redis and the volumes are lost.

The request is in Redis, and is carried out by the sweep that looks at the store
(workers/lifecycle/archive_adoption.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """One recovery: when it was `requested_at` and when it `ended_at` (s since the epoch, 0 while it goes on), and
    whether it is a `dry_run`, which only counts. At its end, `found` counts the sessions that had restore points and
    neither record nor workspace, and `damaged` those of them of whose points none can be read. `recovered` counts those
    that have records again, so far. `error` is that of the last attempt, which is repeated."""

    requested_at: float
    dry_run: bool
    ended_at: float = 0.0
    found: int = 0
    recovered: int = 0
    damaged: int = 0
    error: str = ""


class Recoveries:
    """The last recovery. Needs a client with `decode_responses=True`; every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def request(self, now: float, *, dry_run: bool) -> Recovery:
        """Ask for one, in place of one that goes on."""
        self._note(requested_at=repr(now), dry_run=int(dry_run), recovered=0, error="")
        return Recovery(requested_at=now, dry_run=dry_run)

    @redis_errors
    def last(self) -> Recovery | None:
        """The one that was asked for last."""
        kept = cast("dict[str, str]", self._redis.hgetall(keys.RECOVERY))
        if not kept:
            return None
        over = kept.get("carried_out") == kept["requested_at"]
        return Recovery(
            requested_at=float(kept["requested_at"]),
            dry_run=kept["dry_run"] == "1",
            ended_at=float(kept["ended_at"]) if over else 0.0,
            found=int(kept["found"]) if over else 0,
            recovered=int(kept["recovered"]),
            damaged=int(kept["damaged"]) if over else 0,
            error=kept["error"],
        )

    def waiting(self) -> Recovery | None:
        """The one that is to be carried out."""
        last = self.last()
        return last if last and not last.ended_at else None

    @redis_errors
    def note_recovered(self) -> None:
        """Count one more session that has its record again."""
        self._redis.hincrby(keys.RECOVERY, "recovered", 1)

    def end(self, recovery: Recovery, now: float, *, found: int, damaged: int) -> None:
        """Note the end of `recovery`. One that was asked for meanwhile still waits."""
        self._note(carried_out=repr(recovery.requested_at), ended_at=repr(now), found=found, damaged=damaged, error="")

    def note_failed(self, why: str) -> None:
        """Note why the last attempt failed."""
        self._note(error=why)

    @redis_errors
    def _note(self, **fields: str | int) -> None:
        self._redis.hset(keys.RECOVERY, mapping=fields)
