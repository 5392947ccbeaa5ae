"""Leases in Redis: one worker at a time works on a session, one watcher leads.

A lease ends by itself `ttl` seconds after its holder died; while the holder lives a thread renews it. A holder that
lost its lease without noticing finds another count in the record (`Record.lease`), which every change of its attempt
expects. Outside Redis the generation protects a session (see workers/runtime/base.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import redis
from redis.exceptions import LockError
from redis.lock import Lock

from app.sessions import keys
from app.sessions.model import Record
from app.sessions.redis_errors import redis_errors
from app.sessions.scripts import script

log = logging.getLogger(__name__)


class Leases:
    """Leases of `ttl` seconds, by key."""

    def __init__(self, client: redis.Redis, ttl: float) -> None:
        self._redis = client
        self._ttl = ttl
        self._begin = client.register_script(script("begin"))

    @contextmanager
    def hold(self, key: str) -> Iterator[bool]:
        """Hold the lease for the block, renewed; gives False, at once, when someone else has it."""
        with self._held(_Lease(self._redis, key, timeout=self._ttl, blocking=False, thread_local=False)) as held:
            yield held

    @contextmanager
    def begin(self, uuid: str, generation: int) -> Iterator[Record | None]:
        """An attempt at the intent `generation`: holds the session's lease for the block and gives the record, in
        which the attempt is counted. None when the intent is not the newest, is settled, or another worker is at it."""
        with self._attempt(uuid, keys.LEASE, str(generation)) as record:
            yield record

    @contextmanager
    def begin_backup(self, uuid: str) -> Iterator[Record | None]:
        """The same for a requested backup, under a lease of its own; None when none is wanted."""
        with self._attempt(uuid, keys.BACKUP_LEASE, "") as record:
            yield record

    def left(self, key: str) -> float:
        """Seconds until the lease is free if its holder is dead, 0 when nobody has it."""
        with redis_errors():
            return max(0, int(self._redis.pttl(key))) / 1000

    def held(self, key: str) -> bool:
        """Whether anyone has the lease now."""
        with redis_errors():
            return bool(self._redis.exists(key))

    @contextmanager
    def _attempt(self, uuid: str, key: str, generation: str) -> Iterator[Record | None]:
        begun: list[Record] = []

        def take(name: str, token: bytes, ttl: int) -> bool:
            names = [keys.SESSION.format(uuid=uuid), name, keys.BACKUP_REQUESTS]
            code, flat = self._begin(keys=names, args=[uuid, generation, token, ttl])
            if code == "ok":
                begun.append(Record.from_hash(dict(zip(flat[::2], flat[1::2], strict=True))))
            return bool(begun)

        lock = _Lease(self._redis, key.format(uuid=uuid), timeout=self._ttl, blocking=False, thread_local=False)
        lock.take = take
        with self._held(lock):
            yield begun[0] if begun else None

    @contextmanager
    def _held(self, lock: _Lease) -> Iterator[bool]:
        with redis_errors():
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

    def _renew(self, lock: Lock, done: Event) -> None:
        while not done.wait(self._ttl / 3):
            try:
                lock.reacquire()
            except LockError:
                log.warning("lease lost", extra={"lease": lock.name})
                return
            except redis.RedisError:
                log.warning("lease not renewed, Redis does not answer", extra={"lease": lock.name})

    def _release(self, lock: Lock) -> None:
        try:
            lock.release()
        except (LockError, redis.RedisError):
            log.warning("lease ended before its work did", extra={"lease": lock.name})


class _Lease(Lock):
    """A lock that knows its own token when it meets it: the answer to the first try to take it was lost. `take` takes
    it in the place of redis-py's own command."""

    take: Callable[[str, bytes, int], bool] | None = None

    def do_acquire(self, token: Any) -> bool:
        if self.take is not None:
            return self.take(self.name, token, int(self.timeout * 1000))
        # The token comes as bytes, and our client gives texts.
        return super().do_acquire(token) or self.redis.get(self.name) == token.decode()
