"""Reports Celery's processes to operators: a worker with each heartbeat of its event loop, beat with its ticks."""

from __future__ import annotations

from typing import Any

import redis
from celery import signals

from app.core.redis.processes import KINDS, Reporter


def kind_of(node: str) -> str:
    """What a worker of this name (`sweeper@host`) is, "" for one that the service did not start."""
    name = node.partition("@")[0]
    return name if name in KINDS else ""


def register(client: redis.Redis) -> None:
    """Connect to Celery's signals, which fire in a worker's main process."""
    reporters: list[Reporter] = []

    def ready(sender: Any, **_: Any) -> None:
        if kind := kind_of(sender.hostname):
            reporters[:] = [Reporter(client, kind)]
        alive()

    def alive(**_: Any) -> None:
        for reporter in reporters:
            reporter.tick()

    def ends(**_: Any) -> None:
        for reporter in reporters:
            reporter.leave()
        reporters.clear()

    for signal, receiver in (
        (signals.worker_ready, ready),
        (signals.heartbeat_sent, alive),
        (signals.worker_shutdown, ends),
    ):
        signal.connect(receiver, weak=False)
