"""Getting into a workspace behind nginx, in Chromium: what is different there from Traefik."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, expect

from app.core.access.access_policy import SETTLING
from tests.browser import (
    HANDSHAKE,
    PATIENCE,
    cookie_of,
    expect_editor,
    expect_file,
    launched,
    navigated,
    open_editor,
    opens_socket,
)
from tests.nginx import ADDRESS, API_HOST, Front, component_setting, in_front, nginx_program
from tests.service import Service
from tests.waiting import wait_for

__all__ = ["nginx_program"]


@pytest.fixture(scope="module")
def service_settings() -> Mapping[str, str]:
    name = "INGRESS_FORWARD_AUTH"
    return {"WORKSPACE_DOMAIN": "ws.localhost", name: component_setting(name)}


@pytest.fixture(scope="module")
def sessions(service: Service) -> list[Any]:
    """Two."""
    return [service.create(user) for user in ("ada", "bob")]


@pytest.fixture(scope="module", autouse=True)
def front(
    service: Service, nginx_program: Path, sessions: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    """nginx in front of them."""
    uuids = [each["uuid"] for each in sessions]
    with in_front(service, nginx_program, tmp_path_factory.mktemp("nginx"), uuids) as running:
        yield running


@pytest.fixture(scope="module")
def session(sessions: list[Any]) -> Any:
    return sessions[0]


@pytest.fixture(scope="module")
def other(sessions: list[Any]) -> Any:
    return sessions[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One that finds nginx where others find Traefik."""
    with launched(f"--host-resolver-rules=MAP *.ws.localhost {ADDRESS}") as chromium:
        yield chromium


def asked(service: Service, session: Any, path: str = "/", *, method: str = "GET", **headers: str) -> requests.Response:
    """What a program is told at the workspace's address, by nginx."""
    host = session["workspace_url"].partition("://")[2]
    named = {"Host": host} | {name.replace("_", "-"): text for name, text in headers.items()}
    url = f"http://{ADDRESS}:{service.workspace_port}{path}"
    return requests.request(method, url, headers=named, timeout=10, allow_redirects=False)


def entered(service: Service, browser: Browser, session: Any) -> str:
    """The cookie of a browser that has followed a link."""
    context = browser.new_context()
    open_editor(context, service.link(session["uuid"]))
    cookie = cookie_of(context, session)
    context.close()
    return cookie


def test_cookies_of_a_sibling_workspace_lock_nobody_out(service: Service, browser: Browser, session: Any) -> None:
    """Those that nginx takes at all: neither its call of forward auth nor the editor refuses their length."""
    own = entered(service, browser, session)
    for planted in (7_000, 40_000):
        assert asked(service, session, Cookie=f"planted={planted * 'x'}; {own}").status_code in (200, 302)


def test_a_link_opens_the_editor_once_and_leaves_the_address(service: Service, browser: Browser, session: Any) -> None:
    """What else was in the address stays; others are turned away, with the link and without it."""
    rest = f"folder={service.files(session['uuid'])}&a=b%26c+d"
    link = f"{service.link(session['uuid'])}&{rest}"
    mine, theirs = browser.new_context(), browser.new_context()
    page = open_editor(mine, link)
    assert page.url == f"{session['workspace_url']}/?{rest}"
    stranger = theirs.new_page()
    assert navigated(stranger, link) == 403
    expect(stranger.get_by_role("heading", name="This link has been used")).to_be_visible()
    assert navigated(stranger, session["workspace_url"]) == 401
    expect(stranger.get_by_role("heading", name="not open to you")).to_be_visible()
    assert theirs.cookies() == []
    assert navigated(page, link) == 200
    assert "workspace-link" not in page.url
    expect_editor(page)
    mine.close()
    theirs.close()


def test_only_the_workspaces_own_pages_open_a_socket(
    service: Service, browser: Browser, session: Any, other: Any
) -> None:
    """No sibling's, no foreign one's, and no program that names no page."""
    context = browser.new_context(bypass_csp=True)
    own = open_editor(context, service.link(session["uuid"]))
    sibling = open_editor(context, service.link(other["uuid"]))
    foreign = context.new_page()
    foreign.goto(f"{service.url}/livez")
    assert opens_socket(own, session) == ""
    for page in (sibling, foreign):
        assert "Unexpected response code: 403" in opens_socket(page, session)
    cookie = cookie_of(context, session)
    context.close()
    for headers in ({}, {"Origin": other["workspace_url"]}, {"Origin": "https://example.com"}):
        assert asked(service, session, Cookie=cookie, **HANDSHAKE, **headers).status_code == 403
        assert asked(service, session, method="POST", Cookie=cookie, **headers).status_code == 403
    told_own = asked(service, session, method="POST", Cookie=cookie, Origin=session["workspace_url"])
    assert told_own.status_code != 403


def test_a_cookie_opens_one_workspace_by_whatever_name_it_is_asked_for(
    service: Service, browser: Browser, session: Any, other: Any
) -> None:
    """Of a request with an absolute URL in its first line nginx takes the server from there, and tells forward auth the
    `Host` header."""
    cookie = entered(service, browser, session)
    assert asked(service, session, Cookie=cookie).status_code in (200, 302)
    assert asked(service, other, Cookie=cookie).status_code == 403

    def status(server: str, host: str) -> int:
        connection = http.client.HTTPConnection(ADDRESS, service.workspace_port, timeout=10)
        connection.putrequest("GET", f"{server}/healthz", skip_host=True)
        connection.putheader("Host", host.partition("://")[2])
        connection.putheader("Cookie", cookie)
        connection.endheaders()
        found = connection.getresponse().status
        connection.close()
        return found

    own, others = session["workspace_url"], other["workspace_url"]
    assert status(own, own) == 200
    assert status(others, others) == 403
    assert [status(others, own), status(own, others)] == [302, 302], "to where it says that no workspace is there"


def test_opening_a_sleeping_workspace_ends_in_the_editor(service: Service, browser: Browser, session: Any) -> None:
    """By a page that comes back; a poll and a socket before it wake nothing, and are told to try again."""
    uuid = session["uuid"]
    (service.files(uuid) / "kept.txt").write_text("kept")
    context = browser.new_context()
    page = open_editor(context, service.link(uuid))
    page.goto("about:blank")
    service.done("POST", f"/session/{uuid}/scale-down")
    cookie = cookie_of(context, session)
    for headers in ({"Accept": "application/json"}, HANDSHAKE | {"Origin": session["workspace_url"]}):
        led = asked(service, session, "/x?a=b", Cookie=cookie, **headers)
        assert led.status_code == 302
        assert led.headers["Location"].startswith(f"http://{API_HOST}:{service.workspace_port}/auth/again?next=&rd=")
        path = led.headers["Location"].partition(f":{service.workspace_port}")[2]
        told = service.call("GET", path, headers={"Accept": "application/json"})
        assert (told.status_code, told.headers["Retry-After"], told.json()["error"]) == (503, "1", "workspace_not_up")
    assert service.status(uuid)["session"]["status"] == "sleeping"
    assert navigated(page, session["workspace_url"]) == 503
    expect(page.get_by_role("heading", name="Opening the workspace")).to_be_visible()
    expect_editor(page)
    expect_file(page, "kept.txt")
    context.close()


def test_a_new_workspaces_link_is_followed_before_nginx_has_a_route_to_it(
    service: Service, browser: Browser, front: Front
) -> None:
    """Its page comes back until there is one, also after the session is up; and says so when it is gone."""
    made = service.done("POST", "/session/create", {"user_id": "eve", "open": True})
    uuid, address = made["uuid"], made["workspace_url"]
    page = browser.new_page()
    assert navigated(page, made["open_url"]) == 503
    heading = page.get_by_role("heading", name="Opening the workspace")
    expect(heading).to_be_visible()
    session = service.wait_status(uuid, "active")["session"]
    up = time.time()
    seen: list[int] = []
    # By then nginx has had the time in which a Service comes to lead to a new pod.
    page.on("response", lambda answer: seen.append(answer.status) if time.time() > up + 2 * SETTLING else None)
    deadline = time.monotonic() + PATIENCE / 1000
    while 503 not in seen:
        assert time.monotonic() < deadline, (session, seen)
        page.wait_for_timeout(100)  # In which Playwright hears of it.
    assert set(seen) <= {302, 503}
    expect(heading).to_be_visible()
    front.lead_to(uuid)
    expect_editor(page)
    page.goto("about:blank")
    service.done("DELETE", f"/session/{uuid}?backup=false")
    assert navigated(page, address) == 404
    expect(page.get_by_role("heading", name="This workspace does not exist")).to_be_visible()
    assert navigated(page, address.replace(f"vs-code-{uuid}", "grafana")) == 404
    page.context.close()


def test_a_visit_wakes_an_archived_workspace(service: Service, browser: Browser) -> None:
    """It has no route of its own; that of all others lets in nobody without access, and wakes it for who has it."""
    session = service.create("dan", ttl=2)
    uuid = session["uuid"]
    service.done("POST", f"/session/{uuid}/sleep")
    wait_for(lambda: service.status(uuid)["session"]["tier"] == "archived", "the session to be archived")
    elsewhere = {"workspace_url": "http://agents.ws.localhost"}
    assert [asked(service, each).status_code for each in (session, elsewhere)] == [403, 302]
    assert service.status(uuid)["session"]["status"] == "sleeping"
    page = browser.new_page()
    assert navigated(page, service.link(uuid)) == 503
    expect(page.get_by_role("heading", name="Opening the workspace")).to_be_visible()
    service.wait_status(uuid, "active")
    page.context.close()


def test_the_workspace_sees_neither_cookie_nor_key_nor_token(
    service: Service, browser: Browser, session: Any, recorder: tuple[int, list[Any]]
) -> None:
    """Asked of a server within it, to which the editor passes requests on."""
    port, seen = recorder
    cookie = entered(service, browser, session)
    secrets = {"X_API_Key": "a-key", "Authorization": f"Bearer {service.token(session['uuid'])}"}
    own = {"X_Workspace_Secret": "of my own"}
    for headers in ({"Cookie": f"theme=dark; {cookie}", "X_API_Key": "a-key"} | own, secrets):
        assert asked(service, session, f"/proxy/{port}/", **headers).status_code == 200
    assert [each.get("Cookie") for each in seen] == ["theme=dark", None]
    hidden = ("Authorization", "X-API-Key", "X-Workspace-Secret")
    assert [each.get(name) for each in seen for name in hidden] == [None] * 6
