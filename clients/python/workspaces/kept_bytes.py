"""Bytes of the service: those that it keeps, as they are now, are read on where the connection broke."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from workspaces.errors import ConnectionFailed, FileChanged, InvalidAnswer
from workspaces.http import Http
from workspaces.retries import connection_error

OCTETS = "application/octet-stream"


def read_bytes(http: Http, path: str, query: Mapping[str, Any]) -> Iterator[bytes]:
    """The bytes at `path` as they come, to the end that they had at first. Where the answer has an ETag they are of one
    version: raises `FileChanged` if that is gone when the connection broke. Progress starts the count of failures anew;
    raises `ConnectionFailed` after too many without any."""
    done, failed = 0, 0
    end: int | None = None
    etag: str | None = None
    while end is None or done < end:
        headers = {"Accept-Encoding": "identity"}
        if end is not None:
            headers |= {"Range": f"bytes={done}-{end - 1}"} | ({"If-Match": etag} if etag else {})
        with http.stream("GET", path, query=query, accept=OCTETS, headers=headers) as response:
            _check(response, 200 if end is None else 206)
            if end is not None and response.headers.get("ETag") != etag:
                raise FileChanged("It changed while it was read; read it again.")
            etag = response.headers.get("ETag")
            end = done + int(response.headers["Content-Length"])
            begin = done
            try:
                for block in response.iter_raw():
                    done += len(block)
                    yield block
                failure = ConnectionFailed("The service ended its answer early.")
            except httpx.TransportError as error:
                failure = connection_error(error, http.url)
                failure.__cause__ = error
        if done < end:
            failed = 1 if done > begin else failed + 1
            if failed > http.retries.tries:
                raise failure
            http.sleep(http.retries.backoff(failed))


def read_once(http: Http, path: str, query: Mapping[str, Any], media: str) -> Iterator[bytes]:
    """The bytes at `path` as they come, of an answer that is made on the way and can't be resumed. Raises
    `ConnectionFailed` when it breaks."""
    headers = {"Accept-Encoding": "identity"}
    with http.stream("GET", path, query=query, accept=media, headers=headers) as response:
        if response.headers.get("Content-Type", "").partition(";")[0] != media:
            raise InvalidAnswer("The answer is not the archive that was asked for.")
        try:
            yield from response.iter_raw()
        except httpx.TransportError as error:
            raise connection_error(error, http.url) from error


def _check(response: httpx.Response, status: int) -> None:
    if response.status_code != status or not response.headers.get("Content-Length", "").isdecimal():
        raise InvalidAnswer("The answer is not the bytes that were asked for.")
