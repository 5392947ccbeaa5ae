"""Remote stores, called in a process beside this one.

gevent's patching leaves no real threads, and the clients of remote stores (asyncio in a thread) do not work under it.
So web and gateway, whose worker patches, have each call made by app/sessions/store_server.py. The process is started
with the first call, and anew when it ended.
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

from app.sessions import object_stores
from app.sessions.archive_store import Archive
from app.sessions.backup_files import BackupFiles
from app.sessions.errors import RetryableError
from app.sessions.store_server import DEADLINE, frame, receive, send
from app.settings import Settings

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""s for a call. It may be a dozen requests of some 0.05 s to the store; its client gives up a request in 60."""

ENDING = 5.0
"""s that a killed process may take to be gone."""

PIECE = 1_048_576
"""Bytes of a zip asked for at once: memory a download takes. Each costs the store's latency once."""


def stores(settings: Settings, *, apart: bool) -> tuple[BackupFiles, Archive]:
    """The stores of backups and of conversations. `apart`: those that are remote are called in another process.
    Raises `SettingsError` for an `ARCHIVE_KEY` that is none."""
    process = StoreProcess(settings.log_level)
    kept = (settings.archive_location(), settings.archive_key, settings.history_max_bytes)
    archive, backups = Archive(*kept), settings.backups_location()
    if apart and object_stores.is_remote(kept[0]):
        archive = cast(Archive, Proxy(process, Archive, *kept))
    if apart and object_stores.is_remote(backups):
        return cast(BackupFiles, FilesProxy(process, BackupFiles, backups)), archive
    return BackupFiles(backups), archive


@dataclass(eq=False)
class Child:
    """A process that serves calls, the socket that hands them to it, and when it answered last."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    answered: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, log_level: str) -> Child:
        """Start one. It ends when `control` is closed here, which the death of this process does, too."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        command = [sys.executable, "-m", "app.sessions.store_server", log_level]
        with theirs:
            # A Ctrl-C is for this process, which lets calls end before it goes.
            return cls(subprocess.Popen(command, stdin=theirs.fileno(), start_new_session=True), ours)

    def end(self) -> None:
        """Kill it, whatever it does."""
        self.control.close()
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDING)


class StoreProcess:
    """Calls methods of objects that live in another process. What these raise is raised here, if it is a
    `SessionError`; a process that is late (`PATIENCE`), too busy or that died is a `RetryableError`."""

    def __init__(self, log_level: str) -> None:
        self._log_level = log_level
        self._lock = threading.Lock()
        self._child: Child | None = None

    def call(self, kind: type[Any], arguments: tuple[Any, ...], method: str, *given: Any, **named: Any) -> Any:
        """Call a method of the `kind` made with these arguments, which is kept for later calls."""
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
                # If only this call is slow, the others are left in peace.
                if not late or child.answered < begun:
                    self._replace(child)
                what = "The store did not answer in time" if late else "The process that calls the store ended"
                raise RetryableError(f"{what}; try again.") from error
        child.answered = time.monotonic()
        returned, result = pickle.loads(answer)
        if not returned:
            raise result
        return result

    def _hand_over(self, connection: socket.socket, deadline: float) -> Child:
        """Give a connection to the process, where it waits for its turn."""
        for _ in range(2):
            try:
                child = self._running()
                socket.send_fds(child.control, [DEADLINE.pack(deadline)], [connection.fileno()])
            except (BrokenPipeError, ConnectionResetError):
                self._replace(child)
            except OSError as error:
                # The socket holds no more, some hundred connections by Linux's default, or no process can be started.
                raise RetryableError("The store takes no more calls for now; try again.") from error
            else:
                return child
        raise RetryableError("The process that calls the store can't be kept running; try again.")

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
        log.warning("the process that calls the stores ended (%s), the next call starts one", child.process.returncode)


class Proxy:
    """Has the methods of an object in the other process."""

    def __init__(self, process: StoreProcess, kind: type[Any], *arguments: Any) -> None:
        self._process = process
        self._kind = kind
        self._arguments = arguments

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not hasattr(self._kind, name):
            raise AttributeError(name)
        return partial(self._process.call, self._kind, self._arguments, name)


class FilesProxy(Proxy):
    """`BackupFiles` without `writing`."""

    def open(self, name: str) -> BinaryIO:
        """See `BackupFiles.open`. Between two pieces it holds nothing in the other process."""
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
