"""The dashboard on one machine, in Chromium (the suite is tests/suites/dashboard.py): without jumps of the layout; dead
letters; and settings of this run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.axe import violations
from tests.dashboard_browser import go, signed_in
from tests.model_server import ModelServer
from tests.service import KEY, Service
from tests.suites.dashboard import TheDashboard
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
def service_settings(model: ModelServer) -> Mapping[str, str]:
    """One differs from its default, to be found among the settings; and a start is no use, so that a session may fall
    asleep soon."""
    return model.settings | {"INBOX_LIMIT": "50", "WAKE_GRACE": "0"}


@pytest.fixture(scope="module")
def secrets(service: Service, model: ModelServer) -> Sequence[str]:
    return KEY, service.redis().connection_pool.connection_kwargs["password"], model.api_key


class TestDashboardLocally(TheDashboard):
    """The whole service, as scripts/run starts it."""


def test_open_pages_keep_no_session_awake(service: Service, context: BrowserContext) -> None:
    """With its files, its commands, and the log of a service that writes on: it falls asleep as if nobody looked, and
    no page wakes it."""
    uuid = service.create(idle_timeout=8)["uuid"]
    ticking = {"name": "ticking", "command": "while :; do date; sleep 0.2; done"}
    service.done("POST", f"/session/{uuid}/services", ticking)
    pages = [signed_in(context, service), context.new_page(), context.new_page()]
    for page, tab in zip(pages, ("files", "run", "services"), strict=True):
        go(page, service, uuid, tab)
    pages[-1].get_by_role("button", name="Log of ticking").click()
    expect(pages[-1].get_by_label("Output of ticking")).to_contain_text(":")
    service.wait_status(uuid, "sleeping", replicas=0)
    for page in pages:
        expect(page.get_by_text("The session sleeps")).to_be_visible()
    assert service.states(uuid) == ["created", "active", "sleeping"]


def shift(page: Page) -> float:
    """The cumulative layout shift of the page so far, as a sum, which is no less than that of its worst 5 s."""
    page.wait_for_function("() => new Promise((told) => requestAnimationFrame(() => setTimeout(() => told(true))))")
    return sum(each["value"] for each in page.evaluate("shifts"))


@pytest.mark.parametrize("look", ["light", "narrow"])
def test_nothing_jumps_while_pages_load_and_change(service: Service, page: Page) -> None:
    service.create("shifting")
    page.goto(service.dashboard_url)
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
    """Two backups were given up, as there was a file where their folders were to be. The person says yes to every
    question."""
    page.on("dialog", lambda dialog: dialog.accept())
    retried, dropped = (service.create()["uuid"] for _ in range(2))
    for uuid in (retried, dropped):
        place = service.data_dir / "backups" / uuid
        place.write_text("no folder")
        refused = service.call("POST", f"/session/{uuid}/backup", headers={"Prefer": "wait=60"})
        assert refused.json()["error"] == "backup_failed", refused.text
        place.unlink()
    page.goto(f"{service.dashboard_url}/operations")
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


def test_the_settings_are_searched(service: Service, page: Page) -> None:
    page.goto(f"{service.dashboard_url}/settings")
    settings = page.locator(".settings-list tbody tr")
    page.get_by_label("Search the settings").fill("inbox_lim")
    page.keyboard.press("Enter")
    expect(settings).to_have_count(1)
    expect(settings).to_contain_text("INBOX_LIMIT")
    expect(settings).to_contain_text("default 100")
