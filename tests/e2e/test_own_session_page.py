"""The page of docs/own-session.html: it talks to its own session, with a token, from an origin that is listed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import ROOT
from tests.service import Service


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Not into the tests' output."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where the documents are served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(ROOT / "docs")))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def service_settings(port: int) -> Mapping[str, str]:
    return {"CORS_ORIGINS": f"http://localhost:{port}"}


def followed(browser: Browser, service: Service, origin: str, uuid: str) -> Page:
    """The page, told to follow the session."""
    page = browser.new_page()
    page.goto(f"{origin}/own-session.html")
    page.get_by_label("API").fill(service.url)
    page.get_by_label("Session").fill(uuid)
    page.get_by_label("Token").fill(service.token(uuid))
    page.get_by_role("button", name="Follow").click()
    return page


def test_the_page_follows_its_session_and_puts_it_to_sleep_and_wakes_it(
    service: Service, browser: Browser, port: int
) -> None:
    uuid = service.create("ada")["uuid"]
    page = followed(browser, service, f"http://localhost:{port}", uuid)
    status = page.locator("#status")
    expect(status).to_have_text("active")
    page.get_by_role("button", name="Sleep").click()
    expect(status).to_have_text("sleeping")
    page.get_by_role("button", name="Wake").click()
    expect(status).to_have_text("active")
    page.close()

    stranger = followed(browser, service, f"http://127.0.0.1:{port}", uuid)
    expect(stranger.locator("#log")).to_contain_text("Failed to fetch")
    expect(stranger.locator("#status")).to_have_text("unknown")
    stranger.close()
    service.done("DELETE", f"/session/{uuid}?backup=false")
