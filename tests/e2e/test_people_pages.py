"""The pages that people meet at a workspace's address, in Chromium: light, dark and narrow, on the real service.

With SCREENSHOTS=1 their pictures are written to docs/images.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser import expect_editor, navigated, open_editor
from tests.looks import LOOKS, expect_readable, looking, picture
from tests.service import Service
from tests.waiting import wait_for

PICTURED = os.environ.get("SCREENSHOTS") == "1"
PRODUCT, COLOR = ("Acme Cloud", "") if PICTURED else ("Acme <b>Cloud</b> & Söhne", "#ffe600")
"""For pictures a product as there may be one; else markup, and a colour in which text can't be read."""
HOME = "https://app.example.com/#/workspaces"

EDITOR = """#!/bin/sh
[ -e '{hang}' ] && exec sleep 600
exec '{editor}' "$@"
"""
"""An editor that hangs while a file is there."""


@pytest.fixture(scope="module")
def hang(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file exists, an editor that is started answers nobody."""
    return tmp_path_factory.mktemp("editor") / "hang"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str, hang: Path) -> Iterator[Service]:
    program = hang.with_name("code-server")
    program.write_text(EDITOR.format(hang=hang, editor=code_server))
    program.chmod(0o755)
    product = {"PRODUCT_NAME": PRODUCT, "PRODUCT_URL": HOME, "PRODUCT_COLOR": COLOR}
    running = Service(tmp_path_factory.mktemp("service"), str(program), START_TIMEOUT="30", **product)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def session(service: Service, hang: Path) -> Iterator[Any]:
    hang.unlink(missing_ok=True)
    made = service.create("ada")
    yield made
    service.call("DELETE", f"/session/{made['uuid']}?backup=false")


@contextmanager
def everywhere(browser: Browser) -> Iterator[Mapping[str, BrowserContext]]:
    """A browser for each look, by its name."""
    with ExitStack() as stack:
        yield {look: stack.enter_context(looking(browser, look)) for look in LOOKS}


def entered(service: Service, context: BrowserContext, uuid: str) -> Page:
    """A page of a person who may enter, at no address."""
    page = open_editor(context, service.link(uuid))
    page.goto("about:blank")
    return page


def check(page: Page, look: str, name: str) -> None:
    """The page names the product as it is called, leads back to it, and can be read and used by everybody."""
    back = page.get_by_role("link", name=f"Back to {PRODUCT}")
    expect(back).to_have_attribute("href", HOME)
    assert page.get_by_role("banner").inner_text().strip() == PRODUCT
    expect_readable(page, name)
    picture(page, f"{name}-{look}")


def steps(page: Page) -> list[str]:
    """The state of each step of the start, as it is said to those who don't see it."""
    return [str(each) for each in page.locator("#phases .said").all_text_contents()]


@pytest.mark.parametrize("look", LOOKS)
def test_who_may_not_enter_reads_why_and_finds_the_way_back(
    service: Service, browser: Browser, context: BrowserContext, session: Any, look: str
) -> None:
    """Without a link, with one that was used, and after the workspace was deleted."""
    page = context.new_page()
    assert navigated(page, session["workspace_url"]) == 401
    expect(page.get_by_role("heading", name="This workspace is not open to you")).to_be_visible()
    check(page, look, "page-no-access")
    link = service.link(session["uuid"])
    mine = open_editor(context, link)
    with looking(browser, look) as other:
        stranger = other.new_page()
        assert navigated(stranger, link) == 403
        expect(stranger.get_by_role("heading", name="This link has been used")).to_be_visible()
        check(stranger, look, "page-used-link")
    service.done("DELETE", f"/session/{session['uuid']}?backup=false")
    assert navigated(mine, session["workspace_url"]) == 404
    expect(mine.get_by_role("heading", name="This workspace does not exist")).to_be_visible()
    check(mine, look, "page-gone")


def test_a_start_shows_its_steps_and_which_of_them_failed(
    service: Service, browser: Browser, session: Any, hang: Path
) -> None:
    """Nothing jumps when it fails; no word of it names a place of the machine; its button starts it again."""
    uuid = session["uuid"]
    with everywhere(browser) as contexts:
        pages = {look: entered(service, context, uuid) for look, context in contexts.items()}
        service.done("POST", f"/session/{uuid}/scale-down")
        service.wait_status(uuid, "sleeping", replicas=0)
        hang.touch()
        for page in pages.values():
            assert navigated(page, session["workspace_url"]) == 503
        places = {}
        for look, page in pages.items():
            expect(page.get_by_role("heading", name="Waking the workspace")).to_be_visible()
            expect(page.locator("#phase-ready")).to_have_class("now")
            assert steps(page) == ["done", "done", "now"]
            assert page.get_by_role("button").count() == 0
            check(page, look, "page-waking")
            places[look] = page.locator("#phases").bounding_box()
        service.wait_status(uuid, "failed")
        for look, page in pages.items():
            expect(page.get_by_role("heading", name="The workspace did not start")).to_be_visible()
            assert steps(page) == ["done", "done", "failed"]
            expect(page.get_by_text("Its editor did not answer in time.")).to_be_visible()
            check(page, look, "page-failed")
            assert page.locator("#phases").bounding_box() == places[look]
            page.reload()
            assert steps(page) == ["done", "done", "failed"]
            page.get_by_text("Details").click()
            told = page.locator("#detail").inner_text()
            assert told == "The editor did not answer within 30 s. Code: editor_silent."
            assert str(service.data_dir) not in page.content()
        hang.unlink()
        page = pages["light"]
        page.get_by_role("button", name="Try again").click()
        expect_editor(page)


def test_one_that_stopped_says_so_without_steps(service: Service, browser: Browser, session: Any) -> None:
    uuid = session["uuid"]
    with everywhere(browser) as contexts:
        pages = {look: entered(service, context, uuid) for look, context in contexts.items()}
        for process in service.processes(WORKSPACE_UUID=uuid):
            os.kill(process.pid, signal.SIGKILL)
        service.wait_status(uuid, "failed")
        for look, page in pages.items():
            assert navigated(page, session["workspace_url"]) == 503
            expect(page.get_by_role("heading", name="The workspace has stopped")).to_be_visible()
            expect(page.locator("#phases")).to_be_hidden()
            check(page, look, "page-stopped")
            for place in (str(service.data_dir), str(Path.home()), "Last lines"):
                assert place not in page.content()


def test_a_person_with_the_keyboard_alone_starts_it_again(
    service: Service, context: BrowserContext, session: Any
) -> None:
    """What has the focus shows it."""
    uuid = session["uuid"]
    page = entered(service, context, uuid)
    for process in service.processes(WORKSPACE_UUID=uuid):
        os.kill(process.pid, signal.SIGKILL)
    service.wait_status(uuid, "failed")
    page.goto(session["workspace_url"])
    button = page.get_by_role("button", name="Try again")

    def focused() -> bool:
        page.keyboard.press("Tab")
        return bool(button.evaluate("each => each === document.activeElement"))

    wait_for(focused, "the button to have the focus")
    assert button.evaluate("each => getComputedStyle(each).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect_editor(page)
