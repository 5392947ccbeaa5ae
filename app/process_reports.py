"""Reports a process to operators from a thread of its own, a greenlet under gevent: it shows that the hub turns."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

from app.core.redis.connections import connect
from app.core.redis.processes import EVERY, Reporter
from app.process.settings import Settings


class Reports:
    """Reports until `stop`, while the process `works`; after each report does `also`."""

    def __init__(
        self, reporter: Reporter, works: Callable[[], bool] = lambda: True, also: Callable[[], None] = lambda: None
    ) -> None:
        self._reporter = reporter
        self._works = works
        self._also = also
        self._stop = Event()
        self._thread = Thread(target=self._run, name="process-reports", daemon=True)

    def start(self) -> Reports:
        """Begin; answers itself."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """The process ends as it should."""
        self._stop.set()
        self._reporter.leave()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._also()
            self._stop.wait(EVERY)

    def look(self) -> None:
        """Report, if the process works."""
        if self._works():
            self._reporter.tick()


def report_process(
    kind: str, settings: Settings, works: Callable[[], bool] = lambda: True, also: Callable[[], None] = lambda: None
) -> Reports:
    """Report this process from now on. Call it after any fork."""
    return Reports(Reporter(connect(settings.redis_url, settings.redis_timeout), kind), works, also).start()
