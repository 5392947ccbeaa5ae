"""Ways into a workspace that a product has besides a link, in Chromium: its own sign-in, and a frame in its page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, expect

from app.api.landing import ENTERED
from app.api.verdicts import MOST_SENT
from app.sessions.passes import COOKIE, FRAME_COOKIE
from tests.browser import (
    AS_PEOPLE_HAVE_IT,
    CHROMIUM_FLAGS,
    EDITOR,
    PATIENCE,
    expect_editor,
    launched,
    navigated,
    open_editor,
    opens_socket,
)
from tests.product import Product, product
from tests.service import Service

DOMAIN = "ws.localhost"
"""So that there are names of the same site (`app.ws.localhost`) and of others: below `localhost` each name is one."""

SAME_SITE, CROSS_SITE, STRANGER, SIBLING = (
    "app.ws.localhost",
    "product.localhost",
    "evil.localhost",
    "evil.ws.localhost",
)


@pytest.fixture(scope="module")
def app() -> Iterator[Product]:
    with product() as served:
        yield served


@pytest.fixture(scope="module")
def service_settings(app: Product) -> Mapping[str, str]:
    named = [app.origin(host) for host in (SAME_SITE, CROSS_SITE)]
    return {"WORKSPACE_DOMAIN": DOMAIN, "LOGIN_URL": app.login_url, "EMBED_ORIGINS": ", ".join(named)}


@pytest.fixture(scope="module")
def session(service: Service) -> Any:
    made = service.create("ada")
    (service.files(made["uuid"]) / "kept.txt").write_text("kept")
    return made


@pytest.fixture
def signs_in(app: Product, service: Service) -> Product:
    """The product, which knows its user and opens the workspace at the path it is asked for."""

    def opened(uuid: str, path: str) -> str:
        return str(service.done("POST", f"/session/{uuid}/open", {"path": path})["url"])

    app.opener = opened
    app.asked.clear()
    return app


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


def shown_in(page: Page, app: Product, host: str, src: str) -> FrameLocator:
    """What a page of the product shows in its frame."""
    page.goto(app.page_with(host, src))
    return page.frame_locator("iframe").first


def expect_working(frame: FrameLocator) -> None:
    """VS Code is there, and has the files, which come over its WebSocket."""
    expect(frame.locator(EDITOR)).to_be_visible(timeout=PATIENCE)
    shown = frame.locator(".explorer-folders-view").get_by_text("kept.txt", exact=True)
    expect(shown).to_be_visible(timeout=PATIENCE)


def test_a_bookmark_comes_back_through_the_products_sign_in_to_the_same_place(
    service: Service, context: BrowserContext, session: Any, signs_in: Product
) -> None:
    """After the cookie's end, and in a browser that never had one; awake and asleep."""
    folder = service.files(session["uuid"])
    bookmark = f"{session['workspace_url']}/?folder={folder}&payload=%5B%5D"
    page = open_editor(context, service.link(session["uuid"]))
    page.goto("about:blank")
    context.clear_cookies()
    for number in range(2):
        page.goto(bookmark)
        expect_editor(page)
        assert page.url == bookmark
        assert signs_in.asked == [(session["uuid"], f"/?folder={folder}&payload=%5B%5D")] * (number + 1)
        page.goto("about:blank")
        service.done("POST", f"/session/{session['uuid']}/scale-down")
        context.clear_cookies()
    service.done("POST", f"/session/{session['uuid']}/scale-up")


def test_the_product_decides_about_a_workspace_that_is_not_there(
    service: Service, context: BrowserContext, signs_in: Product
) -> None:
    signs_in.opener = lambda *_: signs_in.origin("127.0.0.1") + "/not-yours"
    page = context.new_page()
    assert navigated(page, f"http://vs-code-zzzzzzzz.{DOMAIN}:{service.workspace_port}/x") == 404
    assert page.url == f"{signs_in.origin('127.0.0.1')}/not-yours"
    assert signs_in.asked == [("zzzzzzzz", "/x")]


def test_a_browser_that_keeps_no_cookie_gets_a_page_and_is_not_sent_round(
    browser: Browser, session: Any, signs_in: Product, tmp_path: Path
) -> None:
    """In one that is told to block all cookies, as its users tell it in its settings."""
    (tmp_path / "Default").mkdir()
    settings = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    (tmp_path / "Default" / "Preferences").write_text(json.dumps(settings))
    program = shutil.which("chromium")
    context = browser.browser_type.launch_persistent_context(tmp_path, executable_path=program, args=CHROMIUM_FLAGS)
    page = context.new_page()
    assert navigated(page, f"{session['workspace_url']}/x") == 401
    assert context.cookies() == []
    expect(page.get_by_role("heading", name="did not keep")).to_be_visible(timeout=PATIENCE)
    assert page.url == f"{session['workspace_url']}/x?{ENTERED}"
    assert len(signs_in.asked) == 1
    page.get_by_role("link", name="Try again").click()
    page.wait_for_url(f"**/x?{ENTERED}")
    assert signs_in.asked == [(session["uuid"], "/x")] * 2
    context.close()


def test_a_product_that_leads_back_to_the_bare_address_ends_in_a_page(
    context: BrowserContext, session: Any, signs_in: Product
) -> None:
    signs_in.opener = lambda _, path: session["workspace_url"] + path
    page = context.new_page()
    assert navigated(page, session["workspace_url"]) == 401
    expect(page.get_by_role("heading", name="Signing in led back here")).to_be_visible(timeout=PATIENCE)
    assert len(signs_in.asked) == MOST_SENT


@pytest.mark.parametrize("host", [SAME_SITE, CROSS_SITE])
def test_the_editor_works_in_a_named_pages_frame(
    service: Service, context: BrowserContext, session: Any, app: Product, host: str
) -> None:
    """With its files, which come over its WebSocket; by a link at first, and then by the cookie that is kept for this
    page's site. The plain address wakes it when the page is opened."""
    uuid = session["uuid"]
    page = context.new_page()
    frame = shown_in(page, app, host, service.link(uuid))
    expect_working(frame)
    (cookie,) = [each for each in context.cookies() if each.get("name") in (COOKIE, FRAME_COOKIE)]
    flags = (cookie.get("secure"), cookie.get("httpOnly"), cookie.get("sameSite"))
    assert (cookie.get("name"), flags) == (FRAME_COOKIE, (True, True, "None"))
    assert DOMAIN in str(cookie.get("partitionKey")) or host in str(cookie.get("partitionKey"))
    page.goto("about:blank")
    service.done("POST", f"/session/{uuid}/scale-down")
    expect_working(shown_in(page, app, host, session["workspace_url"]))
    assert service.status(uuid)["session"]["status"] == "active"


def test_the_cookie_of_a_frame_opens_nothing_elsewhere(
    service: Service, context: BrowserContext, session: Any, app: Product, signs_in: Product
) -> None:
    """Not in the frame of another named page's site, nor in a tab."""
    page = context.new_page()
    expect_working(shown_in(page, app, CROSS_SITE, service.link(session["uuid"])))
    frame = shown_in(page, app, SAME_SITE, session["workspace_url"])
    expect(frame.get_by_role("heading", name="not open to you")).to_be_visible(timeout=PATIENCE)
    signs_in.opener = lambda *_: app.origin("127.0.0.1") + "/asked"
    page.goto(session["workspace_url"])
    assert page.url == f"{app.origin('127.0.0.1')}/asked"


@pytest.mark.parametrize("host", [STRANGER, SIBLING])
def test_a_page_that_is_not_named_shows_the_reason_and_nothing_else(
    service: Service, context: BrowserContext, session: Any, app: Product, host: str
) -> None:
    """With a fresh link, which is good as before, and with the cookies of a tab and of a named page's frame."""
    link = service.link(session["uuid"])
    page = context.new_page()
    refused = shown_in(page, app, host, link)
    expect(refused.get_by_text("EMBED_ORIGINS")).to_be_visible(timeout=PATIENCE)
    open_editor(context, link).close()
    expect_working(shown_in(page, app, SAME_SITE, service.link(session["uuid"])))
    refused = shown_in(page, app, host, session["workspace_url"])
    expect(refused.get_by_text("EMBED_ORIGINS")).to_be_visible(timeout=PATIENCE)
    expect(refused.locator(EDITOR)).to_have_count(0)
    assert opens_socket(page, session) != ""
    read = "url => fetch(url, {credentials: 'include'}).then(() => 'read', () => 'refused')"
    assert page.evaluate(read, session["workspace_url"]) == "refused"


def test_a_link_that_was_used_is_told_as_one_within_the_frame(
    service: Service, context: BrowserContext, session: Any, app: Product
) -> None:
    link = service.link(session["uuid"])
    open_editor(context, link).close()
    context.clear_cookies()
    frame = shown_in(context.new_page(), app, CROSS_SITE, link)
    expect(frame.get_by_text("ask for a new one")).to_be_visible(timeout=PATIENCE)


def test_a_named_page_does_not_act_in_the_workspaces_place(
    service: Service, context: BrowserContext, session: Any, app: Product
) -> None:
    """It may show it; its own scripts open no socket and read nothing."""
    page = context.new_page()
    expect_working(shown_in(page, app, SAME_SITE, service.link(session["uuid"])))
    assert opens_socket(page, session) != ""
    read = "url => fetch(url, {credentials: 'include'}).then(() => 'read', () => 'refused')"
    assert page.evaluate(read, session["workspace_url"]) == "refused"


def test_a_revoked_frame_is_turned_away(service: Service, context: BrowserContext, session: Any, app: Product) -> None:
    page = context.new_page()
    expect_working(shown_in(page, app, CROSS_SITE, service.link(session["uuid"])))
    service.done("POST", f"/session/{session['uuid']}/revoke")
    frame = shown_in(page, app, CROSS_SITE, session["workspace_url"])
    expect(frame.get_by_role("heading", name="not open to you")).to_be_visible(timeout=PATIENCE)
