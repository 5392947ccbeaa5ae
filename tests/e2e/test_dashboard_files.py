"""What people do at the dashboard with the files of a session, on a running service, in Chromium: restore points,
backups, and a deletion of everything."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.axe import violations
from tests.browser import PATIENCE
from tests.dashboard_browser import go, signed_in
from tests.service import Service
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def page(page: Page) -> Page:
    """Whose person says yes to every question."""
    page.on("dialog", lambda dialog: dialog.accept())
    return page


def uuid_of(page: Page) -> str:
    return page.url.split("/sessions/")[1].split("/")[0]


def notes(service: Service, uuid: str) -> str:
    """What the session's own file says."""
    return (service.files(uuid) / "notes.txt").read_text()


def write(service: Service, uuid: str, text: str) -> None:
    (service.files(uuid) / "notes.txt").write_text(text)


def points(page: Page) -> Locator:
    return page.locator("#restore-point-list tbody tr")


def goes_to_another(page: Page, uuid: str) -> str:
    """Wait for the page of a new session that is up; its uuid."""
    page.wait_for_url(lambda url: "/sessions/" in url and uuid not in url, timeout=PATIENCE)
    expect(page.locator(".session-state")).to_contain_text("active")
    return uuid_of(page)


def test_a_session_is_rolled_back_and_forked_from_a_restore_point(page: Page, service: Service) -> None:
    """The page shows each step by itself: it is never reloaded."""
    uuid = service.create()["uuid"]
    write(service, uuid, "first")
    go(page, service, uuid, "restore-points")
    page.get_by_role("button", name="Make one now").click()
    expect(points(page)).to_have_count(1)
    first = points(page).locator("code").first.inner_text()
    write(service, uuid, "second")

    questions: list[str] = []
    page.on("dialog", lambda dialog: questions.append(dialog.message))
    page.get_by_role("button", name=f"Roll back to {first}").click()
    expect(page.locator("#restore-points .backup-state")).to_contain_text("Rolled back: the files are those of")
    expect(points(page)).to_have_count(2)
    expect(points(page).filter(has_text="before a rollback")).to_have_count(1)
    assert len(questions) == 1
    assert notes(service, uuid) == "first"
    assert violations(page) == []

    page.get_by_role("button", name=f"Start a new session from {first}").click()
    fork = goes_to_another(page, uuid)
    assert notes(service, fork) == "first"
    write(service, fork, "of the fork")
    assert notes(service, uuid) == "first"


def test_a_backup_is_restored_and_deleted(page: Page, service: Service) -> None:
    uuid = service.create()["uuid"]
    write(service, uuid, "kept")
    go(page, service, uuid, "backups")
    page.get_by_role("button", name="Back up now").click()
    rows = page.locator("#backup-list tbody tr")
    expect(rows).to_have_count(1)
    name = rows.locator("code").inner_text()
    write(service, uuid, "changed since")

    page.get_by_role("button", name=f"Restore {name} into a new session").click()
    copy = goes_to_another(page, uuid)
    assert (notes(service, copy), notes(service, uuid)) == ("kept", "changed since")

    go(page, service, uuid, "backups")
    questions: list[str] = []
    page.on("dialog", lambda dialog: questions.append(dialog.message))
    page.get_by_role("button", name=f"Delete {name}").click()
    expect(page.get_by_text("No backup is kept.")).to_be_visible()
    assert name in questions[0]
    assert service.done("GET", f"/session/{uuid}/backups")["backups"] == []


def test_everything_of_a_session_is_erased_once_its_uuid_is_typed(page: Page, service: Service) -> None:
    uuid = service.create()["uuid"]
    service.done("POST", f"/session/{uuid}/backup", headers={"Prefer": "wait=60"})
    page.goto(f"{service.dashboard_url}/?q={uuid}")
    row = page.locator(f'tr[data-uuid="{uuid}"]')
    row.get_by_role("button", name="Actions for").click()
    page.locator("#row-menu").get_by_role("button", name="Delete").click()
    dialog = page.locator("#dialog")
    expect(dialog.locator("#confirm")).not_to_be_visible()
    dialog.get_by_label("Erase everything").check()
    dialog.locator("#confirm").fill("another")
    dialog.get_by_role("button", name=f"Delete {uuid}").click()
    expect(dialog.get_by_role("alert")).to_have_text(f"Type {uuid} to erase everything.")
    expect(dialog.get_by_label("Erase everything")).to_be_checked()
    assert service.status(uuid)["session"]["status"] == "active"
    dialog.locator("#confirm").fill(uuid)
    dialog.get_by_role("button", name=f"Delete {uuid}").click()
    expect(dialog).not_to_be_visible()
    expect(page.get_by_text("One session is being erased.")).to_be_visible()
    wait_for(lambda: service.done("GET", f"/session/{uuid}/backups")["backups"] == [], "the backups to be erased")

    go(page, service, uuid)
    expect(page.locator(".session-state")).to_contain_text("terminated")
    expect(page.locator(".session-state")).to_contain_text("What is kept of it is listed under Backups.")
    expect(page.get_by_role("button", name="Open")).to_have_count(0)
    page.locator("#tab-backups").click()
    expect(page.get_by_text("No backup is kept.")).to_be_visible()
    expect(page.get_by_role("button", name="Back up")).to_have_count(0)


def test_the_page_of_a_session_that_is_gone_offers_its_backups(context: BrowserContext, service: Service) -> None:
    """Gone is what was deleted a day ago: its record has ended then."""
    page = signed_in(context, service)
    uuid = service.create()["uuid"]
    write(service, uuid, "kept")
    service.done("DELETE", f"/session/{uuid}?backup=true", headers={"Prefer": "wait=60"})
    service.wait_status(uuid, "terminated")
    go(page, service, uuid)
    expect(page.locator(".session-state")).to_contain_text("It was deleted")
    expect(page.locator("#lost")).to_be_hidden()
    assert service.redis().delete(f"session:{uuid}") == 1
    # An open page finds out by a tab that it asks for.
    page.locator("#tab-activity").click()
    expect(page.get_by_role("heading", name="This session is gone")).to_be_visible()
    expect(page.get_by_text("Its backups are kept")).to_be_visible()
    assert violations(page) == []
    page.get_by_role("button", name="into a new session").click()
    assert notes(service, goes_to_another(page, uuid)) == "kept"

    go(page, service, uuid)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete app-").click()
    expect(page.get_by_text("No backup is kept.", exact=True)).to_be_visible()
    expect(page.locator("#notices .notice")).to_have_count(0)
