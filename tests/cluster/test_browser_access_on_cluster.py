"""Forward auth and the waking page on a real cluster, in Chromium, through the ingress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, expect

from tests.browser import (
    editor_and_sockets,
    expect_all_closed,
    expect_editor,
    expect_file,
    navigated,
    open_editor,
)
from tests.cluster.product import LET_IN, Api, kubectl, ready_pods
from tests.waiting import wait_for


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


def test_a_neighbour_who_finds_an_editors_port_gets_no_further(api: Api, sessions: list[Any]) -> None:
    """This cluster's network enforces no policy, which `/health` tells: the editor itself keeps them out."""
    mine, other = (each["uuid"] for each in sessions)
    address = kubectl("get", "pods", "-l", f"session-uuid={other}", "-o", "jsonpath={.items[0].status.podIP}")

    def inside(*command: str) -> str:
        return kubectl("exec", f"deployment/user-{mine}", "-c", "editor", "--", *command)

    def status(path: str) -> str:
        return inside("curl", "-sSm", "10", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}:8080{path}")

    assert [status(path) for path in ("/", "/proxy/8080/", "/healthz")] == ["403", "403", "200"]
    assert "agent" not in inside("ls", "/run").split(), "its agent's token is not within its reach"
    found = "not_enforced"
    wait_for(
        lambda: api.ask("GET", "/health").json()["network_policies"] == found,
        "a delivery worker to look",
        seconds=180.0,
    )


def test_a_workspace_that_can_not_start_shows_why_and_goes_on_when_it_can(
    api: Api, browser: Browser, sessions: list[Any]
) -> None:
    """Its button tries again at once; when there is room the page is the editor by itself."""
    session = sessions[0]
    uuid = session["uuid"]
    context = browser.new_context()
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
    context.close()


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


def test_revoking_ends_the_connections_that_are_open(api: Api, browser: Browser, sessions: list[Any]) -> None:
    """The page stays without them, whatever was done to the workspace's files; what runs beside the editor goes on, in
    the same pod."""
    uuid = sessions[1]["uuid"]
    before, others = ready_pods(uuid), extension_hosts(uuid)
    page, opened = editor_and_sockets(browser, api.link(uuid))
    # Those of pages that were closed wait for these to come back.
    wait_for(lambda: extension_hosts(uuid) > others, "the page's extensions to be started")
    in_editor(uuid, "rm -rf ~/.local/state/workspace; chmod a-w ~/.local/state")
    api.call("POST", f"/session/{uuid}/revoke")
    expect_all_closed(page, opened)
    wait_for(lambda: not extension_hosts(uuid), "the extensions to end")
    assert ready_pods(uuid) == before
    page.context.close()


def test_a_pod_whose_editor_does_not_confirm_a_revocation_is_replaced(
    api: Api, browser: Browser, sessions: list[Any]
) -> None:
    """A stranger has stopped the process that has the connections, so it closes none."""
    uuid = sessions[1]["uuid"]
    page, opened = editor_and_sockets(browser, api.link(uuid))
    (before,) = ready_pods(uuid)
    in_editor(uuid, "kill -STOP $(pgrep -o -x MainThread)")
    api.call("POST", f"/session/{uuid}/revoke")
    expect_all_closed(page, opened)
    wait_for(lambda: len(ready_pods(uuid)) == 1 and before not in ready_pods(uuid), "another pod in its place")
    wait_for(lambda: api.call("GET", f"/session/{uuid}/status")["session"]["status"] == "active", "it to be up")
    page.context.close()


def in_editor(uuid: str, command: str) -> str:
    """What a command of its user says in the editor's container."""
    return kubectl("exec", f"deployment/user-{uuid}", "-c", "editor", "--", "sh", "-c", command)


def test_an_agent_is_found_at_the_agents_host_while_its_workspace_is_up(api: Api, sessions: list[Any]) -> None:
    """For whoever has an API key or its session's token; 503 when it sleeps. Nothing else is there."""
    mine, other = (each["uuid"] for each in sessions)
    held = {"Authorization": f"Bearer {api.call('POST', f'/session/{mine}/token')['token']}"}
    agents = api.url.replace("//api.", "//agents.")

    def asked(uuid: str, path: str, headers: dict[str, str]) -> requests.Response:
        return requests.get(f"{agents}/chat/{uuid}{path}", headers=headers, timeout=10)

    wait_for(lambda: asked(mine, "/health", held).status_code == 200, "the agent's route")
    assert asked(mine, "/history", {"X-API-Key": api.headers["X-API-Key"]}).json()["messages"] == []
    assert [asked(mine, "/history", {}).status_code, asked(other, "/history", held).status_code] == [401, 401]
    api.call("POST", f"/session/{mine}/scale-down")
    asleep = asked(mine, "/health", held)
    assert (asleep.status_code, asleep.json()["error"]) == (503, "workspace_not_up")
    assert requests.get(f"{agents}/health", timeout=10).status_code == 404
    api.call("POST", f"/session/{mine}/wake")


def test_opening_an_archived_workspace_ends_in_the_editor(api: Api, browser: Browser) -> None:
    """It has no object in the cluster; one route leads to all of these, by which its agent isn't up either."""
    session = api.call("POST", "/session/create", {"user_id": "dan", "ttl": 2})
    uuid = session["uuid"]
    kubectl("exec", f"deployment/user-{uuid}", "--", "sh", "-c", "echo kept > /app/kept.txt")
    api.call("POST", f"/session/{uuid}/sleep")

    def archived() -> bool:
        tier = api.call("GET", f"/session/{uuid}/status")["session"]["tier"]
        return bool(tier == "archived") and not kubectl(
            "get", "deployments,ingresses,pvc", "-l", f"session-uuid={uuid}"
        )

    wait_for(archived, "the session to be archived", seconds=180.0)
    held = {"Authorization": f"Bearer {api.call('POST', f'/session/{uuid}/token')['token']}"}
    agent = requests.get(f"{api.url.replace('//api.', '//agents.')}/chat/{uuid}/health", headers=held, timeout=10)
    assert (agent.status_code, agent.json()["error"]) == (503, "workspace_not_up")
    assert api.visit(session, Accept="text/html").status_code == 401
    assert api.status(uuid) == "sleeping"
    page = browser.new_page()
    page.goto(api.link(uuid))
    expect(page.get_by_text("archive")).to_be_visible()
    expect_editor(page)
    expect_file(page, "kept.txt")
    page.context.close()
    api.call("DELETE", f"/session/{uuid}?backup=false")


def test_an_address_without_a_route_of_its_own_says_what_is_there(api: Api, browser: Browser) -> None:
    """A workspace that is new, gone, being restored, or never was. Its link is followed at once and leads on by itself;
    nobody meets the ingress controller's own 404."""
    made = api.new("eve", open=True)
    mine, stranger = (browser.new_context().new_page() for _ in range(2))
    assert navigated(mine, made["open_url"]) == 503
    expect(mine.get_by_role("heading", name="Starting the workspace")).to_be_visible()
    expect_editor(mine)
    kubectl("exec", f"deployment/user-{made['uuid']}", "--", "sh", "-c", "echo kept > /app/kept.txt")
    mine.goto("about:blank")
    backup = api.call("DELETE", f"/session/{made['uuid']}")["backup"]
    never = made["workspace_url"].replace(made["uuid"], "zzzzzzzz")

    assert navigated(mine, made["workspace_url"]) == 404
    expect(mine.get_by_role("heading", name="This workspace does not exist")).to_be_visible()
    read = {(navigated(stranger, url), stranger.locator("main").inner_text()) for url in (made["workspace_url"], never)}
    assert [status for status, _ in read] == [401]
    assert navigated(stranger, made["open_url"]) == 403
    assert navigated(mine, never.replace("vs-code-zzzzzzzz", "grafana")) == 404
    expect(mine.get_by_role("heading", name="This workspace does not exist")).to_be_visible()
    agents, key = api.url.replace("//api.", "//agents."), {"X-API-Key": api.headers["X-API-Key"]}
    told = [
        requests.get(f"{agents}/chat/{uuid}/health", headers=headers, timeout=10)
        for uuid in (made["uuid"], "zzzzzzzz")
        for headers in (key, {})
    ]
    assert [(each.status_code, each.json()["error"]) for each in told] == [
        (404, "session_not_found"),
        (401, "unauthorized"),
    ] * 2

    again = api.new("eve", restore_from=backup, open=True)
    assert navigated(mine, again["open_url"]) == 503
    expect(mine.get_by_role("heading", name="Restoring the workspace")).to_be_visible()
    expect_editor(mine)
    expect_file(mine, "kept.txt")
    mine.context.close()
    stranger.context.close()
    api.call("DELETE", f"/session/{again['uuid']}?backup=false")


def extension_hosts(uuid: str) -> int:
    """How many processes in the editor's container run the extensions of a page."""
    processes = kubectl("exec", f"deployment/user-{uuid}", "-c", "editor", "--", "ps", "-eo", "args")
    return processes.count("--type=extensionHost")
