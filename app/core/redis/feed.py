"""The feed: the events of all sessions, as one capped stream that clients follow.

The scripts that write a session's events write it too (the part `events` of lua/record.lua). In a process all followers
share one reader, which reads and parses an event once and puts it into the bounded queue of each follower that wants
it. A follower first reads from Redis what came before it joined.
"""

from __future__ import annotations

import json
import logging
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any

import redis

from app.core.errors import StateUnavailable
from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.events import FROM_START, QUIET
from app.core.redis.memory import Memory
from app.core.redis.notifications import Notices
from app.core.redis.scripts import Script

log = logging.getLogger(__name__)

FEED_BYTES_FULL = 262_144
"""Bytes of the feed while Redis is full: enough for followers to miss nothing between two reads."""

QUEUED = 1_000
"""Events that wait for a follower; one that is further behind is ended, and resumes."""

READ_AT_ONCE = 500


@dataclass(frozen=True, eq=False)
class FeedEvent:
    """An event of one session, the same object for all followers of a process. `type` is `state`, `phase` for the end
    of an archive, `backup`, `restore_point`, `drill_failed`, `files_lost`, `files_restored`, `rolled_back`, or
    `message` for the end of a prompt; `data` is as in the session's own stream. `made_by` names the API key that
    created the session."""

    id: str
    uuid: str
    user_id: str
    made_by: str
    labels: Mapping[str, str]
    type: str
    data: Mapping[str, Any]

    @classmethod
    def from_entry(cls, entry_id: str, entry: Mapping[str, str]) -> FeedEvent | None:
        """The event of an entry, None for a malformed one: a compromised gateway may write anything."""
        try:
            texts = {name: entry[name] for name in ("uuid", "user_id", "made_by", "type")}
            labels, data = json.loads(entry["labels"]), json.loads(entry["data"])
        except (KeyError, ValueError):
            return None
        well_formed = isinstance(labels, dict) and isinstance(data, dict)
        return cls(id=entry_id, labels=labels, data=data, **texts) if well_formed else None

    @property
    def at(self) -> float:
        """When it happened, by the clock of Redis."""
        return _order(self.id)[0] / 1000


Wanted = Callable[[FeedEvent], bool]


@dataclass(eq=False)
class Follower:
    """One that follows: its queue, and whether nothing more is put into it."""

    wanted: Wanted
    events: queue.Queue[FeedEvent | None] = field(default_factory=lambda: queue.Queue(QUEUED + 1))
    ended: bool = False

    def put(self, event: FeedEvent) -> None:
        if self.ended or not self.wanted(event):
            return
        if self.events.qsize() < QUEUED:
            self.events.put_nowait(event)
        else:
            self.end()

    def end(self) -> None:
        """Let it take what waits, and no more."""
        if not self.ended:
            self.ended = True
            with suppress(queue.Full):
                self.events.put_nowait(None)


class Feed:
    """Follows the feed. Raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis, memory: Memory) -> None:
        self._redis = client
        self._memory = memory
        self._notices = Notices(client)
        self._shrink = Script(client, "shrink_feed")
        self._lock = Lock()
        self._followers: set[Follower] = set()
        self._reading = False

    @redis_errors
    def last_id(self) -> str:
        """The id of the newest event."""
        newest = self._redis.xrevrange(keys.FEED, count=1)
        return newest[0][0] if newest else FROM_START

    @redis_errors
    def complete_after(self, event_id: str) -> bool:
        """Whether the feed still has all events after this one; False if that is not certain."""
        oldest = self._redis.xrange(keys.FEED, count=1)
        first = oldest[0][0] if oldest else FROM_START
        return _order(first) <= _order(event_id) <= _order(self.last_id())

    @redis_errors
    def forget(self, uuid: str) -> None:
        """Delete the events of a session."""
        following = "-"
        while following:
            entries = self._redis.xrange(keys.FEED, following, count=READ_AT_ONCE)
            found = [entry_id for entry_id, entry in entries if entry.get("uuid") == uuid]
            if found:
                self._redis.xdel(keys.FEED, *found)
            following = f"({entries[-1][0]}" if len(entries) == READ_AT_ONCE else ""

    @redis_errors
    def shrink_when_full(self) -> None:
        """Free memory while Redis is full. The observer calls it: what adds events doesn't know how full Redis is."""
        if self._memory.full():
            self._shrink(feed_stream=keys.FEED, bytes=FEED_BYTES_FULL)

    def follow(self, after: str, wanted: Wanted, seconds: float, quiet: float = QUIET) -> Iterator[FeedEvent | None]:
        """The wanted events after the id `after`, for `seconds`, or until the follower is too slow or Redis fails:
        resume after the last event then. Yields None after each `quiet` seconds without one."""
        deadline = time.monotonic() + seconds
        with self._joined(wanted) as follower:
            for event in self._since(after):
                after = event.id
                if wanted(event):
                    yield event
            while (left := deadline - time.monotonic()) > 0:
                try:
                    news = follower.events.get(timeout=min(left, quiet))
                except queue.Empty:
                    yield None
                    continue
                if news is None:
                    return
                if _order(news.id) > _order(after):
                    yield news

    def _since(self, after: str) -> Iterator[FeedEvent]:
        following: str | None = after
        while following:
            events, following = self._read(following)
            yield from events

    @redis_errors
    def _read(self, after: str) -> tuple[list[FeedEvent], str | None]:
        """The next events after an id, and the id to read on from, None if there was nothing."""
        answer = self._redis.xread({keys.FEED: after}, count=READ_AT_ONCE)
        entries = answer[0][1] if answer else []
        events = [event for event in (FeedEvent.from_entry(*each) for each in entries) if event]
        return events, entries[-1][0] if entries else None

    @contextmanager
    def _joined(self, wanted: Wanted) -> Iterator[Follower]:
        """A follower that gets every event from now on. It is one before it reads older events, so it misses none."""
        follower = Follower(wanted)
        with self._lock:
            if not self._reading:
                position = self.last_id()
                self._reading = True
                Thread(target=self._hand_out, args=(position,), name="feed", daemon=True).start()
            self._followers.add(follower)
        try:
            yield follower
        finally:
            with self._lock:
                self._followers.discard(follower)

    def _hand_out(self, position: str) -> None:
        """Read while there are followers. They are ended by an error, and resume."""
        try:
            with self._notices.subscribe(keys.FEED) as news:
                while self._still_followed():
                    if news.wait(QUIET):
                        news.clear()
                        position = self._hand_out_after(position)
        except BaseException as error:
            with self._lock:
                self._reading = False
                left, self._followers = self._followers, set()
            for follower in left:
                follower.end()
            if not isinstance(error, StateUnavailable):
                raise
            log.info("the feed ended early: %s", error)

    def _hand_out_after(self, position: str) -> str:
        """Hand out all events after this position; answers the new one."""
        following: str | None = position
        while following:
            position = following
            events, following = self._read(position)
            with self._lock:
                # One that joins later reads these events from Redis.
                present = list(self._followers)
            for event in events:
                for follower in present:
                    follower.put(event)
        return position

    def _still_followed(self) -> bool:
        """Whether to go on reading. Otherwise the next follower starts another reader."""
        with self._lock:
            self._reading = bool(self._followers)
            return self._reading


def _order(event_id: str) -> tuple[int, int]:
    at, _, number = event_id.partition("-")
    return int(at), int(number or 0)
