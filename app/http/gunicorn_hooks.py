"""What gunicorn calls in the processes of web, forward auth and the gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.process.settings import Settings
from app.process.threads import end_process_when_one_dies


def serving(worker: Any, kind: str, settings: Settings, also: Callable[[], None] = lambda: None) -> None:
    """A process that serves has its application: it reports itself from now on, and does `also` each time."""
    # Not in the main process, which has no use for what this imports.
    from app.core.redis.processes import report_process

    end_process_when_one_dies()
    worker.reports = report_process(kind, settings, also=also)


def worker_exit(server: object, worker: Any) -> None:
    """Called in a process that served, as it ends."""
    if reports := getattr(worker, "reports", None):
        reports.stop()
