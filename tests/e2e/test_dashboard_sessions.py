"""The dashboard's list of sessions on a running service, in Chromium."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, Response, Route, expect

from app.core.backups.store import NAME_PATTERN
from app.core.sessions.model import Record, Status, new_uuid
from app.core.sessions.store import SessionStore
from tests.axe import violations
from tests.browser import expect_editor
from tests.looks import LOOKS, expect_readable, picture
from tests.service import Service

MARKUP = '"><img src=x onerror=alert(1)>'


def row(page: Page, uuid: str) -> Locator:
    return page.locator(f'tr[data-uuid="{uuid}"]')


def act(page: Page, uuid: str, name: str) -> None:
    """Choose from a row's menu."""
    row(page, uuid).get_by_role("button", name="Actions for").click()
    page.locator("#row-menu").get_by_role("button", name=name).click()


@pytest.fixture
def page(page: Page) -> Iterator[Page]:
    """One that asks nothing by itself."""
    questions: list[str] = []
    page.on("dialog", lambda dialog: questions.append(dialog.message))
    yield page
    assert questions == []


def test_the_first_visit_leads_to_a_running_workspace_in_two_clicks(service: Service, page: Page) -> None:
    assert violations(page) == []
    picture(page, "dashboard-first-visit")
    page.get_by_role("button", name="Create your first workspace").click()
    expect(page.get_by_text("Your workspace is ready")).to_be_visible()
    assert violations(page) == []
    with page.context.expect_page() as opened:
        page.get_by_role("button", name="Open your workspace").click()
    expect_editor(opened.value)
    assert opened.value.evaluate("window.opener") is None
    [made] = service.done("GET", "/sessions?user_id=me")["sessions"]
    service.done("DELETE", f"/session/{made['uuid']}?backup=false")


def test_rows_counts_and_new_sessions_are_live(service: Service, page: Page) -> None:
    """Without a reload: the page loads once."""
    first = service.create("ada", labels={"course": "python-101"})["uuid"]
    page.goto(service.dashboard_url)
    loads: list[str] = []
    page.on("request", lambda request: loads.append(request.url) if request.is_navigation_request() else None)
    expect(row(page, first).locator(".status")).to_have_text("active")
    expect(page.locator("#tab-active")).to_contain_text("1")

    service.done("POST", f"/session/{first}/sleep")
    expect(row(page, first).locator(".status")).to_have_text("sleeping")
    expect(page.locator("#tab-sleeping")).to_contain_text("1")
    expect(page.locator("#tab-active")).to_contain_text("0")

    second = service.create("bob")["uuid"]
    page.get_by_role("link", name="1 new").click()
    expect(row(page, second).locator(".status")).to_have_text("active")
    expect(page.get_by_role("link", name="1 new")).to_have_count(0)

    service.done("DELETE", f"/session/{second}?backup=false")
    expect(row(page, second).locator(".status")).to_have_text("terminated")
    expect(row(page, second).get_by_role("button")).to_have_count(0)
    assert loads == []
    service.done("DELETE", f"/session/{first}?backup=false")


def test_what_a_person_creates_here_is_not_told_as_new(service: Service, page: Page) -> None:
    """The list has it before the page asks for the second time what is new."""
    first = service.create("ada")["uuid"]
    page.goto(service.dashboard_url)
    asked = itertools.count(1)

    def is_second(answer: Response) -> bool:
        return "/sessions/new-ones" in answer.url and next(asked) == 2

    with page.expect_response(is_second) as second:
        page.get_by_role("button", name="New session").click()
        page.locator("#user_id").fill("grace")
        page.locator("#dialog").get_by_role("button", name="Create").click()
        made = page.locator("tr[data-uuid]").filter(has_text="grace")
        expect(made.locator(".status")).to_have_text("active")
    uuid = str(made.get_attribute("data-uuid"))
    assert f"since={uuid}" in second.value.url
    expect(page.locator("#new-count a")).to_have_count(0)
    for each in (first, uuid):
        service.done("DELETE", f"/session/{each}?backup=false")


def test_a_row_and_the_counts_turn_archived_while_they_are_shown(service: Service, page: Page) -> None:
    uuid = service.create("ada", ttl=2)["uuid"]
    page.goto(service.dashboard_url)
    expect(row(page, uuid).locator(".status")).to_have_text("active")
    loads: list[str] = []
    page.on("request", lambda request: loads.append(request.url) if request.is_navigation_request() else None)
    service.done("POST", f"/session/{uuid}/sleep")
    expect(row(page, uuid).locator(".state")).to_have_text("sleeping archived")
    expect(page.locator("#tab-archived")).to_contain_text("1")
    assert loads == []
    service.done("DELETE", f"/session/{uuid}?backup=false")


@pytest.mark.parametrize("look", LOOKS)
def test_an_archived_session_says_so_and_is_woken_from_its_page(service: Service, page: Page) -> None:
    uuid = service.create("ada", ttl=2)["uuid"]
    (service.files(uuid) / "kept.txt").write_text("kept")
    page.goto(f"{service.dashboard_url}/sessions/{uuid}")
    page.locator("#do-sleep").click()
    facts = page.locator(".facts")
    expect(facts).to_contain_text("in the archive: the next wake restores them")
    expect(page.locator(".timeline")).to_contain_text("Archived")
    page.goto(f"{service.dashboard_url}/?status=archived")
    expect(row(page, uuid).locator(".state")).to_have_text("sleeping archived")
    expect(page.locator("#tab-archived")).to_contain_text("1")
    expect_readable(page)
    page.goto(f"{service.dashboard_url}/overview")
    expect(page.get_by_role("link", name="1 archived")).to_be_visible()
    assert violations(page) == []
    page.goto(f"{service.dashboard_url}/sessions/{uuid}")
    expect(page.locator(".session-state")).to_contain_text("in the archive")
    expect_readable(page)
    page.locator("#do-wake").click()
    expect(page.locator(".session-state")).to_contain_text("active")
    expect(facts).to_contain_text("on its volume")
    expect(page.locator(".timeline")).to_contain_text(re.compile(r"Restoring [1-9]\d* files?, "))
    assert (service.files(uuid) / "kept.txt").read_text() == "kept"
    service.done("DELETE", f"/session/{uuid}?backup=false")


SEND_AT_ONCE = """() => new MutationObserver((_, observer) => {
  const form = document.querySelector("#dialog form");
  if (!form) return;
  observer.disconnect();
  form.elements.user_id.value = "not a user";
  form.requestSubmit();
}).observe(document.body, { subtree: true, childList: true })"""


def test_a_form_can_be_sent_in_the_moment_it_appears(page: Page) -> None:
    page.evaluate(SEND_AT_ONCE)
    page.locator("#create").click()
    expect(page.locator("#dialog").get_by_text("1 to 128 of")).to_be_visible()


def test_a_person_creates_opens_sleeps_wakes_and_deletes(service: Service, page: Page) -> None:
    page.keyboard.press("c")
    page.locator("#user_id").fill("not a user")
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 to 128 of")).to_be_visible()
    page.locator("#user_id").fill("grace")
    page.locator("#labels").fill("course=compilers, team=a")
    page.keyboard.press("Enter")
    expect(page.locator("#dialog")).not_to_be_visible()
    made = page.locator("tr[data-uuid]").first
    expect(made).to_contain_text("grace")
    uuid = made.get_attribute("data-uuid") or ""
    assert service.status(uuid)["session"]["labels"] == {"course": "compilers", "team": "a"}
    expect(row(page, uuid).locator(".status")).to_have_text("active")

    with page.context.expect_page() as opened:
        act(page, uuid, "Open the workspace")
    expect_editor(opened.value)
    opened.value.close()

    act(page, uuid, "Put to sleep")
    expect(page.get_by_text("One session goes to sleep.")).to_be_visible()
    expect(row(page, uuid).locator(".status")).to_have_text("sleeping")
    act(page, uuid, "Wake up")
    expect(row(page, uuid).locator(".status")).to_have_text("active")

    act(page, uuid, "Delete")
    dialog = page.locator("#dialog")
    expect(dialog).to_contain_text(f"Delete the session {uuid} of grace?")
    expect(dialog).to_contain_text("It has no backup yet.")
    dialog.get_by_label("Delete without a backup").check()
    dialog.get_by_role("button", name=f"Delete {uuid}").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    dialog.get_by_label("Back up, check the backup").check()
    dialog.get_by_role("button", name=f"Delete {uuid}").click()
    expect(row(page, uuid).locator(".status")).to_have_text("terminated")
    page.locator("#tab-terminated").click()
    expect(row(page, uuid).locator(".status")).to_have_text("terminated")
    [backup] = service.done("GET", f"/backups?uuid={uuid}")["backups"]
    assert NAME_PATTERN.fullmatch(backup["name"])


def test_several_are_chosen_by_keys_and_slept_at_once(service: Service, page: Page) -> None:
    uuids = [service.create(f"user-{number}")["uuid"] for number in range(3)]
    page.goto(f"{service.dashboard_url}/?q=user-")
    expect(page.locator("tr[data-uuid]")).to_have_count(3)
    for key in ("j", "x", "ArrowDown", "ArrowDown", "ArrowUp", "j", "x"):
        page.keyboard.press(key)
    expect(page.locator("#bulk-count")).to_have_text("2 chosen")
    page.keyboard.press("Escape")
    page.locator("tr[data-uuid] input").first.click()
    page.locator("tr[data-uuid] input").last.click(modifiers=["Shift"])
    expect(page.locator("#bulk-count")).to_have_text("3 chosen")
    page.locator("#bulk").get_by_role("button", name="Sleep").click()
    expect(page.get_by_text("3 sessions go to sleep.")).to_be_visible()
    expect(page.locator("#tab-sleeping")).to_contain_text("3")
    page.get_by_label("Choose all on this page").check()
    page.locator("#bulk").get_by_role("button", name="Delete").click()
    page.locator("#dialog").get_by_label("Delete without a backup").check()
    page.locator("#confirm").fill("3 sessions")
    page.locator("#dialog").get_by_role("button", name="Delete 3 sessions").click()
    for uuid in uuids:
        expect(row(page, uuid).locator(".status")).to_have_text("terminated")


def test_a_row_that_changes_under_the_mouse_takes_no_click_away(service: Service, page: Page) -> None:
    [uuid] = some(service, 1, made="alone")
    store = SessionStore(service.redis())
    page.goto(f"{service.dashboard_url}/?label=made%3Dalone")
    chip = row(page, uuid).locator(".chip").filter(has_text="course")
    chip.hover()
    page.mouse.down()
    store.change(uuid, time.time(), to=Status.FAILED, reason="It fails while the button is down.")
    expect(row(page, uuid)).to_contain_text("while the button is down")
    held: list[Route] = []
    page.route("**/?*course*", lambda route: held.append(route))
    with page.expect_request("**/?*course*"):
        page.mouse.up()
    store.change(uuid, time.time(), to=Status.TERMINATING)
    expect(row(page, uuid)).to_contain_text("terminating")
    held[0].continue_()
    page.wait_for_url("**label=course*")
    store.change(uuid, time.time(), to=Status.TERMINATED, settle=True)


EACH_CHOICE = """uuid => {
  window.choices = [];
  const note = () => choices.push(document.getElementById("choose-" + uuid).checked);
  new MutationObserver(note).observe(document.body, { subtree: true, childList: true, attributes: true });
}"""
"""Notes whether a row is chosen, after whatever changes the page."""


def test_a_row_that_changes_stays_chosen(service: Service, page: Page) -> None:
    """From the moment of its change on: a form that is sent then would lack it."""
    [uuid] = some(service, 1, made="chosen")
    page.goto(f"{service.dashboard_url}/?label=made%3Dchosen")
    row(page, uuid).locator("input").check()
    page.evaluate(EACH_CHOICE, uuid)
    SessionStore(service.redis()).change(uuid, time.time(), to=Status.FAILED, reason="It fails while it is chosen.")
    expect(row(page, uuid)).to_contain_text("while it is chosen")
    assert set(page.evaluate("choices")) == {True}
    forget(service, [uuid])


def test_filters_stand_in_the_address_and_the_back_button_works(service: Service, page: Page) -> None:
    uuids = some(service, 60)
    page.goto(f"{service.dashboard_url}/?label=made%3Dhere")
    page.get_by_role("link", name="Older").click()
    page.wait_for_url("**cursor=*")
    expect(page.locator("tr[data-uuid]")).to_have_count(10)
    page.get_by_role("link", name="Newer").click()
    expect(page.locator("tr[data-uuid]")).to_have_count(50)

    page.keyboard.press("/")
    page.keyboard.type("LISA")
    page.wait_for_url("**/?q=LISA&*")
    expect(page.locator("tr[data-uuid]")).to_have_count(20)
    expect(page.locator("#q")).to_be_focused()
    page.locator("#tab-active").click()
    page.wait_for_url("**/?status=active&q=LISA&*")
    expect(page.get_by_text("Nothing found")).to_be_visible()
    page.go_back()
    expect(page.locator("tr[data-uuid]")).to_have_count(20)
    page.locator("tr[data-uuid] .chip").filter(has_text="course").first.click()
    page.wait_for_url("**label=course*")
    expect(page.locator("#q")).to_have_value("LISA")
    address = page.url
    page.goto(f"{service.dashboard_url}/?status=failed")
    page.goto(address)
    expect(page.locator("#q")).to_have_value("LISA")
    forget(service, uuids)


@pytest.mark.parametrize("look", LOOKS)
def test_everybody_can_read_and_use_it(service: Service, page: Page, look: str) -> None:
    """axe-core finds nothing, nothing is wider than the window, and what tenants wrote is text."""
    uuids = some(service, 24, note=MARKUP)
    page.goto(service.dashboard_url)
    check(page, f"dashboard-sessions-{look}")
    page.locator("tr[data-uuid] input").nth(1).check()
    check(page, f"dashboard-chosen-{look}")
    page.locator("#bulk").get_by_role("button", name="Delete").click()
    page.locator("#dialog").get_by_label("Delete without a backup").check()
    check(page, f"dashboard-delete-{look}")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    check(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="New session").click()
    expect(page.locator("#user_id")).to_be_focused()
    check(page, f"dashboard-create-{look}")
    for path in ("/?status=failed", "/?q=nobody", "/?status=starting"):
        page.goto(service.dashboard_url + path)
        check(page)
    forget(service, uuids)


def check(page: Page, name: str = "") -> None:
    expect_readable(page, name)
    if name:
        picture(page, name)


def some(service: Service, count: int, **labels: str) -> list[str]:
    """Sessions that have come to rest, without workspaces: asleep, or failed. Answers their uuids."""
    store, now = SessionStore(service.redis()), time.time()
    uuids = [new_uuid() for _ in range(count)]
    for number, uuid in enumerate(uuids):
        failed = number % 12 == 7
        record = Record(
            uuid=uuid,
            user_id=("lisa@example.com", "ada", "grace.hopper@example.com")[number % 3],
            created_at=now - 600.0 * (count - number),
            last_activity=now - 400.0 * (count - number),
            status=Status.FAILED if failed else Status.SLEEPING,
            reason="The image registry.example.com/workspace:4.2 could not be pulled: not found." if failed else "",
            labels={
                "made": "here",
                "course": ("python-101", "databases")[number % 2],
                **(labels if number % 5 == 0 else {}),
            },
            settled=1,
            ttl=86_400.0 * 30,
        )
        store.create(record, quota=None)
    return uuids


def forget(service: Service, uuids: list[str]) -> None:
    """Take what `some` made away."""
    store = SessionStore(service.redis())
    for uuid in uuids:
        store.change(uuid, time.time(), to=Status.TERMINATING)
        store.change(uuid, time.time(), to=Status.TERMINATED, settle=True)
