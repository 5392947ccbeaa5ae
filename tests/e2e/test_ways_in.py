"""Ways into a workspace that a product has besides a link, on one machine (the suite is tests/suites/ways_in.py)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from app.core.access.access_policy import MOST_SENT
from app.core.access.landing_path import ENTERED
from tests.browser import CHROMIUM_FLAGS, navigated, open_editor
from tests.product import Product, product
from tests.service import Service
from tests.suites.ways_in import (
    CROSS_SITE,
    DOMAIN,
    KEPT,
    SAME_SITE,
    Ways,
    WaysIn,
    browser,
    context,
    expect_powerless,
    expect_working,
    settings_with,
    signs_in,
)

__all__ = ["browser", "context", "signs_in"]


@pytest.fixture(scope="module")
def app() -> Iterator[Product]:
    with product() as served:
        yield served


@pytest.fixture(scope="module")
def service_settings(app: Product) -> Mapping[str, str]:
    return settings_with(app)


@pytest.fixture(scope="module")
def ways(service: Service, app: Product) -> Ways:
    made = service.create("ada")
    folder = service.files(made["uuid"])
    (folder / KEPT).write_text("kept")

    def new(user_id: str) -> Any:
        return service.done("POST", "/session/create", {"user_id": user_id})

    return Ways(service.done, new, app, made, str(folder))


class TestWaysInLocally(WaysIn):
    """The whole service, as scripts/run starts it."""


def test_the_product_decides_about_a_workspace_that_is_not_there(
    service: Service, context: BrowserContext, signs_in: Product
) -> None:
    signs_in.opener = lambda *_: signs_in.origin("127.0.0.1") + "/not-yours"
    page = context.new_page()
    assert navigated(page, f"http://vs-code-zzzzzzzz.{DOMAIN}:{service.workspace_port}/x") == 404
    assert page.url == f"{signs_in.origin('127.0.0.1')}/not-yours"
    assert signs_in.asked == [("zzzzzzzz", "/x")]


def test_a_browser_that_keeps_no_cookie_gets_a_page_and_is_not_sent_round(
    ways: Ways, browser: Browser, signs_in: Product, tmp_path: Path
) -> None:
    """In one that is told to block all cookies, as its users tell it in its settings."""
    (tmp_path / "Default").mkdir()
    settings = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    (tmp_path / "Default" / "Preferences").write_text(json.dumps(settings))
    program = shutil.which("chromium")
    context = browser.browser_type.launch_persistent_context(tmp_path, executable_path=program, args=CHROMIUM_FLAGS)
    page = context.new_page()
    assert navigated(page, f"{ways.address}/x") == 401
    assert context.cookies() == []
    expect(page.get_by_role("heading", name="did not keep")).to_be_visible()
    assert page.url == f"{ways.address}/x?{ENTERED}"
    assert len(signs_in.asked) == 1
    page.get_by_role("link", name="Try again").click()
    page.wait_for_url(f"**/x?{ENTERED}")
    assert signs_in.asked == [(ways.uuid, "/x")] * 2
    context.close()


def test_a_product_that_leads_back_to_the_bare_address_ends_in_a_page(
    ways: Ways, context: BrowserContext, signs_in: Product
) -> None:
    signs_in.opener = lambda _, path: ways.address + path
    page = context.new_page()
    assert navigated(page, ways.address) == 401
    expect(page.get_by_role("heading", name="Signing in led back here")).to_be_visible()
    assert len(signs_in.asked) == MOST_SENT


def test_the_cookie_of_a_frame_opens_nothing_elsewhere(ways: Ways, context: BrowserContext, signs_in: Product) -> None:
    """Not in the frame of another named page's site, nor in a tab."""
    page = context.new_page()
    expect_working(ways.shown_in(page, CROSS_SITE, ways.link()))
    frame = ways.shown_in(page, SAME_SITE, ways.address)
    expect(frame.get_by_role("heading", name="not open to you")).to_be_visible()
    elsewhere = signs_in.origin("127.0.0.1") + "/asked"
    signs_in.opener = lambda *_: elsewhere
    page.goto(ways.address)
    assert page.url == elsewhere


def test_a_link_that_was_used_is_told_as_one_within_the_frame(ways: Ways, context: BrowserContext) -> None:
    link = ways.link()
    open_editor(context, link).close()
    context.clear_cookies()
    frame = ways.shown_in(context.new_page(), CROSS_SITE, link)
    expect(frame.get_by_text("ask for a new one")).to_be_visible()


def test_a_named_page_does_not_act_in_the_workspaces_place(ways: Ways, context: BrowserContext) -> None:
    """It may show it, and no more."""
    page = context.new_page()
    expect_working(ways.shown_in(page, SAME_SITE, ways.link()))
    expect_powerless(page, ways)
