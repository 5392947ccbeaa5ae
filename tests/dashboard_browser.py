"""The dashboard, as a person's browser sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import BrowserContext, ConsoleMessage, Page

from tests.browser import PATIENCE
from tests.service import KEY, Service


def dashboard(service: Service) -> str:
    """Its origin."""
    return f"http://dashboard.localhost:{service.port}"


def signed_in(context: BrowserContext, service: Service, key: str = KEY) -> Page:
    """A page that shows the list of sessions."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{dashboard(service)}/sign-in")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{dashboard(service)}/")
    return page


@contextmanager
def without_complaints(page: Page) -> Iterator[None]:
    """Fails at the end of the block if a script of the page met an error, or the browser's console complained."""
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield
    assert not complaints, complaints


def go(page: Page, service: Service, uuid: str, tab: str = "") -> None:
    """Open a tab of a session's page, "" for the overview."""
    page.goto(f"{dashboard(service)}/sessions/{uuid}" + (f"/{tab}" if tab else ""))
