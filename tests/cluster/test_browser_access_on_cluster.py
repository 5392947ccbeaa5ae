"""Getting into a workspace on a real cluster, in Chromium, through the ingress (the suite is
tests/suites/browser_access.py), and what is of a cluster alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import BrowserContext, expect

from tests.browser import expect_editor, open_editor
from tests.cluster.on_cluster import place
from tests.cluster.product import Api, kubectl
from tests.suites.browser_access import WhereRoutesComeLater, context, other, session, strangers
from tests.waiting import wait_for

__all__ = ["context", "other", "place", "session", "strangers"]


class TestBrowserAccessOnCluster(WhereRoutesComeLater):
    """The whole product, as the overlay `dev` puts it there."""


def test_a_neighbour_who_finds_an_editors_port_gets_no_further(api: Api, session: Any, other: Any) -> None:
    """This cluster's network enforces no policy, which `/health` tells: the editor itself keeps them out."""
    theirs = f"session-uuid={other['uuid']}"
    address = kubectl("get", "pods", "-l", theirs, "-o", "jsonpath={.items[0].status.podIP}")

    def said(*command: str) -> str:
        return kubectl("exec", f"deployment/user-{session['uuid']}", "-c", "editor", "--", *command)

    def status(path: str) -> str:
        return said("curl", "-sSm", "10", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}:8080{path}")

    assert [status(path) for path in ("/", "/proxy/8080/", "/healthz")] == ["403", "403", "200"]
    assert "agent" not in said("ls", "/run").split(), "its agent's token is not within its reach"
    found = "not_enforced"
    wait_for(
        lambda: api.ask("GET", "/health").json()["network_policies"] == found,
        "a delivery worker to look",
        seconds=180.0,
    )


def test_a_workspace_that_can_not_start_shows_why_and_goes_on_when_it_can(
    api: Api, context: BrowserContext, session: Any
) -> None:
    """Its button tries again at once; when there is room the page is the editor by itself."""
    uuid = session["uuid"]
    page = open_editor(context, api.link(uuid))
    page.goto("about:blank")
    api.call("POST", f"/session/{uuid}/scale-down")
    with no_room_for_pods():
        page.goto(session["workspace_url"])
        expect(page.get_by_text("There is no room for one more workspace")).to_be_visible()
        before = api.call("GET", f"/session/{uuid}/status")["session"]["generation"]
        page.get_by_role("button", name="Try again").click()
        wait_for(
            lambda: api.call("GET", f"/session/{uuid}/status")["session"]["generation"] == before + 1, "another try"
        )
    expect_editor(page)


@contextmanager
def no_room_for_pods() -> Iterator[None]:
    """The workspaces' quota is used up, until the block is done."""

    def allow(pods: str) -> None:
        kubectl(
            "patch", "resourcequota", "workspaces", "--type=merge", "-p", f'{{"spec":{{"hard":{{"pods":"{pods}"}}}}}}'
        )

    allowed = kubectl("get", "resourcequota", "workspaces", "-o", "jsonpath={.spec.hard.pods}")
    allow("0")
    try:
        yield
    finally:
        allow(allowed)
