"""Object stores for tests: servers that speak the protocols of S3 and of Google Cloud Storage."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.waiting import wait_for

BUCKET = "fresh-backups"

SERVERS = {
    "s3": ["moto.server", "-H", "127.0.0.1", "-p"],
    "gs": ["gcp_storage_emulator", "start", "--in-memory", "--host", "127.0.0.1", "--port"],
}
ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST"}


@contextmanager
def server(kind: str, port: int, log: Path) -> Iterator[None]:
    """A store that listens on a port of loopback, and forgets everything at its end."""
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *SERVERS[kind], str(port)], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: _answers(port), f"{kind} to answer", log.read_text)
        yield
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        requests.get(f"http://127.0.0.1:{port}/", timeout=60)
    except requests.RequestException:
        return False
    return True


def point_at(kind: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clients of this process, and of those it starts, look for the store on a port of loopback."""
    monkeypatch.setenv(ENDPOINTS[kind], f"http://127.0.0.1:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-the-tests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
