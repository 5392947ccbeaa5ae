"""Leases in Redis: one worker at a time works on a session, one observer leads.

A lease expires `ttl` seconds after its holder died; while the holder lives, a thread renews it. How the changes of a
holder that lost its lease are refused, see app/core/sessions/attempts.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import redis
from redis.exceptions import LockError
from redis.lock import Lock

from app.core.redis.errors import redis_errors

log = logging.getLogger(__name__)


class Leases:
    """Leases of `ttl` seconds, by key."""

    def __init__(self, client: redis.Redis, ttl: float) -> None:
        self._redis = client
        self._ttl = ttl

    @redis_errors
    def left(self, key: str) -> float:
        """Seconds until the lease expires unless renewed, 0 when it is free."""
        return max(0, int(self._redis.pttl(key))) / 1000

    @redis_errors
    def held(self, key: str) -> bool:
        """Whether the lease is held."""
        return bool(self._redis.exists(key))

    @contextmanager
    def hold(self, key: str, take: Callable[[str, bytes, int], bool] | None = None) -> Iterator[bool]:
        """Hold and renew the lease for the block; yields False at once when another holder has it. `take` replaces the
        command that takes it: it gets the key, a token to store there, and the ttl in ms."""
        lock = _Lease(self._redis, key, timeout=self._ttl, blocking=False, thread_local=False)
        lock.take = take
        with redis_errors:
            held = lock.acquire()
        if not held:
            yield False
            return
        done = Event()
        renewer = Thread(target=self._renew, args=(lock, done), name=f"renew {lock.name}", daemon=True)
        renewer.start()
        try:
            yield True
        finally:
            done.set()
            renewer.join()
            self._release(lock)

    @contextmanager
    def hold_one(self, names: Iterable[str]) -> Iterator[bool]:
        """Hold the first of these leases that is free, as `hold`; yields False when none is."""
        for name in names:
            with self.hold(name) as held:
                if held:
                    yield True
                    return
        yield False

    def _renew(self, lock: Lock, done: Event) -> None:
        while not done.wait(self._ttl / 3):
            try:
                lock.reacquire()
            except LockError:
                log.warning("lease lost", extra={"lease": lock.name})
                return
            except redis.RedisError:
                log.warning("lease not renewed, Redis did not answer", extra={"lease": lock.name})

    def _release(self, lock: Lock) -> None:
        try:
            lock.release()
        except (LockError, redis.RedisError):
            log.warning("lease expired before its work was done", extra={"lease": lock.name})


class _Lease(Lock):
    """A lock that counts as taken when it holds our own token: the answer to the first try was lost."""

    take: Callable[[str, bytes, int], bool] | None = None

    def do_acquire(self, token: Any) -> bool:
        if self.take is not None:
            return self.take(self.name, token, int(self.timeout * 1000))
        # The token is bytes, and our client returns text.
        return super().do_acquire(token) or self.redis.get(self.name) == token.decode()
