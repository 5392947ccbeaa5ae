"""Asking a worker for something and waiting for its answer, where an answer is all that is wanted.

A ticket names one question in Redis. It is there for as long as its asker waits: a worker that comes to it later, or
a second time, finds it gone and does nothing, so that what a caller was told had failed is not done afterwards.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

import redis

from app.sessions import keys
from app.sessions.errors import ArchiveError, BackupInUse, BackupNotFound, RetryableError, SessionError
from app.sessions.queue import TaskQueue
from app.sessions.redis_errors import redis_errors

ANSWER_TTL = 30
"""s an answer stays for an asker that died."""

KINDS: Mapping[str, type[SessionError]] = {kind.code: kind for kind in (ArchiveError, BackupInUse)}
"""What a worker's refusal is for the asker, by its code; any other may pass by itself."""


class Tickets:
    """Questions about backups, over Redis and the task queue. `block` (s) must stay below the client's command
    timeout. Raises `StateUnavailable` when Redis can't serve."""

    def __init__(self, client: redis.Redis, tasks: TaskQueue, block: float) -> None:
        self._redis = client
        self._tasks = tasks
        self._block = block

    def ask(self, task: str, name: str, patience: float) -> dict[str, Any]:
        """Let a worker do `task` with the backup `name`; its answer. Raises what the worker did, and `RetryableError`
        when none has answered within `patience` (s)."""
        ticket = secrets.token_hex(16)
        wanted, answer = keys.TICKET.format(ticket=ticket), keys.ANSWER.format(ticket=ticket)
        with redis_errors():
            self._redis.set(wanted, name, px=max(1, round(patience * 1000)))
        try:
            self._tasks.send(task, name, ticket)
            return _opened(self._answer(answer, time.monotonic() + patience), name)
        finally:
            with redis_errors():
                self._redis.delete(wanted, answer)

    def wanted(self, ticket: str) -> bool:
        """Whether someone still waits for the answer."""
        with redis_errors():
            return bool(self._redis.exists(keys.TICKET.format(ticket=ticket)))

    def answer(self, ticket: str, answer: Mapping[str, Any]) -> bool:
        """Whether there was still someone to answer."""
        key = keys.ANSWER.format(ticket=ticket)
        if not self.wanted(ticket):
            return False
        with redis_errors(), self._redis.pipeline(transaction=True) as both:
            both.rpush(key, json.dumps(answer))
            both.expire(key, ANSWER_TTL)
            both.execute()
        return True

    def refuse(self, ticket: str, error: SessionError) -> None:
        """Answer with an error."""
        self.answer(ticket, {"error": error.code, "text": str(error)})

    def _answer(self, key: str, deadline: float) -> dict[str, Any]:
        while (left := deadline - time.monotonic()) > 0:
            with redis_errors():
                # It stays where it is until it has been read: this command's own answer may be lost.
                got = self._redis.blmove(key, key, max(0.01, min(left, self._block)))
            if got:
                answer: dict[str, Any] = json.loads(got)
                return answer
        raise RetryableError("No worker has come to it; try again.")


def _opened(answer: dict[str, Any], name: str) -> dict[str, Any]:
    if "error" not in answer:
        return answer
    if answer["error"] == BackupNotFound.code:
        raise BackupNotFound(name)
    raise KINDS.get(answer["error"], RetryableError)(answer["text"])
