"""The audit: who did what to which session, from where, and why. Append-only; the newest entries are kept.

Each entry is a log line of the process that writes it, and an entry of a stream in Redis. There are two streams, each
with its own limit in bytes, so that callers who can ask without end can't push other entries out. `audit` has the acts
of API keys and of the service itself. `audit:repeated` has refusals, sign-ins at the dashboard and what tenants do by
themselves; there the same act by the same caller within a minute is one entry with a count.

No call fails because of its entry: one that could not be written is in the log in full.
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

from app.core.access.addresses import counted_as
from app.core.errors import InvalidRequest, RetryableError, SessionError
from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.memory import RESERVE
from app.core.redis.paging import FOREIGN
from app.core.redis.scripts import Script, flatten, pairs

log = logging.getLogger("app.audit")

SYSTEM = "system"
"""The name and role of the service itself, for acts that no caller requested."""

ANONYMOUS = "anonymous"
"""The name and role of a caller without credentials."""

UNKNOWN = "unknown"
"""The action of a refused call to an endpoint that does not exist."""

REFUSED = frozenset({401, 403, 429})
"""The statuses that refuse the caller rather than the request."""

WINDOW = 60
"""s in which a repeated act is counted with the first."""

DISTINCT_ENTRIES = 10
"""Different acts of one caller with entries of their own in a window; all others share one entry, `several`."""

SEVERAL = "several"

REPEATED_SHARE = 0.25
"""The share of the bytes for acts that callers may repeat without end."""

BYTES = 33_554_432
"""The default limit for all entries in Redis."""

LONGEST_TEXT = 200
"""Characters of a field; only a name or reason made long on purpose has more."""

ENTRIES_PER_SCAN = 250
"""Entries one script reads: it blocks Redis for some 1.5 ms."""

SCANS_PER_PAGE = 100
"""Scripts run for one page and stream; the next page continues where they end."""

DELETE_BATCH = 1_000
DELETE_ROUNDS = 1_000

REWRITE_ROUNDS = 100_000
"""Scripts run to rewrite a stream; the default limit in bytes takes some 400."""

ID_PATTERN = re.compile(r"([0-9]{1,20})-([0-9]{1,20})(r?)")
LARGEST = 2**64 - 1

STREAMS = ((keys.AUDIT, ""), (keys.AUDIT_REPEATED, "r"))
"""Each stream, and the suffix of its entries' ids, since both may have an entry of the same id."""


@dataclass(frozen=True, kw_only=True)
class Act:
    """Something that was done or refused. `by` is the name of an API key, `oidc:{name}` (as no key is named) for a
    person who signed in by OpenID Connect, `session:{uuid}` for a session token, `workspace:{uuid}` for a workspace
    token, `visitor`, `anonymous` or `system`; `role` tells the others apart for certain. `status` is that of the
    response, 0 for none. `reason` is the response's stable code, else why or how it was done. No field ever holds a
    secret or a tenant's text."""

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
    """A stored act: when it was done (s since the epoch), and how often within a minute from then."""

    id: str
    at: float
    act: Act
    count: int = 1


@dataclass(frozen=True)
class Page:
    """Entries, newest first. `next_cursor` is None when there are no older ones. A filtered page may have fewer entries
    than asked for, even none, while older ones exist."""

    entries: list[Entry]
    next_cursor: str | None


Place = tuple[int, int, int]
"""An entry's place among all: its time (ms), its number within that, and the rank of its stream."""


class Audit:
    """Writes and reads entries. They take at most `most` bytes of Redis, and do not grow while only the reserve of its
    memory is left."""

    def __init__(self, client: redis.Redis, most: int = BYTES) -> None:
        self._redis = client
        self._acts, self._repeated = int(most * (1 - REPEATED_SHARE)), int(most * REPEATED_SHARE)
        self._add = Script(client, "audit_add")
        self._count = Script(client, "audit_count")
        self._scan = Script(client, "audit_scan")
        self._rewrite = Script(client, "audit_rewrite")

    def note(self, act: Act, *, repeatable: bool = False, reachable: bool = True) -> None:
        """Write an entry and a log line; one round trip. `repeatable` is for acts the caller may repeat without end.
        Raises nothing: an entry that Redis does not take, or that is not sent as Redis is not `reachable`, is in the
        log alone. A refusal that was only counted has no log line."""
        fields = {name: _clipped(value) for name, value in asdict(act).items()}
        kept, first, why = False, True, "the state store is unreachable"
        if reachable:
            try:
                with redis_errors:
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
        """Note an act of the service itself; `repeatable` where a tenant can cause it without end."""
        act = Act(
            action=action, uuid=uuid, user_id=user_id, by=SYSTEM, role=SYSTEM, reason=reason, request_id=request_id
        )
        self.note(act, repeatable=repeatable)

    def page(self, *, limit: int = 100, cursor: str | None = None, uuid: str = "", by: str = "") -> Page:
        """Entries older than the one `cursor` names, newest first; with `uuid` those about that session, with `by`
        those of that caller. Raises `InvalidRequest` for an invalid cursor, and `StateUnavailable`."""
        before = _place(cursor) if cursor else None
        found: list[tuple[Place, Entry]] = []
        unseen = (0, 0, 0)  # entries older than this may not have been read
        for stream, suffix in STREAMS:
            entries, reached = self._older(stream, suffix, before, limit + 1, uuid, by)
            found += entries
            unseen = max(unseen, reached)
        found.sort(key=lambda pair: pair[0], reverse=True)
        shown = [(place, entry) for place, entry in found if place >= unseen][:limit]
        if len(shown) < len(found) and len(shown) == limit:
            return Page([entry for _, entry in shown], _cursor(shown[-1][0]))
        return Page([entry for _, entry in shown], _cursor(unseen) if unseen[0] else None)

    @redis_errors
    def delete_before(self, before: float) -> int:
        """Delete the entries from before that time (s since the epoch); answers how many."""
        forgotten, last = 0, int(before * 1000) - 1
        if last < 0:
            return 0
        for stream, _ in STREAMS:
            for _ in range(DELETE_ROUNDS):
                old = [name for name, _ in self._redis.xrange(stream, "-", str(last), count=DELETE_BATCH)]
                if not old:
                    break
                self._redis.xdel(stream, *old)
                if stream == keys.AUDIT_REPEATED:
                    self._redis.hdel(keys.AUDIT_COUNTS, *old)
                forgotten += len(old)
        return forgotten

    @redis_errors
    def pseudonymise(self, uuid: str, pseudonym: str) -> None:
        """Put the pseudonym in the place of the user in all entries about this session. Only one process at a time may
        do that."""
        for stream, _ in STREAMS:
            last = ""
            for _ in range(REWRITE_ROUNDS):
                last = self._rewrite(
                    stream=stream,
                    copy=keys.AUDIT_COPY.format(stream=stream),
                    uuid=uuid,
                    pseudonym=pseudonym,
                    last=last,
                    number=ENTRIES_PER_SCAN,
                )
                if not last:
                    break
            else:
                raise RetryableError("The audit has more entries than can be rewritten.")

    def _write(self, fields: Mapping[str, str]) -> bool:
        self._add(stream=keys.AUDIT, bytes=self._acts, reserve=RESERVE, entry=flatten(fields))
        return True

    def _write_repeatable(self, act: Act, fields: Mapping[str, str]) -> bool:
        """Write or count an entry; answers whether it is the first of its kind in this window."""
        caller = (act.by, act.role, _whose(act))
        rest = {**fields, "action": SEVERAL, "uuid": "", "user_id": "", "reason": ""}
        return bool(
            self._count(
                stream=keys.AUDIT_REPEATED,
                counts=keys.AUDIT_COUNTS,
                same=_window("same", *caller, act.action, act.uuid, str(act.status), act.reason),
                number=_window("number", *caller),
                rest=_window("rest", *caller, str(act.status)),
                bytes=self._repeated,
                reserve=RESERVE,
                seconds=WINDOW,
                distinct=DISTINCT_ENTRIES,
                entry=json.dumps(flatten(fields)),
                shared=json.dumps(flatten(rest)),
            )
        )

    @redis_errors
    def _older(
        self, stream: str, suffix: str, before: Place | None, want: int, uuid: str, by: str
    ) -> tuple[list[tuple[Place, Entry]], Place]:
        """Up to `want` entries of a stream older than `before`, and the place up to which the stream was read: zeros
        when that is its end, or when all wanted entries were found."""
        found: list[tuple[Place, Entry]] = []
        rank = _rank(suffix)
        newest = "+"
        if before:
            # Of two entries with the same time and number, the one of the lower rank is older.
            newest = _id(before) if rank < before[2] else _before(before)
        for _ in range(SCANS_PER_PAGE):
            if not newest:
                return found, (0, 0, 0)
            missing = want - len(found)
            look = ENTRIES_PER_SCAN if uuid or by else min(ENTRIES_PER_SCAN, missing)
            entries, last, over = self._scan(
                stream=stream,
                counts=keys.AUDIT_COUNTS if suffix else "",
                newest=newest,
                look=look,
                find=missing,
                uuid=uuid,
                by=by,
            )
            for name, flat, counted in entries:
                ms, number = map(int, name.split("-"))
                values = pairs(flat)
                act = Act(status=int(values.pop("status")), **values)
                found.append(((ms, number, rank), Entry(name + suffix, ms / 1000, act, 1 + int(counted))))
            if over or len(found) >= want:
                return found, (0, 0, 0)
            ms, number = map(int, last.split("-"))
            newest = _before((ms, number, rank))
        return found, (ms, number, rank)


def _clipped(value: Any) -> str:
    return str(value)[:LONGEST_TEXT].encode("utf-8", "replace").decode()


def _whose(act: Act) -> str:
    """What tells callers of the same name apart: their address, or IPv6 network. A session token counts as one caller,
    whatever its address."""
    if act.role == SYSTEM:
        return act.uuid
    return "" if act.by.startswith("session:") else counted_as(act.address)


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
    """The largest id below that place in its stream, "" for none."""
    ms, number, _ = place
    if number:
        return f"{ms}-{number - 1}"
    return f"{ms - 1}-{LARGEST}" if ms else ""
