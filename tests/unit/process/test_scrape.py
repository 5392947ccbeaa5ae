"""The server for Prometheus beside a process' work."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from unittest.mock import Mock

import pytest
import requests
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from app.process import scrape
from app.process.scrape import THREADS
from app.process.settings import Settings
from tests.conftest import ROOT
from tests.ports import free_port, listens
from tests.waiting import wait_for

TIMEOUT = 60


class Broken(Collector):
    def collect(self) -> Iterable[Metric]:
        raise RuntimeError("a secret")


class Slow(Collector):
    """Shows nothing until it may go on; `most` asked it at a time."""

    def __init__(self) -> None:
        self.go_on = Event()
        self.most = self._asking = 0
        self._lock = Lock()

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            self._asking += 1
            self.most = max(self.most, self._asking)
        self.go_on.wait(TIMEOUT)
        with self._lock:
            self._asking -= 1
        return ()


@pytest.fixture
def metrics() -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    Counter("things", "What was counted", registry=registry).inc()
    return registry


def served(metrics: Collector) -> int:
    """The port at which they are served until the tests end."""
    scrape.serve(Settings(metrics_port=(port := free_port())), metrics)
    wait_for(lambda: listens(port), "the server listens")
    return port


def ask(port: int, path: str = "/metrics", method: str = "GET", **headers: str) -> requests.Response:
    return requests.request(method, f"http://127.0.0.1:{port}{path}", headers=headers, timeout=TIMEOUT)


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_it_answers_in_the_format_that_is_asked_for(metrics: CollectorRegistry, accept: str) -> None:
    answer = ask(served(metrics), "/metrics?x=1", Accept=accept)
    assert answer.status_code == 200
    assert "things_total 1.0" in answer.text.splitlines()
    assert answer.headers["Content-Type"].startswith(accept)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/metrics/x", 404), ("POST", "/metrics", 405)]
)
def test_it_answers_nothing_else(metrics: CollectorRegistry, method: str, path: str, status: int) -> None:
    assert ask(served(metrics), path, method).status_code == status


def test_an_error_is_logged_and_not_told(metrics: CollectorRegistry, caplog: pytest.LogCaptureFixture) -> None:
    metrics.register(Broken())
    answer = ask(served(metrics))
    assert (answer.status_code, answer.text) == (500, "see the log\n")
    assert "the metrics can't be shown" in caplog.text


@pytest.mark.parametrize("sent", [b"x" * 100_000, b"nonsense\r\n\r\n", b"\r\n\r\n", b"\xff \xff\r\n\r\n", b""])
def test_what_is_no_request_ends_no_thread(metrics: CollectorRegistry, sent: bytes) -> None:
    port = served(metrics)
    for _ in range(THREADS + 1):
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
            client.sendall(sent)
    assert ask(port).status_code == 200


@pytest.mark.slow
def test_slow_scrapers_are_cut_off(metrics: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though each has a thread, the next is served."""
    monkeypatch.setattr(scrape, "LIMIT", 0.2)
    port = served(metrics)
    slow = [socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) for _ in range(THREADS)]
    for each in slow:
        each.sendall(b"GET /metr")
    assert ask(port).status_code == 200
    for each in slow:
        assert each.recv(1) == b""
        each.close()


def test_a_few_are_answered_at_a_time_and_all_in_the_end(
    metrics: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "LIMIT", TIMEOUT)
    slow = Slow()
    metrics.register(slow)
    port = served(metrics)
    with ThreadPoolExecutor(THREADS + 3) as pool:
        asked = [pool.submit(ask, port) for _ in range(THREADS + 3)]
        wait_for(lambda: slow.most == THREADS, "each thread answers one")
        slow.go_on.set()
        assert [each.result().status_code for each in asked] == [200] * (THREADS + 3)
    assert slow.most == THREADS


def test_a_port_that_is_taken_is_tried_again(metrics: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "BIND_PAUSE", 0.05)
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as other:
        scrape.serve(Settings(metrics_port=port), metrics)
        other.settimeout(0.2)
        with pytest.raises(TimeoutError):
            other.accept()
    wait_for(lambda: listens(port), "the server listens")
    assert ask(port).status_code == 200


def test_it_is_off_without_a_port(metrics: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "Thread", None)
    scrape.serve(Settings(), metrics)


@pytest.mark.parametrize(("runtime", "host"), [("local", "127.0.0.1"), ("kubernetes", "::")])
def test_on_one_machine_it_listens_on_loopback(
    metrics: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, runtime: str, host: str
) -> None:
    make = Mock()
    # As a server that nobody asks: the threads would come back at once, for ever.
    make.return_value.handle_request = Event().wait
    monkeypatch.setattr(scrape, "make_server", make)
    scrape.serve(Settings(metrics_port=1, bind="::", runtime=runtime), metrics)
    wait_for(lambda: make.called, "the thread begins")
    assert [call.args[0] for call in make.call_args_list] == [host]


MAIN_PROCESS = """
import runpy, socket, sys, threading
for config in ("app/forward_auth.conf.py", "app/gateway/gunicorn.conf.py"):
    conf = runpy.run_path(config)
port = int(sys.argv[1])
before = set(sys.modules)
conf["when_ready"](None)
for path in ("/metrics", "/elsewhere"):
    while True:
        try:
            with socket.socket() as asking:
                asking.settimeout(5)
                asking.connect(("127.0.0.1", port))
                asking.sendall(b"GET " + path.encode() + b" HTTP/1.1\\r\\nHost: here\\r\\n\\r\\n")
                answer = asking.recv(65_536)
        except ConnectionRefusedError:
            continue
        break
    assert answer.split()[1] == (b"200" if path == "/metrics" else b"404"), answer
print(sorted(set(sys.modules) - before))
"""


def test_the_threads_import_nothing(tmp_path: Path) -> None:
    """gunicorn forks its workers beside them: a module that one of them is importing then can't be imported in the
    worker, which waits for ever."""
    port = str(free_port())
    environ = os.environ | {"METRICS_PORT": port, "DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MAIN_PROCESS, port]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.stdout == "[]\n", done.stderr
