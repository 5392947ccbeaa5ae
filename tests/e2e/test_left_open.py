"""An editor that was left open while its workspace fell asleep, stopped or was deleted says so, in Chromium."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Request, expect

from tests.axe import violations
from tests.browser import PATIENCE, expect_editor, expect_file, open_editor, type_untitled
from tests.looks import LOOKS, picture
from tests.service import Service

NOTICE = "dialog.workspace-notice"


@pytest.fixture
def session(service: Service) -> Iterator[Any]:
    made = service.create("ada")
    yield made
    service.call("DELETE", f"/session/{made['uuid']}?backup=false")


def said(page: Page, words: str, since: float) -> Locator:
    """The notice, once it says this. Prints how long it took."""
    expect(page.locator(NOTICE).get_by_role("heading", name=words)).to_be_visible()
    print(f"{words}: {time.monotonic() - since:.2f} s")
    return page.locator(NOTICE)


@pytest.mark.parametrize("look", LOOKS)
def test_one_that_falls_asleep_offers_to_wake_it(
    service: Service, context: BrowserContext, session: Any, look: str
) -> None:
    """By itself it wakes nothing. Woken, it opens with its file."""
    uuid = session["uuid"]
    (service.files(uuid) / "kept.txt").write_text("kept")
    page = open_editor(context, service.link(uuid))
    expect_file(page, "kept.txt")
    began = time.monotonic()
    service.done("POST", f"/session/{uuid}/scale-down")
    notice = said(page, "This workspace is asleep", began)
    assert violations(page, NOTICE) == []
    picture(page, f"editor-asleep-{look}")
    service.wait_status(uuid, "sleeping", replicas=0)
    notice.get_by_role("button", name="Wake it").click()
    expect_editor(page)
    expect_file(page, "kept.txt")
    expect(page.locator(NOTICE)).to_have_count(0)


def test_what_was_typed_can_still_be_read(service: Service, context: BrowserContext, session: Any) -> None:
    """The notice makes room and stays; the keyboard alone is enough for it."""
    (service.files(session["uuid"]) / "a.txt").write_text("some\n")
    page = open_editor(context, service.link(session["uuid"]))
    expect_file(page, "a.txt")
    page.locator(".explorer-folders-view").get_by_text("a.txt", exact=True).dblclick(timeout=PATIENCE)
    line = page.locator(".editor-instance .view-line").first
    expect(line).to_have_text("some")
    line.click(timeout=PATIENCE)
    page.keyboard.type("typed")
    typed = page.locator(".editor-instance .view-line").filter(has_text="typed")
    expect(typed).to_be_visible()
    began = time.monotonic()
    service.done("POST", f"/session/{session['uuid']}/scale-down")
    notice = said(page, "This workspace is asleep", began)
    assert page.evaluate(f"document.querySelector('{NOTICE}').matches(':modal')")
    page.keyboard.press("Escape")
    assert not page.evaluate(f"document.querySelector('{NOTICE}').matches(':modal')")
    expect(typed).to_be_visible()
    expect(notice.get_by_role("button", name="Wake it")).to_be_visible()
    expect(notice.get_by_role("button", name="Stay on this page")).to_be_hidden()


def test_one_whose_workspace_is_deleted_leads_on_to_the_page_that_says_so(
    service: Service, context: BrowserContext, session: Any
) -> None:
    page = open_editor(context, service.link(session["uuid"]))
    began = time.monotonic()
    service.done("DELETE", f"/session/{session['uuid']}?backup=false")
    said(page, "This workspace was deleted", began).get_by_role("button", name="Go on").click()
    expect(page.get_by_role("heading", name="This workspace does not exist")).to_be_visible()


def test_one_whose_editor_is_killed_leads_on_to_why(service: Service, context: BrowserContext, session: Any) -> None:
    page = open_editor(context, service.link(session["uuid"]))
    began = time.monotonic()
    for process in service.processes(WORKSPACE_UUID=session["uuid"]):
        with suppress(psutil.Error, ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    said(page, "This workspace has stopped", began).get_by_role("button", name="See why").click()
    expect(page.get_by_role("heading", name="The workspace has stopped")).to_be_visible()


def test_one_whose_access_is_revoked_says_so(service: Service, context: BrowserContext, session: Any) -> None:
    page = open_editor(context, service.link(session["uuid"]))
    began = time.monotonic()
    service.done("POST", f"/session/{session['uuid']}/revoke")
    said(page, "You have no access to this workspace any more", began)


def test_one_that_is_woken_by_somebody_else_says_so_too(
    service: Service, context: BrowserContext, session: Any
) -> None:
    uuid = session["uuid"]
    page = open_editor(context, service.link(uuid))
    began = time.monotonic()
    service.done("POST", f"/session/{uuid}/scale-down")
    said(page, "This workspace is asleep", began)
    service.wait_status(uuid, "sleeping", replicas=0)
    service.done("POST", f"/session/{uuid}/wake")
    service.wait_status(uuid, "active")
    said(page, "This workspace is up again", time.monotonic()).get_by_role("button", name="Open it").click()
    expect_editor(page)


def test_while_all_is_well_it_asks_nobody_and_says_nothing(
    service: Service, context: BrowserContext, session: Any
) -> None:
    """Nor when it loses a connection to a workspace that is up."""
    asked: list[Request] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request) if request.url.endswith("/healthz") else None)
    page.goto(service.link(session["uuid"]))
    expect_editor(page)
    type_untitled(page, "text")
    before = len(asked)
    with page.expect_response(lambda answer: answer.url.endswith("/healthz") and answer.ok, timeout=PATIENCE):
        page.evaluate("url => new WebSocket(url).close()", "ws://" + page.url.split("/")[2] + "/nothing")
    assert before == 0
    assert page.locator(NOTICE).count() == 0


def test_the_editor_opens_without_an_empty_side_bar(service: Service, context: BrowserContext, session: Any) -> None:
    """And does not ask about a git repository above the workspace."""
    page = open_editor(context, service.link(session["uuid"]))
    expect(page.locator(".part.sidebar")).to_be_visible()
    expect(page.locator(".explorer-folders-view")).to_be_visible()
    expect(page.locator(".part.auxiliarybar")).to_be_hidden()
    expect(page.get_by_text("git repository was found in the parent")).to_have_count(0)
