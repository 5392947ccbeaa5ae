"""The ways in which a person may see a page, and pictures of it for the documentation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.axe import violations
from tests.conftest import ROOT

PICTURES = ROOT / "docs" / "images"

WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
"""A laptop's window, and that of a small phone."""

LOOKS: Mapping[str, Mapping[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": WIDE},
    "dark": {"color_scheme": "dark", "viewport": WIDE},
    "narrow": {"color_scheme": "light", "viewport": NARROW},
}
"""By name: the options of a Playwright context."""


@contextmanager
def looking(browser: Browser, look: str, **options: Any) -> Iterator[BrowserContext]:
    """A browser of its own that sees pages this way, without animations."""
    context = browser.new_context(**LOOKS[look], reduced_motion="reduce", **options)
    try:
        yield context
    finally:
        context.close()


@pytest.fixture
def look() -> str:
    """A test that sees pages in other ways has it among its parameters."""
    return "light"


@pytest.fixture
def context(browser: Browser, look: str) -> Iterator[BrowserContext]:
    """A browser of its own, that sees pages this way."""
    with looking(browser, look) as made:
        yield made


def picture(page: Page, name: str) -> Path | None:
    """Take a picture of the page for the documentation, `docs/images/{name}.png`, if SCREENSHOTS=1 asks for it."""
    if os.environ.get("SCREENSHOTS") != "1":
        return None
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{name}.png"
    page.screenshot(path=path)
    return path


def expect_readable(page: Page, where: str = "") -> None:
    """People can read and use the page: by axe's rules, and without scrolling sideways."""
    found = violations(page)
    assert not found, (where, found)
    assert not scrolls_sideways(page), where


def scrolls_sideways(page: Page) -> bool:
    """Whether something is wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))
