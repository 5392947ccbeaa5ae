"""How long a wake takes, from the request to `active`, against starting code-server by hand.

By hand means: code-server's own command with the arguments the service gives it, until it answers. The
service starts the same code-server through its launcher (app/editor/launch.js), which is measured by hand too, to
show what of the difference is the launcher's.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.core.access.keyring import CATEGORIES
from app.editor.code_server import CODE_SERVER
from scripts.bench.servers import PROJECT, free_port
from scripts.bench.table import Row

TARGET = 1.5
KEY = "a-key-of-the-bench"
DEADLINE = 120.0
"""Seconds for the service to come up, or an editor to answer."""


def run(rounds: int = 7) -> list[Row]:
    """Measure in rounds that alternate; rows of label, value and target."""
    launcher = os.environ["CODE_SERVER"]
    stock = Path(launcher).parent.parent / "node_modules" / "code-server" / "out" / "node" / "entry.js"
    node = Path(launcher).parent / "node"
    by_hand, launched, woken, told = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="bench-wake-") as folder, service(Path(folder) / "data") as url:
        uuid = call(url, "POST", "/session/create", {"user_id": "bench"}, "wait=30")["uuid"]
        for _ in range(rounds):
            by_hand.append(start_by_hand([str(node), str(stock)], Path(folder) / "stock"))
            launched.append(start_by_hand([launcher], Path(folder) / "launched"))
            call(url, "POST", f"/session/{uuid}/scale-down")
            began = time.perf_counter()
            answer = call(url, "POST", f"/session/{uuid}/wake", None, "wait=30")
            woken.append(time.perf_counter() - began)
            if answer["status"] != "active":
                raise RuntimeError(f"the wake ended in {answer['status']}")
            told.append(call(url, "GET", f"/session/{uuid}")["phases"]["ready"])
        call(url, "DELETE", f"/session/{uuid}?backup=false")
    ratio = statistics.median(mine / hand for mine, hand in zip(woken, by_hand, strict=True))
    own = statistics.median(mine / hand for mine, hand in zip(woken, launched, strict=True))
    return [
        ("code-server started by hand (ms)", f"{statistics.median(by_hand) * 1000:.0f}", ""),
        ("the same through the launcher (ms)", f"{statistics.median(launched) * 1000:.0f}", ""),
        ("wake, request to active (ms)", f"{statistics.median(woken) * 1000:.0f}", ""),
        ("  of it, until the observer saw it ready (ms)", f"{statistics.median(told):.0f}", ""),
        ("wake against code-server by hand", f"{ratio:.2f}x", f"<= {TARGET}x"),
        ("wake against the launcher by hand", f"{own:.2f}x", ""),
    ]


def start_by_hand(command: list[str], folder: Path) -> float:
    """Seconds from starting an editor until it answers; it is ended again."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    began = time.perf_counter()
    process = subprocess.Popen(
        command + CODE_SERVER.arguments(port, folder, folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "WORKSPACE_SECRET_FILE": "none"},
        start_new_session=True,
    )
    try:
        while not answers(port):
            if time.perf_counter() - began > DEADLINE or process.poll() is not None:
                raise RuntimeError("code-server did not come up")
            time.sleep(0.002)
        return time.perf_counter() - began
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", CODE_SERVER.health, headers={"Connection": "close"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def service(data_dir: Path, *, project: Path = PROJECT, **settings: str) -> Iterator[str]:
    """The whole service by scripts/run of this or another checkout, with these settings; gives its URL."""
    environ = {**os.environ, "DATA_DIR": str(data_dir), "PORT": str(free_port()), "API_KEY": KEY, **settings}
    # What this run was started with is its own checkout's.
    environ = {name: text for name, text in environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environ |= {f"RATE_LIMIT_{name.upper()}": "100000/minute" for name in CATEGORIES}
    process = subprocess.Popen(
        [str(project / "scripts" / "run")], env=environ, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("Ctrl-C"):
                yield f"http://127.0.0.1:{environ['PORT']}"
                return
        raise RuntimeError("the service did not come up")
    finally:
        process.terminate()
        process.communicate(timeout=60)


def call(url: str, method: str, path: str, body: Any = None, prefer: str = "") -> Any:
    request = urllib.request.Request(url + path, method=method, data=json.dumps(body).encode() if body else None)
    request.add_header("X-API-Key", KEY)
    if body:
        request.add_header("Content-Type", "application/json")
    if prefer:
        request.add_header("Prefer", prefer)
    with urllib.request.urlopen(request, timeout=90) as answer:
        return json.load(answer)
