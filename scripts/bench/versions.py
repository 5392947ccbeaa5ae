"""A wake of this checkout against one of another, and a check of who gets in, in one run: whether a change made them
slower, or costlier.

Both services run side by side, each with one workspace, and are woken in turn. The processor's time is that of
everything that belongs to a service, workspaces included, from the wake until a while after it: what a service does in
idle time is in it, on both sides. Each has an editor of its own: an installation holds the launcher of one checkout,
which asks for what the other's service may not give it.
"""

from __future__ import annotations

import http.client
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from scripts.bench import wake
from scripts.bench.servers import latencies, percentile
from scripts.bench.table import Row

TARGET = 1.05
SETTLED = 2.0
"""s after a wake that still count as it."""

CHECKS = 200
"""Checks of who gets in after each wake, one after the other."""


@dataclass
class Version:
    """One checkout's service. `woken` and `cpu` are in seconds, one for each round, `checked` in ms. `forward_auth` is
    that process' port, `visitor` the headers of a browser that was let in."""

    data: Path
    url: str
    uuid: str
    forward_auth: int
    visitor: dict[str, str]
    woken: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    checked: list[float] = field(default_factory=list)

    def check(self) -> None:
        """Ask who gets in, as Traefik does for a page's parts."""
        self.checked += latencies(self.forward_auth, ["/auth/verify"] * CHECKS, self.visitor)

    def wake(self) -> None:
        """Put its workspace to sleep, and measure how it wakes."""
        wake.call(self.url, "POST", f"/session/{self.uuid}/scale-down")
        before, began = self._cpu(), time.perf_counter()
        answer = wake.call(self.url, "POST", f"/session/{self.uuid}/wake", None, "wait=30")
        self.woken.append(time.perf_counter() - began)
        if answer["status"] != "active":
            raise RuntimeError(f"the wake ended in {answer['status']}")
        time.sleep(max(0.0, began + SETTLED - time.perf_counter()))
        self.cpu.append(self._cpu() - before)

    def _cpu(self) -> float:
        """Seconds all its processes have used so far, with those that ended and whose parents waited for them."""
        used = 0.0
        for process in psutil.process_iter():
            try:
                if process.environ().get("DATA_DIR") == str(self.data):
                    times = process.cpu_times()
                    used += times.user + times.system + times.children_user + times.children_system
            except psutil.Error:
                continue
        return used


def run(other: Path, rounds: int) -> list[Row]:
    """Measure in rounds that alternate; rows of label, value and target."""
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-versions-")))
        before = _version(running, folder / "before", other, CODE_SERVER="", XDG_CACHE_HOME=str(other / ".cache"))
        after = _version(running, folder / "after", wake.PROJECT)
        for number in range(rounds + 1):
            for version in (before, after) if number % 2 else (after, before):
                version.wake()
            for version in (before, after) if number % 2 else (after, before):
                version.check()
    return [
        *_compared("wake, request to active (ms)", before.woken, after.woken, 1000.0),
        *_compared(f"processor, a wake and {SETTLED:.0f} s (ms)", before.cpu, after.cpu, 1000.0),
        *(row for percent in (50, 99) for row in _checks(before, after, percent)),
    ]


def _version(running: ExitStack, data: Path, project: Path, **settings: str) -> Version:
    forward_auth = wake.free_port()
    url = running.enter_context(wake.service(data, project=project, FORWARD_AUTH_PORT=str(forward_auth), **settings))
    uuid = wake.call(url, "POST", "/session/create", {"user_id": "bench"}, "wait=30")["uuid"]
    return Version(data, url, uuid, forward_auth, _let_in(url, uuid, forward_auth))


def _let_in(url: str, uuid: str, forward_auth: int) -> dict[str, str]:
    """What a browser sends with a request that followed a link, as forward-auth is told of it."""
    link = urlsplit(wake.call(url, "POST", f"/session/{uuid}/open")["url"])
    told = {
        "Host": str(link.hostname),
        "X-Forwarded-Host": str(link.hostname),
        "X-Forwarded-Method": "GET",
        "X-Forwarded-Proto": "http",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    connection = http.client.HTTPConnection("127.0.0.1", forward_auth, timeout=10)
    connection.request("GET", "/auth/verify", headers={**told, "X-Forwarded-Uri": f"{link.path}?{link.query}"})
    cookie = str(connection.getresponse().headers["Set-Cookie"]).partition(";")[0]
    connection.close()
    parts = {"X-Forwarded-Uri": "/static/out/vs/workbench/workbench.js", "Sec-Fetch-Mode": "no-cors"}
    return {**told, **parts, "Sec-Fetch-Dest": "script", "Cookie": cookie}


def _compared(label: str, before: list[float], after: list[float], unit: float) -> list[Row]:
    """Medians of both without the first round, which warms up, and the one against the other."""
    old, new = statistics.median(before[1:]), statistics.median(after[1:])
    return [
        (f"{label}, other checkout", f"{old * unit:.0f}", ""),
        (f"{label}, this one", f"{new * unit:.0f}", ""),
        ("  this one against the other", f"{new / old:.2f}x", f"<= {TARGET}x"),
    ]


def _checks(before: Version, after: Version, percent: int) -> list[Row]:
    old, new = (percentile(version.checked[CHECKS:], percent) for version in (before, after))
    label = f"/auth/verify, p{percent} (ms)"
    return [
        (f"{label}, other checkout", f"{old:.2f}", ""),
        (f"{label}, this one", f"{new:.2f}", ""),
        ("  this one against the other", f"{new / old:.2f}x", ""),
    ]
