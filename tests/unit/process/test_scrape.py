"""The server for Prometheus beside a process' work."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from unittest.mock import Mock

import pytest
import requests
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from app.process import scrape
from app.process.settings import Settings
from tests.ports import free_port, listens
from tests.waiting import wait_for

TIMEOUT = 60


class Broken(Collector):
    def collect(self) -> Iterable[Metric]:
        raise RuntimeError("a secret")


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


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("text/plain", "text/plain"), ("application/openmetrics-text", "application/openmetrics-text")],
)
def test_it_answers_in_the_format_that_is_asked_for(metrics: CollectorRegistry, accept: str, content_type: str) -> None:
    url = f"http://127.0.0.1:{served(metrics)}/metrics?x=1"
    answer = requests.get(url, headers={"Accept": accept}, timeout=TIMEOUT)
    assert answer.status_code == 200
    assert "things_total 1.0" in answer.text.splitlines()
    assert answer.headers["Content-Type"].startswith(content_type)


def test_nothing_can_be_sent_to_it(metrics: CollectorRegistry) -> None:
    assert requests.post(f"http://127.0.0.1:{served(metrics)}/metrics", timeout=TIMEOUT).status_code == 405


def test_an_error_is_not_told(metrics: CollectorRegistry, capfd: pytest.CaptureFixture[str]) -> None:
    metrics.register(Broken())
    answer = requests.get(f"http://127.0.0.1:{served(metrics)}/metrics", timeout=TIMEOUT)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Broken" not in answer.text
    assert "RuntimeError" in capfd.readouterr().err


@pytest.mark.parametrize("sent", [b"x" * 100_000, b"nonsense\r\n\r\n", b"\r\n\r\n", b"\xff \xff\r\n\r\n", b""])
def test_what_is_no_request_ends_nothing(metrics: CollectorRegistry, sent: bytes) -> None:
    port = served(metrics)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
            client.sendall(sent)
    assert requests.get(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT).status_code == 200


@pytest.mark.slow
def test_slow_scrapers_are_cut_off(metrics: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """While they are slow, the next is served."""
    monkeypatch.setattr(scrape._Handler, "timeout", 0.2)
    port = served(metrics)
    slow = [socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) for _ in range(3)]
    for each in slow:
        each.sendall(b"GET /metr")
    assert requests.get(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT).status_code == 200
    for each in slow:
        assert each.recv(1) == b""
        each.close()


def test_a_port_that_is_taken_is_tried_again(metrics: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "BIND_PAUSE", 0.05)
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as other:
        scrape.serve(Settings(metrics_port=port), metrics)
        other.settimeout(0.2)
        with pytest.raises(TimeoutError):
            other.accept()
    url = f"http://127.0.0.1:{port}/metrics"
    wait_for(lambda: listens(port), "the server listens")
    assert requests.get(url, timeout=TIMEOUT).status_code == 200


def test_it_is_off_without_a_port(metrics: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "Thread", None)
    scrape.serve(Settings(), metrics)


@pytest.mark.parametrize(("runtime", "host"), [("local", "127.0.0.1"), ("kubernetes", "::")])
def test_on_one_machine_it_listens_on_loopback(
    metrics: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, runtime: str, host: str
) -> None:
    asked: list[str] = []

    def make(host: str, *_: object) -> Mock:
        asked.append(host)
        return Mock()

    monkeypatch.setattr(scrape, "make_server", make)
    scrape.serve(Settings(metrics_port=1, bind="::", runtime=runtime), metrics)
    wait_for(lambda: bool(asked), "the thread begins")
    assert asked == [host]
