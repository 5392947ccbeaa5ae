"""The door and the waking page on a real cluster, in Chromium, through the ingress."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext

from app.sessions.passes import COOKIE
from tests.browser import expect_editor, expect_file, open_editor
from tests.cluster.product import LET_IN, Api, kubectl
from tests.service import wait_for

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(scope="module")
def api() -> Api:
    return Api()


@pytest.fixture(scope="module")
def sessions(api: Api) -> Iterator[list[Any]]:
    """Two of them, reached through the ingress."""
    made = [api.call("POST", "/session/create", {"user_id": user}) for user in ("ada", "bob")]
    wait_for(lambda: all(api.visit(each).status_code in LET_IN for each in made), "the ingress to lead there")
    yield made
    for each in made:
        api.call("DELETE", f"/session/{each['uuid']}?backup=false")


def cookie_of(context: BrowserContext) -> str:
    (cookie,) = [f"{COOKIE}={each.get('value')}" for each in context.cookies() if each.get("name") == COOKIE]
    return cookie


def test_a_link_works_once_and_its_cookie_for_its_own_workspace_and_pages(
    api: Api, browser: Browser, sessions: list[Any]
) -> None:
    """Another browser, another session's cookie, and the sibling's, a foreign and a missing Origin are refused."""
    mine, other = sessions
    link = api.link(mine["uuid"])
    context, stranger = browser.new_context(), browser.new_page()
    page = open_editor(context, link)
    assert "workspace-link" not in page.url
    for url, status in ((link, 403), (mine["workspace_url"], 401)):
        answer = stranger.goto(url)
        assert answer is not None
        assert answer.status == status
    cookie = cookie_of(context)
    assert api.visit(mine, Cookie=cookie).status_code in LET_IN
    assert api.visit(other, Cookie=cookie).status_code == 401
    for origin in ({}, {"Origin": other["workspace_url"]}, {"Origin": "https://example.com"}):
        assert api.visit(mine, Cookie=cookie, **HANDSHAKE, **origin).status_code == 403
    api.call("POST", f"/session/{mine['uuid']}/revoke")
    assert api.visit(mine, Cookie=cookie).status_code == 401
    context.close()
    stranger.close()


def test_opening_a_sleeping_workspace_ends_in_the_editor(api: Api, browser: Browser, sessions: list[Any]) -> None:
    """With its file, and without a reload by hand; a poll and a socket before it wake nothing."""
    session = sessions[0]
    uuid = session["uuid"]
    kubectl("exec", f"deployment/user-{uuid}", "--", "sh", "-c", "echo kept > /app/kept.txt")
    context = browser.new_context()
    page = open_editor(context, api.link(uuid))
    page.goto("about:blank")
    api.call("POST", f"/session/{uuid}/scale-down")
    cookie = cookie_of(context)
    told = api.visit(session, Cookie=cookie, Accept="application/json")
    assert (told.status_code, told.headers["Retry-After"]) == (503, "1")
    assert api.visit(session, Cookie=cookie, Origin=session["workspace_url"], **HANDSHAKE).status_code == 503
    assert api.status(uuid) == "sleeping"
    page.goto(session["workspace_url"])
    expect_editor(page)
    expect_file(page, "kept.txt")
    context.close()
