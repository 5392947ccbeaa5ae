"""Services and ports of a session in the dashboard, in Chromium, over the whole service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect

from tests.axe import violations
from tests.browser import PATIENCE, navigated
from tests.dashboard_browser import go, signed_in
from tests.looks import LOOKS, expect_readable
from tests.ports import free_port
from tests.service import Service
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.browser]

SERVER = "exec python3 -u -m http.server $PORT --bind 127.0.0.1"
HOSTILE = "<img src=x onerror=alert(1)>"


@dataclass(frozen=True)
class Web:
    """A session, and the port of its service `web`, which serves the folder."""

    service: Service
    uuid: str
    port: int

    @property
    def address(self) -> str:
        return str(self.session()["workspace_url"]).replace("//", f"//{self.port}--")

    def start(self, command: str = SERVER, **more: object) -> None:
        wanted = {"name": "web", "command": command, "port": self.port, **more}
        made = self.service.done("POST", f"/session/{self.uuid}/services", wanted)
        assert made["state"] == "running", made

    def session(self) -> dict[str, object]:
        return dict(self.service.done("GET", f"/session/{self.uuid}")["session"])


@pytest.fixture
def web(service: Service) -> Web:
    uuid = service.create()["uuid"]
    (service.files(uuid) / "index.html").write_text("<h1>Shown by the service</h1>")
    return Web(service, uuid, free_port())


@pytest.fixture
def stranger(browser: Browser) -> Iterator[Page]:
    """A page of somebody who is not signed in."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


def row(page: Page, name: str) -> Locator:
    return page.locator(f"tr#{name}")


def expect_shown(page: Page) -> None:
    """What the service serves, whatever was before it."""
    expect(page.get_by_role("heading", name="Shown by the service")).to_be_visible()


def opened_by(context: BrowserContext, button: Locator, address: str) -> Page:
    """The tab that a button opens, at this address."""
    with context.expect_page() as opened:
        button.click()
    opened.value.wait_for_url(lambda url: url.startswith(address), timeout=PATIENCE)
    expect_shown(opened.value)
    return opened.value


def test_a_service_is_started_seen_followed_restarted_and_stopped(
    page: Page, context: BrowserContext, web: Web
) -> None:
    page.on("dialog", lambda dialog: dialog.accept())
    go(page, web.service, web.uuid, "services")
    expect(page.get_by_text("No service.")).to_be_visible()
    page.get_by_role("button", name="Start a service").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Name")).to_be_focused()
    dialog.get_by_label("Name").fill("web server")
    dialog.get_by_label("Command").fill(SERVER)
    dialog.get_by_label("Port").fill(str(web.port))
    dialog.get_by_role("button", name="Start").click()
    expect(dialog).to_contain_text("1 to 32 of")
    expect(dialog.get_by_label("Command")).to_have_value(SERVER)
    assert violations(page) == []
    dialog.get_by_label("Name").fill("web")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(row(page, "service-web")).to_contain_text("running")
    expect(row(page, f"port-{web.port}")).to_contain_text("listening")
    expect(row(page, f"port-{web.port}")).to_contain_text("not opened")

    page.get_by_role("button", name="Log of web").click()
    output = page.get_by_label("Output of web")
    expect(output).to_contain_text(f"port {web.port}")
    expect(output).to_be_focused()
    opened_by(context, row(page, "service-web").get_by_role("button", name="Open"), web.address).close()
    expect(output).to_contain_text("GET / HTTP/1.1")
    expect(row(page, f"port-{web.port}")).to_contain_text("those who may open the workspace")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download log").click()
    assert download.value.suggested_filename == "web.log"
    assert b"GET / HTTP/1.1" in download.value.path().read_bytes()

    page.get_by_role("button", name="Restart web").click()
    expect(row(page, "service-web")).to_contain_text("running")
    wait_for(lambda: followed(page), "the log to be read", lambda: output.inner_text())
    page.get_by_role("button", name="Close log").click()
    expect(output).to_have_count(0)
    page.get_by_role("button", name="Stop web").click()
    expect(page.get_by_text("No service.")).to_be_visible()
    assert web.service.done("GET", f"/session/{web.uuid}/services")["services"] == []


def followed(page: Page) -> bool:
    return "GET / HTTP/1.1" in page.get_by_label("Output of web").inner_text()


def test_a_port_is_shown_to_everybody_until_it_is_closed(
    page: Page, context: BrowserContext, web: Web, stranger: Page
) -> None:
    web.start()
    go(page, web.service, web.uuid, "services")
    port = row(page, f"port-{web.port}")
    assert navigated(stranger, web.address) >= 400
    port.get_by_role("button", name="Make public").click()
    expect(port).to_contain_text("everybody until")
    expect(port).to_contain_text(web.address)
    stranger.goto(web.address)
    expect_shown(stranger)
    opened_by(context, port.get_by_role("link", name="Open"), web.address).close()
    expect(port).to_contain_text("everybody until")
    port.get_by_role("button", name="Close").click()
    expect(port).to_contain_text("not opened")
    assert navigated(stranger, web.address) >= 400


def test_of_one_that_sleeps_a_look_wakes_nothing_and_opening_a_port_does(
    page: Page, context: BrowserContext, web: Web
) -> None:
    """It is listed as stopped, also by a page that was open; the tab that is opened ends at the program's page."""
    web.start()
    web.service.done("POST", f"/session/{web.uuid}/ports/{web.port}/open")
    go(page, web.service, web.uuid, "services")
    page.get_by_role("button", name="Log of web").click()
    expect(page.get_by_text("as it comes")).to_be_visible()
    wait_for(lambda: web.session()["services"], "its services to be known")
    web.service.done("POST", f"/session/{web.uuid}/sleep", headers={"Prefer": "wait=60"})
    for reload in (False, True):
        if reload:
            page.reload()
        expect(page.get_by_text("The session sleeps")).to_be_visible()
        expect(row(page, "service-web")).to_contain_text("stopped")
        expect(row(page, f"port-{web.port}")).to_contain_text("those who may open the workspace")
    expect(page.locator("#lost")).to_be_hidden()
    assert violations(page) == []
    assert web.session()["status"] == "sleeping"
    opened_by(context, row(page, f"port-{web.port}").get_by_role("button", name="Open"), web.address)
    expect(row(page, "service-web")).to_contain_text("running")


def test_the_log_of_one_that_has_ended_is_shown_and_its_end_is_told(page: Page, web: Web) -> None:
    command = f"echo '{HOSTILE}'; while [ ! -e end ]; do sleep 0.1; done; exit 3"
    web.service.done("POST", f"/session/{web.uuid}/services", {"name": "web", "command": command, "restart": "never"})
    go(page, web.service, web.uuid, "services")
    page.get_by_role("button", name="Log of web").click()
    output = page.get_by_label("Output of web")
    expect(output).to_contain_text(HOSTILE)
    expect(page.get_by_text("as it comes")).to_be_visible()
    (web.service.files(web.uuid) / "end").touch()
    expect(row(page, "service-web")).to_contain_text("exit code 3")
    expect(page.get_by_text("as it comes")).to_have_count(0)
    page.get_by_role("button", name="Close log").click()
    expect(output).to_have_count(0)
    page.get_by_role("button", name="Log of web").click()
    expect(output).to_contain_text(HOSTILE)
    expect(page.get_by_text("as it comes")).to_have_count(0)
    assert page.locator("main img").count() == 0


def test_a_log_is_not_repeated_after_a_break(context: BrowserContext, web: Web) -> None:
    """By whichever connection it goes on: the browser's, or one that begins anew after a refusal."""
    web.start()
    page = signed_in(context, web.service)
    piece = "retry: 10\nid: {}\nevent: output\ndata: {}\n\n"
    answers = [(200, piece.format(1, "one")), (200, piece.format(2, "two")), (502, "")]
    answers += [(200, piece.format(2, "onetwo")), (200, piece.format(3, "three") + "id: 3\nevent: end\ndata: 1\n\n")]

    def answer(route: Route) -> None:
        status, text = answers.pop(0)
        route.fulfill(status=status, body=text, content_type="text/event-stream")

    page.route(re.compile("/log/stream"), answer)
    go(page, web.service, web.uuid, "services")
    page.get_by_role("button", name="Log of web").click()
    expect(page.get_by_text("as it comes")).to_have_count(0)
    expect(page.get_by_label("Output of web")).to_have_text("onetwothree")
    expect(page.locator("#lost")).to_be_hidden()
    assert answers == []


def test_a_log_is_followed_no_more_once_it_is_left(page: Page, web: Web) -> None:
    """By its button, and by another tab."""
    web.start()
    go(page, web.service, web.uuid, "services")
    page.evaluate("window.left = []; document.addEventListener('htmx:sseClose', (e) => left.push(e.detail.source))")
    for leave in (page.get_by_role("button", name="Close log"), page.locator("#tab-cost")):
        page.get_by_role("button", name="Log of web").click()
        expect(page.get_by_label("Output of web")).to_contain_text(str(web.port))
        leave.click()
        expect(page.get_by_label("Output of web")).to_have_count(0)
    assert page.evaluate("left.map((each) => each.readyState)") == [2, 2]


@pytest.mark.parametrize("look", LOOKS)
def test_the_tab_can_be_read_and_used(page: Page, web: Web, look: str) -> None:
    """In light, dark and narrow, with long and hostile texts."""
    web.start(f"{SERVER} # {HOSTILE} {'x' * 200}", autostart=True)
    failing = {"name": "worker", "command": f"echo {'y' * 300}; exit 3", "restart": "never"}
    web.service.done("POST", f"/session/{web.uuid}/services", failing)
    go(page, web.service, web.uuid, "services")
    expect(row(page, "service-worker")).to_contain_text("exit code 3")
    row(page, f"port-{web.port}").get_by_role("button", name="Make public").click()
    expect(row(page, f"port-{web.port}")).to_contain_text("everybody until")
    page.get_by_role("button", name="Log of worker").click()
    expect(page.get_by_label("Output of worker")).to_contain_text("yyy")
    expect_readable(page)
    assert page.locator("main img").count() == 0
    page.get_by_role("button", name="Start a service").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    expect_readable(page)
