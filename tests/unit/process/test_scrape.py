"""The server for Prometheus beside a process' work."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import requests

from app.process import scrape
from app.process.scrape import HEAD_MAX, THREADS, ScrapeServer
from app.process.settings import Settings
from tests.ports import free_port, listens
from tests.waiting import wait_for

TIMEOUT = 60


def text(accept: str) -> tuple[bytes, str]:
    if accept == "broken":
        raise RuntimeError("a secret")
    return f"asked for {accept}\n".encode(), "text/plain; charset=utf-8"


@pytest.fixture
def port() -> Iterator[int]:
    server = ScrapeServer("127.0.0.1", port := free_port(), text)
    server.start()
    wait_for(lambda: listens(port), "the server listens")
    yield port
    server.stop()


def test_it_answers_in_the_format_that_is_asked_for(port: int) -> None:
    answer = requests.get(f"http://127.0.0.1:{port}/metrics?x=1", headers={"Accept": "text/plain"}, timeout=TIMEOUT)
    assert (answer.status_code, answer.text) == (200, "asked for text/plain\n")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/metrics/x", 404), ("POST", "/metrics", 405)]
)
def test_it_answers_nothing_else(port: int, method: str, path: str, status: int) -> None:
    assert requests.request(method, f"http://127.0.0.1:{port}{path}", timeout=TIMEOUT).status_code == status


def test_an_error_is_logged_and_not_told(port: int, caplog: pytest.LogCaptureFixture) -> None:
    answer = requests.get(f"http://127.0.0.1:{port}/metrics", headers={"Accept": "broken"}, timeout=TIMEOUT)
    assert (answer.status_code, answer.text) == (500, "see the log\n")
    assert "the metrics can't be shown" in caplog.text


@pytest.mark.parametrize("sent", [b"x" * (HEAD_MAX + 1), b"nonsense\r\n\r\n", b"\r\n\r\n", b"\xff \xff\r\n\r\n"])
def test_what_is_no_request_ends_no_thread(port: int, sent: bytes) -> None:
    for _ in range(THREADS + 1):
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
            client.sendall(sent)
            assert client.recv(12) in (b"HTTP/1.1 400", b"HTTP/1.1 404")
    assert requests.get(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT).status_code == 200


@pytest.mark.slow
def test_slow_scrapers_are_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though each has a thread, the next is served."""
    monkeypatch.setattr(scrape, "LIMIT", 0.2)
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(THREADS)]
    for each in slow:
        each.sendall(b"GET /metr")
    assert requests.get(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT).status_code == 200
    for each in slow:
        each.close()


def test_a_port_that_is_taken_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "BIND_PAUSE", 0.05)
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        server = ScrapeServer("127.0.0.1", port, text)
        server.start()
    wait_for(lambda: listens(port), "the server listens")
    server.stop()


def test_it_is_off_without_a_port_and_on_loopback_on_one_machine() -> None:
    assert scrape.serve(Settings(), text) is None
    port = free_port()
    server = scrape.serve(Settings(metrics_port=port, bind="0.0.0.0"), text)
    assert server is not None and server._address == ("127.0.0.1", port)
    server.stop()
