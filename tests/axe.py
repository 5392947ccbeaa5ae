"""Whether people can read and use a page: axe-core's rules (https://github.com/dequelabs/axe-core), run in the page by
Chromium. It comes from npm, into the cache folder, and is no part of this project."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import Frame, Page

from scripts.cluster.programs import cache_folder
from scripts.lib.locks import only_one

PACKAGE = "axe-core@4.14.1"

LIMIT = 300
"""s. To install it takes 3 s, once."""

RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
"""axe's tags: WCAG 2.2 up to level AA, and what axe itself advises."""

RUN = (
    """([within, rules]) => axe.run(within, { runOnly: { type: "tag", values: rules }, resultTypes: ["violations"] })"""
)


def violations(page: Page | Frame, within: str = "html") -> list[str]:
    """What a page, or the part of it that a CSS selector names, violates as it is shown now: for each rule and element,
    a line that says which, where and why. Asks for nothing over the network, and works under a strict
    Content-Security-Policy."""
    page.evaluate(_source())
    found: dict[str, Any] = page.evaluate(RUN, [within, list(RULES)])
    return [
        f"{each['id']} at {' '.join(map(str, node['target']))}: {each['help']}. {node['failureSummary']}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


def installed() -> Path:
    """The folder of axe-core, which is there then."""
    root = cache_folder()
    root.mkdir(parents=True, exist_ok=True)
    folder = root / PACKAGE.replace("@", "-")
    with only_one(root / "axe.lock", LIMIT, TimeoutError):
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            npm = str(Path(sys.executable).parent / "npm")
            command = [npm, "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
            environment = os.environ | {"npm_config_update_notifier": "false"}
            subprocess.run(command, cwd=folder, env=environment, timeout=LIMIT, check=True, capture_output=True)
            (folder / "done").touch()
    return folder / "node_modules" / "axe-core"


@cache
def _source() -> str:
    # With the function that Playwright takes an expression for, it would call it.
    return (installed() / "axe.min.js").read_text(encoding="utf-8") + "\n;void 0"
