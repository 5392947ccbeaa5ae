"""Getting into a workspace behind nginx, in Chromium (the suite is tests/suites/browser_access.py), and what is of
nginx alone."""

from __future__ import annotations

import http.client
import time
from typing import Any

from playwright.sync_api import Browser, BrowserContext, expect

from app.core.access.access_policy import SETTLING
from tests.browser import PATIENCE, expect_editor, navigated
from tests.e2e.behind_nginx import browser, front, place, service_settings
from tests.nginx import ADDRESS, Front, nginx_program
from tests.service import Service
from tests.suites.browser_access import (
    OfOneSite,
    Place,
    WhereRoutesComeLater,
    context,
    other,
    session,
    strangers,
)

__all__ = ["browser", "context", "front", "nginx_program", "other", "place", "service_settings", "session", "strangers"]


class TestBrowserAccessOfNginx(OfOneSite, WhereRoutesComeLater):
    """The whole service, as scripts/run starts it, with nginx in front of its workspaces."""


def test_a_cookie_opens_one_workspace_by_whatever_name_it_is_asked_for(
    service: Service, place: Place, browser: Browser, session: Any, other: Any
) -> None:
    """Of a request with an absolute URL in its first line nginx takes the server from there, and tells forward auth the
    `Host` header."""
    cookie = place.entered(browser, session)

    def status(server: str, host: str) -> int:
        connection = http.client.HTTPConnection(ADDRESS, service.workspace_port, timeout=60)
        connection.putrequest("GET", f"{server}/healthz", skip_host=True)
        connection.putheader("Host", host.partition("://")[2])
        connection.putheader("Cookie", cookie)
        connection.endheaders()
        found = connection.getresponse().status
        connection.close()
        return found

    own, others = session["workspace_url"], other["workspace_url"]
    nobodys = own.replace(f"vs-code-{session['uuid']}", "grafana")
    assert status(own, own) == 200
    assert status(others, others) == 403
    led = [status(others, own), status(own, others), status(nobodys, nobodys)]
    assert led == [302] * 3, "to where it says that no workspace is there"


def test_a_new_workspaces_link_is_followed_before_nginx_has_a_route_to_it(
    service: Service, place: Place, context: BrowserContext, front: Front
) -> None:
    """Its page comes back until there is one, also after the session is up."""
    made = place.create("eve", open=True)
    uuid = made["uuid"]
    page = context.new_page()
    assert navigated(page, made["open_url"]) == 503
    heading = page.get_by_role("heading", name="Opening the workspace")
    expect(heading).to_be_visible()
    active = service.wait_status(uuid, "active")["session"]
    up = time.time()
    seen: list[int] = []
    # By then nginx has had the time in which a Service comes to lead to a new pod.
    page.on("response", lambda answer: seen.append(answer.status) if time.time() > up + 2 * SETTLING else None)
    deadline = time.monotonic() + PATIENCE / 1000
    while 503 not in seen:
        assert time.monotonic() < deadline, (active, seen)
        page.wait_for_timeout(100)  # In which Playwright hears of it.
    assert set(seen) <= {302, 503}
    expect(heading).to_be_visible()
    front.lead_to(uuid)
    expect_editor(page)
    place.delete(uuid)
