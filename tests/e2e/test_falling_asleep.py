"""When a workspace falls asleep by itself, on one machine, with timeouts of half a minute (the suite is
tests/suites/falling_asleep.py)."""

from __future__ import annotations

import itertools
import time

from playwright.sync_api import Browser, Page, expect

from tests.service import Service
from tests.suites.falling_asleep import IDLE, FallingAsleep, Sleepy, sleepy

__all__ = ["sleepy"]


class TestFallingAsleepLocally(FallingAsleep):
    """The whole service, as scripts/run starts it."""


def show(page: Page, name: str) -> None:
    """Open a file."""
    page.locator(".explorer-folders-view").get_by_text(name, exact=True).dblclick()
    expect(page.locator(".monaco-editor .view-line").first).to_be_visible()


def test_a_page_in_the_background_lets_it_sleep(service: Service, sleepy: Sleepy, browser: Browser) -> None:
    """Though a file that is open in it changes all the time: that is not its user's doing."""
    file = service.files(sleepy.uuid) / "a.txt"
    file.write_text("one\n")
    context = browser.new_context()
    page = sleepy.opened(context)
    show(page, "a.txt")
    # A browser under test takes every page for the one in front otherwise.
    context.new_cdp_session(page).send("Emulation.setFocusEmulationEnabled", {"enabled": False})
    context.new_page().bring_to_front()
    assert not page.evaluate("document.hasFocus()")
    changes = itertools.count()

    def change() -> None:
        file.write_text(f"{next(changes)}\n")

    def shows_changes() -> bool:
        change()
        return page.locator(".monaco-editor .view-line").first.inner_text() != "one"

    # The editor begins to watch the folder some time after it shows a file; it misses what changes before.
    sleepy.wait(shows_changes, "a change in the page")
    sleepy.leave_alone()

    def asleep_though_changed() -> bool:
        change()
        return bool(sleepy.session()["status"] != "active")

    sleepy.wait(asleep_though_changed, "the sleep", 6 * IDLE)
    sleepy.wait_asleep()
    context.close()


def test_typing_keeps_it_up(service: Service, sleepy: Sleepy, browser: Browser) -> None:
    """For longer than its timeout."""
    (service.files(sleepy.uuid) / "a.txt").write_text("one\n")
    page = sleepy.opened(browser)
    show(page, "a.txt")
    page.keyboard.type("x")
    sleepy.wait(lambda: sleepy.holds("editor"), "the editor's use to be told")
    sleepy.leave_alone()
    began = time.monotonic()
    while time.monotonic() - began < 1.5 * IDLE:
        page.keyboard.type("x", delay=1_000)
        assert sleepy.never_slept()
    why = sleepy.why()
    assert why.startswith("the editor was used"), why
    page.close()
