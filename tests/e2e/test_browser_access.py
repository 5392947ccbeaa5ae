"""Getting into a workspace on one machine, behind Traefik, in Chromium (the suite is tests/suites/browser_access.py),
and what is of that place alone."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import requests
from playwright.sync_api import Browser, BrowserContext, expect

from tests.browser import expect_editor, navigated, open_editor
from tests.e2e.behind_traefik import place, service_settings
from tests.service import Service
from tests.suites.browser_access import OfOneSite, Place, context, other, session, strangers
from tests.waiting import wait_for

__all__ = ["context", "other", "place", "service_settings", "session", "strangers"]


class TestBrowserAccess(OfOneSite):
    """The whole service, as scripts/run starts it."""


def test_no_way_but_that_through_forward_auth_leads_to_the_editor(
    service: Service, place: Place, browser: Browser, session: Any
) -> None:
    """Its own port is closed to whoever finds it, with a good cookie too."""
    cookie = place.entered(browser, session)
    with service.redis(database=1) as routes:
        editor = str(routes.get(f"traefik/http/services/vs-code-{session['uuid']}/loadbalancer/servers/0/url"))
    of_port = session["workspace_url"].partition("//")[2].replace("vs-code-", "3000--vs-code-")
    for host in ({}, {"Host": of_port}):
        past = requests.get(editor, headers={"Cookie": cookie} | host, timeout=60)
        assert (past.status_code, "own address" in past.text) == (403, True)
    assert place.lets_in(session, Cookie=cookie)


def test_one_that_is_up_and_not_reached_yet_has_a_page_too(
    service: Service, context: BrowserContext, session: Any
) -> None:
    """Its route is gone: the page goes on to the editor when it is back, and programs are told to try again."""
    uuid = session["uuid"]
    page = open_editor(context, service.link(uuid))
    page.goto("about:blank")
    with service.redis(database=1) as routes:
        taken = {key: routes.get(key) for key in routes.scan_iter(f"traefik/http/*/vs-code-{uuid}/*")}
        routes.delete(*taken)
        wait_for(lambda: service.workspace(session).status_code == 503, "the route to be gone")
        told = service.workspace(session)
        assert (told.json()["error"], told.headers["Retry-After"]) == ("workspace_not_up", "1")
        assert navigated(page, session["workspace_url"]) == 503
        expect(page.get_by_role("heading", name="Opening the workspace")).to_be_visible()
        assert service.status(uuid)["session"]["status"] == "active"
        routes.mset(taken)
    expect_editor(page)


def test_a_failed_workspace_shows_why_and_its_button_brings_it_back(
    service: Service, context: BrowserContext, session: Any
) -> None:
    uuid = session["uuid"]
    page = open_editor(context, service.link(uuid))
    page.goto("about:blank")
    for process in service.processes(WORKSPACE_UUID=uuid):
        os.kill(process.pid, signal.SIGKILL)
    service.wait_status(uuid, "failed")
    assert navigated(page, session["workspace_url"]) == 503
    expect(page.get_by_text(re.compile("Its editor ended unexpectedly"))).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect_editor(page)
    assert service.status(uuid)["session"]["status"] == "active"
