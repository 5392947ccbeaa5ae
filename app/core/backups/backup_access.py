"""How the web process reads and deletes stored backups.

On one machine it uses the store itself. In a cluster the web process faces the internet, so it has neither the backups'
volume nor a bucket's credential: a worker starts a short-lived download server for one backup
(workers/job/download_server.py), and the backup worker deletes.
"""

from __future__ import annotations

import http.client
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

from app.core.backups.index import BackupIndex, Keep
from app.core.backups.store import BackupStore
from app.core.errors import BackupNotFound, PermanentError, RetryableError, SessionError
from app.core.redis import task_queue
from app.core.redis.rpc import Rpc

log = logging.getLogger(__name__)

CHUNK = 262_144
"""Bytes read at once: the memory of a download, however large the zip is."""

CONNECT_LIMIT = 10.0
"""s until the download server of a running pod must listen: it takes 0.5 to load."""

RETRY_PAUSE = 0.05

DELETING = 300.0
"""s after which a deletion must be done, or its process was killed: it takes less than one."""

SILENCE_LIMIT = 60.0
"""s without a byte until a download is given up."""


class Body(Protocol):
    """A part of a zip to send; the receiver closes it in any case."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class BackupAccess(Protocol):
    """The stored zips. Raises `BackupNotFound`, and `RetryableError` when the store is unreachable."""

    def open(self, name: str, start: int, stop: int) -> Body:
        """The bytes of the zip from `start` up to, not including, `stop`."""

    def delete(self, name: str) -> None:
        """Delete the backup and its index entry, if they exist. Raises `BackupInUse` while a session needs it."""


class Direct:
    """The store, used by this process. Every deletion of a backup ends up here."""

    def __init__(self, files: BackupStore, index: BackupIndex, clock: Callable[[], float] = time.time) -> None:
        self._files = files
        self._index = index
        self._clock = clock

    def open(self, name: str, start: int, stop: int) -> Body:
        """See `BackupAccess.open`."""
        stream = self._files.open(name)
        stream.seek(start)
        return Part(stream, stop - start)

    def delete(self, name: str) -> None:
        """See `BackupAccess.delete`."""
        self._delete(name, "")

    def delete_old(self, name: str, *, there: bool) -> None:
        """Delete a backup for its age, unless it is the newest of a living session, or of one whose workspace is
        `there`."""
        self._delete(name, "any" if there else "living")

    def finish(self) -> None:
        """Finish the deletions of processes that were killed: delete the files of backups that have left the index."""
        for name, since in self._index.retired().items():
            if abs(self._clock() - since) <= DELETING:
                continue
            try:
                self._files.delete(name)
            except PermanentError as error:
                log.warning("the files of the deleted backup %s could not be deleted: %s", name, error)
            else:
                self._index.files_deleted(name)

    def _delete(self, name: str, keep: Keep) -> None:
        if self._index.retire(name, self._clock(), keep=keep):
            self._files.delete(name)
            self._index.files_deleted(name)


class Remote:
    """The store, by RPC to workers, which have `patience` (s) to answer."""

    def __init__(self, rpc: Rpc, patience: float) -> None:
        self._rpc = rpc
        self._patience = patience

    def open(self, name: str, start: int, stop: int) -> Body:
        """See `BackupAccess.open`."""
        server = self._rpc.ask(task_queue.READ_BACKUP, name, self._patience)
        connection = connected(str(server["host"]), int(server["port"]))
        try:
            headers = {"Authorization": f"Bearer {server['secret']}", "Range": f"bytes={start}-{stop - 1}"}
            connection.request("GET", "/", headers=headers)
            answer = connection.getresponse()
            if answer.status == http.client.NOT_FOUND:
                raise BackupNotFound(name)
            if answer.status != http.client.PARTIAL_CONTENT or answer.length != stop - start:
                raise RetryableError(f"The download server of {name} returned status {answer.status}; retry.")
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise RetryableError(f"The download server of {name} failed; retry.") from error
        except SessionError:
            connection.close()
            raise
        return Part(answer, stop - start, connection)

    def delete(self, name: str) -> None:
        """See `BackupAccess.delete`."""
        self._rpc.ask(task_queue.DELETE_BACKUP, name, self._patience)


class Part:
    """So many bytes of a source, in chunks. Raises `RetryableError` when there are fewer, which breaks the response
    off. Closes its sources."""

    def __init__(self, source: BinaryIO | http.client.HTTPResponse, length: int, *more: Any) -> None:
        self._source = source
        self._left = length
        self._owned = (source, *more)

    def __iter__(self) -> Iterator[bytes]:
        while self._left:
            try:
                chunk = self._source.read(min(CHUNK, self._left))
            except (OSError, http.client.HTTPException) as error:
                raise RetryableError("The backup could not be read to its end; retry.") from error
            if not chunk:
                raise RetryableError("The backup is shorter than expected; retry.")
            self._left -= len(chunk)
            yield chunk

    def close(self) -> None:
        for each in self._owned:
            each.close()


def connected(host: str, port: int) -> http.client.HTTPConnection:
    """A connection to a download server, which may be starting. Raises `RetryableError`."""
    deadline = time.monotonic() + CONNECT_LIMIT
    while True:
        connection = http.client.HTTPConnection(host, port, timeout=CONNECT_LIMIT)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                raise RetryableError("The download server did not start in time; retry.") from error
            time.sleep(RETRY_PAUSE)
            continue
        connection.sock.settimeout(SILENCE_LIMIT)
        return connection
