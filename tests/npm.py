"""Packages of npm that tests use, in the cache folder. They are no part of this project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from scripts.cluster.programs import cache_folder
from scripts.lib.locks import only_one

LIMIT = 300
"""s. To install one takes 3 to 7 s, once."""


def installed(package: str, of: str = "") -> Path:
    """The folder `node_modules` with a package, as `name@1.2.3`; what it needs, if anything, in the versions of the day
    `of`."""
    root = cache_folder()
    root.mkdir(parents=True, exist_ok=True)
    folder = root / package.replace("@", "-")
    with only_one(root / f"{folder.name}.lock", LIMIT, TimeoutError):
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            npm = str(Path(sys.executable).parent / "npm")
            quiet = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund"]
            environment = os.environ | {"npm_config_update_notifier": "false"}
            command = [npm, "install", *(["--before", of] if of else []), *quiet, package]
            subprocess.run(command, cwd=folder, env=environment, timeout=LIMIT, check=True, capture_output=True)
            (folder / "done").touch()
    return folder / "node_modules"
