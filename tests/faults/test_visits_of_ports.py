"""Visits of the address of a port at any moment of its workspace's life: each ends at the page that was asked for, or
at one that says why not. And tabs that are left open, which wake nothing."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from playwright.sync_api import Browser

from app.core.access.tokens import COOKIE
from tests.browser import browser
from tests.e2e.on_this_machine import on_this_machine
from tests.ports import free_port
from tests.sampling import seeds
from tests.service import Service
from tests.suites.ports import ECHOED, App, expect_page
from tests.unit.api.visitors import NAVIGATION
from tests.waiting import wait_for

__all__ = ["browser"]

pytestmark = pytest.mark.timeout(900)

CHANGES, VISITS, VISITORS = 40, 200, 4
CHANGE_PAUSE, VISIT_PAUSE = 3.0, 2.4
"""s at most from one to the next, so that visits and changes go on for about as long as each other."""

PATIENCE = 120.0
"""s for a visit to end; a start that a kill has broken off is done again after some of them."""

IDLE, TABS, IDLE_TIMES = 5, 10, 30

RECONNECTS = """(url) => {
  const connect = () => {
    const socket = new WebSocket(url);
    socket.onopen = () => socket.send("hot");
    socket.onclose = () => setTimeout(connect, 500);
  };
  connect();
  setInterval(() => fetch("/poll").catch(() => {}), 1000);
}"""
"""What the client of a dev server does in an open tab."""


def app_of(service: Service) -> App:
    """A program at a port of a new workspace."""
    made = App(on_this_machine(service, agents_host="api.localhost"), service.create("ada"), "app", free_port())
    made.start()
    return made


class Visitor:
    """A browser that has come in by a link."""

    def __init__(self, service: Service, app: App) -> None:
        self._service, self._app = service, app
        entered = self._get(str(app.open()["url"]).partition(f":{service.workspace_port}")[2], "")
        cookies = [line for line in entered.headers["Set-Cookie"].split(", ") if line.startswith(COOKIE)]
        self._cookie = cookies[0].partition(";")[0]

    def _get(self, path: str, cookie: str, **headers: str) -> requests.Response:
        host = self._app.address.partition("://")[2]
        url = f"http://127.0.0.1:{self._service.workspace_port}{path}"
        sent = {"Host": host, **({"Cookie": cookie} if cookie else {}), **NAVIGATION, **headers}
        return requests.get(url, headers=sent, timeout=60, allow_redirects=False)

    def visit(self, number: int) -> str:
        """Open a page, and load it again while a page says that it comes by itself; what it ended with: `page`,
        `failed` for the page of a start that failed, or else what nobody should see."""
        path, waited = f"/deep/{number}?x={number}", threading.Event()
        for _ in range(int(PATIENCE / 0.25)):
            seen = self._get(path, self._cookie)
            if seen.status_code == 200:
                return "page" if f"<h1>At {path}</h1>" in seen.text else f"200: {seen.text[:100]}"
            status = seen.headers.get("Workspace-Status", "")
            if seen.status_code != 503 or not status or "<h1" not in seen.text:
                return f"{seen.status_code}: {seen.text[:100]}"
            if status == "failed":
                return "failed"
            waited.wait(0.25)
        return f"nothing after {PATIENCE} s: {seen.text[:300]}"


def changes(service: Service, app: App) -> list[Callable[[], Any]]:
    """What may happen to a workspace and to the service, meanwhile."""
    uuid = app.uuid

    def asked(path: str) -> Callable[[], Any]:
        return lambda: service.call("POST", f"/session/{uuid}/{path}", headers={"Prefer": "respond-async"})

    def killed(argument: str) -> Callable[[], Any]:
        def kill() -> None:
            for each in service.processes(argument, WORKSPACE_UUID=uuid)[:1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()

        return kill

    restart = asked(f"services/{app.name}/restart")
    lost = [killed("app.agent"), killed("program.py"), lambda: service.kill("web"), lambda: service.kill("worker")]
    return [*[asked("sleep")] * 4, *[asked("wake")] * 2, restart, *lost]


@pytest.fixture
def service(tmp_path: Path, code_server: str) -> Iterator[Service]:
    """With few seconds until something lost is done again."""
    settings = {"LEASE_TTL": "3", "STALE_AFTER": "2", "RATE_LIMIT_WORK": "10000 per minute", "WAKE_GRACE": "0"}
    running = Service(tmp_path, code_server, IDLE_TIMEOUT=str(IDLE), **settings)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def test_each_visit_ends_at_the_page_or_at_one_that_says_why_not(service: Service) -> None:
    app = app_of(service)
    visitors = [Visitor(service, app) for _ in range(VISITORS)]
    chance, over = random.Random(seeds(1, "visits of ports")[0]), threading.Event()

    def change() -> None:
        for each in chance.choices(changes(service, app), k=CHANGES):
            try:
                each()
            except requests.RequestException:
                continue  # web was killed
            finally:
                over.wait(chance.uniform(0.0, CHANGE_PAUSE))

    def visit(number: int) -> str:
        over.wait(chance.uniform(0.0, VISIT_PAUSE))
        return visitors[number % VISITORS].visit(number)

    changing = threading.Thread(target=change)
    changing.start()
    with ThreadPoolExecutor(VISITORS) as pool:
        ended = Counter(pool.map(visit, range(VISITS)))
    changing.join(PATIENCE)
    assert not changing.is_alive()
    assert set(ended) <= {"page", "failed"}, ended
    assert ended["page"] > VISITS / 2, ended


def test_tabs_that_are_left_open_wake_nothing_and_come_back_with_a_person(service: Service, browser: Browser) -> None:
    """By the sockets and the polls of a dev server's client, for thirty times the idle timeout."""
    app = app_of(service)
    context = browser.new_context()
    context.new_page().goto(app.open()["url"])
    tabs = [context.new_page() for _ in range(TABS)]
    for tab in tabs:
        tab.goto(f"{app.address}/tab")
        tab.evaluate(RECONNECTS, app.address.replace("http", "ws", 1) + "/hot")

    def status() -> str:
        tabs[0].wait_for_timeout(100)  # In which their scripts run.
        return str(service.status(app.uuid)["session"]["status"])

    wait_for(lambda: status() == "sleeping", "it to fall asleep with tabs open")
    service.wait_status(app.uuid, "sleeping", replicas=0)
    before = service.done("GET", f"/session/{app.uuid}/cost")["compute_seconds"]
    seen = {status()}
    for _ in range(IDLE_TIMES):
        tabs[0].wait_for_timeout(IDLE * 1_000)
        seen.add(status())
    assert seen == {"sleeping"}
    assert service.states(app.uuid)[-1] == "sleeping"
    assert service.done("GET", f"/session/{app.uuid}/cost")["compute_seconds"] == before
    page = context.new_page()
    page.goto(f"{app.address}/back", wait_until="commit")
    expect_page(page, "/back")
    assert page.evaluate(ECHOED, app.address.replace("http", "ws", 1) + "/socket") == "hot"
    context.close()
