"""MinIO, an S3 server that enforces the session policies of short-lived credentials, as strict as Amazon's.

MinIO tells whoever may read a file that it does not exist. Amazon's S3 does so only to those who may list the whole
bucket: to all others it answers 403. A proxy in front of MinIO answers like that, too.
"""

from __future__ import annotations

import http.client
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import requests

from scripts.cluster import programs
from tests.ports import free_port
from tests.waiting import wait_for

USER, PASSWORD = "the-root-user", "the-root-password"
BUCKET = "backups-of-all"

PASSED_OVER = frozenset({"connection", "transfer-encoding", "keep-alive"})
"""Headers of one connection only."""


@contextmanager
def running(folder: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """The store with an empty bucket, at an address of this machine; yields its URL. Forgets everything at its end."""
    program, port, log = programs.minio(), free_port(), folder / "minio.log"
    environment = os.environ | {"MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": PASSWORD, "MINIO_BROWSER": "off"}
    (folder / "minio" / BUCKET).mkdir(parents=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [program, "server", "--quiet", "--address", f"127.0.0.1:{port}", str(folder / "minio")],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: _is_ready(port), "MinIO to be ready", log.read_text)
        with _strict(host, port) as strict:
            yield f"http://{host}:{strict}"
    finally:
        process.kill()
        process.wait()


def use_as_owner(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clients of this process have the whole store."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", USER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PASSWORD)


def _is_ready(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/minio/health/live", timeout=60).ok
    except requests.RequestException:
        return False


@contextmanager
def _strict(host: str, port: int) -> Iterator[int]:
    """A proxy of that port, which answers 403 in place of 404 to who has a short-lived credential; yields its port at
    the host."""

    class Strict(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            behind = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                behind.putheader(name, value)
            behind.endheaders(body)
            answer = behind.getresponse()
            content = answer.read()
            hidden = answer.status == 404 and "X-Amz-Security-Token" in self.headers
            self.send_response(403 if hidden else answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in PASSED_OVER:
                    self.send_header(name, value)
            if answer.getheader("Content-Length") is None:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            behind.close()

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            """Not wanted."""

    with ThreadingHTTPServer((host, 0), Strict) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
