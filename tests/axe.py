"""Whether people can read and use a page: axe-core's rules (https://github.com/dequelabs/axe-core), run in the page by
Chromium."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import Frame, Page

from tests import npm

PACKAGE = "axe-core@4.14.1"

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
    return npm.installed(PACKAGE) / "axe-core"


@cache
def _source() -> str:
    # With the function that Playwright takes an expression for, it would call it.
    return (installed() / "axe.min.js").read_text(encoding="utf-8") + "\n;void 0"
