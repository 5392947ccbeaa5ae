"""Servers for the measurements: a Redis and gunicorns of their own, and what asks them."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
KEY = "the-key-of-the-benches"
HEADERS = {"Host": "bench", "X-API-Key": KEY}
START_LIMIT = 30.0
"""Seconds within which a server must listen."""

SOCKET_LIMIT = 10.0
"""Seconds an answer may take."""

CONNECTIONS = 8
"""That load a server at once."""


def free_port() -> int:
    """A loopback port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    """The URL of a Redis with AOF on, as the service wants it."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server is needed on PATH")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes", "--save", ""]
    with _running([program, *options], port, {}):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def running_gunicorn(target: str, folder: Path, redis_url: str, **more: str) -> Iterator[int]:
    """The port of a gunicorn that serves `target`, configured as the product's and by `more`; rate limits never bind.

    With one process: the kernel spreads connections over several by chance, up to all of them on one,
    which moved the ratio of two such servers between 0.2 and 1.0 from one run to the next.
    """
    port = free_port()
    settings = {
        "API_KEY": KEY,
        "DATA_DIR": str(folder),
        "REDIS_URL": redis_url,
        "PORT": str(port),
        "RATE_LIMIT_DEFAULT": "1000000000/minute",
        "LOG_LEVEL": "WARNING",
        "WEB_WORKERS": "1",
        **more,
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "app/gunicorn.conf.py", target]
    with _running(command, port, settings):
        yield port


@contextmanager
def running_gateway(folder: Path, redis_url: str, model_url: str, secret_key: str, **more: str) -> Iterator[int]:
    """The port of a gateway as the Procfile runs it, in front of that model, configured by `more` too; users have no
    budget."""
    port = free_port()
    settings = {
        "DATA_DIR": str(folder),
        "REDIS_URL": redis_url,
        "GATEWAY_PORT": str(port),
        "SECRET_KEY": secret_key,
        "LLM_BASE_URL": model_url,
        "LLM_MODEL": "stub",
        "LLM_TOKENS_PER_DAY": "0",
        "LOG_LEVEL": "WARNING",
        **more,
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "app/gateway/gunicorn.conf.py"]
    with _running([*command, "app.gateway.main:create_app()"], port, settings):
        yield port


@contextmanager
def running_model() -> Iterator[str]:
    """The base URL of a model server that thinks of nothing, and takes no time for it."""
    port = free_port()
    with _running([sys.executable, "-m", "tests.model_server", "--port", str(port)], port, {}):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def running_traefik(folder: Path, configuration: Mapping[str, Any]) -> Iterator[int]:
    """The port of a Traefik with this dynamic configuration."""
    beside = Path(sys.executable).parent
    program = shutil.which("traefik", path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if program is None:
        raise SystemExit("traefik is needed beside Python or on PATH")
    port, file = free_port(), folder / "traefik.yml"
    file.write_text(json.dumps(configuration))  # JSON is YAML
    flags = {
        "entrypoints.workspaces.address": f"127.0.0.1:{port}",
        "providers.file.filename": str(file),
        "global.checknewversion": "false",
        "global.sendanonymoususage": "false",
        "log.level": "ERROR",
    }
    with _running([program, *(f"--{name}={value}" for name, value in flags.items())], port, {}):
        yield port


@contextmanager
def _running(command: list[str], port: int, settings: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=PROJECT, env=os.environ | settings, stdout=subprocess.DEVNULL)
    try:
        _wait_until_listening(process, port)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("a server of the benchmark did not start")


class Caller:
    """One keep-alive connection that asks for paths; no HTTP library, which would cost more than the server."""

    def __init__(self, port: int, headers: Mapping[str, str] = HEADERS) -> None:
        self._head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SOCKET_LIMIT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self, path: str) -> None:
        """One request; raises unless the answer is 200."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\n{self._head}\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        headers, _, body = received.partition(b"\r\n\r\n")
        if not headers.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(received[:300].decode())
        length = int(headers.lower().partition(b"content-length:")[2].partition(b"\r")[0])
        while len(body) < length:
            body += self._more()

    def close(self) -> None:
        self._socket.close()

    def _more(self) -> bytes:
        chunk = self._socket.recv(65_536)
        if not chunk:
            raise RuntimeError("the server closed the connection")
        return chunk


def throughput(port: int, path: str, seconds: int, headers: Mapping[str, str] = HEADERS) -> float:
    """Requests a second that `CONNECTIONS` get answered, one after the other on each; raises unless all answers are 2xx
    or 3xx. By wrk: a client in Python would take a part of the machine that the server lacks."""
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("wrk is needed on PATH")
    load = ["--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s"]
    given = [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]
    command = [program, *load, *given, f"http://127.0.0.1:{port}{path}"]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + START_LIMIT).stdout
    rate = re.search(r"^Requests/sec: +([\d.]+)$", told, re.MULTILINE)
    if rate is None or "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(told)
    return float(rate[1])


def latencies(port: int, paths: list[str], headers: Mapping[str, str] = HEADERS) -> list[float]:
    """Milliseconds each path takes, asked for one after the other."""
    caller = Caller(port, headers)
    taken = []
    for path in paths:
        started = time.perf_counter()
        caller.get(path)
        taken.append((time.perf_counter() - started) * 1000)
    caller.close()
    return taken


def percentile(values: list[float], percent: int) -> float:
    """The value `percent` % of the values lie below."""
    return statistics.quantiles(values, n=100)[percent - 1]
