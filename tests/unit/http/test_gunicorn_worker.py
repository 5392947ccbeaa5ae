"""A client that sends or takes too slowly is not waited for, and one that is slow but steady is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace

import gevent
import pytest
from gevent import socket

from app.http import gunicorn_worker
from app.http.gunicorn_worker import Client, ProblemWorker, worker_for

LIMIT = 0.05
LONG = 5.0


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gunicorn_worker, "HEAD_LIMIT", LIMIT)
    monkeypatch.setattr(gunicorn_worker, "PATIENCE", LIMIT)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def received_while_trickled(client: Client, theirs: socket.socket) -> int:
    """How many bytes were taken from one that sends another long before it is given up, until it is."""

    def trickle() -> None:
        while True:
            theirs.send(b"x")
            gevent.sleep(LIMIT / 10)

    sender, count = gevent.spawn(trickle), 0
    try:
        for _ in range(1_000):
            count += len(client.recv(1))
    except ConnectionResetError:
        return count
    finally:
        sender.kill()
    raise AssertionError("it was never given up")


def test_a_client_may_rest_between_requests_but_not_for_ever(pair: Pair) -> None:
    client = Client(pair[0], idle=LIMIT)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_head_that_trickles_is_given_up_however_many_bytes_come(pair: Pair) -> None:
    assert received_while_trickled(Client(pair[0], idle=LONG), pair[1]) < 50


def test_a_body_that_trickles_is_given_up_as_well(pair: Pair) -> None:
    client = Client(pair[0], idle=LONG)
    client.work()
    assert received_while_trickled(client, pair[1]) < 50


def test_a_body_that_comes_steadily_has_the_time_it_takes(pair: Pair) -> None:
    """Each byte buys some: as much as the slowest client that is borne takes for it."""
    now = 0.0
    client = Client(pair[0], idle=LONG, clock=lambda: now)
    client.work()
    pair[1].sendall(b"x" * 1_000)
    for _ in range(10):
        assert len(client.recv(100)) == 100
        now += 100 / gunicorn_worker.SLOWEST
    now += LIMIT + 1.0
    pair[1].sendall(b"x")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
        client.recv(1)


@pytest.mark.slow
def test_one_that_takes_no_answer_is_given_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its buffers are full."""
    monkeypatch.setattr(gunicorn_worker, "SLOWEST", 1_000_000_000)
    with pytest.raises(ConnectionResetError):
        Client(pair[0], idle=LONG).sendall(b"x" * 100_000_000)


def test_after_an_answer_the_next_request_has_time_again(pair: Pair) -> None:
    now = 0.0
    client = Client(pair[0], idle=LONG, clock=lambda: now)
    for _ in range(3):
        pair[1].sendall(b"GET")
        assert client.recv(10) == b"GET"
        assert not client.resting
        client.work()
        now += 100.0
        client.rest()
        assert client.resting


def test_a_worker_is_made_with_its_bound() -> None:
    assert worker_for(per_peer=7).per_peer == 7


def test_one_that_rests_while_the_process_ends_counts_as_gone(pair: Pair) -> None:
    client = Client(pair[0], idle=LONG)
    waiting = gevent.spawn(client.recv, 1)
    gevent.sleep(0)
    client.end()
    with pytest.raises(ConnectionResetError):
        waiting.get(timeout=LONG)


def test_a_request_that_came_along_with_the_one_before_is_no_rest(pair: Pair) -> None:
    """Its head was read already; the process's end must not cut its answer off."""
    client = Client(pair[0], idle=LONG)
    client.rest()
    client.work()
    assert not client.resting


def test_an_error_outside_the_application_is_answered_and_logged_without_the_address(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """gunicorn's own handler would log the whole address; its query may hold a token."""
    worker = ProblemWorker.__new__(ProblemWorker)
    worker.log = logging.getLogger("gunicorn.error")
    request = SimpleNamespace(method="GET", uri="/canary?token=canary")
    pair[1].shutdown(socket.SHUT_WR)
    with caplog.at_level(logging.DEBUG):
        worker.handle_error(request, pair[0], ("127.0.0.1", 1), RuntimeError("broken"))
    head, _, body = pair[1].recv(65_536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ") and json.loads(body)["error"] == "internal_error"
    assert [record.getMessage() for record in caplog.records] == ["a request failed outside the application"]
