"""The page of one session in Chromium, over the whole service and a model's server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.axe import violations
from tests.browser import PATIENCE
from tests.dashboard_browser import go
from tests.looks import LOOKS, expect_readable, picture
from tests.model_server import Answer, ModelServer, ToolCall, default_rules, when
from tests.service import Service
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.browser]

HOSTILE = "<img src=x onerror=alert(1)>"

FORMATTED = f"# Done\n\n**Bold** and `code`:\n\n```sh\nls\n```\n\n{HOSTILE} [a](javascript:alert(1))"

LOOK = "echo hi; while [ -e busy ]; do sleep 0.1; done"

EACH_CHAT_STATE = """() => {
  window.states = [];
  const note = () => states.push(document.querySelector(".chat-state")?.textContent ?? "");
  new MutationObserver(note).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""
"""Keeps what the chat says of its session: it wakes sooner than a test may look."""

TABS = (
    "overview",
    "chat",
    "files",
    "run",
    "services",
    "backups",
    "restore-points",
    "cost",
    "activity",
    "events",
    "audit",
)


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    looks = Answer(text="I look first. ", tool_calls=(ToolCall("run_command", {"command": LOOK}),), pace=0.02)
    rules = [
        when("look around", looks, Answer(text="There is:\n\n```\n{result}\n```")),
        when("with formatting", Answer(text=FORMATTED)),
        when("slowly", Answer(pieces=[f"word{number} " for number in range(60)], pace=0.1)),
    ]
    with ModelServer(rules=[*rules, *default_rules()]) as running:
        yield running


@pytest.fixture(scope="module")
def service_settings(model: ModelServer) -> Mapping[str, str]:
    return model.settings


def status(page: Page) -> Locator:
    return page.locator(".session-state")


def send(page: Page, text: str) -> Locator:
    """Send a prompt by the keyboard; its turn."""
    field = page.get_by_label("Prompt")
    field.fill(text)
    field.press("Control+Enter")
    return page.locator(".turn").filter(has_text=text)


def test_a_prompt_is_answered_as_it_happens(page: Page, service: Service) -> None:
    """Words and calls of tools come while the agent works; the answer is formatted at its end, and is no markup."""
    uuid = service.create()["uuid"]
    busy = service.files(uuid) / "busy"
    busy.touch()
    go(page, service, uuid, "chat")
    turn = send(page, "look around")
    expect(turn.locator(".said.live")).to_contain_text("I look first.")
    tool = turn.locator(".tool")
    expect(tool.locator(".tool-state")).to_have_text("runs …")
    busy.unlink()
    expect(tool.locator(".tool-state")).to_have_text("done")
    expect(turn.locator(".said pre")).to_have_text("hi")
    tool.locator("summary").click()
    expect(tool.locator(".tool-arguments")).to_contain_text(LOOK)
    picture(page, "dashboard-chat")
    turn = send(page, "with formatting")
    expect(turn.locator("strong")).to_have_text("Bold")
    expect(turn).to_contain_text(HOSTILE)
    assert page.locator(".work img, .work script, .work a").count() == 0


def test_a_reload_loses_neither_the_answer_under_way_nor_the_draft(page: Page, service: Service) -> None:
    uuid = service.create()["uuid"]
    go(page, service, uuid, "chat")
    turn = send(page, "slowly please")
    expect(turn).to_contain_text("word3")
    page.get_by_label("Prompt").press_sequentially("a draft")
    page.reload()
    expect(page.get_by_label("Prompt")).to_have_value("a draft")
    page.locator("#tab-cost").click()
    expect(page.locator("table")).to_contain_text("Compute")
    page.locator("#tab-chat").click()
    expect(page.get_by_label("Prompt")).to_have_value("a draft")
    turn = page.locator(".turn").filter(has_text="slowly please")
    expect(turn.locator(".said.live")).to_contain_text("word3")
    expect(turn).to_have_attribute("data-state", "processed")
    assert re.findall(r"word(\d+)", turn.inner_text()) == [str(number) for number in range(60)]


def test_a_prompt_of_another_client_is_shown_too(page: Page, service: Service) -> None:
    uuid = service.create()["uuid"]
    go(page, service, uuid, "chat")
    expect(page.get_by_text("No conversation yet.")).to_be_visible()
    service.prompt(uuid, "remember 42", "other-1")
    expect(page.locator("#turn-other-1 .said")).to_have_text("42 noted")
    expect(page.locator("#turn-other-1")).to_have_count(1)


def test_a_sleeping_session_is_woken_by_a_prompt_and_shows_how_it_starts(page: Page, service: Service) -> None:
    uuid = service.create()["uuid"]
    go(page, service, uuid)
    expect(status(page)).to_contain_text("active")
    page.get_by_role("button", name="Sleep").click()
    expect(status(page)).to_contain_text("Nothing runs")
    expect(page.locator(".timeline")).to_contain_text("No process runs any more")
    page.locator("#tab-chat").click()
    page.get_by_label("Prompt").wait_for()
    page.evaluate(EACH_CHAT_STATE)
    turn = send(page, "remember 7")
    wait_for(lambda: any("Waking" in state for state in page.evaluate("states")), "the chat to say that it wakes")
    expect(turn).to_contain_text("7 noted")
    expect(status(page)).to_contain_text("active")
    page.locator("#tab-overview").click()
    expect(page.locator(".phase-names")).to_contain_text("editor")
    page.go_back()
    expect(page.locator("#tab-chat")).to_have_attribute("aria-current", "page")
    expect(page.locator(".turn")).to_contain_text("7 noted")


def test_a_backup_is_made_downloaded_and_restored(page: Page, service: Service) -> None:
    uuid = service.create()["uuid"]
    go(page, service, uuid)
    page.locator("#do-backup").click()
    expect(page.locator(".backup-state")).to_contain_text("Backed up and verified")
    row = page.locator("#backup-list tbody tr")
    expect(row).to_have_count(1)
    with page.expect_download() as download:
        row.get_by_text("Download").click()
    assert download.value.suggested_filename.startswith(f"app-{uuid}-")
    assert download.value.path().read_bytes().startswith(b"PK")
    row.get_by_text("Restore").click()
    page.wait_for_url(lambda url: "/sessions/" in url and uuid not in url)
    expect(status(page)).to_contain_text("active")


def test_the_workspace_opens_in_a_tab_of_its_own(page: Page, context: BrowserContext, service: Service) -> None:
    uuid = service.create()["uuid"]
    go(page, service, uuid)
    with context.expect_page() as opened:
        page.get_by_role("button", name="Open").click()
    opened.value.wait_for_url(re.compile(rf"//vs-code-{uuid}\."), timeout=PATIENCE)
    assert page.url.endswith(uuid)


def test_a_deletion_shows_the_work_at_risk_and_leads_to_the_backups(page: Page, service: Service) -> None:
    uuid = service.create()["uuid"]
    service.prompt(uuid, "run: git init -q . && touch kept.txt", "git-1")
    go(page, service, uuid)
    page.locator("#do-delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Back up, check the backup, then delete")
    expect(dialog).to_contain_text("Now: 1 file not committed: kept.txt")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.locator("#do-delete").click()
    dialog.get_by_label("Delete without a backup").check()
    dialog.get_by_role("button", name=f"Delete {uuid}").click()
    expect(dialog.get_by_role("alert")).to_have_text(f"Type {uuid} to delete without a backup.")
    dialog.get_by_label("Back up, check the backup").check()
    dialog.get_by_role("button", name=f"Delete {uuid}").click()
    expect(page.locator("#notices")).to_contain_text("is being backed up")
    expect(status(page)).to_contain_text("It was deleted")
    page.locator("#tab-backups").click()
    expect(page.locator("#backup-list tbody tr")).to_have_count(1)


@pytest.mark.parametrize("look", LOOKS)
def test_every_tab_can_be_read_and_used(page: Page, service: Service, look: str) -> None:
    """In light, dark and narrow: by axe's rules, without scrolling sideways, and no markup of a tenant."""
    uuid = service.create(labels={"note": HOSTILE})["uuid"]
    service.prompt(uuid, "look around", "look-1")
    service.done("POST", f"/session/{uuid}/backup")
    for tab in TABS:
        go(page, service, uuid, "" if tab == "overview" else tab)
        expect(page.locator(f"#tab-{tab}")).to_have_attribute("aria-current", "page")
        expect_readable(page, tab)
        assert page.locator("main img").count() == 0
        if tab == "overview":
            picture(page, f"dashboard-session-{look}")
    page.locator("#do-delete").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []
