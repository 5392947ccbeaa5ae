"""A client that hangs up ends what is done for it, and nothing else."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from app.gateway.cancellation import Call, ClientGone, Hangups

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
        Hangups().watch(server, call)
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
    hangups, over, other = Hangups(), Call(), Call()
    first, first_client = socket.socketpair()
    second, second_client = socket.socketpair()
    with first, second:
        number = hangups.watch(first, over)
        hangups.watch(second, other)
        hangups.unwatch(number)
        first_client.close()
        second_client.close()
        wait_gone(other)
        assert not over.gone


@pytest.mark.slow
def test_a_kept_connection_is_watched_again_and_again():
    hangups = Hangups()
    server, client = socket.socketpair()
    with server:
        for _ in range(3):
            hangups.unwatch(hangups.watch(server, Call()))
        call = Call()
        hangups.watch(server, call)
        client.close()
        wait_gone(call)


def test_unwatching_a_socket_that_was_closed_is_no_error():
    hangups = Hangups()
    server, client = socket.socketpair()
    number = hangups.watch(server, Call())
    server.close()
    client.close()
    hangups.unwatch(number)
    hangups.unwatch(-1)
    assert not hangups._calls


@pytest.mark.slow
def test_many_clients_cost_one_thread():
    hangups, calls, pairs = Hangups(), [Call() for _ in range(50)], [socket.socketpair() for _ in range(50)]
    before = set(threading.enumerate())
    for (server, _), call in zip(pairs, calls, strict=True):
        hangups.watch(server, call)
    assert [thread.name for thread in threading.enumerate() if thread not in before].count("hangups") == 1
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
