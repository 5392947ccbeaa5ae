"""The product of docs/example on a real cluster: one user works in it (the suite is tests/suites/example.py), and
many come and go, three at a time."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, Response, expect

from app.core.access.keyring import CATEGORIES
from app.core.access.tokens import COOKIE
from tests import example, sampling
from tests.browser import AS_PEOPLE_HAVE_IT, EDITOR, PATIENCE, expect_editor, expect_file, launched
from tests.cluster.manager import SMALL
from tests.cluster.product import SYSTEM, Api, kubectl, settings_of_processes
from tests.cluster.prompting import model_at_install
from tests.model_server import ModelServer
from tests.ports import free_port
from tests.suites.example import Example, framed_editor, prompt
from tests.waiting import wait_for

USERS, SAMPLE, AWAKE = 50, 6, 3
DOMAIN = "ws.localhost"
WHO_KNOWS = ("web", "forward-auth", "worker", "sweeper", "backup-worker")
"""The processes that must hear of the product, of its key, and of where workspaces are."""

OF_VS_CODE = "/static/out/vs/"
"""In the addresses of VS Code's own documents."""

BARE = "404 page not found"
"""What the ingress controller says by itself."""

# All processes are replaced before the test and after it; all of the users take 25 minutes.
pytestmark = pytest.mark.timeout(3_600)


@dataclass
class Person:
    """A user of the product. `state` are the cookies of the browser between two visits; `pages` what it was answered
    that it navigated to, frames too: address and status."""

    name: str
    product: str
    state: Any = None
    uuid: str = ""
    pages: list[tuple[str, int]] = field(default_factory=list)

    @contextmanager
    def browsing(self, browser: Browser) -> Iterator[Page]:
        """Their page of the product; no answer that they meet is the ingress controller's own."""
        # Three waking pages that move would take a core of a machine without a graphics card.
        context = browser.new_context(storage_state=self.state, reduced_motion="reduce")
        page = context.new_page()
        page.on("response", self._met)
        page.goto(self.product)
        yield page
        self.state = context.storage_state()
        context.close()
        wrong = [(url, status) for url, status in self.pages if status >= 400 and not self._meant(url, status)]
        assert not wrong, f"{self.name}: {wrong}"

    def _met(self, response: Response) -> None:
        if response.request.is_navigation_request():
            self.pages.append((response.url, response.status))

    def _meant(self, url: str, status: int) -> bool:
        """The page that shows how far a workspace is says 503, and comes back by itself. What VS Code still loads in
        frames of its own ends with the workspace."""
        return (status == 503 and not url.startswith(self.product)) or OF_VS_CODE in url

    def home(self, page: Page) -> None:
        page.goto(self.product)
        expect(page.get_by_role("button", name="New workspace")).to_be_visible()


def first_visit(browser: Browser, person: Person) -> None:
    """Sign up, create, see the editor in the product's frame; send a prompt; put it to sleep."""
    with person.browsing(browser) as page:
        page.get_by_label("Your name").fill(person.name)
        page.get_by_role("button", name="Sign up").click()
        page.get_by_role("button", name="New workspace").click()
        page.wait_for_url("**/workspaces/*")
        person.uuid = page.url.rpartition("/")[2]
        # Three workspaces are made at once, and three editors load, on what may be two cores.
        expect(framed_editor(page).locator(EDITOR)).to_be_visible(timeout=3 * PATIENCE)
        prompt(page, f"run: echo of {person.name} | tee kept.txt", f"It said:\n\nof {person.name}")
        page.get_by_role("button", name="Sleep").click()
        expect(page.get_by_text("sleeping")).to_be_visible()


def return_and_end(browser: Browser, person: Person) -> None:
    """Return by a link that was kept, without its cookie, and to the frame; then delete it. Each link still leads
    somewhere."""
    with person.browsing(browser) as page:
        page.context.clear_cookies(name=COOKIE)
        alone = page.get_by_role("link", name="VS Code alone")
        bookmark = str(alone.get_attribute("href"))
        alone.click()
        expect_editor(page)
        expect_file(page, "kept.txt")
        person.home(page)
        page.get_by_role("link", name=person.uuid).click()
        expect(framed_editor(page).locator(EDITOR)).to_be_visible()
        expect_file(framed_editor(page), "kept.txt")
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_text("You have no workspace")).to_be_visible()
    with person.browsing(browser) as page:
        gone = page.request.get(bookmark, headers={"Accept": "text/html", "Sec-Fetch-Mode": "navigate"})
        assert (gone.status, BARE in gone.text(), "</html>" in gone.text()) == (404, False, True)


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with model_at_install() as running:
        yield running


@pytest.fixture(scope="module")
def product(model: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address; it has a key of its own, as a backend that calls for many users has."""
    key, port = secrets.token_urlsafe(24), free_port()
    limits = dict.fromkeys(CATEGORIES, "10000/minute")
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    held = json.dumps([{"name": "example", "role": "service", "sha256": sha256, "limits": limits}])
    told = {"WORKSPACE_DOMAIN": DOMAIN, "WORKSPACE_SIZES": SMALL, **example.settings_with(port)}
    try:
        _set_keys(base64.b64encode(held.encode()).decode())
        with (
            settings_of_processes(*WHO_KNOWS, **told),
            example.running(port, Api().url, key, tmp_path_factory.mktemp("product") / "log") as url,
        ):
            # The settings move all addresses, which the next reconcile sweep makes known.
            nobodys = f"http://vs-code-zzzzzzzz.{DOMAIN}"
            wait_for(lambda: BARE not in requests.get(nobodys, timeout=10).text, "the new addresses", seconds=120.0)
            yield url
            _delete_all()
    finally:
        _set_keys(None)


def _delete_all() -> None:
    """What is left of a test that failed."""
    api = Api()
    for session in api.call("GET", "/sessions?limit=1000")["sessions"]:
        if session["user_id"].startswith("user-"):
            api.call("DELETE", f"/session/{session['uuid']}?backup=false")


def _set_keys(encoded: str | None) -> None:
    kubectl("patch", "secret", "manager", "--patch", json.dumps({"data": {"api-keys": encoded}}), namespace=SYSTEM)


class TestExampleOnCluster(Example):
    """The whole product, as the overlay `dev` puts it there."""


def test_its_users_meet_no_bare_404_and_no_dead_link(product: str) -> None:
    """All of them have a workspace at once; three are awake at a time."""
    people = [Person(f"person {number}", product) for number in range(sampling.times(USERS, SAMPLE))]

    def go(visits: Callable[[Browser, Person], None], some: list[Person]) -> None:
        with launched(AS_PEOPLE_HAVE_IT) as browser:
            for person in some:
                visits(browser, person)

    with ThreadPoolExecutor(AWAKE) as pool:
        for visits in (first_visit, return_and_end):
            parts = [pool.submit(go, visits, people[number::AWAKE]) for number in range(AWAKE)]
            for part in parts:
                part.result()
