"""The dashboard of the product on a real cluster, in Chromium, through the ingress: its main flows."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.axe import violations
from tests.browser import PATIENCE, expect_editor
from tests.cluster.product import Api
from tests.looks import looking


@pytest.fixture(scope="module")
def api() -> Api:
    return Api()


@pytest.fixture
def page(api: Api, browser: Browser) -> Iterator[Page]:
    """The list, as an admin sees it."""
    with looking(browser, "light") as context:
        opened = context.new_page()
        opened.set_default_timeout(PATIENCE)
        opened.goto(f"{dashboard(api)}/sign-in")
        opened.fill("#key", api.headers["X-API-Key"])
        opened.press("#key", "Enter")
        opened.wait_for_selector("#sessions")
        yield opened


def dashboard(api: Api) -> str:
    """Its address: the API's, at another name."""
    parts = urlsplit(api.url)
    return f"{parts.scheme}://{parts.netloc.replace('api.', 'dashboard.', 1)}"


def test_a_workspace_from_its_creation_to_its_deletion(api: Api, page: Page) -> None:
    uuid = api.call("POST", "/session/create", {"user_id": "ada"})["uuid"]
    page.goto(f"{dashboard(api)}/sessions/{uuid}")
    head = page.locator("#session-head")
    expect(head.get_by_text("active")).to_be_visible()
    assert violations(page) == []
    with page.context.expect_page() as opened:
        head.get_by_role("button", name="Open").click()
    expect_editor(opened.value)
    opened.value.close()
    head.get_by_role("button", name="Sleep").click()
    expect(head.get_by_text("sleeping")).to_be_visible()
    head.get_by_role("button", name="Wake").click()
    expect(head.get_by_text("active")).to_be_visible()
    page.goto(f"{dashboard(api)}/")
    expect(page.locator(f'tr[data-uuid="{uuid}"]')).to_contain_text("active")
    api.call("DELETE", f"/session/{uuid}?backup=false")
    expect(page.locator(f'tr[data-uuid="{uuid}"]')).to_contain_text("terminated")


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
