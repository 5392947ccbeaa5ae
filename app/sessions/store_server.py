"""The process in which calls to remote stores run: no gevent, so their clients find the real threads they need.

`StoreProcess` (app/sessions/store_process.py) starts it, as `python -m app.sessions.store_server LOG_LEVEL`. Its
standard input is a socket over which it gets a connection for each call; the end of that socket is its own end.

Both ends are the service's own processes, and nobody else can get at these sockets, which have no address. So calls
and answers are pickled: what a method takes, returns and raises is the same as without a process between.
"""

from __future__ import annotations

import logging
import os
import pickle
import select
import socket
import struct
import sys
import time
from contextlib import suppress
from functools import cache
from threading import Thread
from typing import Any

from app.logs import configure
from app.sessions.errors import ArchiveError, SessionError

log = logging.getLogger(__name__)

CALLS = 8
"""At a time; each may hold some pieces of a conversation, of 1 MB. The rest wait."""

MOST_BYTES = 134_217_728
"""Of a call or an answer: twice a whole conversation, as agents of an earlier release hand it over."""

LENGTH = struct.Struct("!Q")
DEADLINE = struct.Struct("!d")
"""Comes with each connection, in s of the clock that all processes share: `time.monotonic`."""


def frame(document: Any) -> bytes:
    """A call or an answer as it is sent; raises `ArchiveError` when it is too large."""
    data = pickle.dumps(document)
    if len(data) > MOST_BYTES:
        raise ArchiveError(f"The store's data is too large to handle at once: {len(data)} bytes, of {MOST_BYTES}.")
    return LENGTH.pack(len(data)) + data


def send(connection: socket.socket, framed: bytes, deadline: float) -> None:
    """Send a frame; raises `OSError`, which `TimeoutError` is one of."""
    connection.settimeout(_left(deadline))
    connection.sendall(framed)


def receive(connection: socket.socket, deadline: float) -> bytearray:
    """What the next frame holds, pickled; raises `OSError`, also when it ends too early."""
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size, deadline))
    if length > MOST_BYTES:
        raise ConnectionAbortedError(f"A frame of {length} bytes is none of ours.")
    return _exactly(connection, length, deadline)


def _exactly(connection: socket.socket, size: int, deadline: float) -> bytearray:
    data = bytearray(size)
    left = memoryview(data)
    while left:
        connection.settimeout(_left(deadline))
        count = connection.recv_into(left)
        if not count:
            raise ConnectionResetError("The other process ended the connection.")
        left = left[count:]
    return data


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("The time of this call is over.")
    return left


@cache
def _built(kind: type[Any], *arguments: Any) -> Any:
    return kind(*arguments)


def _answer(call: bytearray) -> bytes:
    """The frame that says what a call returned or raised."""
    try:
        kind, arguments, method, given, named = pickle.loads(call)
        return frame((True, getattr(_built(kind, *arguments), method)(*given, **named)))
    except SessionError as error:
        return frame((False, error))
    except Exception as error:
        # As it is, it might need a library there to be understood.
        log.exception("a call of a store failed")
        return frame((False, RuntimeError(f"A call of a store failed by {type(error).__name__}; see the log.")))


def _serve(control: socket.socket) -> None:
    while True:
        told, descriptors, _, _ = socket.recv_fds(control, DEADLINE.size, 1)
        if not told:
            return
        for descriptor in descriptors:
            # Whoever has given up has closed the connection, or let its deadline pass.
            with socket.socket(fileno=descriptor) as connection, suppress(OSError, MemoryError):
                (deadline,) = DEADLINE.unpack(told)
                send(connection, _answer(receive(connection, deadline)), deadline)


def main() -> None:
    """Serve until whoever started this process is gone."""
    configure(sys.argv[1])
    control = socket.socket(fileno=sys.stdin.fileno())
    # gevent's sockets don't block, and here it is the same one.
    control.setblocking(True)
    for _ in range(CALLS):
        Thread(target=_serve, args=(control,), daemon=True).start()
    gone = select.poll()
    # For nothing but its end, which poll always tells.
    gone.register(control, 0)
    gone.poll()
    # Nobody waits for the calls under way.
    os._exit(0)


if __name__ == "__main__":
    main()
