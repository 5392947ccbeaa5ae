"""Makes one restore point and notes it: in the index, the record and the events. Who makes it holds the lease of the
session's backups, as both read all files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from app.core.backups.index import identity_fields
from app.core.composition import Core
from app.core.redis import keys
from app.core.restore_points.index import RestorePoint
from app.core.restore_points.names import new_id
from app.core.restore_points.schedule import next_point
from app.core.sessions.change import Intervals
from app.core.sessions.model import Record, Status, iso
from workers.lifecycle.action_counters import POINTS_BROKEN, POINTS_MADE, POINTS_STORED, POINTS_UNCHANGED
from workers.lifecycle.ended import done
from workers.lifecycle.notify import notify
from workers.runtime.base import Check, PointOrder, PointSummary, Runtime

log = logging.getLogger(__name__)

EVENTS_KEPT_ASLEEP = 600.0
"""s: a sleeping session may cost 2 KB, and any stream takes 4 KB in Redis (measured on 7.0)."""

LONGEST_LOOK = 86_400.0
"""s until a session is looked at again at the latest: settings change."""


def kept_events(record: Record) -> float:
    """Seconds that the events of such a session are kept after one more, 0 for as long as it is awake."""
    return EVENTS_KEPT_ASLEEP if record.status is Status.SLEEPING else 0.0


class PointMaking:
    """Makes restore points through a runtime. Times are seconds since the epoch."""

    def __init__(self, core: Core, runtime: Runtime, clock: Callable[[], float]) -> None:
        self._core = core
        self._store = core.store
        self._index = core.restore_points
        self._runtime = runtime
        self._clock = clock

    def make(self, record: Record, trigger: str, check: Check, *, full: bool = False) -> str:
        """Make a restore point of the session's files, unless nothing changed since the newest; answers the id of the
        newest. Raises as `Runtime.make_point`."""
        order = self._order(record, trigger, full=full)
        self._core.backup_store.prepare(record.uuid)
        summary = self._runtime.make_point(record.uuid, order, check=check)
        return self._note_made(record, order, summary)

    def _order(self, record: Record, trigger: str, *, full: bool) -> PointOrder:
        uuid, settings = record.uuid, self._core.settings
        known = self._index.of(uuid)
        parent = next((each for each in known if not each.broken), None)
        # A drill, or a check, found the newest one broken: what it had is to be stored anew, changed or not.
        fresh = bool(known and known[0].broken)
        # Before a rollback removes them, files are looked at again that could not be read, or vanished meanwhile.
        anew = fresh or (trigger == "rollback" and parent and parent.unreadable)
        return PointOrder(
            uuid=uuid,
            id=new_id(),
            at=self._clock(),
            trigger=trigger,
            message_id=self._core.inbox.last_ended(uuid),
            parent=parent.id if parent else "",
            fingerprint=parent.fingerprint if parent and not anew else "",
            fresh=fresh,
            full=full,
            keep=settings.points_kept(),
            broken=tuple(each.id for each in known if each.broken),
            needed=tuple(self._core.restore_points.needed(uuid, record.rollback_to)),
            max_bytes=settings.restore_max_bytes,
            max_entries=settings.restore_max_entries,
            identity=identity_fields(record.identity),
        )

    def _note_made(self, record: Record, order: PointOrder, summary: PointSummary) -> str:
        uuid, now = record.uuid, self._clock()
        made = () if summary.unchanged else (_point_of(order, summary),)
        if summary.kept:
            # Before the index, after which nothing is made or measured again while the files stay as they are.
            self._store.change(uuid, now, ledger=Intervals.of_points(order.at, summary.kept))
        self._index.put(uuid, made, summary.forgotten)
        if summary.checked:
            self._index.mark_verified(uuid, now, summary.broken)
        elif summary.broken:
            self._index.mark_broken(uuid, summary.broken)
        newest = order.parent if summary.unchanged else summary.id
        told = {"status": "done", "restore_point": newest, "saved_at": iso(order.at), "unchanged": summary.unchanged}
        change: dict[str, Any] = {
            "point": newest,
            # What the check found broken is to be saved again.
            "point_at": 0.0 if summary.broken else order.at,
            "point_error": "",
            **({"point_checked_at": now} if order.full else {}),
        }
        event = ("restore_point", told)
        after = self._store.change(uuid, now, event=event, events_ttl=kept_events(record), **change).record
        self._store.schedule_missing(keys.DRILLS, [uuid], now)
        self._store.schedule(
            keys.POINTS_DUE, uuid, min(next_point(after, self._core.settings, now).at, now + LONGEST_LOOK)
        )
        notify(self._core, done("point", record, now, since=order.at, phases=summary.ms, figures=_figures_of(summary)))
        if summary.broken:
            log.error("restore points are broken: %s", ", ".join(summary.broken), extra={"uuid": uuid})
        return newest


def _figures_of(summary: PointSummary) -> dict[str, int]:
    """What is counted of the point, and of the check of others that was made with it."""
    figures = {POINTS_UNCHANGED: 1} if summary.unchanged else {POINTS_MADE: 1, POINTS_STORED: summary.stored}
    return figures | ({POINTS_BROKEN: len(summary.broken)} if summary.broken else {})


def _point_of(order: PointOrder, summary: PointSummary) -> RestorePoint:
    told = {name: value for name, value in asdict(summary).items() if name in RestorePoint.__dataclass_fields__}
    return RestorePoint(
        **{**told, "broken": summary.id in summary.broken},
        uuid=order.uuid,
        trigger=order.trigger,
        message_id=order.message_id,
    )
