"""Who did what to which session, from where, and why: an append-only record, of which the newest entries are kept.

Each entry is a line in the log of the process that writes it, and one in a stream in Redis. There are two streams, each
with bytes of its own, so that nobody who may ask as often as they like can push the others out: what holders of keys
and the service itself do has `audit`; what is refused, and what tenants do by themselves, has `audit:repeated`. There
the same thing, asked by the same caller within a minute, is one entry that counts.

No call fails for its entry: one that could not be written is in the log, with all its content.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import redis

from app.sessions import keys
from app.sessions.errors import InvalidRequest, SessionError
from app.sessions.memory import RESERVE
from app.sessions.paging import FOREIGN
from app.sessions.redis_errors import redis_errors
from app.sessions.scripts import script

log = logging.getLogger("app.audit")

SYSTEM = "system"
"""Who did it where nobody asked for it; the name and the role of the service itself."""

REFUSED = frozenset({401, 403, 429})
"""The answers that say no to the caller, whatever was asked."""

WINDOW = 60
"""s in which the same thing again is counted with the first."""

TOLD_APART = 10
"""Different things of one caller that have entries of their own in a window; all others are one, `several`."""

SEVERAL = "several"

REPEATED_SHARE = 0.25
"""Of the bytes: for what may be asked without end."""

BYTES = 33_554_432
"""Of Redis for all entries, unless a setting says otherwise."""

LONGEST_TEXT = 200
"""Characters of a field: names and reasons have less, but for those somebody made long on purpose."""

LOOKED_AT = 250
"""Entries that one script looks at: Redis answers nobody else meanwhile, for some 1.5 ms."""

LOOKS = 100
"""Scripts of one page and stream; where there are more entries, the next page goes on from there."""

FORGOTTEN_AT_ONCE = 1_000
FORGET_ROUNDS = 1_000

ID_PATTERN = re.compile(r"([0-9]{1,20})-([0-9]{1,20})(r?)")
LARGEST = 2**64 - 1

STREAMS = ((keys.AUDIT, ""), (keys.AUDIT_REPEATED, "r"))
"""Each stream, and what its entries' ids end with: both may have one of the same moment."""


@dataclass(frozen=True, kw_only=True)
class Act:
    """Something that was done, or refused. `by` is the name of a key, `session:{uuid}` for who holds its token,
    `visitor`, `anonymous` or `system`; `role` tells these apart for certain. `status` is that of the answer, 0 where
    there was none. `reason` is a stable code where the answer has one, and else why, or how, it was done. Never a
    secret, and never a text that a tenant wrote."""

    action: str
    by: str
    role: str
    uuid: str = ""
    user_id: str = ""
    address: str = ""
    status: int = 0
    reason: str = ""
    request_id: str = ""


@dataclass(frozen=True)
class Entry:
    """An act as it is kept: when it was done (s since the epoch), and how often within the minute from then."""

    id: str
    at: float
    act: Act
    count: int = 1


@dataclass(frozen=True)
class Page:
    """Entries, newest first. `next_cursor` is None when there are no older ones; until then a page may have fewer than
    were asked for, even none, as many entries had to be looked at."""

    entries: list[Entry]
    next_cursor: str | None


Place = tuple[int, int, int]
"""Where an entry stands among all: its moment (ms), its number in that, and which stream it is of."""


class Audit:
    """Writes and reads entries. They take `most` bytes of Redis, and no more than they have while only `reserve`, a
    share of its memory, is left."""

    def __init__(self, client: redis.Redis, most: int = BYTES, reserve: float = RESERVE) -> None:
        self._redis = client
        self._acts, self._repeated = int(most * (1 - REPEATED_SHARE)), int(most * REPEATED_SHARE)
        self._reserve = reserve
        self._add = client.register_script(script("audit_add"))
        self._count = client.register_script(script("audit_count"))
        self._look = client.register_script(script("audit_look"))

    def note(self, act: Act, *, repeatable: bool = False, reachable: bool = True) -> None:
        """Write an entry, and a line in the log; one round trip. `repeatable` is for what the caller may ask without
        end. Raises nothing: what Redis does not take, or would not as it is not `reachable`, is in the log alone. A
        refusal that was only counted has no line: the first one has."""
        fields = {name: _clipped(value) for name, value in asdict(act).items()}
        kept, first, why = False, True, "the state store is away"
        if reachable:
            try:
                with redis_errors():
                    first = self._write_repeatable(act, fields) if repeatable else self._write(fields)
                kept = True
            except (SessionError, redis.RedisError) as error:
                why = type(error).__name__
        if not kept:
            log.warning("audit", extra={**fields, "kept": False, "error": why})
        elif first or act.status not in REFUSED:
            log.info("audit", extra={**fields, "kept": True})

    def note_own(
        self, action: str, uuid: str, user_id: str, reason: str, *, request_id: str = "", repeatable: bool = False
    ) -> None:
        """Note what the service does by itself; `repeatable` where a tenant can make it do so again and again."""
        act = Act(
            action=action, uuid=uuid, user_id=user_id, by=SYSTEM, role=SYSTEM, reason=reason, request_id=request_id
        )
        self.note(act, repeatable=repeatable)

    def page(self, *, limit: int = 100, cursor: str | None = None, uuid: str = "", by: str = "") -> Page:
        """Entries older than the one `cursor` names, newest first; with `uuid` those about that session, with `by`
        those of that caller. Raises `InvalidRequest` for a cursor that is none, and `StateUnavailable`."""
        before = _place(cursor) if cursor else None
        found: list[tuple[Place, Entry]] = []
        unseen = (0, 0, 0)  # older than this some may not have been looked at
        for stream, suffix in STREAMS:
            entries, reached = self._older(stream, suffix, before, limit + 1, uuid, by)
            found += entries
            unseen = max(unseen, reached)
        found.sort(key=lambda pair: pair[0], reverse=True)
        shown = [(place, entry) for place, entry in found if place >= unseen][:limit]
        if len(shown) < len(found) and len(shown) == limit:
            return Page([entry for _, entry in shown], _cursor(shown[-1][0]))
        return Page([entry for _, entry in shown], _cursor(unseen) if unseen[0] else None)

    def forget(self, before: float) -> int:
        """Forget the entries of before that moment (s since the epoch); answers how many."""
        forgotten, last = 0, int(before * 1000) - 1
        if last < 0:
            return 0
        for stream, _ in STREAMS:
            for _ in range(FORGET_ROUNDS):
                with redis_errors():
                    old = [name for name, _ in self._redis.xrange(stream, "-", str(last), count=FORGOTTEN_AT_ONCE)]
                    if not old:
                        break
                    self._redis.xdel(stream, *old)
                    if stream == keys.AUDIT_REPEATED:
                        self._redis.hdel(keys.AUDIT_COUNTS, *old)
                forgotten += len(old)
        return forgotten

    def _write(self, fields: Mapping[str, str]) -> bool:
        self._add(keys=[keys.AUDIT], args=[self._acts, self._reserve, *_flat(fields)])
        return True

    def _write_repeatable(self, act: Act, fields: Mapping[str, str]) -> bool:
        """Whether it is the first of its kind in this window."""
        caller = (act.by, act.role, _whose(act))
        rest = {**fields, "action": SEVERAL, "uuid": "", "user_id": "", "reason": ""}
        windows = [
            _window("same", *caller, act.action, act.uuid, str(act.status), act.reason),
            _window("number", *caller),
            _window("rest", *caller, str(act.status)),
        ]
        entries = [json.dumps(_flat(fields)), json.dumps(_flat(rest))]
        numbers = [self._repeated, self._reserve, WINDOW, TOLD_APART]
        return bool(self._count(keys=[keys.AUDIT_REPEATED, keys.AUDIT_COUNTS, *windows], args=[*numbers, *entries]))

    def _older(
        self, stream: str, suffix: str, before: Place | None, want: int, uuid: str, by: str
    ) -> tuple[list[tuple[Place, Entry]], Place]:
        """Up to `want` entries of a stream older than `before`, and the place up to which it was looked through, all
        zeros when to its end, or as far as was wanted."""
        found: list[tuple[Place, Entry]] = []
        rank = _rank(suffix)
        newest = "+"
        if before:
            # One of the same moment in the other stream may be older: it stands behind.
            newest = _id(before) if rank < before[2] else _before(before)
        for _ in range(LOOKS):
            if not newest:
                return found, (0, 0, 0)
            missing = want - len(found)
            look = LOOKED_AT if uuid or by else min(LOOKED_AT, missing)
            with redis_errors():
                entries, last, over = self._look(
                    keys=[stream, keys.AUDIT_COUNTS] if suffix else [stream],
                    args=[newest, look, missing, uuid, by],
                )
            for name, flat, counted in entries:
                ms, number = map(int, name.split("-"))
                values = dict(zip(flat[::2], flat[1::2], strict=True))
                act = Act(status=int(values.pop("status")), **values)
                found.append(((ms, number, rank), Entry(name + suffix, ms / 1000, act, 1 + int(counted))))
            if over or len(found) >= want:
                return found, (0, 0, 0)
            ms, number = map(int, last.split("-"))
            newest = _before((ms, number, rank))
        return found, (ms, number, rank)


def _clipped(value: Any) -> str:
    return str(value)[:LONGEST_TEXT].encode("utf-8", "replace").decode()


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [part for pair in fields.items() for part in pair]


def _whose(act: Act) -> str:
    """What tells callers of one name apart: who holds a session's token may come from anywhere, and counts once."""
    if act.role == SYSTEM:
        return act.uuid
    return "" if act.by.startswith("session:") else act.address


def _window(*parts: str) -> str:
    return keys.AUDIT_WINDOW.format(digest=hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32])


def _place(cursor: str) -> Place:
    match = ID_PATTERN.fullmatch(cursor)
    if match is None or max(int(match[1]), int(match[2])) > LARGEST:
        raise InvalidRequest(FOREIGN)
    return int(match[1]), int(match[2]), _rank(match[3])


def _rank(suffix: str) -> int:
    return len(suffix)


def _id(place: Place) -> str:
    return f"{place[0]}-{place[1]}"


def _cursor(place: Place) -> str:
    return _id(place) + "r" * place[2]


def _before(place: Place) -> str:
    """The id before that one in its stream, "" when there can be none."""
    ms, number, _ = place
    if number:
        return f"{ms}-{number - 1}"
    return f"{ms - 1}-{LARGEST}" if ms else ""
