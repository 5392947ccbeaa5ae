"""Remote procedure calls: the web process asks a worker and waits for the answer.

A call's id is a key in Redis that exists while its caller waits. A worker that takes the task later, or a second time,
finds no key and does nothing, so that a call reported as failed is never carried out.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

import redis

from app.core.errors import ArchiveError, BackupInUse, BackupNotFound, RetryableError, SessionError
from app.core.redis import keys
from app.core.redis.connections import COMMAND_TIMEOUT
from app.core.redis.errors import redis_errors
from app.core.redis.task_queue import TaskQueue

BLOCK = COMMAND_TIMEOUT / 2
"""s that a command waits for an answer at a time; below the client's timeout for it."""

ANSWER_TTL = 30
"""s an answer is kept when its caller has died."""

KINDS: Mapping[str, type[SessionError]] = {kind.code: kind for kind in (ArchiveError, BackupInUse)}
"""The errors raised for a worker's error codes; any other code is retryable."""


class Rpc:
    """Calls about backups, over Redis and the task queue. `block` (s) must stay below the client's command timeout.
    Raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis, tasks: TaskQueue, block: float = BLOCK) -> None:
        self._redis = client
        self._tasks = tasks
        self._block = block

    def ask(self, task: str, name: str, patience: float) -> dict[str, Any]:
        """Let a worker do `task` with the backup `name`, and return its answer. Raises the worker's error, and
        `RetryableError` when no worker answers within `patience` (s)."""
        call = secrets.token_hex(16)
        wanted, answer = keys.RPC_CALL.format(call=call), keys.RPC_ANSWER.format(call=call)
        with redis_errors:
            self._redis.set(wanted, name, px=max(1, round(patience * 1000)))
        try:
            self._tasks.send(task, name, call)
            return _opened(self._answer(answer, time.monotonic() + patience), name)
        finally:
            with redis_errors:
                self._redis.delete(wanted, answer)

    @redis_errors
    def wanted(self, call: str) -> bool:
        """Whether the caller still waits."""
        return bool(self._redis.exists(keys.RPC_CALL.format(call=call)))

    @redis_errors
    def answer(self, call: str, answer: Mapping[str, Any]) -> bool:
        """Answer a call; False when its caller no longer waits."""
        key = keys.RPC_ANSWER.format(call=call)
        if not self.wanted(call):
            return False
        with self._redis.pipeline(transaction=True) as both:
            both.rpush(key, json.dumps(answer))
            both.expire(key, ANSWER_TTL)
            both.execute()
        return True

    def refuse(self, call: str, error: SessionError) -> None:
        """Answer with an error."""
        self.answer(call, {"error": error.code, "text": str(error)})

    @redis_errors
    def _answer(self, key: str, deadline: float) -> dict[str, Any]:
        while (left := deadline - time.monotonic()) > 0:
            # The answer stays in its list, as this command's reply may be lost and the command repeated.
            got = self._redis.blmove(key, key, max(0.01, min(left, self._block)))
            if got:
                answer: dict[str, Any] = json.loads(got)
                return answer
        raise RetryableError("No worker responded in time; retry.")


def _opened(answer: dict[str, Any], name: str) -> dict[str, Any]:
    if "error" not in answer:
        return answer
    if answer["error"] == BackupNotFound.code:
        raise BackupNotFound(name)
    raise KINDS.get(answer["error"], RetryableError)(answer["text"])
