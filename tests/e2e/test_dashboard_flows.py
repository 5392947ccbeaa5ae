"""The dashboard's main ways on a running service, in Chromium: in every look, without jumps of the layout; the
operators' pages; and that no other page may frame it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.axe import violations
from tests.dashboard_browser import dashboard, go, signed_in, without_complaints
from tests.looks import LOOKS, looking, scrolls_sideways
from tests.product import product
from tests.service import KEY, Service
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

GOOD_SHIFT = 0.1
"""A page is good up to this cumulative layout shift (https://web.dev/articles/cls)."""

SHIFTS = """() => {
  window.shifts = [];
  const name = (node) => node ? `${node.nodeName} ${node.id ?? ""} ${node.className ?? ""}` : "";
  const note = (list) => {
    for (const each of list.getEntries()) {
      if (each.hadRecentInput) continue;
      shifts.push({ value: each.value, what: each.sources.map((source) => name(source.node)) });
    }
  };
  new PerformanceObserver(note).observe({ type: "layout-shift", buffered: true });
}"""
"""Notes what moves in a page by itself, and how far, as https://web.dev/articles/cls counts it."""


@pytest.fixture(scope="module")
def service_settings() -> Mapping[str, str]:
    """One that differs from its default, to be found among the settings."""
    return {"INBOX_LIMIT": "50"}


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with looking(browser, "light") as made:
        yield made


@pytest.fixture
def page(context: BrowserContext, service: Service) -> Iterator[Page]:
    """Signed in as an admin, who says yes to every question. A mistake in a script ends the test."""
    opened = signed_in(context, service)
    opened.on("dialog", lambda dialog: dialog.accept())
    with without_complaints(opened):
        yield opened


def check(page: Page, where: str) -> None:
    """It can be read and used, and the way to every page is within the window."""
    assert violations(page) == [], where
    assert not scrolls_sideways(page), where
    width = page.evaluate("innerWidth")
    for each in page.locator("nav.nav").locator("a, button").all():
        box = each.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width, (where, each.inner_text())


@pytest.mark.parametrize("look", LOOKS)
def test_the_way_from_the_list_to_a_new_sessions_tabs(service: Service, browser: Browser, look: str) -> None:
    with looking(browser, look) as context:
        page = signed_in(context, service)
        with without_complaints(page):
            check(page, "list")
            page.get_by_role("button", name="New session").click()
            page.locator("#user_id").fill(f"user-{look}")
            check(page, "create")
            page.locator("#dialog").get_by_role("button", name="Create").click()
            expect(page.locator("#dialog")).not_to_be_visible()
            row = page.locator("tr[data-uuid]").filter(has_text=f"user-{look}")
            expect(row.locator(".status")).to_have_text("active")
            check(page, "list with the session")
            row.locator("a.session").click()
            expect(page.locator(".session-state")).to_contain_text("active")
            check(page, "session")
            page.locator("#tab-chat").click()
            page.get_by_label("Prompt").fill("a prompt")
            check(page, "chat")
            page.locator("#tab-backups").click()
            page.get_by_role("button", name="Back up now").click()
            expect(page.locator("#backup-list tbody tr")).to_have_count(1)
            check(page, "backups")
            page.get_by_role("navigation", name="Main").get_by_role("link", name="Settings").click()
            expect(page.get_by_role("heading", name="Settings")).to_be_visible()


def shift(page: Page) -> float:
    """The cumulative layout shift of the page so far, as a sum, which is no less than that of its worst 5 s."""
    page.wait_for_function("() => new Promise((told) => requestAnimationFrame(() => setTimeout(() => told(true))))")
    return sum(each["value"] for each in page.evaluate("shifts"))


@pytest.mark.parametrize("look", ["light", "narrow"])
def test_nothing_jumps_while_pages_load_and_change(service: Service, browser: Browser, look: str) -> None:
    service.create("shifting")
    with looking(browser, look) as context:
        page = signed_in(context, service)
        page.goto(dashboard(service))
        page.evaluate(SHIFTS)
        expect(page.locator("tr[data-uuid]").first).to_be_visible()
        uuid = service.create("shifting")["uuid"]
        expect(page.locator("#new-count a")).to_be_visible()
        assert shift(page) < GOOD_SHIFT, page.evaluate("shifts")

        go(page, service, uuid)
        page.evaluate(SHIFTS)
        expect(page.locator(".session-state")).to_contain_text("active")
        service.done("POST", f"/session/{uuid}/sleep")
        expect(page.locator(".timeline")).to_contain_text("No process runs any more")
        service.done("POST", f"/session/{uuid}/wake")
        expect(page.locator(".session-state")).to_contain_text("active")
        service.done("POST", f"/session/{uuid}/backup", headers={"Prefer": "wait=60"})
        expect(page.locator(".facts")).not_to_contain_text("none")
        assert shift(page) < GOOD_SHIFT, page.evaluate("shifts")


def test_a_dead_letter_is_tried_again_and_another_is_dropped(service: Service, page: Page) -> None:
    """Two backups were given up, as there was a file where their folders were to be."""
    retried, dropped = (service.create()["uuid"] for _ in range(2))
    for uuid in (retried, dropped):
        place = service.data_dir / "backups" / uuid
        place.write_text("no folder")
        refused = service.call("POST", f"/session/{uuid}/backup", headers={"Prefer": "wait=60"})
        assert refused.json()["error"] == "backup_failed", refused.text
        place.unlink()
    page.goto(f"{dashboard(service)}/operations")
    letters = page.locator("section", has=page.locator("#letters-title"))
    expect(letters.locator("tbody tr")).to_have_count(2)
    assert violations(page) == []

    letters.locator("tr", has_text=retried).get_by_role("button", name="Retry").click()
    expect(page.locator("#notices")).to_contain_text(f"of session {retried} is tried again.")
    expect(letters.locator("tbody tr")).to_have_count(1)
    expect(letters.locator(".count")).to_have_text("1")
    wait_for(lambda: service.done("GET", f"/session/{retried}/backups")["backups"], "the backup")

    letters.locator("tr", has_text=dropped).get_by_role("button", name="Drop").click()
    expect(page.locator("#notices")).to_contain_text("The dead letter is dropped.")
    expect(letters.locator("tbody tr")).to_have_count(0)
    expect(letters.locator(".count")).to_have_text("0")
    assert service.done("GET", "/dead-letters")["dead_letters"] == []
    assert service.done("GET", f"/session/{dropped}/backups")["backups"] == []
    page.reload()
    expect(letters.get_by_text("No task was given up.")).to_be_visible()


def test_the_charts_show_the_time_that_is_chosen(service: Service, page: Page) -> None:
    page.goto(f"{dashboard(service)}/overview")
    ranges = page.get_by_role("navigation", name="Time")
    expect(ranges.locator("[aria-current]")).to_have_text("24 hours")
    for label, hours in (("1 hour", 1), ("7 days", 168), ("30 days", 720)):
        ranges.get_by_role("link", name=label).click()
        page.wait_for_url(f"**/overview?hours={hours}")
        expect(ranges.locator("[aria-current]")).to_have_text(label)
        # What the page asks for again is of the same time.
        expect(page.locator("#figures")).to_have_attribute("hx-get", f"/overview/figures?hours={hours}")
        expect(page.locator("#figures")).to_contain_text("Awake")


def test_the_settings_are_searched_and_show_no_secret(service: Service, page: Page) -> None:
    page.goto(f"{dashboard(service)}/settings")
    secrets = [KEY, service.redis().connection_pool.connection_kwargs["password"]]
    assert all(secrets)
    assert not [each for each in secrets if each in page.content()]
    settings = page.locator(".settings-list tbody tr")
    page.get_by_label("Search the settings").fill("inbox_lim")
    page.keyboard.press("Enter")
    expect(settings).to_have_count(1)
    expect(settings).to_contain_text("INBOX_LIMIT")
    expect(settings).to_contain_text("default 100")
    page.get_by_label("Search the settings").fill("redis_url")
    page.get_by_role("button", name="Show").click()
    expect(settings.filter(has=page.locator("code", has_text="REDIS_URL")).first).to_be_visible()
    assert not [each for each in secrets if each in page.content()]


def framed(page: Page) -> str:
    """The protocol of what the page's frame shows."""
    return str(page.frames[1].evaluate("location.protocol"))


def test_no_page_of_another_origin_frames_the_dashboard(service: Service, context: BrowserContext) -> None:
    page = signed_in(context, service)
    refusals: list[str] = []
    page.on("console", lambda message: refusals.append(message.text))
    with product() as beside:
        for host in ("product.localhost", "127.0.0.1"):
            refusals.clear()
            page.goto(beside.page_with(host, f"{dashboard(service)}/"))
            wait_for(lambda: framed(page) == "chrome-error:", "the browser's own page in the frame")
            assert any("frame-ancestors" in each for each in refusals), refusals
    for path in ("/", "/operations", "/nothing-here"):
        answer = page.goto(dashboard(service) + path)
        assert answer is not None
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], path
        assert answer.headers["x-frame-options"] == "DENY", path
