"""Leases in Redis: one worker at a time works on a session, one watcher leads.

A lease ends by itself `ttl` seconds after its holder died; while the holder lives a thread renews it.
It keeps work from being done twice, not from going wrong: what protects a session from a holder that
lost its lease without noticing is the generation every change carries (see workers/runtime/base.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import redis
from redis.exceptions import LockError
from redis.lock import Lock

from app.sessions.redis_errors import redis_errors

log = logging.getLogger(__name__)


class OwnLock(Lock):
    """A lock that knows its own token when it meets it: the answer to the first try to take it was lost."""

    def do_acquire(self, token: Any) -> bool:
        # The token comes as bytes, and our client gives texts.
        return super().do_acquire(token) or self.redis.get(self.name) == token.decode()


class Leases:
    """Leases of `ttl` seconds, by key."""

    def __init__(self, client: redis.Redis, ttl: float) -> None:
        self._redis = client
        self._ttl = ttl

    @contextmanager
    def hold(self, key: str) -> Iterator[bool]:
        """Hold the lease for the block, renewed; gives False, at once, when someone else has it."""
        lock = OwnLock(self._redis, key, timeout=self._ttl, blocking=False, thread_local=False)
        with redis_errors():
            held = lock.acquire()
        if not held:
            yield False
            return
        done = Event()
        renewer = Thread(target=self._renew, args=(lock, done), name=f"renew {key}", daemon=True)
        renewer.start()
        try:
            yield True
        finally:
            done.set()
            renewer.join()
            self._release(lock, key)

    def held(self, key: str) -> bool:
        """Whether anyone has the lease now."""
        with redis_errors():
            return bool(self._redis.exists(key))

    def _renew(self, lock: Lock, done: Event) -> None:
        while not done.wait(self._ttl / 3):
            try:
                lock.reacquire()
            except LockError:
                log.warning("lease lost", extra={"lease": lock.name})
                return
            except redis.RedisError:
                log.warning("lease not renewed, Redis does not answer", extra={"lease": lock.name})

    def _release(self, lock: Lock, key: str) -> None:
        try:
            lock.release()
        except (LockError, redis.RedisError):
            log.warning("lease ended before its work did", extra={"lease": key})
