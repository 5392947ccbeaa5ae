"""Delivery, and cuts of a stored conversation, by processes that kill themselves at a given step.

    python -m tests.faults.delivering

Reads lines `deliver UUID N` and `cut UUID N`. For each it forks a process, which has loaded the code already, and which
kills itself (SIGKILL) right after the N-th call that the work makes to Redis, to an agent or to the archive. Then it
prints `killed WHAT`, naming that call, or `passed` when the work ended before. A cut keeps the messages up to `CUT_AT`.
Settings come from the environment.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import redis
from redis.client import Pipeline

from app.core.composition import Core
from app.core.prompts.agent_client import AgentClient
from app.core.prompts.history_store import CONTEXT, INDEX, METADATA, HistoryStore
from app.process.settings import Settings

CUT_AT = 1_700_000_000.0
"""Seconds since the epoch."""

NAMED = (INDEX, CONTEXT, METADATA)
"""The documents of a conversation that aren't chunks of its messages."""


class Steps:
    """Counts calls; the `limit`-th is the last thing this process does."""

    def __init__(self, limit: int, told: int) -> None:
        self._limit = limit
        self._told = told
        self._made = 0

    def called(self, what: str) -> None:
        if threading.current_thread() is not threading.main_thread():
            # A lease's renewal: when it comes is no matter of the work, and would move all steps after it.
            return
        self._made += 1
        if self._made == self._limit:
            os.write(self._told, what.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def count(self, kind: type, name: str, describe: Callable[..., str]) -> None:
        """Have every call of this method counted once it has been answered."""
        method = getattr(kind, name)

        @wraps(method)
        def counted(target: object, *arguments: Any, **named: Any) -> Any:
            answer = method(target, *arguments, **named)
            self.called(describe(*arguments))
            return answer

        setattr(kind, name, counted)


def install(steps: Steps) -> None:
    steps.count(redis.Redis, "execute_command", lambda *words: f"redis {words[0]}")
    steps.count(Pipeline, "execute", lambda *_: "redis pipeline")
    steps.count(AgentClient, "json", lambda agent, method, path, *_: f"agent {path}")
    steps.count(HistoryStore, "_put", lambda folder, name, content: f"archive {name if name in NAMED else 'chunk'}")


def work(task: str, uuid: str) -> None:
    core = Core(Settings.from_env())
    if task == "deliver":
        core.delivery.deliver(uuid)
    else:
        core.history_store.cut(uuid, CUT_AT)


def attempt(task: str, uuid: str, limit: int) -> str:
    """Fork, work, and say how it ended."""
    heard, told = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            install(Steps(limit, told))
            work(task, uuid)
        finally:
            os._exit(1 if sys.exc_info()[0] else 0)
    os.close(told)
    with os.fdopen(heard, "rb") as pipe:
        last = pipe.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {-signal.SIGKILL: f"killed {last}", 0: "passed"}.get(code, f"failed {code}")


def main() -> None:
    for line in sys.stdin:
        task, uuid, limit = line.split()
        print(attempt(task, uuid, int(limit)), flush=True)


if __name__ == "__main__":
    main()
