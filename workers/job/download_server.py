"""Serves one backup to one caller over HTTP, and exits: the program of a download Job's pod.

The caller authenticates with a secret. This process knows only its digest, so that neither the pod's command line nor
its environment reveals the secret. A caller without it is refused, and does not use up the one download.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import BinaryIO

from app.core.backups.store import BackupStore
from app.core.errors import BackupNotFound, RetryableError

log = logging.getLogger(__name__)

CHUNK = 262_144

HEADERS_LIMIT = 5.0
"""s for a caller to send its request; the next caller waits."""

SILENCE_LIMIT = 60.0
"""s without progress after which a caller counts as gone."""

RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})")


def digest(secret: str) -> str:
    """The digest of the secret, which the server is started with."""
    return hashlib.sha256(secret.encode()).hexdigest()


class DownloadServer(HTTPServer):
    """Serves the zip in `stream`, of `size` bytes, once, to the caller with the secret; 404 if `stream` is None."""

    allow_reuse_address = False

    def __init__(self, address: tuple[str, int], stream: BinaryIO | None, size: int, secret_digest: str) -> None:
        super().__init__(address, Turn)
        self.stream = stream
        self.size = size
        self.secret_digest = secret_digest
        self.taken = False

    def serve_once(self, patience: float) -> None:
        """Return when the download is over. Raises `RetryableError` when no caller came within `patience` (s)."""
        deadline = time.monotonic() + patience
        while not self.taken and (left := deadline - time.monotonic()) > 0:
            self.timeout = left
            self.handle_request()
        if not self.taken:
            raise RetryableError("No caller came to download the backup.")


class Turn(BaseHTTPRequestHandler):
    """One request: `GET` with the secret as a bearer token and a range of bytes."""

    server: DownloadServer
    timeout = HEADERS_LIMIT
    server_version = "backup-reader"
    sys_version = ""

    def do_GET(self) -> None:
        scheme, _, secret = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not hmac.compare_digest(digest(secret), self.server.secret_digest):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        if self.server.stream is None:
            self.server.taken = True
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        wanted = RANGE.fullmatch(self.headers.get("Range", ""))
        start, last = (int(wanted[1]), int(wanted[2])) if wanted else (0, self.server.size - 1)
        if not start <= last < self.server.size:
            self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return
        self.server.taken = True
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", "application/zip")
        self.send_header("Content-Length", str(last + 1 - start))
        self.send_header("Content-Range", f"bytes {start}-{last}/{self.server.size}")
        self.end_headers()
        self.connection.settimeout(SILENCE_LIMIT)
        try:
            self._send(self.server.stream, start, last + 1 - start)
        except OSError as error:
            # The caller left or the store failed. The caller notices by the length of the response.
            log.warning("the download was interrupted (%s)", type(error).__name__)

    def _send(self, stream: BinaryIO, start: int, left: int) -> None:
        stream.seek(start)
        while left and (chunk := stream.read(min(CHUNK, left))):
            self.wfile.write(chunk)
            left -= len(chunk)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing about a request: its headers hold the secret."""


def serve(files: BackupStore, name: str, secret_digest: str, port: int, patience: float) -> None:
    """Serve the backup `name` once on all addresses. If it does not exist the caller, who has the address by then, gets
    404."""
    try:
        stream, size = files.open(name), files.size(name)
    except BackupNotFound:
        with DownloadServer(("", port), None, 0, secret_digest) as reader:
            reader.serve_once(patience)
        raise
    with stream, DownloadServer(("", port), stream, size, secret_digest) as reader:
        reader.serve_once(patience)
