"""A client that hangs up ends what is done for it, and nothing else."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from app.gateway.cancellation import Call, ClientGone, DisconnectWatcher

PATIENCE = 30.0


def wait_gone(call: Call) -> None:
    """Return when the call is cancelled."""
    with pytest.raises(ClientGone):
        call.pause(PATIENCE)


@pytest.mark.slow
def test_a_client_that_hangs_up_cancels_its_call():
    server, client = socket.socketpair()
    call = Call()
    with server:
        DisconnectWatcher().watch(server, call)
        client.close()
        wait_gone(call)


def test_a_cancelled_call_shuts_its_connection():
    """Whoever reads from it wakes; a connection that comes later is shut as well."""
    call = Call()
    for _ in range(2):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            call.attach(ours)
            call.cancel()
            assert ours.recv(1) == b""


def test_a_connection_given_back_is_left_alone():
    """It may be another call's by then."""
    call = Call()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        call.attach(ours)
        call.detach()
        call.cancel()
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"


@pytest.mark.slow
def test_a_client_no_longer_watched_cancels_nothing():
    """Its request is over; one that is watched meanwhile still does."""
    disconnects, over, other = DisconnectWatcher(), Call(), Call()
    first, first_client = socket.socketpair()
    second, second_client = socket.socketpair()
    with first, second:
        number = disconnects.watch(first, over)
        disconnects.watch(second, other)
        disconnects.unwatch(number)
        first_client.close()
        second_client.close()
        wait_gone(other)
        assert not over.gone


@pytest.mark.slow
def test_a_kept_connection_is_watched_again_and_again():
    disconnects = DisconnectWatcher()
    server, client = socket.socketpair()
    with server:
        for _ in range(3):
            disconnects.unwatch(disconnects.watch(server, Call()))
        call = Call()
        disconnects.watch(server, call)
        client.close()
        wait_gone(call)


def test_unwatching_a_socket_that_was_closed_is_no_error():
    disconnects = DisconnectWatcher()
    server, client = socket.socketpair()
    number = disconnects.watch(server, Call())
    server.close()
    client.close()
    disconnects.unwatch(number)
    disconnects.unwatch(-1)
    assert not disconnects._calls


@pytest.mark.slow
def test_many_clients_cost_one_thread():
    disconnects, calls, pairs = (
        DisconnectWatcher(),
        [Call() for _ in range(50)],
        [socket.socketpair() for _ in range(50)],
    )
    before = set(threading.enumerate())
    for (server, _), call in zip(pairs, calls, strict=True):
        disconnects.watch(server, call)
    assert [thread.name for thread in threading.enumerate() if thread not in before].count("disconnects") == 1
    for _, client in pairs:
        client.close()
    for call in calls:
        wait_gone(call)
    for server, _ in pairs:
        server.close()


def test_a_pause_nobody_ends_lasts():
    started = time.monotonic()
    Call().pause(0.02)
    assert time.monotonic() - started >= 0.02
