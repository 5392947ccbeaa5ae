"""The process that calls remote stores: without gevent, so that their clients have the real threads they need.

`StoreProcess` (app/core/storage/remote.py) starts it as `python -m app.core.storage.server LOG_LEVEL`. Its standard
input is a socket over which it gets a connection for each call; it exits when that socket is closed.

Calls and answers are pickled, so that methods take, return and raise the same as without a separate process. That is
safe: both ends are the service's own processes, and these sockets have no address.
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

from app.core.errors import ArchiveError, SessionError
from app.process.logs import configure

log = logging.getLogger(__name__)

CALLS = 8
"""Calls at a time; each may hold some chunks of a conversation, of 1 MB. Others wait."""

MOST_BYTES = 134_217_728
"""Of a call or an answer: twice the largest, a checkpoint of 64 MiB."""

LENGTH = struct.Struct("!Q")
DEADLINE = struct.Struct("!d")
"""Comes with each connection, in s of `time.monotonic`, which all processes share."""


def frame(document: Any) -> bytes:
    """A call or an answer to send; raises `ArchiveError` when it is too large."""
    data = pickle.dumps(document)
    if len(data) > MOST_BYTES:
        raise ArchiveError(f"The data for the store is too large: {len(data)} bytes; the limit is {MOST_BYTES}.")
    return LENGTH.pack(len(data)) + data


def send(connection: socket.socket, framed: bytes, deadline: float) -> None:
    """Send a frame; raises `OSError`, as `TimeoutError` when late."""
    connection.settimeout(_left(deadline))
    connection.sendall(framed)


def receive(connection: socket.socket, deadline: float) -> bytearray:
    """The pickled content of the next frame; raises `OSError`, also for a frame cut short."""
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size, deadline))
    if length > MOST_BYTES:
        raise ConnectionAbortedError(f"A frame of {length} bytes is longer than any of ours.")
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
        raise TimeoutError("The deadline of this call has passed.")
    return left


@cache
def _built(kind: type[Any], *arguments: Any) -> Any:
    return kind(*arguments)


def _answer(call: bytearray) -> bytes:
    """The frame with what a call returned or raised."""
    try:
        kind, arguments, method, given, named = pickle.loads(call)
        return frame((True, getattr(_built(kind, *arguments), method)(*given, **named)))
    except SessionError as error:
        return frame((False, error))
    except Exception as error:
        # The original error may need a library that the other process has not loaded.
        log.exception("a call of a store failed")
        return frame((False, RuntimeError(f"A call of a store raised {type(error).__name__}; see the log.")))


def _serve(control: socket.socket) -> None:
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, DEADLINE.size, 1)
        if not data:
            return
        for descriptor in descriptors:
            # A caller that has given up has closed the connection, or its deadline has passed.
            with socket.socket(fileno=descriptor) as connection, suppress(OSError, MemoryError):
                (deadline,) = DEADLINE.unpack(data)
                send(connection, _answer(receive(connection, deadline)), deadline)


def main() -> None:
    """Serve until the process that started this one ends."""
    configure(sys.argv[1])
    control = socket.socket(fileno=sys.stdin.fileno())
    # The starting process shares this socket, and gevent made it non-blocking.
    control.setblocking(True)
    for _ in range(CALLS):
        Thread(target=_serve, args=(control,), daemon=True).start()
    gone = select.poll()
    # With no event asked for, poll reports only the end of the connection.
    gone.register(control, 0)
    gone.poll()
    # No caller waits for the calls under way.
    os._exit(0)


if __name__ == "__main__":
    main()
