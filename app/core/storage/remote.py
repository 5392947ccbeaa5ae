"""Remote stores, called in a separate process.

The clients of remote stores (asyncio in a thread) do not work under gevent's patching, which leaves no real threads. So
web and gateway make their calls in the process of app/core/storage/server.py. It starts with the first call, and again
after it has ended.
"""

from __future__ import annotations

import io
import logging
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, cast

from app.core.errors import RetryableError
from app.core.storage.server import DEADLINE, frame, receive, send

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""s for a call. It may take a dozen requests of some 0.05 s to the store, whose client ends one after 60."""

ENDING = 5.0
"""s a killed process may take to end."""

PIECE = 1_048_576
"""Bytes of a zip read at once: the memory of a download. Each read costs the store's latency once."""


@dataclass(eq=False)
class Child:
    """A process that serves calls, the socket that hands calls to it, and when it answered last."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    answered: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, log_level: str) -> Child:
        """Start a process. It ends when `control` is closed here, or when this process dies."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        command = [sys.executable, "-m", "app.core.storage.server", log_level]
        with theirs:
            # A Ctrl-C must reach this process only, which lets calls end before it exits.
            return cls(subprocess.Popen(command, stdin=theirs.fileno(), start_new_session=True), ours)

    def end(self) -> None:
        """Kill the process."""
        self.control.close()
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDING)


class StoreProcess:
    """Calls methods of objects in another process. A `SessionError` they raise is raised here. Raises `RetryableError`
    if the process is late (`PATIENCE`), too busy or has died."""

    def __init__(self, log_level: str) -> None:
        self._log_level = log_level
        self._lock = threading.Lock()
        self._child: Child | None = None

    def call(self, kind: type[Any], arguments: tuple[Any, ...], method: str, *given: Any, **named: Any) -> Any:
        """Call a method of the object `kind(*arguments)`, which the process keeps for later calls."""
        begun = time.monotonic()
        deadline = begun + PATIENCE
        framed = frame((kind, arguments, method, given, named))
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                child = self._hand_over(theirs, deadline)
            try:
                send(ours, framed, deadline)
                answer = receive(ours, deadline)
            except OSError as error:
                late = isinstance(error, TimeoutError) or time.monotonic() >= deadline
                # If only this call is slow, the process is not killed, for the others' sake.
                if not late or child.answered < begun:
                    self._replace(child)
                what = "The store did not answer in time" if late else "The process that calls the store ended"
                raise RetryableError(f"{what}; retry.") from error
        child.answered = time.monotonic()
        returned, result = pickle.loads(answer)
        if not returned:
            raise result
        return result

    def end(self) -> None:
        """End the process. The next call would start another."""
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.end()

    def _hand_over(self, connection: socket.socket, deadline: float) -> Child:
        """Pass a connection to the process, where it waits for its turn."""
        for _ in range(2):
            try:
                child = self._running()
                socket.send_fds(child.control, [DEADLINE.pack(deadline)], [connection.fileno()])
            except (BrokenPipeError, ConnectionResetError):
                self._replace(child)
            except OSError as error:
                # The socket is full, with some hundred connections by Linux's default, or no process can be started.
                raise RetryableError("The store takes no more calls for now; retry.") from error
            else:
                return child
        raise RetryableError("The process that calls the store keeps ending; retry.")

    def _running(self) -> Child:
        with self._lock:
            if self._child is None:
                self._child = Child.start(self._log_level)
            return self._child

    def _replace(self, child: Child) -> None:
        with self._lock:
            if self._child is not child:
                return
            self._child = None
        child.end()
        log.warning(
            "the process that calls the stores ended (%s), the next call starts another", child.process.returncode
        )


class Proxy:
    """An object in the other process, with its methods."""

    def __init__(self, process: StoreProcess, kind: type[Any], *arguments: Any) -> None:
        self._process = process
        self._kind = kind
        self._arguments = arguments

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not hasattr(self._kind, name):
            raise AttributeError(name)
        return partial(self._process.call, self._kind, self._arguments, name)


class FilesProxy(Proxy):
    """`BackupStore` without `writing`."""

    def open(self, name: str) -> BinaryIO:
        """See `BackupStore.open`. Between two reads it holds nothing in the other process."""
        return cast(BinaryIO, io.BufferedReader(_Zip(self, name), PIECE))


class _Zip(io.RawIOBase):
    """A backup's zip, each read of which is a call."""

    def __init__(self, files: FilesProxy, name: str) -> None:
        self._files = files
        self._name = name
        self._size: int = files.size(name)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        piece: bytes = self._files.read(self._name, self._at, stop)
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
