"""A session's events: a capped stream that clients follow and that waiting calls sleep on."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from app.sessions import keys
from app.sessions.memory import Memory
from app.sessions.notices import Notices
from app.sessions.redis_errors import redis_errors
from app.sessions.scripts import script

ID_PATTERN = re.compile(r"\d{1,20}(-\d{1,20})?")
FROM_START = "0-0"

REVOKED = "revoked"
"""The type of the event that passes were taken back; its `door` is the first whose passes are good again."""

EVENTS_KEPT = 1_000
"""Events of one session that can be read again: its agent's last minute, at 20 batches of tokens a second."""

EVENTS_BYTES = 1_048_576
"""Of Redis for the events of one session, unless a setting says otherwise."""

EVENTS_BYTES_FULL = 65_536
"""While Redis is full: enough for who follows to miss nothing between two looks."""

EVENTS_KEPT_ASLEEP = 100
"""Of those of a session that sleeps: more than a day of waking and sleeping."""


QUIET = 5.0
"""s after which who follows a session looks at it without having heard of news."""

READ_AT_ONCE = 100


@dataclass(frozen=True)
class SessionEvent:
    """`id` grows; `data` is JSON-ready. `type` is `state`, `phase`, `backup`, `idle_warning`, `risk` or `revoked`;
    `message` for a prompt's state, and what the agent tells of its work on one: `token`, `tool_call`, `tool_result`."""

    id: str
    type: str
    data: Mapping[str, Any]


class EventLog:
    """Reads events as they come. What adds one publishes on a channel of the stream's name that there is one. A
    session's events take `most` bytes of Redis, and less while that is full."""

    def __init__(self, client: redis.Redis, memory: Memory, most: int = EVENTS_BYTES) -> None:
        self._redis = client
        self._memory = memory
        self._most = most
        self._append = client.register_script(script("append"))
        self._notices = Notices(client)

    def append(self, uuid: str, kind: str, data: Mapping[str, Any]) -> None:
        """Add an event to a session's stream."""
        self.append_all(uuid, [(kind, data)])

    def append_all(self, uuid: str, events: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Add events, each its type and data, in one round trip."""
        most = min(self._most, EVENTS_BYTES_FULL) if self._memory.full() else self._most
        texts = [text for kind, data in events for text in (kind, json.dumps(data))]
        with redis_errors():
            self._append(keys=[keys.EVENTS.format(uuid=uuid)], args=[EVENTS_KEPT, most, *texts])

    def last_id(self, uuid: str) -> str:
        """The id after which the next event comes."""
        with redis_errors():
            newest = self._redis.xrevrange(keys.EVENTS.format(uuid=uuid), count=1)
        return newest[0][0] if newest else FROM_START

    def follow(self, uuid: str, after: str, seconds: float, quiet: float = QUIET) -> Iterator[SessionEvent | None]:
        """Events after the id `after`, for `seconds`. None when there is none at first, when something of the session
        changed without one, and whenever `quiet` seconds passed."""
        deadline = time.monotonic() + seconds
        stream = keys.EVENTS.format(uuid=uuid)
        looked = False
        with self._notices.of(stream) as news:
            while (left := deadline - time.monotonic()) > 0:
                if not news.wait(min(left, quiet)) and looked:
                    yield None
                    continue
                news.clear()
                looked = True
                with redis_errors():
                    answer = self._redis.xread({stream: after}, count=READ_AT_ONCE)
                entries = answer[0][1] if answer else []
                if len(entries) == READ_AT_ONCE:
                    news.set()
                for after, entry in entries:
                    yield SessionEvent(after, entry["type"], json.loads(entry["data"]))
                if not entries:
                    yield None
