"""Prometheus' own judge of rules and queries, from Debian's package `prometheus`."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

LIMIT = 120
"""s for one run; the longest takes about 5."""


@cache
def promtool() -> str:
    """The program; skips the test where it is not installed."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not here; it is in the Debian package prometheus")
    return found


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it, whatever its exit code is."""
    return subprocess.run(
        [promtool(), *map(str, arguments)], capture_output=True, text=True, timeout=LIMIT, check=False
    )
