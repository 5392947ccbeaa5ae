"""The product of docs/example, as a process beside the service."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.conftest import ROOT
from tests.waiting import wait_for

HOST = "product.localhost"
"""Another site than any workspace."""


def settings_with(port: int) -> dict[str, str]:
    """What the service is told of the product at this port."""
    return {"LOGIN_URL": f"{address(port)}/sign-up", "EMBED_ORIGINS": address(port)}


def address(port: int) -> str:
    return f"http://{HOST}:{port}"


@contextmanager
def running(port: int, api_url: str, key: str, log: Path) -> Iterator[str]:
    """The product's address, until the block is done; what it was refused is printed then."""
    command = [
        sys.executable,
        "-m",
        "flask",
        "--app",
        str(ROOT / "docs/example/product.py"),
        "run",
        "--port",
        str(port),
    ]
    path = os.pathsep.join([str(ROOT / "clients" / "python"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"API_URL": api_url, "API_KEY": key, "PYTHONPATH": path}
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: _answers(port), "the product to answer", log.read_text)
        yield address(port)
    finally:
        process.terminate()
        process.wait(30)
        print("\n".join(line for line in log.read_text().splitlines() if " WARNING in " in line or "Error" in line))


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/sign-up", timeout=10).ok
    except requests.ConnectionError:
        return False
