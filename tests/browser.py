"""A real browser, and what a person does in VS Code with it."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence

import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Locator, Page, WebSocket, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from app.core.access.tokens import COOKIE
from tests.waiting import wait_for

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""As root in a closed network: without these it refuses to start, or asks for hosts that aren't there."""

AS_PEOPLE_HAVE_IT = "--disable-features=HttpsUpgrades,MediaRouter"
"""In place of a longer list by which Playwright has Chromium not give frames of other sites a storage of their own, as
all browsers do: without any, VS Code does not start there."""

SOCKET = """(url) => new Promise((told) => {
  const socket = new WebSocket(url);
  socket.onopen = () => { socket.close(); told(true); };
  socket.onerror = () => told(false);
})"""

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""Of a program that pretends to be a browser, but for its Origin."""

EDITOR = ".monaco-workbench"
PATIENCE = 60_000.0
"""Milliseconds after which a test gives up on what takes a second or two."""
# Playwright's own, 5 s, is less than a start on a busy machine takes.
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with launched() as chromium:
        yield chromium


@contextlib.contextmanager
def launched(*flags: str) -> Iterator[Browser]:
    """Debian's Chromium with more flags."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium on PATH")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=[*CHROMIUM_FLAGS, *flags])
        yield chromium
        chromium.close()


def open_editor(browser: Browser | BrowserContext, link: str) -> Page:
    """A page with VS Code loaded; in a browser of its own unless one with its cookies is given."""
    return editor_and_sockets(browser, link)[0]


def editor_and_sockets(browser: Browser | BrowserContext, link: str) -> tuple[Page, list[WebSocket]]:
    """A page with VS Code loaded, and the WebSockets that it opens, in a list that grows."""
    page = browser.new_page()
    opened: list[WebSocket] = []
    page.on("websocket", lambda socket: opened.append(socket))
    page.goto(link, timeout=PATIENCE)
    expect_editor(page)
    return page, opened


def navigated(page: Page, url: str) -> int:
    """The status that a page was answered with."""
    answer = page.goto(url, timeout=PATIENCE)
    assert answer is not None
    return answer.status


def answered(page: Page, url: str) -> tuple[int, str]:
    """The status and the source of what a page was answered with, which may go on to something else at once."""
    answer = page.goto(url, timeout=PATIENCE, wait_until="commit")
    assert answer is not None
    return answer.status, answer.text()


def cookie_of(context: BrowserContext, session: Mapping[str, str]) -> str:
    """The workspace's cookie of this browser, as it sends it."""
    (cookie,) = [each for each in context.cookies(session["workspace_url"]) if each.get("name") == COOKIE]
    return f"{COOKIE}={cookie.get('value')}"


def opens_socket(page: Page, session: Mapping[str, str]) -> str:
    """Try to open a WebSocket to this workspace from a page; why the browser says that it could not, "" when it
    could."""
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text) if "WebSocket connection to" in message.text else None)
    url = session["workspace_url"].replace("http://", "ws://") + "/?reconnectionToken=0&skipWebSocketFrames=false"
    if page.evaluate(SOCKET, url):
        return ""
    if not told:
        page.wait_for_event("console", lambda _: bool(told), timeout=PATIENCE)
    return told[-1]


def expect_all_closed(page: Page, opened: Sequence[WebSocket]) -> None:
    """The WebSockets that a page has opened end."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not all(each.is_closed() for each in opened):
        assert time.monotonic() < deadline, "they stay open"
        page.wait_for_timeout(100)  # In which Playwright hears of it.


def expect_editor(page: Page) -> None:
    """VS Code is there, whatever was before it."""
    expect(page.locator(EDITOR)).to_be_visible()


def in_terminal(page: Page, command: str, frame: FrameLocator | None = None) -> None:
    """Type a command into a new terminal of VS Code, which may be in a frame of the page that has the focus."""
    wait_for(lambda: _run_from_palette(page, "Terminal: Create New Terminal", frame), "VS Code to offer a terminal")
    terminal = (frame or page).locator(".terminal-wrapper.active .xterm-screen")
    expect(terminal).to_be_visible()
    terminal.click()
    page.keyboard.type(command + "\n")


def type_untitled(page: Page, text: str) -> None:
    """Type into a file that has no name yet, and so is not saved."""
    wait_for(lambda: _run_from_palette(page, "New Untitled Text File"), "VS Code to offer a new file")
    expect(page.locator(".monaco-editor.focused").first).to_be_visible()
    page.keyboard.type(text)


def sleep_warning(page: Page) -> Locator:
    """The announcement in the editor that the workspace is about to sleep."""
    return page.locator(".notification-toast").get_by_text("goes to sleep in")


def expect_hint(page: Page | FrameLocator, words: str) -> None:
    """A page of ours tells the people who run the service this, when it is asked to."""
    page.get_by_text("For the people who run this service").click(timeout=PATIENCE)
    expect(page.get_by_text(words)).to_be_visible()


def expect_file(page: Page | FrameLocator, name: str) -> None:
    """VS Code's explorer shows it."""
    shown = page.locator(".explorer-folders-view").get_by_text(name, exact=True)
    expect(shown).to_be_visible()


def _run_from_palette(page: Page, command: str, frame: FrameLocator | None = None) -> bool:
    """Run a command of VS Code by its name; False while it isn't offered yet: the palette lists what was loaded
    when it was opened. It closes again when an editor that is still starting takes the focus."""
    shown = frame or page
    page.keyboard.press("F1")
    palette = shown.locator(".quick-input-widget input[type=text]").first
    offered = shown.get_by_role("option").filter(has_text=command).first
    try:
        expect(palette).to_be_focused(timeout=10_000)
        palette.fill(f">{command}", timeout=2_000)
        offered.click(timeout=2_000)
    except (AssertionError, PlaywrightTimeout):
        # A click that was late has worked: its terminal takes the focus, and would take the key for its own.
        if palette.is_visible():
            palette.press("Escape")
        return False
    return True
