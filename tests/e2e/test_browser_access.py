"""Getting into a workspace, in Chromium: with a link, once; and what everybody else is told."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from typing import Any

import psutil
import pytest
import requests
from playwright.sync_api import Browser, expect

from app.core.access.tokens import COOKIE
from app.core.redis import keys
from tests.browser import (
    HANDSHAKE,
    cookie_of,
    editor_and_sockets,
    expect_all_closed,
    expect_editor,
    expect_file,
    in_terminal,
    navigated,
    open_editor,
    opens_socket,
)
from tests.service import Service
from tests.waiting import wait_for

PLANTED = """() => {
  for (let number = 0; number < 12; number++)
    document.cookie = `planted${number}=${"x".repeat(4000)}; Domain=ws.localhost; Path=/`;
}"""


@pytest.fixture(scope="module")
def service_settings() -> Mapping[str, str]:
    """Its workspaces are same-site, as on a real domain: directly below `localhost` they are not, and then browsers
    keep the cookie back by themselves."""
    return {"WORKSPACE_DOMAIN": "ws.localhost"}


@pytest.fixture(scope="module")
def session(service: Service) -> Any:
    return service.create("ada")


@pytest.fixture
def other(service: Service) -> Any:
    return service.create("bob")


def test_a_link_opens_the_editor_once_and_nobody_elses_browser(
    service: Service, browser: Browser, session: Any
) -> None:
    """Its secret leaves the address; with the cookie the plain address is enough from then on."""
    link = service.link(session["uuid"])
    mine, theirs = browser.new_context(), browser.new_context()
    page = open_editor(mine, link)
    assert "workspace-link" not in page.url
    (cookie,) = [each for each in mine.cookies() if each.get("name") == COOKIE]
    assert (cookie.get("secure"), cookie.get("httpOnly"), cookie.get("sameSite")) == (True, True, "Lax")
    assert "workspace" not in page.evaluate("document.cookie")
    stranger = theirs.new_page()
    assert navigated(stranger, link) == 403
    expect(stranger.get_by_text("ask for a new one")).to_be_visible()
    assert navigated(stranger, session["workspace_url"]) == 401
    page.goto(session["workspace_url"])
    expect_editor(page)
    mine.close()
    theirs.close()


def test_a_page_of_another_workspace_opens_no_socket(
    service: Service, browser: Browser, session: Any, other: Any
) -> None:
    """Though the browser adds its cookie at the sibling's (403): only the workspace's own pages may. From another site
    it adds none (401)."""
    context = browser.new_context(bypass_csp=True)
    own = open_editor(context, service.link(session["uuid"]))
    sibling = open_editor(context, service.link(other["uuid"]))
    foreign = context.new_page()
    foreign.goto(f"http://foreign.localhost:{service.port}/livez")
    assert opens_socket(own, session) == ""
    assert "Unexpected response code: 403" in opens_socket(sibling, session)
    assert "HTTP Authentication failed" in opens_socket(foreign, session)
    context.close()
    service.done("DELETE", f"/session/{other['uuid']}?backup=false")


def test_another_workspaces_cookie_and_a_missing_origin_open_nothing(
    service: Service, browser: Browser, session: Any, other: Any
) -> None:
    """Sent by a program that pretends to be a browser."""
    context = browser.new_context()
    open_editor(context, service.link(session["uuid"]))
    cookie = cookie_of(context, session)
    context.close()
    own = {"Origin": session["workspace_url"]}
    assert service.workspace(session, Cookie=cookie).status_code in (200, 302)
    assert service.workspace(other, Cookie=cookie).status_code == 401
    for headers in ({}, {"Origin": other["workspace_url"]}, {"Origin": "https://example.com"}):
        assert service.workspace(session, Cookie=cookie, **HANDSHAKE, **headers).status_code == 403
        assert service.workspace(session, method="POST", Cookie=cookie, **headers).status_code == 403
    assert service.workspace(session, method="POST", Cookie=cookie, **own).status_code != 403
    service.done("POST", f"/session/{session['uuid']}/revoke")
    assert service.workspace(session, Cookie=cookie).status_code == 401
    service.done("DELETE", f"/session/{other['uuid']}?backup=false")


def test_cookies_of_a_sibling_workspace_lock_nobody_out(
    service: Service, browser: Browser, session: Any, other: Any
) -> None:
    """Its pages can set some for the whole domain, more of them than servers commonly take (8 KiB in a line)."""
    context = browser.new_context(bypass_csp=True)
    page = open_editor(context, service.link(session["uuid"]))
    open_editor(context, service.link(other["uuid"])).evaluate(PLANTED)

    def planted() -> int:
        return sum(len(each.get("value", "")) for each in context.cookies(session["workspace_url"]))

    # The page's call returns before the browser has stored them all.
    wait_for(lambda: planted() > 48_000, "the cookies to be stored", lambda: str(planted()))
    page.goto(session["workspace_url"])
    expect_editor(page)
    forged = f"{COOKIE}=e30.e30.x; \xa0{COOKIE}=x; {cookie_of(context, session)}"
    assert service.workspace(session, Cookie=forged).status_code in (200, 302)
    context.close()
    service.done("DELETE", f"/session/{other['uuid']}?backup=false")


def test_no_way_but_that_through_forward_auth_leads_to_the_editor(
    service: Service, browser: Browser, session: Any, recorder: tuple[int, list[Any]]
) -> None:
    """Its own port is closed to whoever finds it, with a good cookie too. Through forward auth a visitor is let in
    whatever they call the session's secret, and no program in the workspace hears of that."""
    context = browser.new_context()
    open_editor(context, service.link(session["uuid"]))
    cookie = cookie_of(context, session)
    context.close()
    with service.redis(database=1) as routes:
        editor = str(routes.get(f"traefik/http/services/vs-code-{session['uuid']}/loadbalancer/servers/0/url"))
    port, seen = recorder
    for path in ("/", f"/proxy/{port}/"):
        past = requests.get(editor + path, headers={"Cookie": cookie}, timeout=10)
        assert (past.status_code, "own address" in past.text) == (403, True)
    assert seen == []
    for mine in ({}, {"X_Workspace_Secret": "of my own"}):
        assert service.workspace(session, f"/proxy/{port}/", Cookie=cookie, **mine).status_code == 200
    assert [each.get("X-Workspace-Secret") for each in seen] == [None, None]


def test_opening_a_sleeping_workspace_ends_in_the_editor(service: Service, browser: Browser, session: Any) -> None:
    """With its file, and without a reload by hand; a poll and a socket before it wake nothing."""
    uuid = session["uuid"]
    (service.files(uuid) / "kept.txt").write_text("kept")
    context = browser.new_context()
    page = open_editor(context, service.link(uuid))
    page.goto("about:blank")
    service.done("POST", f"/session/{uuid}/scale-down")
    cookie = cookie_of(context, session)
    told = service.workspace(session, Cookie=cookie, Accept="application/json")
    assert (told.status_code, told.headers["Retry-After"], told.json()["session_status"]) == (503, "1", "sleeping")
    assert service.workspace(session, Cookie=cookie, Origin=session["workspace_url"], **HANDSHAKE).status_code == 503
    assert service.status(uuid)["session"]["status"] == "sleeping"
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if "Content Security" in message.text else None)
    page.goto(session["workspace_url"])
    expect_editor(page)
    expect_file(page, "kept.txt")
    assert complaints == []
    context.close()


def test_one_that_is_up_and_not_reached_yet_has_a_page_too(service: Service, browser: Browser, session: Any) -> None:
    """Its route is gone: the page goes on to the editor when it is back, and programs are told to try again."""
    uuid = session["uuid"]
    context = browser.new_context()
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
    context.close()


def test_a_failed_workspace_shows_why_and_its_button_brings_it_back(
    service: Service, browser: Browser, session: Any
) -> None:
    uuid = session["uuid"]
    context = browser.new_context()
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
    context.close()


def test_no_log_has_a_link_a_cookie_or_a_token(service: Service, browser: Browser, session: Any) -> None:
    """The workspace's own neither: it is not given them."""
    uuid = session["uuid"]
    link, token = service.link(uuid), service.token(uuid)
    context = browser.new_context()
    open_editor(context, link)
    cookie = cookie_of(context, session).partition("=")[2]
    assert service.workspace(session, Authorization=f"Bearer {token}").status_code in (200, 302)
    logs = [*(service.data_dir / "log").iterdir(), *service.files(uuid).parent.glob("*.log*")]
    logs += [path for path in (service.files(uuid).parent / "home").rglob("*.log") if path.is_file()]
    assert len(logs) > 3
    secrets = [link.partition("workspace-link=")[2], token, cookie]
    for log in logs:
        said = log.read_text(errors="replace")
        assert [number for number, secret in enumerate(secrets) if secret in said] == [], log
    context.close()


def test_a_revoked_browser_is_turned_away_where_it_stands(service: Service, browser: Browser, session: Any) -> None:
    """Its connections end, those to its extensions too, and none comes back, whatever it did to the files of its
    workspace. What runs in its terminal goes on."""
    uuid = session["uuid"]
    context = browser.new_context()
    page, opened = editor_and_sockets(context, service.link(uuid))
    in_terminal(page, "rm -rf ~/.local/state/workspace; chmod a-w ~/.local/state; sleep 600")

    def of_the_editor(argument: str) -> list[int]:
        return [process.pid for process in service.processes(argument, WORKSPACE_UUID=uuid)]

    (job,) = wait_for(lambda: of_the_editor("600"), "the job to run")
    assert not (service.files(uuid).parent / "home" / ".local" / "state" / "workspace").exists()
    extensions = set(wait_for(lambda: of_the_editor("--type=extensionHost"), "its extensions to start"))
    assert opened and not any(each.is_closed() for each in opened)
    service.done("POST", f"/session/{uuid}/revoke")
    expect_all_closed(page, opened)
    wait_for(lambda: not extensions & set(of_the_editor("--type=extensionHost")), "its extensions to end")
    assert navigated(page, session["workspace_url"]) == 401
    assert of_the_editor("600") == [job]
    context.close()


@pytest.mark.parametrize("restart", [False, True])
def test_a_workspace_that_does_not_answer_is_replaced_when_access_is_revoked(
    service: Service, browser: Browser, restart: bool
) -> None:
    """A stranger has stopped its editor, which keeps the connections; or whoever revokes asks for it."""
    session = service.create("eve")
    uuid = session["uuid"]
    context = browser.new_context()
    page, opened = editor_and_sockets(context, service.link(uuid))
    before = {process.pid for process in service.processes(WORKSPACE_UUID=uuid)}
    assert before
    if not restart:
        (editor,) = [each for each in before if is_editor(each)]
        os.kill(editor, signal.SIGSTOP)
    service.done("POST", f"/session/{uuid}/revoke", {"restart": restart})
    wait_for(lambda: not before & {process.pid for process in service.processes(WORKSPACE_UUID=uuid)}, "them to end")
    expect_all_closed(page, opened)
    service.wait_status(uuid, "active")
    with service.redis() as client:
        wait_for(lambda: not client.zscore(keys.LOCKOUTS, uuid), "the disconnect to be settled")
    assert navigated(page, session["workspace_url"]) == 401
    open_editor(browser.new_context(), service.link(uuid)).context.close()
    context.close()


def is_editor(pid: int) -> bool:
    """Whether the process is the editor's own, which has the connections."""
    return any(
        each.status == psutil.CONN_LISTEN for each in psutil.Process(pid).net_connections()
    ) and "app.agent" not in (psutil.Process(pid).cmdline())


def test_who_comes_back_after_a_revocation_stays(service: Service, browser: Browser) -> None:
    """Connections from before it are ended twice; one from after it is neither time."""
    uuid = service.create("dan")["uuid"]
    service.done("POST", f"/session/{uuid}/revoke")
    page, opened = editor_and_sockets(browser, service.link(uuid))
    with service.redis() as client:
        wait_for(lambda: not client.zscore(keys.LOCKOUTS, uuid), "the second time")
    assert opened and not any(each.is_closed() for each in opened)
    page.context.close()
