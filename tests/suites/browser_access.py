"""Getting into a workspace, in Chromium and with programs: with a link, once; what everybody else is told; and how long
it lasts.

One suite for wherever the service runs. A module of tests derives a class from `BrowserAccess`, imports the fixtures,
and has one of its own, `place`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, expect

from app.core.access.tokens import COOKIE
from tests.browser import (
    HANDSHAKE,
    answered,
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
from tests.cluster.product import LET_IN
from tests.service import Service
from tests.waiting import wait_for

FORBIDDEN = "Unexpected response code: 403"
NO_COOKIE = "HTTP Authentication failed"
"""What Chromium says of a socket to which it has sent its cookie, or none."""

NOT_THERE = "This workspace does not exist"
"""The heading of the page of an address without a workspace."""

KEPT = "kept.txt"
"""A file in the workspace."""

EXTENSIONS = "--type=extensionHost"
"""An argument of the process that runs the extensions of a page."""

PATIENCE = 180.0
"""s for a session to be archived, which a periodic task does."""

PLANTED = """() => {
  for (let number = 0; number < 12; number++)
    document.cookie = `planted${number}=${"x".repeat(4000)}; Domain=ws.localhost; Path=/`;
}"""


@dataclass(frozen=True)
class Pages:
    """What a person reads first about a workspace that is new, brings a backup's files, sleeps, or is archived."""

    new: str = "Starting the workspace"
    restored: str = "Restoring the workspace"
    asleep: str = "Waking the workspace"
    archived: str = "its files come from the archive first"


@dataclass(frozen=True)
class Place:
    """A service with an ingress in front. `ask` makes a call of the API that goes well (method, path, body) and answers
    its JSON; `create` makes a session of that user and waits for nothing. `program` is what a program is told at a
    session's address (session, path, `method`, headers), `agents` at a path of the agents' host (path, headers).

    `inside` starts a command in a workspace, `folder` is the one that its editor opens. `processes` tells those of its
    editor with this argument, or all if it is "", and `runs_in` what they live and end with: pods, or the editor's own
    process, which `stop_editor` stops by SIGSTOP. `unconfirmed`: connections from before a revocation may be left.
    `remains` is what there is of a workspace beside its record and its backups.

    `foreign` is a page of another site. `sibling_told` and `foreign_told` are why a page of another workspace, or that
    one, opens no socket. A program without access is told `refused`, a status and an error, and of a session that is
    gone `gone`; `asleep` is how the state of one that sleeps is called. `route` has the ingress lead to a workspace,
    and `route_port` to a port of it, if it doesn't see to that."""

    ask: Callable[..., Any]
    create: Callable[..., Any]
    key: str
    program: Callable[..., requests.Response]
    agents: Callable[..., requests.Response]
    inside: Callable[..., subprocess.Popen[str]]
    folder: Callable[[str], str]
    processes: Callable[[str, str], set[str]]
    runs_in: Callable[[str], set[str]]
    stop_editor: Callable[[str], object]
    unconfirmed: Callable[[str], bool]
    remains: Callable[[str], str]
    foreign: str
    sibling_told: str = FORBIDDEN
    foreign_told: str = NO_COOKIE
    refused: tuple[int, str] = (401, "unauthorized")
    gone: tuple[int, str] = (404, "session_not_found")
    asleep: str = "sleeping"
    pages: Pages = Pages()
    route: Callable[[str], None] = lambda uuid: None
    route_port: Callable[[str, int], None] = lambda uuid, port: None

    def new(self, user_id: str, **wanted: Any) -> Any:
        """A session whose address leads to its editor."""
        made = self.create(user_id, **wanted)
        self.becomes(made["uuid"], "active")
        self.route(made["uuid"])
        wait_for(lambda: self.lets_in(made, Authorization=self.held(made["uuid"])), "the ingress to lead there")
        return made

    def delete(self, uuid: str) -> None:
        self.ask("DELETE", f"/session/{uuid}?backup=false")

    def becomes(self, uuid: str, status: str) -> None:
        """Wait for the session to be in that state."""
        seen = partial(self.record, uuid)
        wait_for(lambda: seen()["status"] == status, f"session {uuid} to be {status}", lambda: str(seen()))

    def record(self, uuid: str) -> Any:
        return self.ask("GET", f"/session/{uuid}")["session"]

    def link(self, uuid: str) -> str:
        """One that is good once."""
        return str(self.ask("POST", f"/session/{uuid}/open")["url"])

    def held(self, uuid: str) -> str:
        """The `Authorization` of who has a session token."""
        return f"Bearer {self.ask('POST', f'/session/{uuid}/token')['token']}"

    def lets_in(self, session: Any, **headers: str) -> bool:
        """Whether a program with these headers gets to the editor."""
        return bool(self.program(session, **headers).status_code in LET_IN)

    def entered(self, browser: Browser, session: Any) -> str:
        """The cookie of a browser that has followed a link."""
        context = browser.new_context()
        open_editor(context, self.link(session["uuid"]))
        cookie = cookie_of(context, session)
        context.close()
        return cookie

    def keep_file(self, uuid: str) -> None:
        """Have `KEPT` in the workspace."""
        with self.inside(uuid, "sh", "-c", f"echo kept > {self.folder(uuid)}/{KEPT}") as command:
            assert command.wait(60) == 0


def said(answer: requests.Response) -> tuple[int, str]:
    """Its status and its error, "" where an ingress says it in its own words."""
    told = answer.json() if "json" in answer.headers.get("Content-Type", "") else {}
    return answer.status_code, str(told.get("error", ""))


@pytest.fixture(scope="module")
def session(place: Place) -> Iterator[Any]:
    made = place.new("ada")
    yield made
    place.delete(made["uuid"])


@pytest.fixture(scope="module")
def other(place: Place) -> Iterator[Any]:
    made = place.new("bob")
    yield made
    place.delete(made["uuid"])


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that never was here."""
    made = browser.new_context()
    yield made
    made.close()


@pytest.fixture
def strangers(browser: Browser) -> Iterator[BrowserContext]:
    """Another one, of somebody else."""
    made = browser.new_context()
    yield made
    made.close()


class BrowserAccess:
    """The suite."""

    def test_a_link_opens_the_editor_once_and_nobody_elses_browser(
        self, place: Place, context: BrowserContext, strangers: BrowserContext, session: Any
    ) -> None:
        """Its secret leaves the address, in which all else stays; with the cookie the plain address is enough from then
        on, and the used link does no harm."""
        rest = f"folder={place.folder(session['uuid'])}&a=b%26c+d"
        link = f"{place.link(session['uuid'])}&{rest}"
        page = open_editor(context, link)
        assert page.url == f"{session['workspace_url']}/?{rest}"
        (cookie,) = [each for each in context.cookies() if each.get("name") == COOKIE]
        assert (cookie.get("secure"), cookie.get("httpOnly"), cookie.get("sameSite")) == (True, True, "Lax")
        assert "workspace" not in page.evaluate("document.cookie")
        stranger = strangers.new_page()
        assert navigated(stranger, link) == 403
        expect(stranger.get_by_role("heading", name="This link has been used")).to_be_visible()
        expect(stranger.get_by_text("ask for a new one")).to_be_visible()
        assert navigated(stranger, session["workspace_url"]) == 401
        expect(stranger.get_by_role("heading", name="not open to you")).to_be_visible()
        assert strangers.cookies() == []
        for again in (session["workspace_url"], link):
            assert navigated(page, again) == 200
            assert "workspace-link" not in page.url
            expect_editor(page)

    def test_only_the_workspaces_own_pages_open_a_socket(
        self, place: Place, browser: Browser, session: Any, other: Any
    ) -> None:
        """No sibling's, though on one site the browser adds its cookie there, and no foreign one's."""
        context = browser.new_context(bypass_csp=True)
        own = open_editor(context, place.link(session["uuid"]))
        sibling = open_editor(context, place.link(other["uuid"]))
        foreign = context.new_page()
        foreign.goto(place.foreign)
        assert opens_socket(own, session) == ""
        assert place.sibling_told in opens_socket(sibling, session)
        assert place.foreign_told in opens_socket(foreign, session)
        context.close()

    def test_another_workspaces_cookie_and_a_missing_origin_open_nothing(
        self, place: Place, browser: Browser, session: Any, other: Any
    ) -> None:
        """Sent by a program that pretends to be a browser."""
        cookie = place.entered(browser, session)
        assert place.lets_in(session, Cookie=cookie)
        assert said(place.program(other, Cookie=cookie)) == place.refused
        for headers in ({}, {"Origin": other["workspace_url"]}, {"Origin": "https://example.com"}):
            assert place.program(session, Cookie=cookie, **HANDSHAKE, **headers).status_code == 403
            assert place.program(session, method="POST", Cookie=cookie, **headers).status_code == 403
        told_own = place.program(session, method="POST", Cookie=cookie, Origin=session["workspace_url"])
        assert told_own.status_code != 403
        place.ask("POST", f"/session/{session['uuid']}/revoke")
        assert said(place.program(session, Cookie=cookie)) == place.refused

    def test_cookies_of_a_sibling_workspace_lock_nobody_out(self, place: Place, browser: Browser, session: Any) -> None:
        """More than servers commonly take (8 KiB in a line), and some that look like its own."""
        own = place.entered(browser, session)
        others = (f"planted={7_000 * 'x'}", f"planted={40_000 * 'x'}", f"{COOKIE}=e30.e30.x; \xa0{COOKIE}=x")
        assert [place.lets_in(session, Cookie=f"{each}; {own}") for each in others] == [True] * 3

    def test_opening_a_sleeping_workspace_ends_in_the_editor(
        self, place: Place, context: BrowserContext, session: Any
    ) -> None:
        """By a page that goes on to it, with its file, and without a reload by hand; a poll and a socket before it wake
        nothing, and are told to try again."""
        uuid = session["uuid"]
        place.keep_file(uuid)
        page = open_editor(context, place.link(uuid))
        page.goto("about:blank")
        place.ask("POST", f"/session/{uuid}/scale-down")
        cookie = cookie_of(context, session)
        for headers in ({"Accept": "application/json"}, HANDSHAKE | {"Origin": session["workspace_url"]}):
            told = place.program(session, "/x?a=b", Cookie=cookie, **headers)
            assert said(told) == (503, "workspace_not_up")
            assert (told.headers["Retry-After"], told.json()["session_status"]) == ("1", place.asleep)
        assert place.record(uuid)["status"] == "sleeping"
        told_of: list[str] = []
        page.on("console", lambda message: told_of.append(message.text) if "Content Security" in message.text else None)
        status, words = answered(page, session["workspace_url"])
        assert status == 503
        assert place.pages.asleep in words
        expect_editor(page)
        expect_file(page, KEPT)
        assert told_of == []

    def test_opening_an_archived_workspace_ends_in_the_editor(
        self, place: Place, context: BrowserContext, strangers: BrowserContext
    ) -> None:
        """It has no route of its own; that of all others lets in nobody without access, and wakes it for who has it. By
        that one its agent isn't up either."""
        session = place.new("dan", ttl=2)
        uuid = session["uuid"]
        place.keep_file(uuid)
        place.ask("POST", f"/session/{uuid}/sleep")

        def archived() -> bool:
            return place.record(uuid)["tier"] == "archived" and not place.remains(uuid)

        wait_for(archived, "the session to be archived", lambda: place.remains(uuid), PATIENCE)
        agent = place.agents(f"/chat/{uuid}/health", Authorization=place.held(uuid))
        assert said(agent) == (503, "workspace_not_up")
        assert said(place.program(session, Accept="*/*")) == place.refused
        assert navigated(strangers.new_page(), session["workspace_url"]) == 401
        assert place.record(uuid)["status"] == "sleeping"
        page = context.new_page()
        status, words = answered(page, place.link(uuid))
        assert status == 503
        assert place.pages.archived in words
        place.becomes(uuid, "active")
        place.route(uuid)
        expect_editor(page)
        expect_file(page, KEPT)
        place.delete(uuid)

    def test_an_address_says_that_its_workspace_is_gone_to_who_was_let_in(
        self, place: Place, context: BrowserContext, strangers: BrowserContext
    ) -> None:
        """Others read the same of one that never was. The link was followed at once, before there was anything behind
        it."""
        made = place.create("eve", open=True)
        uuid, address = made["uuid"], made["workspace_url"]
        mine, stranger = context.new_page(), strangers.new_page()
        mine.goto(made["open_url"])
        mine.goto("about:blank")
        place.delete(uuid)
        place.becomes(uuid, "terminated")
        never = address.replace(uuid, "zzzzzzzz")
        assert navigated(mine, address) == 404
        expect(mine.get_by_role("heading", name=NOT_THERE)).to_be_visible()
        read = {(navigated(stranger, url), stranger.locator("main").inner_text()) for url in (address, never)}
        assert [status for status, _ in read] == [401]
        assert navigated(stranger, made["open_url"]) == 403
        of_agents = [f"/chat/{each}/health" for each in (uuid, "zzzzzzzz")]
        assert [said(place.agents(path, X_API_Key=place.key)) for path in of_agents] == [place.gone] * 2
        assert [said(place.agents(path)) for path in of_agents] == [place.refused] * 2

    def test_an_agent_is_found_at_the_agents_host_while_its_workspace_is_up(
        self, place: Place, session: Any, other: Any
    ) -> None:
        """For whoever has an API key or its session's token; 503 when it sleeps. Nothing else is there."""
        uuid = session["uuid"]
        health, history = f"/chat/{uuid}/health", f"/chat/{uuid}/history"
        keyed, held = {"X_API_Key": place.key}, {"Authorization": place.held(uuid)}
        wait_for(lambda: place.agents(health, **held).status_code == 200, "the agent's route")
        assert [place.agents(history, **each).json()["messages"] for each in (keyed, held)] == [[], []]
        assert said(place.agents(history)) == place.refused
        assert said(place.agents(f"/chat/{other['uuid']}/history", **held)) == place.refused
        assert place.agents("/health").status_code == 404
        place.ask("POST", f"/session/{uuid}/scale-down")
        assert said(place.agents(health, **held)) == (503, "workspace_not_up")
        place.ask("POST", f"/session/{uuid}/wake")
        place.becomes(uuid, "active")

    def test_a_revoked_browser_is_turned_away_where_it_stands(
        self, place: Place, context: BrowserContext, other: Any
    ) -> None:
        """Its connections end, those to its extensions too, and none comes back, whatever it did to the files of its
        workspace. What runs in its terminal goes on."""
        uuid = other["uuid"]
        before, of_others = place.runs_in(uuid), place.processes(uuid, EXTENSIONS)
        page, opened = editor_and_sockets(context, place.link(uuid))
        in_terminal(
            page,
            # Each use of the editor makes the folder again, until the mode forbids it, which root does not mind.
            "cd ~/.local/state; until chmod u+w .; rm -rf workspace; chmod a-w .; [ ! -e workspace ]; do :; done; "
            "sleep 600",
        )
        (job,) = wait_for(lambda: place.processes(uuid, "600"), "the job to run")
        # Those of pages that were closed wait for these to come back.
        wait_for(lambda: place.processes(uuid, EXTENSIONS) - of_others, "the page's extensions to be started")
        assert opened
        assert not any(each.is_closed() for each in opened)
        place.ask("POST", f"/session/{uuid}/revoke")
        expect_all_closed(page, opened)
        wait_for(lambda: not place.processes(uuid, EXTENSIONS), "the extensions to end")
        assert navigated(page, other["workspace_url"]) == 401
        assert place.processes(uuid, "600") == {job}
        assert place.runs_in(uuid) == before

    @pytest.mark.parametrize("restart", [False, True])
    def test_a_workspace_that_does_not_confirm_a_revocation_is_replaced(
        self, place: Place, context: BrowserContext, strangers: BrowserContext, other: Any, restart: bool
    ) -> None:
        """A stranger has stopped its editor, which keeps the connections; or whoever revokes asks for it."""
        uuid = other["uuid"]
        page, opened = editor_and_sockets(context, place.link(uuid))
        before, ran = place.runs_in(uuid), place.processes(uuid, "")
        assert len(before) == 1
        assert ran
        if not restart:
            place.stop_editor(uuid)
        place.ask("POST", f"/session/{uuid}/revoke", {"restart": restart})
        expect_all_closed(page, opened)

        def replaced() -> bool:
            now = place.runs_in(uuid)
            return len(now) == 1 and not now & before

        wait_for(replaced, "another one in its place", lambda: str(place.runs_in(uuid)))
        wait_for(lambda: not place.processes(uuid, "") & ran, "those of before to end")
        place.becomes(uuid, "active")
        wait_for(lambda: not place.unconfirmed(uuid), "the disconnect to be settled")
        assert navigated(page, other["workspace_url"]) == 401
        open_editor(strangers, place.link(uuid))

    def test_who_comes_back_after_a_revocation_stays(self, place: Place, context: BrowserContext, other: Any) -> None:
        """Connections from before it are ended twice; one from after it is neither time."""
        uuid = other["uuid"]
        place.ask("POST", f"/session/{uuid}/revoke")
        page, opened = editor_and_sockets(context, place.link(uuid))
        wait_for(lambda: not place.unconfirmed(uuid), "the second time")
        assert opened
        assert not any(each.is_closed() for each in opened)


class WhereRoutesComeLater(BrowserAccess):
    """The suite, where the ingress learns of a workspace by an object of the cluster, not at once."""

    def test_a_new_workspaces_link_is_followed_at_once_and_leads_on_by_itself(
        self, place: Place, context: BrowserContext
    ) -> None:
        """Nobody meets the ingress controller's own 404: before there is anything, while a backup's files are put back,
        or at another name of the domain."""
        page = context.new_page()
        backup: dict[str, str] = {}
        for heading in (place.pages.new, place.pages.restored):
            made = place.create("eve", open=True, **backup)
            uuid = made["uuid"]
            assert navigated(page, made["open_url"]) == 503
            expect(page.get_by_role("heading", name=heading)).to_be_visible()
            place.becomes(uuid, "active")
            place.route(uuid)
            expect_editor(page)
            if backup:
                expect_file(page, KEPT)
            place.keep_file(uuid)
            page.goto("about:blank")
            backup = {"restore_from": place.ask("DELETE", f"/session/{uuid}")["backup"]}
        for url in (made["workspace_url"], made["workspace_url"].replace(f"vs-code-{uuid}", "grafana")):
            assert navigated(page, url) == 404
            expect(page.get_by_role("heading", name=NOT_THERE)).to_be_visible()


class OfOneSite(BrowserAccess):
    """The suite, where workspaces have a domain of their own on this machine, `ws.localhost`, so that they are of one
    site: directly below `localhost` each is a site of its own, and browsers keep cookies back by themselves."""

    def test_a_siblings_pages_plant_cookies_and_lock_nobody_out(
        self, place: Place, browser: Browser, session: Any, other: Any
    ) -> None:
        """Some for the whole domain, more of them than servers commonly take (8 KiB in a line)."""
        context = browser.new_context(bypass_csp=True)
        page = open_editor(context, place.link(session["uuid"]))
        open_editor(context, place.link(other["uuid"])).evaluate(PLANTED)

        def planted() -> int:
            return sum(len(each.get("value", "")) for each in context.cookies(session["workspace_url"]))

        # The page's call returns before the browser has stored them all.
        wait_for(lambda: planted() > 48_000, "the cookies to be stored", lambda: str(planted()))
        page.goto(session["workspace_url"])
        expect_editor(page)
        context.close()

    def test_no_log_has_a_link_a_cookie_or_a_token(
        self, place: Place, service: Service, browser: Browser, session: Any
    ) -> None:
        """The workspace's own neither: it is not given them."""
        uuid = session["uuid"]
        link, token = place.link(uuid), place.held(uuid)
        context = browser.new_context()
        open_editor(context, link)
        cookie = cookie_of(context, session).partition("=")[2]
        assert place.lets_in(session, Authorization=token)
        logs = [*(service.data_dir / "log").iterdir(), *service.files(uuid).parent.glob("*.log*")]
        logs += [path for path in (service.files(uuid).parent / "home").rglob("*.log") if path.is_file()]
        assert len(logs) > 3
        secrets = [link.partition("workspace-link=")[2], token.partition(" ")[2], cookie]
        for log in logs:
            text = log.read_text(errors="replace")
            assert [number for number, secret in enumerate(secrets) if secret in text] == [], log
        context.close()
