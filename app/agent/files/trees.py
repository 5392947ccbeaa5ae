"""Folders that callers take out as an archive, or put in: in steps, so that no request takes long."""

from __future__ import annotations

import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Generator
from typing import NamedTuple

from app.agent.files.faults import FileError, resolved, staging
from app.agent.files.leases import Leases
from app.agent.files.packing import packed
from app.agent.files.reading import existing
from app.agent.files.unpacking import Unpacking
from app.agent.files.uploads import Unknown
from app.agent.files.writing import Files
from app.agent.protocol import FILE_PIECE, ArchiveFormat, FileFault
from app.agent.tools.sandbox_path import Workspace

STEP = 2.0
"""Seconds of work after which a request is answered, whatever is still to do."""


class Unpacked(NamedTuple):
    """How far an archive is unpacked: so many files and links, and bytes; it has its place once it is `done`."""

    done: bool
    files: int
    bytes: int


class Trees:
    """Archives on their way. Thread-safe. Raises FileError, and `Unknown` for one that was dropped."""

    def __init__(self, workspace: Workspace, files: Files, clock: Callable[[], float] = time.monotonic) -> None:
        self._workspace = workspace
        self._files = files
        self._lock = threading.Lock()
        self._outgoing: dict[str, _Outgoing] = {}
        self._incoming: dict[str, _Incoming] = {}
        self._leases = Leases(self.drop, clock)

    def begin(self, path: str, how: ArchiveFormat) -> str:
        """Begin to pack a folder; the archive's id."""
        id_ = secrets.token_hex(8)
        with resolved(self._workspace, path) as place:
            if not stat.S_ISDIR(existing(place, path).st_mode):
                raise FileError(FileFault.NOT_A_FILE, f"{path} is no folder")
            outgoing = _Outgoing(place.open(os.O_RDONLY | os.O_DIRECTORY), how)
        with self._lock:
            self._outgoing[id_] = outgoing
        self._leases.begin(id_)
        return id_

    def read(self, id_: str, offset: int) -> bytes:
        """The archive's bytes from `offset` on, as far as they were made in time, and `FILE_PIECE` at most; none at the
        end. The last ones are answered again."""
        with self._lock:
            outgoing = self._outgoing.get(id_)
        if outgoing is None or not self._leases.use(id_):
            raise Unknown
        try:
            return outgoing.read(offset)
        except BaseException:
            # What would follow could be taken for the end.
            self.drop(id_)
            raise

    def check(self, path: str) -> None:
        """Whether an archive may be unpacked there, as far as can be said before."""
        try:
            with resolved(self._workspace, path) as place:
                status = place.status()
        except FileError as e:
            if e.fault is not FileFault.FILE_NOT_FOUND:
                raise
            return
        if status is not None and not stat.S_ISDIR(status.st_mode):
            raise FileError(FileFault.NOT_A_FILE, f"{path} is no folder")

    def unpack(self, id_: str, path: str, how: ArchiveFormat, size: int) -> Unpacked:
        """Go on to unpack an upload of so many bytes into a folder: all of it, or nothing."""
        with self._lock:
            incoming = self._incoming.get(id_)
            if incoming is None:
                incoming = self._incoming[id_] = _Incoming(self._steps(id_, path, how, size))
                self._leases.begin(id_)
        self._leases.use(id_)
        try:
            return incoming.step()
        except BaseException:
            self.drop(id_)
            raise

    def drop(self, id_: str) -> None:
        """Forget an archive; what was unpacked, and is not in its place, is deleted."""
        self._leases.end(id_)
        with self._lock:
            work = self._outgoing.pop(id_, None) or self._incoming.pop(id_, None)
        if work is not None:
            work.close()
        self._files.uploads.drop(id_)

    def _steps(self, id_: str, path: str, how: ArchiveFormat, size: int) -> Generator[Unpacked, None, None]:
        uploads = self._files.uploads
        with uploads.finished(id_, size) as (_, upload), uploads.staged() as folder:
            unpacking = Unpacking(folder)
            with open(upload, "rb", buffering=0, closefd=False) as file, staging():
                for _ in unpacking.steps(file, how):
                    yield Unpacked(False, unpacking.files, unpacking.bytes)
            self._files.fill(path, unpacking.place)
            yield Unpacked(True, unpacking.files, unpacking.bytes)


class _Outgoing:
    """The archive of an open folder, which it closes."""

    def __init__(self, folder: int, how: ArchiveFormat) -> None:
        self._folder = folder
        self._pieces = packed(folder, how)
        self._lock = threading.Lock()
        self._made = bytearray()
        self._last = b""
        self._end = 0

    def read(self, offset: int) -> bytes:
        with self._lock:
            if self._folder < 0:
                raise Unknown
            if offset == self._end - len(self._last) and self._last:
                return self._last
            if offset != self._end:
                raise Unknown
            self._make()
            self._last = bytes(self._made[:FILE_PIECE])
            del self._made[:FILE_PIECE]
            self._end += len(self._last)
            return self._last

    def _make(self) -> None:
        """Make the next piece, or as much as there is time for."""
        ends = time.monotonic() + STEP
        while len(self._made) < FILE_PIECE and not (self._made and time.monotonic() > ends):
            piece = next(self._pieces, None)
            if piece is None:
                return
            self._made += piece

    def close(self) -> None:
        with self._lock:
            self._pieces.close()
            os.close(self._folder)
            self._folder = -1


class _Incoming:
    """Steps of unpacking, which end what they began when they are closed."""

    def __init__(self, steps: Generator[Unpacked, None, None]) -> None:
        self._steps = steps
        self._lock = threading.Lock()
        self._so_far = Unpacked(False, 0, 0)

    def step(self) -> Unpacked:
        """Take steps, until all is done or for `STEP` seconds."""
        ends = time.monotonic() + STEP
        with self._lock:
            while not self._so_far.done:
                so_far = next(self._steps, None)
                if so_far is None:
                    raise Unknown
                self._so_far = so_far
                if time.monotonic() > ends:
                    break
            return self._so_far

    def close(self) -> None:
        with self._lock:
            self._steps.close()
