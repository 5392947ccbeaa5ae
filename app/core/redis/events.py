"""A session's events: a capped stream that clients follow and on which calls wait."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.memory import Memory
from app.core.redis.notifications import Notices
from app.core.redis.scripts import Script

ID_PATTERN = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?")
LARGEST_ID = 2**64 - 1
"""Of both numbers of an id."""

FROM_START = "0-0"

REVOKED = "revoked"
"""The type of a revocation's event; its `access_epoch` is the first access epoch that is valid again."""

EVENTS_KEPT = 1_000
"""Events kept of one session: its agent's last minute, at 20 batches of tokens a second."""

EVENTS_BYTES = 1_048_576
"""Bytes of Redis for the events of one session: 1,000 of a kilobyte; the oldest are dropped."""

EVENTS_BYTES_FULL = 65_536
"""The limit while Redis is full: enough for followers to miss nothing between two reads."""

EVENTS_KEPT_ASLEEP = 100
"""Events kept of a sleeping session: more than a day of waking and sleeping."""

QUIET = 5.0
"""s after which a follower reads the stream without a notification."""

READ_AT_ONCE = 100


@dataclass(frozen=True)
class SessionEvent:
    """`id` grows; `data` is JSON-ready. `type` is `state`, `phase`, `backup`, `idle_warning`, `budget`, `risk`,
    `revoked`, `message` (a prompt's state), or the agent's `token`, `tool_call` or `tool_result`."""

    id: str
    type: str
    data: Mapping[str, Any]

    @property
    def at(self) -> float:
        """When it was added, by Redis's clock."""
        return int(self.id.partition("-")[0]) / 1000


def is_event_id(text: str) -> bool:
    """Whether Redis takes a text as the id of an event."""
    return bool(ID_PATTERN.fullmatch(text)) and all(int(part) <= LARGEST_ID for part in text.split("-"))


class EventLog:
    """Adds and follows events. Each addition is announced on a channel with the stream's name. A session's events take
    at most `EVENTS_BYTES` of Redis, and less while Redis is full."""

    def __init__(self, client: redis.Redis, memory: Memory) -> None:
        self._redis = client
        self._memory = memory
        self._append = Script(client, "append")
        self._notices = Notices(client)

    def append(self, uuid: str, kind: str, data: Mapping[str, Any]) -> None:
        """Add an event to a session's stream."""
        self.append_all(uuid, [(kind, data)])

    @redis_errors
    def append_all(self, uuid: str, events: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Add events, each a type and data, in one round trip."""
        most = EVENTS_BYTES_FULL if self._memory.full() else EVENTS_BYTES
        texts = [text for kind, data in events for text in (kind, json.dumps(data))]
        self._append(events=keys.EVENTS.format(uuid=uuid), most=EVENTS_KEPT, bytes=most, added=texts)

    @redis_errors
    def last_id(self, uuid: str) -> str:
        """The id of the newest event."""
        newest = self._redis.xrevrange(keys.EVENTS.format(uuid=uuid), count=1)
        return newest[0][0] if newest else FROM_START

    @redis_errors
    def past(
        self, uuid: str, before: str, limit: int, types: Collection[str] | None = None
    ) -> tuple[list[SessionEvent], str | None]:
        """At most `limit` events of these types before the id `before` ("" for the newest), newest first; and the id to
        go on before, None at the end."""
        if before and not any(map(int, before.split("-"))):
            # Redis answers an error, as nothing can be before.
            return [], None
        stream = keys.EVENTS.format(uuid=uuid)
        found: list[SessionEvent] = []
        for _ in range(0, EVENTS_KEPT, READ_AT_ONCE):
            entries = self._redis.xrevrange(stream, f"({before}" if before else "+", count=READ_AT_ONCE)
            for before, entry in entries:
                if types is None or entry["type"] in types:
                    found.append(SessionEvent(before, entry["type"], json.loads(entry["data"])))
                if len(found) == limit:
                    return found, before
            if len(entries) < READ_AT_ONCE:
                return found, None
        return found, before

    def follow(self, uuid: str, after: str, seconds: float, quiet: float = QUIET) -> Iterator[SessionEvent | None]:
        """Events after the id `after`, for `seconds`. Yields None when there is none at first, when the session changed
        without an event, and after each `quiet` seconds without news."""
        deadline = time.monotonic() + seconds
        stream = keys.EVENTS.format(uuid=uuid)
        read = False
        with self._notices.subscribe(stream) as news:
            while (left := deadline - time.monotonic()) > 0:
                if not news.wait(min(left, quiet)) and read:
                    yield None
                    continue
                news.clear()
                read = True
                with redis_errors:
                    answer = self._redis.xread({stream: after}, count=READ_AT_ONCE)
                entries = answer[0][1] if answer else []
                if len(entries) == READ_AT_ONCE:
                    news.set()
                for after, entry in entries:
                    yield SessionEvent(after, entry["type"], json.loads(entry["data"]))
                if not entries:
                    yield None
