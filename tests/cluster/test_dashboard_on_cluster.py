"""The dashboard of the product on a real cluster, in Chromium, through the ingress: its main flows."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.axe import violations
from tests.browser import PATIENCE, expect_editor
from tests.cluster.product import Api
from tests.looks import LOOKS, looking, scrolls_sideways
from tests.model_server import ModelServer
from workspaces import Workspaces
from workspaces.cli.doctor import examine


@pytest.fixture(scope="module")
def api() -> Api:
    return Api()


@pytest.fixture
def page(api: Api, browser: Browser) -> Iterator[Page]:
    """The list, as an admin sees it."""
    with looking(browser, "light") as context:
        yield signed_in(api, context)


def signed_in(api: Api, context: BrowserContext) -> Page:
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{dashboard(api)}/sign-in")
    page.fill("#key", api.headers["X-API-Key"])
    page.press("#key", "Enter")
    page.wait_for_selector("#sessions")
    return page


def dashboard(api: Api) -> str:
    """Its address: the API's, at another name."""
    parts = urlsplit(api.url)
    return f"{parts.scheme}://{parts.netloc.replace('api.', 'dashboard.', 1)}"


@pytest.mark.parametrize("look", LOOKS)
def test_a_workspace_from_its_creation_to_its_deletion(
    api: Api, browser: Browser, model: ModelServer, look: str
) -> None:
    """create, open, ask the agent, back up, save, sleep, wake by a prompt, delete; readable in each look."""
    with looking(browser, look) as context:
        page = signed_in(api, context)
        page.locator("#create").click()
        page.locator("#user_id").fill("ada")
        page.keyboard.press("Enter")
        row = page.locator("tr[data-uuid]", has_text="ada").first
        expect(row).to_contain_text("active")
        checked(page)
        uuid = row.get_attribute("data-uuid")
        page.goto(f"{dashboard(api)}/sessions/{uuid}")
        state = page.locator(".session-state")
        with context.expect_page() as opened:
            page.locator("#do-open").click()
        expect_editor(opened.value)
        opened.value.close()

        page.locator("#tab-chat").click()
        ask(page, "run: echo hello | tee kept.txt", "hello")
        checked(page)
        page.locator("#do-backup").click()
        expect(page.locator(".backup-state")).to_contain_text("Backed up and verified")
        checked(page)
        page.locator("#tab-restore-points").click()
        page.get_by_role("button", name="Make one now").click()
        expect(page.locator("#restore-point-list tbody tr").first).to_be_visible()
        checked(page)

        page.locator("#do-sleep").click()
        expect(state).to_contain_text("Nothing runs")
        page.locator("#tab-chat").click()
        ask(page, "run: cat kept.txt", "hello")
        expect(state).to_contain_text("active")

        page.locator("#do-delete").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Delete without a backup").check()
        dialog.locator("#confirm").fill(uuid or "")
        checked(page)
        dialog.get_by_role("button", name=f"Delete {uuid}").click()
        expect(state).to_contain_text("It was deleted")


def ask(page: Page, prompt: str, answer: str) -> None:
    """Send a prompt, until the agent has answered it with this."""
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("button", name="Send").click()
    turn = page.locator(".turn").filter(has_text=prompt)
    expect(turn).to_have_attribute("data-state", "processed")
    expect(turn.locator(".work")).to_contain_text(answer)


def checked(page: Page) -> None:
    """By axe's rules, without scrolling sideways."""
    assert violations(page) == []
    assert not scrolls_sideways(page)


def test_the_doctor_finds_the_product_well(api: Api) -> None:
    findings = examine(lambda: Workspaces(api.url, api.headers["X-API-Key"]))
    assert [each for each in findings if each.status == "failed"] == []
    assert {each.check for each in findings} >= {"api", "clock", "key", "redis", "cluster", "ingress_from_here"}


def test_operators_see_every_process_and_a_diagnosis(api: Api, page: Page) -> None:
    page.goto(f"{dashboard(api)}/operations")
    expect(page.locator("#diagnosis tr").first).to_be_visible()
    kinds = "web forward-auth gateway worker sweeper backup-worker delivery-worker observer beat"
    table = page.locator("section", has_text="Processes").last
    for kind in kinds.split():
        expect(table.locator("tr", has=page.get_by_role("cell", name=kind, exact=True)).first).to_be_visible()
    page.goto(f"{dashboard(api)}/overview")
    expect(page.get_by_text("All processes are alive.")).to_be_visible()


def test_the_dashboards_name_serves_no_api_and_the_apis_no_dashboard(api: Api) -> None:
    there, key = dashboard(api), {"X-API-Key": api.headers["X-API-Key"]}
    answer = requests.get(f"{there}/openapi.json", headers=key, timeout=10, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/sign-in?next=%2Fopenapi.json")
    assert requests.post(f"{there}/session/create", headers=key, json={"user_id": "a"}, timeout=10).status_code == 403
    assert requests.get(f"{api.url}/sign-in", timeout=10).status_code == 404
