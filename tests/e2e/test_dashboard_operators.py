"""The dashboard's overview, operations and settings on a running service, in Chromium; and the ways in."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from oidc_provider_mock import User, run_server_in_thread
from playwright.sync_api import BrowserContext, expect

from tests.axe import violations
from tests.browser import PATIENCE
from tests.dashboard_browser import signed_in
from tests.looks import LOOKS, expect_readable, picture
from tests.service import KEY, Service
from tests.waiting import wait_for

PEOPLE = (User(sub="1", claims={"email": "grace@example.com", "groups": ["operators"]}),)
SILENT = 60_000.0
"""ms: a process counts as silent 20 s after its last report."""


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with run_server_in_thread(user_claims=PEOPLE) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
def service_settings(issuer: str) -> Mapping[str, str]:
    oidc = {"OIDC_ISSUER": issuer, "OIDC_CLIENT_ID": "dashboard", "OIDC_CLIENT_SECRET": "s", "OIDC_ADMINS": "operators"}
    return oidc | {"PRODUCT_NAME": "Acme <Cloud>"}


@pytest.mark.parametrize("look", LOOKS)
def test_each_page_is_clean_in_each_look(service: Service, context: BrowserContext, look: str) -> None:
    complaints: list[str] = []
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda each: complaints.append(each.text) if each.type in ("error", "warning") else None)
    page.goto(f"{service.dashboard_url}/sign-in")
    assert page.title() == "Sign in · Acme <Cloud>"
    assert violations(page) == []
    picture(page, f"dashboard-sign-in-{look}")
    page.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{service.dashboard_url}/")
    # The charts begin with the second sample, one being taken each minute.
    wait_for(lambda: len(service.done("GET", "/overview/history")["samples"]) > 1, "two samples", seconds=180.0)
    for name in ("overview", "operations", "settings"):
        page.goto(f"{service.dashboard_url}/{name}")
        if name == "operations":
            expect(page.get_by_text("Forward auth answers.")).to_be_visible()
        expect_readable(page, name)
        picture(page, f"dashboard-{name}-{look}")
    assert complaints == []


def test_a_process_that_hangs_shows_by_itself(service: Service, context: BrowserContext) -> None:
    page = signed_in(context, service)
    page.goto(f"{service.dashboard_url}/operations")
    row = page.locator("tr", has_text="beat").filter(has=page.locator("td code"))
    expect(row.locator(".status.ok")).to_be_visible()
    pid = int((Path(service.data_dir) / "pids" / "beat.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        expect(row.locator(".status.bad").first).to_be_visible(timeout=SILENT)
        page.get_by_role("button", name="Check again").click()
        expect(page.locator("#diagnosis .status.bad", has_text="beat")).to_be_visible()
    finally:
        os.kill(pid, signal.SIGCONT)
    expect(row.locator(".status.ok").first).to_be_visible(timeout=SILENT)


def test_a_person_of_the_organisation_signs_in_and_out(service: Service, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"{service.dashboard_url}/settings")
    page.get_by_role("link", name="Sign in with your organisation").click()
    page.get_by_role("button", name="1").first.click()
    page.wait_for_url(f"{service.dashboard_url}/settings")
    expect(page.get_by_text("grace@example.com")).to_be_visible()
    [cookie] = [each for each in context.cookies() if each.get("name") == "__Host-dashboard"]
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{service.dashboard_url}/sign-in")
    context.add_cookies([{**cookie}])
    page.goto(f"{service.dashboard_url}/settings")
    assert "/sign-in" in page.url
    by = [entry["by"] for entry in service.done("GET", "/audit")["entries"] if entry["action"] == "sign_in"]
    assert "oidc:grace@example.com" in by
