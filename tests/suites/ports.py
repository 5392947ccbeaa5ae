"""Ports of a workspace, in Chromium and with programs: who sees what a program shows at its port, and what becomes of
that when the workspace sleeps.

One suite for wherever the service runs. A module of tests derives a class from `Ports`, imports the fixtures, and has
one of its own, `place`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser import HANDSHAKE, SOCKET, answered, cookie_of, navigated, open_editor
from tests.ports import free_port
from tests.suites.browser_access import Place, context, session, strangers
from tests.waiting import wait_for

__all__ = ["context", "session", "strangers"]

PROGRAM = r"""
import base64, hashlib, http.server, json, os

asked = []

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked.append(self.path)
        if key := self.headers.get("Sec-WebSocket-Key"):
            return self.echo(key)
        seen = {name.lower(): text for name, text in self.headers.items()}
        told = json.dumps({"seen": seen, "asked": asked})
        page = f'<h1>At {self.path}</h1><script type="application/json">{told}</script>'
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page.encode())

    do_POST = do_GET

    def echo(self, key):
        accepted = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(accepted).decode())
        self.end_headers()
        while frame := self.rfile.read(2):
            length, mask = frame[1] & 127, self.rfile.read(4)
            text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(length)))
            self.wfile.write(bytes([frame[0], length]) + text)
            self.wfile.flush()
        self.close_connection = True

    def log_message(self, *of_no_use):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
"""A server on loopback alone. It shows the path and the headers of each request, and which paths it was asked for so
far, and echoes what sockets send."""

ECHOED = """(url) => new Promise((told) => {
  const socket = new WebSocket(url);
  socket.onopen = () => socket.send("hot");
  socket.onmessage = (event) => told(event.data);
  socket.onerror = () => told("");
})"""

ASKED = """(url) => fetch(url, {credentials: "include", mode: "no-cors"}).then(() => "answered", () => "failed")"""
READ = """(url) => fetch(url, {credentials: "include"}).then((answer) => answer.text(), () => "unread")"""
POSTED = """(url) => fetch(url, {credentials: "include", mode: "no-cors", method: "POST"}).then(() => "", () => "")"""


@dataclass(frozen=True)
class App:
    """The service `name` of a workspace, which shows what it is asked at its port."""

    place: Place
    session: Any
    name: str
    port: int

    @property
    def uuid(self) -> str:
        return str(self.session["uuid"])

    @property
    def address(self) -> str:
        """Of its port."""
        return str(self.session["workspace_url"]).replace("//", f"//{self.port}--")

    def start(self) -> None:
        command = {"command": ["sh", "-c", "cat > ~/program.py"], "stdin": PROGRAM}
        assert self.place.ask("POST", f"/session/{self.uuid}/exec", command)["exit_code"] == 0
        wanted = {"name": self.name, "command": "exec python3 ~/program.py", "port": self.port}
        made = self.place.ask("POST", f"/session/{self.uuid}/services", wanted)
        assert made["state"] == "running", made

    def remove(self) -> None:
        self.place.ask("DELETE", f"/session/{self.uuid}/services/{self.name}")

    def open(self, path: str = "/", **more: Any) -> Any:
        """Its port, opened: what the API answers."""
        opened = self.place.ask("POST", f"/session/{self.uuid}/ports/{self.port}/open", {"path": path, **more})
        self.place.route_port(self.uuid, self.port)
        return opened

    def close(self) -> None:
        self.place.ask("DELETE", f"/session/{self.uuid}/ports/{self.port}")

    def program(self, path: str = "/", **more: str) -> Any:
        """What a program is told there, by the ingress."""
        return self.place.program({"uuid": self.uuid, "workspace_url": self.address}, path, **more)


def expect_page(page: Page, path: str) -> None:
    """What the program shows at this path, whatever was before it."""
    expect(page.get_by_role("heading", name=f"At {path}", exact=True)).to_be_visible()


def told_in(page: str) -> Any:
    """What the program tells in a page: the headers of the request (`seen`), and the paths so far (`asked`)."""
    return json.loads(page.partition('"application/json">')[2].partition("</script>")[0])


@pytest.fixture
def app(place: Place, session: Any) -> Iterator[App]:
    made = App(place, session, "app", free_port())
    made.start()
    yield made
    made.remove()
    made.close()


class Ports:
    """The suite."""

    def test_a_link_shows_a_program_at_an_origin_of_its_own(
        self, place: Place, app: App, context: BrowserContext, strangers: BrowserContext
    ) -> None:
        """It listens on loopback, and takes the visitor for one there; sockets work, as hot reload needs them. The link
        is good once, and nobody else is let in."""
        opened = app.open("/deep?x=1&y=%2F")
        assert (opened["state"], opened["service"], opened["public_until"]) == ("listening", "app", None)
        page = context.new_page()
        page.goto(opened["url"])
        expect_page(page, "/deep?x=1&y=%2F")
        assert page.url == f"{app.address}/deep?x=1&y=%2F"
        seen = told_in(page.content())["seen"]
        assert seen["host"] == f"localhost:{app.port}"
        assert not {"cookie", "authorization", "x-workspace-secret", "x-forwarded-host"} & set(seen)
        assert page.evaluate(ECHOED, app.address.replace("http", "ws", 1) + "/socket") == "hot"
        stranger = strangers.new_page()
        assert navigated(stranger, opened["url"]) == 403
        assert navigated(stranger, f"{app.address}/deep") in (401, 403)
        expect(stranger.get_by_role("heading", name="not open to you")).to_be_visible()
        assert strangers.cookies() == []
        listed = place.ask("GET", f"/session/{app.uuid}/ports")["ports"]
        (mine,) = [each for each in listed if each["port"] == app.port]
        assert (mine["state"], mine["service"], mine["url"]) == ("listening", "app", app.address)
        assert place.record(app.uuid)["opened_ports"][-1]["port"] == app.port

    def test_who_may_open_the_workspace_needs_no_link(self, place: Place, app: App, context: BrowserContext) -> None:
        """The address that somebody was given leads to the very page, also where the port was not opened before."""
        open_editor(context, place.link(app.uuid)).goto("about:blank")
        page = context.new_page()
        place.route_port(app.uuid, app.port)
        page.goto(f"{app.address}/given?to=me")
        expect_page(page, "/given?to=me")
        assert page.url == f"{app.address}/given?to=me"

    def test_a_program_sees_neither_cookie_nor_key_nor_token(self, place: Place, app: App, browser: Browser) -> None:
        """A visitor is let in whatever they call the session's secret, and the program does not hear of that; it gets
        what is its own."""
        visitor = browser.new_context()
        visitor.new_page().goto(app.open()["url"])
        cookie = {"Cookie": f"theme=dark; {cookie_of(visitor, {'workspace_url': app.address})}"}
        visitor.close()
        visits = [
            cookie | {"X_API_Key": place.key, "X_Workspace_Secret": "of my own"},
            {"Authorization": place.held(app.uuid)},
            cookie | {"Authorization": "Basic dTpw"},
        ]
        told = [told_in(app.program(**each).text)["seen"] for each in visits]
        assert [each.get("cookie") for each in told] == ["theme=dark", None, "theme=dark"]
        assert [each.get("authorization") for each in told] == [None, None, "Basic dTpw"]
        assert [each.get(name) for each in told for name in ("x-api-key", "x-workspace-secret")] == [None] * 6

    def test_scripts_of_one_reach_no_other_port_and_not_the_editor(
        self, place: Place, app: App, browser: Browser
    ) -> None:
        """Though the browser has cookies for all of them, and adds them within one site."""
        other = App(place, app.session, "other", free_port())
        other.start()
        hostile = browser.new_context(bypass_csp=True)
        open_editor(hostile, place.link(app.uuid)).goto("about:blank")
        hostile.new_page().goto(other.open("/mine")["url"])
        page = hostile.new_page()
        page.goto(app.open()["url"])
        expect_page(page, "/")
        workspace = str(app.session["workspace_url"])
        for address in (other.address, workspace):
            assert page.evaluate(READ, f"{address}/stolen") == "unread"
            page.evaluate(ASKED, f"{address}/stolen")
            page.evaluate(POSTED, f"{address}/stolen")
            assert page.evaluate(ECHOED, address.replace("http", "ws", 1) + "/stolen") == ""
        assert not page.evaluate(SOCKET, workspace.replace("http", "ws", 1) + "/?reconnectionToken=0")
        hostile.close()
        asked = told_in(other.program("/asked", Authorization=place.held(app.uuid)).text)["asked"]
        assert set(asked) <= {"/mine", "/favicon.ico", "/asked"}
        other.remove()
        other.close()

    def test_a_public_one_is_everybodys_until_then(self, place: Place, app: App, strangers: BrowserContext) -> None:
        """A page that somebody opens wakes it, and shows the program again; afterwards they read that it has ended."""
        until = int(time.time()) + 3_600
        opened = app.open("/shown", public_until=until)
        assert (opened["url"], opened["expires_at"]) == (f"{app.address}/shown", None)
        assert datetime.fromisoformat(opened["public_until"]).timestamp() == until
        page = strangers.new_page()
        page.goto(opened["url"])
        expect_page(page, "/shown")
        assert page.evaluate(ECHOED, app.address.replace("http", "ws", 1) + "/socket") == "hot"
        assert strangers.cookies() == []
        place.ask("POST", f"/session/{app.uuid}/scale-down")
        assert app.program("/shown", Accept="text/html").status_code in (302, 503), "nginx leads to where that is said"
        assert place.record(app.uuid)["status"] == "sleeping"
        status, words = answered(page, opened["url"])
        assert status == 503
        assert place.pages.asleep in words
        expect_page(page, "/shown")
        app.open("/shown", public_until=int(time.time()) + 2)

        def ended() -> bool:
            return navigated(page, opened["url"]) == 403

        wait_for(ended, "its publicity to end")
        expect(page.get_by_role("heading", name="not public any more")).to_be_visible()

    def test_a_persons_visit_wakes_the_workspace_and_ends_at_the_page(
        self, place: Place, app: App, context: BrowserContext
    ) -> None:
        """By a page that goes on by itself, once the program is started again, as it was shown before the sleep; a poll
        and a socket before it wake nothing."""
        page = context.new_page()
        page.goto(app.open()["url"])
        expect_page(page, "/")
        page.goto("about:blank")
        place.ask("POST", f"/session/{app.uuid}/scale-down")
        cookie = cookie_of(context, {"workspace_url": app.address})
        for headers in ({"Accept": "application/json"}, HANDSHAKE | {"Origin": app.address}):
            assert app.program("/deep", Cookie=cookie, **headers).status_code == 503
        assert place.record(app.uuid)["status"] == "sleeping"
        status, words = answered(page, f"{app.address}/deep?page=7")
        assert status == 503
        assert place.pages.asleep in words
        expect_page(page, "/deep?page=7")
        assert page.url == f"{app.address}/deep?page=7"

    def test_where_nothing_listens_the_page_says_so_and_goes_on(
        self, place: Place, session: Any, context: BrowserContext
    ) -> None:
        late = App(place, session, "late", free_port())
        opened = late.open("/soon")
        assert opened["state"] == "stopped"
        page = context.new_page()
        page.goto(opened["url"])
        expect(page.get_by_role("heading", name=str(late.port))).to_be_visible()
        late.start()
        expect_page(page, "/soon")
        late.remove()
        late.close()

    def test_who_it_was_closed_to_is_turned_away(
        self, place: Place, app: App, context: BrowserContext, strangers: BrowserContext
    ) -> None:
        """By a close who has only its cookie; by a revocation everybody, and the sockets end."""
        page = context.new_page()
        page.goto(app.open()["url"])
        expect_page(page, "/")
        app.close()
        assert navigated(page, app.address) in (401, 403)
        page.goto(app.open()["url"])
        expect_page(page, "/")
        ended = page.evaluate_handle(
            """(url) => {
          const socket = new WebSocket(url);
          const opened = new Promise((told) => (socket.onopen = told));
          return {opened, ended: new Promise((told) => (socket.onclose = () => told("ended")))};
        }""",
            app.address.replace("http", "ws", 1) + "/socket",
        )
        ended.evaluate("(each) => each.opened.then(() => 'open')")
        place.ask("POST", f"/session/{app.uuid}/revoke")
        assert ended.evaluate("(each) => each.ended") == "ended"
        assert navigated(page, app.address) in (401, 403)
