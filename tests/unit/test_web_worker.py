"""A client that neither sends nor reads does not hold a thread for ever."""

from __future__ import annotations

import socket

import pytest

from app.web_worker import bound_waits


def test_a_client_that_sends_nothing_is_given_up():
    """The socket stays a blocking one, as the server needs it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bound_waits(ours, 0.01)
        ours.setblocking(True)
        with pytest.raises(OSError, match="temporarily unavailable"):
            ours.recv(1)


def test_a_client_that_reads_nothing_is_given_up():
    """Once its buffers are full."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bound_waits(ours, 0.01)
        ours.setblocking(True)
        with pytest.raises(OSError, match="temporarily unavailable"):
            ours.sendall(b"x" * 100_000_000)
