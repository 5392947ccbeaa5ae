"""How the web process gets at a stored backup: by itself, or by way of others.

On one machine it opens the file. In a cluster it is the process that faces the internet, so it has neither the
backups' volume nor a bucket's credential: a worker starts a short-lived reader of this one backup for it (see
workers/backup_reader.py), and deletions are the archiver's.
"""

from __future__ import annotations

import http.client
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

from app.sessions import queue
from app.sessions.backup_files import BackupFiles
from app.sessions.backups import BackupIndex, Keep
from app.sessions.errors import BackupNotFound, PermanentError, RetryableError, SessionError
from app.sessions.tickets import Tickets

log = logging.getLogger(__name__)

CHUNK = 262_144
"""bytes read at once: memory a download takes, however large the zip is."""

CONNECT_LIMIT = 10.0
"""s for a reader whose pod runs to listen: it takes 0.5 to load."""

RETRY_PAUSE = 0.05

DELETING = 300.0
"""s in which whoever deletes a backup has done it, or was killed: it takes less than one."""

SILENCE_LIMIT = 60.0
"""s without a byte from a reader until the download is given up."""


class Body(Protocol):
    """A part of a zip, to be sent; closed by whoever got it, sent whole or not."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Stored(Protocol):
    """The stored zips. Raises `BackupNotFound`, and `RetryableError` when the store can't be reached now."""

    def open(self, name: str, start: int, stop: int) -> Body:
        """The bytes of the zip from `start` up to, not including, `stop`."""

    def delete(self, name: str) -> None:
        """Delete the backup and its place in the index. Gone already: success. Raises `BackupInUse` while a session
        needs it."""


class Direct:
    """The store as this process reaches it. Whatever deletes a backup does it here."""

    def __init__(self, files: BackupFiles, index: BackupIndex, clock: Callable[[], float] = time.time) -> None:
        self._files = files
        self._index = index
        self._clock = clock

    def open(self, name: str, start: int, stop: int) -> Body:
        """See `Stored.open`."""
        stream = self._files.open(name)
        stream.seek(start)
        return Part(stream, stop - start)

    def delete(self, name: str) -> None:
        """See `Stored.delete`."""
        self._delete(name, "")

    def delete_old(self, name: str, *, there: bool) -> None:
        """Delete a backup for its age, but for the newest of a session that lives, or whose workspace is `there`."""
        self._delete(name, "any" if there else "living")

    def finish(self) -> None:
        """Delete the files of backups that are in the index no more because somebody began to delete them, and was
        killed."""
        for name, since in self._index.retired().items():
            if abs(self._clock() - since) <= DELETING:
                continue
            try:
                self._files.delete(name)
            except PermanentError as error:
                log.warning("the files of %s are still there: %s", name, error)
            else:
                self._index.forget(name)

    def _delete(self, name: str, keep: Keep) -> None:
        if self._index.retire(name, self._clock(), keep=keep):
            self._files.delete(name)
            self._index.forget(name)


class Remote:
    """The store by way of workers; they have `patience` (s) to answer."""

    def __init__(self, tickets: Tickets, patience: float) -> None:
        self._tickets = tickets
        self._patience = patience

    def open(self, name: str, start: int, stop: int) -> Body:
        """See `Stored.open`."""
        reader = self._tickets.ask(queue.READ_BACKUP, name, self._patience)
        connection = connected(str(reader["host"]), int(reader["port"]))
        try:
            headers = {"Authorization": f"Bearer {reader['secret']}", "Range": f"bytes={start}-{stop - 1}"}
            connection.request("GET", "/", headers=headers)
            answer = connection.getresponse()
            if answer.status == http.client.NOT_FOUND:
                raise BackupNotFound(name)
            if answer.status != http.client.PARTIAL_CONTENT or answer.length != stop - start:
                raise RetryableError(f"The reader of {name} answered {answer.status}.")
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise RetryableError(f"The reader of {name} broke off.") from error
        except SessionError:
            connection.close()
            raise
        return Part(answer, stop - start, connection)

    def delete(self, name: str) -> None:
        """See `Stored.delete`."""
        self._tickets.ask(queue.DELETE_BACKUP, name, self._patience)


class Part:
    """So many bytes of what can be read, in chunks; raises `RetryableError` when there are fewer, so that the answer
    breaks off too. Closes what it is given."""

    def __init__(self, source: BinaryIO | http.client.HTTPResponse, length: int, *more: Any) -> None:
        self._source = source
        self._left = length
        self._owned = (source, *more)

    def __iter__(self) -> Iterator[bytes]:
        while self._left:
            try:
                chunk = self._source.read(min(CHUNK, self._left))
            except (OSError, http.client.HTTPException) as error:
                raise RetryableError("The backup could not be read to its end.") from error
            if not chunk:
                raise RetryableError("The backup ended before its end.")
            self._left -= len(chunk)
            yield chunk

    def close(self) -> None:
        for each in self._owned:
            each.close()


def connected(host: str, port: int) -> http.client.HTTPConnection:
    """A connection to a reader that may only be starting. Raises `RetryableError`."""
    deadline = time.monotonic() + CONNECT_LIMIT
    while True:
        connection = http.client.HTTPConnection(host, port, timeout=CONNECT_LIMIT)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                raise RetryableError("The backup's reader did not start in time; try again.") from error
            time.sleep(RETRY_PAUSE)
            continue
        connection.sock.settimeout(SILENCE_LIMIT)
        return connection
