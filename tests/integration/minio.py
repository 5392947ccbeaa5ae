"""MinIO, an S3 server that enforces the session policies of short-lived credentials, as strict as Amazon's.

MinIO tells whoever may read a file that it does not exist. Amazon's S3 does so only to those who may list the whole
bucket: to all others it answers 403. A proxy in front of MinIO answers like that, too.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from scripts.cluster import programs
from tests.integration.forwarding import Forwarder, proxy
from tests.ports import free_port
from tests.waiting import wait_for

USER, PASSWORD = "the-root-user", "the-root-password"
BUCKET = "backups-of-all"
ROLE = "arn:aws:iam::123456789012:role/archive"
"""What Jobs' credentials are made from; MinIO takes any."""


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


def settings(url: str) -> dict[str, str]:
    """Those of a service whose backups lie in the store at this URL, which it owns."""
    return {
        "BACKUP_URL": f"s3://{BUCKET}/kept",
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": USER,
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
    }


@contextmanager
def hanging() -> Iterator[None]:
    """The store that this process runs takes connections, and answers nothing on them."""
    [process] = [each for each in psutil.Process().children() if each.name() == "minio"]
    process.suspend()
    try:
        yield
    finally:
        process.resume()


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

    class Strict(Forwarder):
        behind = port

        def status(self, answered: int) -> int:
            return 403 if answered == 404 and "X-Amz-Security-Token" in self.headers else answered

    with proxy(Strict, host) as served:
        yield served
