"""Downloads: files that appear under their names when they are whole; those of files whose checksum is their ETag are
resumed where they broke off, and checked."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

import httpx

from workspaces.errors import ConnectionFailed, DownloadDamaged, InvalidAnswer, WorkspacesError
from workspaces.http import Http
from workspaces.retries import connection_error

SHA256: Final = 64
"""Hex digits."""


@contextmanager
def appearing(target: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """A file to write, which lies beside `target` and gets its name at the end; after an error it is removed. `mode`
    are its permission bits, by default those of a new file."""
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            if mode is not None:
                part.chmod(mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        with suppress(FileNotFoundError):
            part.unlink()
        raise


class Download:
    """One file of the API."""

    def __init__(self, http: Http, path: str, media: str) -> None:
        self._http = http
        self._path = path
        self._media = media
        self._digest = hashlib.sha256()
        self._etag = ""

    def save(self, target: Path) -> Path:
        """Write the file. It appears under its name only when it is whole; raises `DownloadDamaged`."""
        with appearing(target) as file:
            self._fill(file)
            if self._digest.hexdigest() != self._etag:
                raise DownloadDamaged(f"What was downloaded of {target.name} differs from its checksum; try again.")
        return target

    def _fill(self, file: BinaryIO) -> None:
        """Read until the end, from where the file ends. Progress starts the count of failures anew."""
        failed = 0
        while True:
            begin = file.tell()
            failure = self._read(file, begin)
            if failure is None:
                return
            failed = 1 if file.tell() > begin else failed + 1
            if failed > self._http.retries.tries:
                raise failure
            self._http.sleep(self._http.retries.backoff(failed))

    def _read(self, file: BinaryIO, begin: int) -> ConnectionFailed | None:
        """Read on, until the end or until the connection breaks; that it can't be opened is raised."""
        headers = {"Accept-Encoding": "identity"}
        if begin:
            headers |= {"Range": f"bytes={begin}-", "If-Range": f'"{self._etag}"'}
        with self._http.stream("GET", self._path, accept=self._media, headers=headers) as response:
            self._check(response, begin)
            try:
                for block in response.iter_raw():
                    file.write(block)
                    self._digest.update(block)
            except httpx.TransportError as error:
                failure = connection_error(error, self._http.url)
                failure.__cause__ = error
                return failure
        return None

    def _check(self, response: httpx.Response, begin: int) -> None:
        etag = response.headers.get("ETag", "").strip('"')
        if begin and (response.status_code != 206 or etag != self._etag):
            raise WorkspacesError("The file changed while it was downloaded; try again.")
        if len(etag) != SHA256:
            raise InvalidAnswer("The download has no checksum.")
        self._etag = etag
