"""Commands that people run at the dashboard, on a running service, in Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from tests.dashboard_browser import go, signed_in
from tests.looks import LOOKS, expect_readable
from tests.service import Service
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.browser]

HOSTILE = "<img src=x onerror=alert(1)>"

COUNTS = "i=0; while [ -e busy ]; do i=$((i+1)); echo line $i; sleep 0.1; done; echo over"
"""Writes lines as long as a file is there."""

FIVE_MB = 5_000_000

BAD_GATEWAY = "<h1>502 Bad Gateway</h1>"


@pytest.fixture(scope="module")
def service_settings() -> Mapping[str, str]:
    return {"RATE_LIMIT_WORK": "100000/minute"}


@pytest.fixture
def uuid(service: Service) -> Iterator[str]:
    """A session that is up, for one test."""
    made: str = service.create()["uuid"]
    service.wait_status(made, "active")
    yield made
    service.done("DELETE", f"/session/{made}?backup=false")


@pytest.fixture
def busy(service: Service, uuid: str) -> Path:
    """While this file is there, what `COUNTS` runs goes on."""
    file = service.files(uuid) / "busy"
    file.touch()
    return file


@pytest.fixture
def troubled(context: BrowserContext, service: Service) -> Page:
    """The list, as an admin sees it, whatever the browser complains about."""
    return signed_in(context, service)


def run(page: Page, command: str) -> Locator:
    """Run a command by the keyboard; its entry."""
    field = page.get_by_label("Command")
    field.fill(command)
    field.press("Enter")
    expect(field).to_have_value("")
    return entries(page).first


def entries(page: Page) -> Locator:
    return page.locator(".exec")


def live(entry: Locator) -> Locator:
    return entry.locator(".exec-live")


def expect_until(page: Page, holds: Callable[[], bool]) -> None:
    """Wait for what the page's routes see: they are called only while Playwright waits."""
    wait_for(lambda: page.evaluate("1") and holds(), "the page to ask")


def lines(text: str) -> list[int]:
    return [int(line.removeprefix("line ")) for line in text.split("\n") if line.startswith("line ")]


def test_a_command_shows_how_it_ended_and_what_it_wrote(page: Page, service: Service, uuid: str) -> None:
    go(page, service, uuid, "run")
    expect(page.get_by_text("No command has run")).to_be_visible()
    entry = run(page, "echo hi; echo bad >&2; exit 3")
    expect(entry.locator(".status")).to_have_text("exit code 3")
    expect(entry.locator("pre.stdout")).to_have_text("hi\n")
    expect(entry.locator("pre.stderr")).to_have_text("bad\n")
    expect(page.get_by_text("No command has run")).not_to_be_visible()
    (service.files(uuid) / "sub").mkdir()
    page.get_by_label("In folder").fill("sub")
    field = page.get_by_label("Command")
    field.press_sequentially("basename $PWD")
    field.press("Shift+Enter")
    field.press_sequentially("echo second")
    field.press("Enter")
    expect(entries(page).first.locator("pre.stdout")).to_have_text("sub\nsecond\n")
    expect(entries(page)).to_have_count(2)


def test_the_output_shows_while_it_runs_and_end_ends_it(page: Page, service: Service, uuid: str, busy: Path) -> None:
    go(page, service, uuid, "run")
    entry = run(page, COUNTS)
    expect(live(entry)).to_contain_text("line 1\n")
    expect(entry.locator(".status")).to_have_text("running")
    entry.get_by_role("button", name="End").click()
    expect(entry.locator(".status")).to_have_text("ended on request")
    expect(entry.locator("pre.stdout")).to_contain_text("line 1\n")
    assert busy.exists()


def test_a_reload_lists_what_runs_and_it_can_be_followed_from_its_beginning(
    page: Page, service: Service, uuid: str, busy: Path
) -> None:
    go(page, service, uuid, "run")
    expect(live(run(page, COUNTS))).to_contain_text("line 2\n")
    page.reload()
    entry = entries(page)
    expect(entry.locator(".status")).to_have_text("running")
    expect(live(entry)).to_have_count(0)
    entry.get_by_role("button", name="Follow").click()
    expect(live(entry)).to_contain_text("line 1\n")
    page.locator("#tab-cost").click()
    expect(page.locator("table")).to_contain_text("Compute")
    page.locator("#tab-run").click()
    entry.get_by_role("button", name="Follow").click()
    expect(live(entry)).to_contain_text("line 5\n")
    busy.unlink()
    expect(entry.locator("pre.stdout")).to_contain_text("over")
    assert lines(entry.locator("pre.stdout").inner_text())[:3] == [1, 2, 3]


def test_a_stream_ends_with_the_tab_that_shows_it(page: Page, service: Service, uuid: str, busy: Path) -> None:
    """Otherwise a browser would soon have no connection left."""
    go(page, service, uuid, "run")
    with page.expect_request("**/run/*/stream") as followed:
        expect(live(run(page, COUNTS))).to_contain_text("line 1\n")
    with page.expect_event("requestfailed", lambda request: request == followed.value):
        page.locator("#tab-cost").click()


def test_a_command_wakes_a_session_and_the_draft_stays(page: Page, service: Service, uuid: str) -> None:
    go(page, service, uuid, "run")
    expect(run(page, "echo before").locator("pre.stdout")).to_have_text("before\n")
    page.get_by_label("Command").fill("echo awake")
    service.done("POST", f"/session/{uuid}/sleep")
    expect(page.get_by_text("The session sleeps, so its commands can't be seen.")).to_be_visible()
    expect(entries(page)).to_have_count(0)
    expect(page.get_by_label("Command")).to_have_value("echo awake")
    page.get_by_label("Command").press("Enter")
    expect(entries(page).first.locator("pre.stdout")).to_have_text("awake\n")
    expect(entries(page)).to_have_count(2)
    expect(page.get_by_text("The session sleeps")).to_have_count(0)


def test_a_sleep_ends_what_runs_and_says_so(page: Page, service: Service, uuid: str, busy: Path) -> None:
    go(page, service, uuid, "run")
    expect(live(run(page, COUNTS))).to_contain_text("line 1\n")
    service.done("POST", f"/session/{uuid}/sleep")
    expect(page.get_by_text("The session sleeps, so its commands can't be seen.")).to_be_visible()
    expect(page.get_by_text("reconnecting")).not_to_be_visible()
    page.locator("#do-wake").click()
    entry = entries(page)
    expect(entry.locator(".status")).to_have_text("ended by the session's sleep")
    entry.locator("summary").press("Enter")
    expect(entry.locator("pre.stdout")).to_contain_text("line 1\n")
    assert busy.exists()


def test_megabytes_are_shown_in_part_and_downloaded_whole(page: Page, service: Service, uuid: str) -> None:
    go(page, service, uuid, "run")
    entry = run(page, f"seq 1 1000000 | head -c {FIVE_MB}")
    expect(entry.locator(".status")).to_have_text("exit code 0")
    expect(entry).to_contain_text("only the beginning and the end are shown")
    assert len(entry.locator("pre.stdout").inner_text()) < 100_000
    with page.expect_download() as download:
        entry.get_by_role("link", name="Download stdout").click()
    content = download.value.path().read_bytes()
    assert len(content) == FIVE_MB
    assert content.startswith(b"1\n2\n3\n")
    assert download.value.suggested_filename.endswith(".stdout")
    expect(run(page, "echo still usable").locator("pre.stdout")).to_have_text("still usable\n")


def test_an_entry_shows_its_output_when_opened_and_runs_again(page: Page, service: Service, uuid: str) -> None:
    service.done("POST", f"/session/{uuid}/exec", {"command": ["echo", "a b"]})
    go(page, service, uuid, "run")
    entry = entries(page)
    expect(entry.locator("pre")).to_have_count(0)
    entry.locator("summary").press("Enter")
    expect(entry.locator("pre.stdout")).to_have_text("a b\n")
    entry.get_by_role("button", name="Run again").click()
    field = page.get_by_label("Command")
    expect(field).to_be_focused()
    expect(field).to_have_value("echo 'a b'")
    field.press("Enter")
    expect(entries(page)).to_have_count(2)
    expect(entries(page).first.locator("pre.stdout")).to_have_text("a b\n")


def test_what_a_command_writes_is_no_markup(page: Page, service: Service, uuid: str, busy: Path) -> None:
    go(page, service, uuid, "run")
    entry = run(page, f"printf '\\033[31m%s\\033[0m\\n' '{HOSTILE}'; while [ -e busy ]; do sleep 0.1; done")
    expect(live(entry)).to_have_text(f"{HOSTILE}\n")
    busy.unlink()
    expect(entry.locator("pre.stdout")).to_have_text(f"{HOSTILE}\n")
    assert page.locator("main img").count() == 0


def test_a_command_whose_answer_was_lost_runs_once(troubled: Page, service: Service, uuid: str) -> None:
    page = troubled
    go(page, service, uuid, "run")

    def lose(route: Route) -> None:
        asked = parse_qs(route.request.post_data or "")
        order = {"command": asked["command"][0], "id": asked["id"][0]}
        service.done("POST", f"/session/{uuid}/exec", order)
        route.fulfill(status=502, content_type="text/html", body=BAD_GATEWAY)

    page.route("**/run", lose)
    field = page.get_by_label("Command")
    field.fill("echo x >> count")
    field.press("Enter")
    expect(page.locator("#notices .notice")).to_contain_text("did not answer")
    expect(field).to_have_value("echo x >> count")
    page.unroute("**/run")
    field.press("Enter")
    expect(field).to_have_value("")
    expect(entries(page)).to_have_count(1)
    expect(entries(page).locator(".status")).to_have_text("exit code 0")
    assert (service.files(uuid) / "count").read_text() == "x\n"


def test_a_refused_command_stays_in_its_field(troubled: Page, service: Service, uuid: str) -> None:
    page = troubled
    go(page, service, uuid, "run")
    page.get_by_label("In folder").fill("missing")
    field = page.get_by_label("Command")
    field.fill("echo hi")
    field.press("Enter")
    expect(page.locator("#notices .notice")).to_have_count(1)
    expect(field).to_have_value("echo hi")
    expect(entries(page)).to_have_count(0)


def test_lost_connections_show_no_line_twice(troubled: Page, service: Service, uuid: str, busy: Path) -> None:
    """Both streams end, and are refused for a while by an ingress: the output begins anew, and each line is once."""
    page = troubled
    go(page, service, uuid, "run")
    entry = run(page, COUNTS)
    expect(live(entry)).to_contain_text("line 2\n")
    refused: list[str] = []

    def refuse(route: Route) -> None:
        refused.append(route.request.url)
        route.fulfill(status=502, content_type="text/html", body=BAD_GATEWAY)

    of_page, of_command = "**/stream?after=*", "**/run/*/stream"
    page.route(of_page, refuse)
    page.route(of_command, refuse)
    service.kill("web")
    expect_until(page, lambda: len({*refused}) == 2)
    page.unroute(of_command)
    expect(live(entry)).to_contain_text("line 30\n")
    expect(page.locator("#lost")).to_be_visible()
    page.unroute(of_page)
    expect(page.locator("#lost")).not_to_be_visible()
    newest = lines(live(entry).inner_text())[-1]
    expect(live(entry)).to_contain_text(f"line {newest + 3}\n")
    shown = lines(live(entry).inner_text())
    assert shown == list(range(1, shown[-1] + 1))


def test_a_stream_that_is_refused_is_no_lost_connection_of_another_tab(
    troubled: Page, service: Service, uuid: str, busy: Path
) -> None:
    page = troubled
    go(page, service, uuid, "run")
    page.route("**/run/*/stream", lambda route: route.fulfill(status=429))
    run(page, COUNTS)
    expect(page.locator("#lost")).to_be_visible()
    page.locator("#tab-cost").click()
    expect(page.locator("#lost")).not_to_be_visible()


@pytest.mark.parametrize("look", LOOKS)
def test_the_tab_can_be_read_and_used(page: Page, service: Service, uuid: str, busy: Path, look: str) -> None:
    """In light, dark and narrow, with each kind of entry."""
    service.done("POST", f"/session/{uuid}/exec", {"command": "echo " + "a long command " * 30})
    go(page, service, uuid, "run")
    run(page, "echo built 14 modules; echo warning: unused import >&2; exit 1")
    expect(entries(page).first.locator(".status")).to_have_text("exit code 1")
    run(page, f"{COUNTS} # {HOSTILE}; echo oops >&2")
    run(page, "echo oops >&2; while [ -e busy ]; do sleep 0.1; done")
    expect(live(entries(page).nth(1))).to_contain_text("line 3\n")
    expect(live(entries(page).first)).to_contain_text("oops\n")
    expect_readable(page, "run")
    assert page.locator("main img").count() == 0
    busy.unlink()
    expect(page.locator(".status.busy")).to_have_count(0)
    expect_readable(page, "run, ended")
