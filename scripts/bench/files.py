"""How fast files pass through the API, against the same file by hand.

By hand means: copied on the same disk, and by curl from a server that does nothing else. The size of the web processes
is read while files pass.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import psutil

from scripts.bench.execs import timed
from scripts.bench.servers import free_port, percentile
from scripts.bench.table import Row
from scripts.bench.wake import KEY, call, service

LARGE = 1 << 30
"""bytes"""

SPEED = 150.0
"""MB/s, up and down."""

WEB = 300
"""MB that a web process stays under."""

WEB_PROCESS = "app.main:create_app()"
"""An argument that only a web process has."""

ROUNDS, SMALL_ROUNDS = 3, 100
BLOCK = 1 << 20


def run() -> list[Row]:
    """Measure in rounds that alternate; rows of label, value and target."""
    up, down, copied, served, written, read = [], [], [], [], [], []
    with tempfile.TemporaryDirectory(prefix="bench-files-") as name, service(Path(name) / "data") as url:
        folder = Path(name)
        uuid = call(url, "POST", "/session/create", {"user_id": "bench"}, "wait=30")["uuid"]
        path = f"{url}/session/{uuid}/files"
        made(folder / "large", LARGE)
        made(folder / "small", 1_000)
        with memory_of(WEB_PROCESS) as sizes, file_server(folder) as plain:
            for _ in range(ROUNDS):
                up.append(speed(lambda: curl("-T", str(folder / "large"), f"{path}/large")))
                down.append(speed(lambda: curl("-o", str(folder / "back"), f"{path}/large")))
                copied.append(speed(lambda: copy(folder / "large", folder / "copy")))
                served.append(speed(lambda: curl("-o", str(folder / "back"), f"{plain}/large")))
            for _ in range(SMALL_ROUNDS):
                written.append(timed(lambda: curl("-T", str(folder / "small"), f"{path}/small")))
                read.append(timed(lambda: curl("-o", str(folder / "back"), f"{path}/small")))
        call(url, "DELETE", f"/session/{uuid}?backup=false")
    return [
        ("1 GiB into a workspace (MB/s)", f"{statistics.median(up):.0f}", f">= {SPEED:.0f}"),
        ("  copied by hand (MB/s)", f"{statistics.median(copied):.0f}", ""),
        ("1 GiB out of it (MB/s)", f"{statistics.median(down):.0f}", f">= {SPEED:.0f}"),
        ("  from a server that does nothing else (MB/s)", f"{statistics.median(served):.0f}", ""),
        ("largest web process meanwhile (MB)", f"{max(sizes):.0f}", f"< {WEB}"),
        ("1,000 bytes written, with curl's start, p50 / p95 (ms)", shown(written), ""),
        ("1,000 bytes read, with curl's start, p50 / p95 (ms)", shown(read), ""),
    ]


def made(path: Path, size: int) -> None:
    """A file of bytes that nothing can shorten."""
    with path.open("wb") as file:
        for begin in range(0, size, BLOCK):
            file.write(os.urandom(min(BLOCK, size - begin)))


def speed(act: Callable[[], None]) -> float:
    """MB/s of an act on the large file."""
    return LARGE / 1e6 / (timed(act) / 1000)


def curl(*arguments: str) -> None:
    command = ["curl", "-sSf", "-H", f"X-API-Key: {KEY}", *arguments]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=600)


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", source, target], check=True, timeout=600)


def shown(taken: list[float]) -> str:
    return f"{statistics.median(taken):.1f} / {percentile(taken, 95):.1f}"


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Python's own, which hands a file to the kernel; its URL."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(100):
            if subprocess.run(["curl", "-s", "-o", os.devnull, url], check=False, timeout=10).returncode == 0:
                break
            time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def memory_of(argument: str) -> Iterator[list[float]]:
    """MB of the largest process that was started with this argument, each half second, in a list that grows."""
    sizes: list[float] = []
    over = Event()

    def watch() -> None:
        while not over.wait(0.5):
            found = [each for each in psutil.process_iter(["cmdline"]) if argument in (each.info["cmdline"] or ())]
            sizes.append(max((each.memory_info().rss / 1e6 for each in found), default=0.0))

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield sizes
    finally:
        over.set()
        watcher.join()
