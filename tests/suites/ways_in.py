"""Ways into a workspace that a product has besides a link, in Chromium: its own sign-in, and a frame in its page.

One suite for wherever the service runs. A module of tests derives a class from `WaysIn`, imports the fixtures, and has
one of its own, `ways`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, expect

from app.core.access.tokens import COOKIE, FRAME_COOKIE
from tests.browser import (
    AS_PEOPLE_HAVE_IT,
    EDITOR,
    expect_editor,
    expect_file,
    expect_hint,
    in_terminal,
    launched,
    open_editor,
    opens_socket,
)
from tests.product import Product

DOMAIN = "ws.localhost"
"""So that there are names of the same site (`app.ws.localhost`) and of others: below `localhost` each name is one."""

SAME_SITE, CROSS_SITE, STRANGER, SIBLING = (
    "app.ws.localhost",
    "product.localhost",
    "evil.localhost",
    "evil.ws.localhost",
)

KEPT = "kept.txt"
"""A file in the workspace."""

READ = "url => fetch(url, {credentials: 'include'}).then(() => 'read', () => 'refused')"


def settings_with(app: Product) -> dict[str, str]:
    """What the service is told of the product."""
    named = [app.origin(host) for host in (SAME_SITE, CROSS_SITE)]
    return {"WORKSPACE_DOMAIN": DOMAIN, "LOGIN_URL": app.login_url, "EMBED_ORIGINS": ", ".join(named)}


@dataclass(frozen=True)
class Ways:
    """Those into a workspace whose service was told of the product `app`. `ask` makes a call of the API that goes well
    (method, path, body) and answers its JSON; `new` makes a session of that user and waits for nothing; `folder` is the
    one that the editor opens, with the file `KEPT`."""

    ask: Callable[..., Any]
    new: Callable[[str], Any]
    app: Product
    session: Any
    folder: str

    @property
    def uuid(self) -> str:
        return str(self.session["uuid"])

    @property
    def address(self) -> str:
        return str(self.session["workspace_url"])

    def link(self) -> str:
        """One that is good once."""
        return str(self.ask("POST", f"/session/{self.uuid}/open")["url"])

    def sleep(self) -> None:
        self.ask("POST", f"/session/{self.uuid}/scale-down")

    def shown_in(self, page: Page, host: str, src: str) -> FrameLocator:
        """What the product's page shows in its frame, under one of its names."""
        page.goto(self.app.page_with(host, src))
        return page.frame_locator("iframe").first


@pytest.fixture
def signs_in(ways: Ways) -> Product:
    """The product, which knows its user and opens the workspace at the path it is asked for."""

    def opened(uuid: str, path: str) -> str:
        return str(ways.ask("POST", f"/session/{uuid}/open", {"path": path})["url"])

    ways.app.opener = opened
    ways.app.asked.clear()
    return ways.app


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched(AS_PEOPLE_HAVE_IT) as chromium:
        yield chromium


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that never was here."""
    made = browser.new_context()
    yield made
    made.close()


def expect_working(frame: FrameLocator) -> None:
    """VS Code is there, and has the files, which come over its WebSocket."""
    expect(frame.locator(EDITOR)).to_be_visible()
    expect_file(frame, KEPT)


def expect_powerless(page: Page, ways: Ways) -> None:
    """The page's own scripts open no socket of the workspace and read nothing of it."""
    assert opens_socket(page, ways.session) != ""
    assert page.evaluate(READ, ways.address) == "refused"


class WaysIn:
    """The suite, of what depends on the ingress in front of the workspace."""

    def test_a_bookmark_comes_back_through_the_products_sign_in_to_the_same_place(
        self, ways: Ways, context: BrowserContext, signs_in: Product
    ) -> None:
        """After the cookie's end, and in a browser that never had one; awake and asleep."""
        place = f"/?folder={ways.folder}&payload=%5B%5D"
        page = open_editor(context, ways.link())
        page.goto("about:blank")
        context.clear_cookies()
        for number in range(2):
            page.goto(ways.address + place)
            expect_editor(page)
            assert page.url == ways.address + place
            assert signs_in.asked == [(ways.uuid, place)] * (number + 1)
            page.goto("about:blank")
            ways.sleep()
            context.clear_cookies()
        ways.ask("POST", f"/session/{ways.uuid}/scale-up")

    def test_who_is_sent_to_a_new_workspace_at_once_comes_in(
        self, ways: Ways, context: BrowserContext, signs_in: Product
    ) -> None:
        """By its bare address, as products did that were written for an earlier version, before anything but its record
        is there."""
        made = ways.new("eve")
        page = context.new_page()
        page.goto(made["workspace_url"])
        expect_editor(page)
        assert signs_in.asked == [(made["uuid"], "/")]
        page.goto("about:blank")
        ways.ask("DELETE", f"/session/{made['uuid']}?backup=false")

    @pytest.mark.parametrize("host", [SAME_SITE, CROSS_SITE])
    def test_the_editor_works_in_a_named_pages_frame(self, ways: Ways, context: BrowserContext, host: str) -> None:
        """With its files and a terminal, which come over its WebSocket; by a link at first, and then by the cookie that
        is kept for this page's site. The plain address wakes it when the page is opened."""
        page = context.new_page()
        frame = ways.shown_in(page, host, ways.link())
        expect_working(frame)
        frame.get_by_text(KEPT, exact=True).first.click()
        in_terminal(page, f"touch by-{host}", frame)
        expect_file(frame, f"by-{host}")
        (cookie,) = [each for each in context.cookies() if each.get("name") in (COOKIE, FRAME_COOKIE)]
        flags = (cookie.get("secure"), cookie.get("httpOnly"), cookie.get("sameSite"))
        assert (cookie.get("name"), flags) == (FRAME_COOKIE, (True, True, "None"))
        assert DOMAIN in str(cookie.get("partitionKey")) or host in str(cookie.get("partitionKey"))
        page.goto("about:blank")
        ways.sleep()
        expect_working(ways.shown_in(page, host, ways.address))
        assert ways.ask("GET", f"/session/{ways.uuid}")["session"]["status"] == "active"

    @pytest.mark.parametrize("host", [STRANGER, SIBLING])
    def test_a_page_that_is_not_named_shows_the_reason_and_nothing_else(
        self, ways: Ways, context: BrowserContext, host: str
    ) -> None:
        """With a fresh link, which is good as before, and with the cookies of a tab and of a named page's frame."""
        link = ways.link()
        page = context.new_page()
        refused = ways.shown_in(page, host, link)
        expect_hint(refused, "EMBED_ORIGINS")
        open_editor(context, link).close()
        expect_working(ways.shown_in(page, SAME_SITE, ways.link()))
        refused = ways.shown_in(page, host, ways.address)
        expect_hint(refused, "EMBED_ORIGINS")
        expect(refused.locator(EDITOR)).to_have_count(0)
        expect_powerless(page, ways)

    def test_a_revoked_frame_is_turned_away(self, ways: Ways, context: BrowserContext) -> None:
        page = context.new_page()
        expect_working(ways.shown_in(page, CROSS_SITE, ways.link()))
        ways.ask("POST", f"/session/{ways.uuid}/revoke")
        frame = ways.shown_in(page, CROSS_SITE, ways.address)
        expect(frame.get_by_role("heading", name="not open to you")).to_be_visible()
