"""The dashboard, as a person's browser sees it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page

from tests.browser import PATIENCE
from tests.conversation import Host


def signed_in(context: BrowserContext, host: Host) -> Page:
    """A page that shows the list of sessions, for an admin."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{host.dashboard_url}/sign-in")
    page.get_by_label("API key").fill(host.key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{host.dashboard_url}/")
    return page


@pytest.fixture
def page(context: BrowserContext, host: Host) -> Iterator[Page]:
    """The list of sessions, for an admin. An error in a script, or a complaint in the browser's console, fails the
    test."""
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    opened = signed_in(context, host)
    opened.on("console", note)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    assert not complaints, complaints


def go(page: Page, host: Host, uuid: str, tab: str = "") -> None:
    """Open a tab of a session's page, "" for the overview."""
    page.goto(f"{host.dashboard_url}/sessions/{uuid}" + (f"/{tab}" if tab else ""))
