"""Forward auth at the address of a port, as the ingress calls it: links, cookies, the way by the workspace, pages."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from flask import Flask

from app.core.composition import Core
from app.core.redis import keys, task_queue
from app.core.sessions.model import Status
from tests.unit.api.helpers import ADMIN_KEY, Client, bearer, check_problem, move
from tests.unit.api.visitors import HANDSHAKE, POLL, Visitor, asked_by_nginx, forward_auth_client
from tests.unit.api.visitors import link as workspace_link

PORT = 3000


@pytest.fixture
def host(uuid: str) -> str:
    return f"{PORT}--vs-code-{uuid}.localhost"


@pytest.fixture
def visitor(app: Flask, uuid: str, host: str) -> Visitor:
    """One at the port's address, with the cookies of that alone."""
    made = Visitor(app, uuid)
    made.host = host
    return made


def link(core: Core, uuid: str, port: int = PORT, path: str = "/deep") -> str:
    """The path and query of a new link to an opened port."""
    core.openings.open(uuid, port)
    return f"{path}?workspace-link={core.login_links.make(uuid, core.store.get(uuid).access_epoch, port)}"


def test_a_link_sets_a_cookie_for_this_port_alone(core: Core, uuid: str, visitor: Visitor, host: str) -> None:
    answer = visitor.navigate(link(core, uuid))
    assert (answer.status_code, answer.headers["Location"]) == (302, f"http://{host}/deep?workspace-entered")
    assert visitor.navigate("/deep?workspace-entered").headers["Location"] == f"http://{host}/deep"
    inside = visitor.navigate("/deep")
    assert inside.status_code == 200
    assert inside.headers["X-Workspace-Secret"].endswith(" epoch=0 port=3000")
    core.openings.open(uuid, 8000)
    for other in (f"8000--vs-code-{uuid}.localhost", f"vs-code-{uuid}.localhost"):
        assert "X-Workspace-Secret" not in visitor.visit(host=other, **POLL).headers
        check_problem(visitor.visit(host=other, **POLL), 401, "unauthorized")


def test_a_link_to_one_port_opens_no_other_and_not_the_workspace(core: Core, uuid: str, visitor: Visitor) -> None:
    core.openings.open(uuid, 8000)
    for other in (f"8000--vs-code-{uuid}.localhost", f"vs-code-{uuid}.localhost"):
        assert visitor.navigate(link(core, uuid), host=other).status_code == 403
    workspaces = f"/?workspace-link={core.login_links.make(uuid, 0)}"
    assert visitor.navigate(workspaces).status_code == 403


def test_who_may_open_the_workspace_comes_in_by_its_address(
    app: Flask, client: Client, core: Core, uuid: str, visitor: Visitor, host: str
) -> None:
    """At the page that was asked for; the port is opened by it. Others end at the workspace's own refusal."""
    sent = visitor.navigate("/deep?x=1&y=%2F")
    way = urlsplit(sent.headers["Location"])
    assert (sent.status_code, way.netloc, way.path) == (302, f"vs-code-{uuid}.localhost", "/.session/port")
    assert parse_qs(way.query) == {"port": ["3000"], "path": ["/deep?x=1&y=%2F"]}
    assert sent.headers["Cache-Control"] == "no-store"
    at_workspace = f"{way.path}?{way.query}"
    assert Visitor(app, uuid).navigate(at_workspace).status_code == 401
    assert core.store.get(uuid).opened_ports == ()
    mine = Visitor(app, uuid)
    mine.navigate(workspace_link(client, uuid))
    led = mine.navigate(at_workspace)
    goal = urlsplit(led.headers["Location"])
    assert (led.status_code, goal.netloc, goal.path) == (302, host, "/deep")
    assert [each.port for each in core.store.get(uuid).opened_ports] == [PORT]
    entered = visitor.navigate(f"{goal.path}?{goal.query}")
    assert entered.headers["Location"] == f"http://{host}/deep?x=1&y=%2F&workspace-entered"
    assert visitor.navigate("/deep?x=1").status_code == 200
    acts = [(each["action"], each["reason"]) for each in client.get("/audit?key=visitor").json["entries"]]
    assert {("open_port", "port 3000"), ("enter", "port 3000")} <= set(acts)


@pytest.mark.parametrize("query", ["", "port=0", "port=70000", "port=x", "path=/", "port=%33000%00"])
def test_the_way_by_the_workspace_leads_to_nothing_else(client: Client, app: Flask, uuid: str, query: str) -> None:
    mine = Visitor(app, uuid)
    mine.navigate(workspace_link(client, uuid))
    assert mine.navigate(f"/.session/port?{query}").headers["Location"] == f"http://vs-code-{uuid}.localhost/"


@pytest.mark.parametrize(
    "path", ["//example.com", "https://example.com", "/\\example.com", "/a\r\nb", "/?workspace-link=x"]
)
def test_the_way_by_the_workspace_leads_to_no_other_host(
    client: Client, app: Flask, uuid: str, host: str, path: str
) -> None:
    mine = Visitor(app, uuid)
    mine.navigate(workspace_link(client, uuid))
    led = mine.navigate(f"/.session/port?port=3000&path={quote(path, safe='')}").headers["Location"]
    assert led.startswith(f"http://{host}/?workspace-link=")


def test_a_public_port_needs_nothing_and_says_when_it_has_ended(
    core: Core, uuid: str, visitor: Visitor, host: str
) -> None:
    core.openings.open(uuid, PORT, int(time.time()) + 600)
    assert visitor.navigate("/deep").status_code == 200
    assert visitor.visit(**HANDSHAKE, Origin="https://example.com").status_code == 200
    assert visitor.cookies == {}
    core.openings.open(uuid, PORT, int(time.time()) - 1)
    ended = visitor.navigate("/deep")
    assert ended.status_code == 403
    assert "not public any more" in ended.text
    assert f"vs-code-{uuid}.localhost/.session/port?port=3000&amp;path=%2Fdeep" in ended.text
    check_problem(visitor.visit(**POLL), 403, "public_ended")
    core.openings.close(uuid, PORT)
    check_problem(visitor.visit(**POLL), 401, "unauthorized")


def test_a_persons_visit_wakes_it(core: Core, uuid: str, visitor: Visitor) -> None:
    visitor.navigate(link(core, uuid))
    move(core, uuid, Status.SLEEPING)
    check_problem(visitor.visit(**POLL), 503, "workspace_not_up")
    assert core.store.get(uuid).status is Status.SLEEPING
    page = visitor.navigate("/deep")
    assert (page.status_code, core.store.get(uuid).status) == (503, Status.WAKING)
    assert "Waking the workspace" in page.text


def test_anybody_wakes_a_public_one_a_few_times_an_hour(core: Core, uuid: str, visitor: Visitor) -> None:
    """Only by a page that is opened. Who has a cookie wakes it then, too."""
    core.openings.open(uuid, PORT, int(time.time()) + 600)
    for _ in range(6):
        move(core, uuid, Status.SLEEPING)
        check_problem(visitor.visit(**POLL), 503, "asleep")
        check_problem(visitor.visit("/.session/retry", "POST", Origin=f"http://{visitor.host}"), 503, "asleep")
        assert core.store.get(uuid).status is Status.SLEEPING
        assert "Waking the workspace" in visitor.navigate("/deep").text
        assert core.store.get(uuid).status is Status.WAKING
        assert visitor.navigate("/deep").headers["Workspace-Status"] == "waking", "it is not woken twice"
    move(core, uuid, Status.SLEEPING)
    for _ in range(2):
        refused = visitor.navigate("/deep")
        assert refused.status_code == 503
        assert "This page is asleep" in refused.text
    assert core.store.get(uuid).status is Status.SLEEPING
    visitor.navigate(link(core, uuid))
    visitor.navigate("/deep")
    assert core.store.get(uuid).status is Status.WAKING


def test_a_closed_port_and_a_revocation_turn_everybody_away(
    client: Client, core: Core, uuid: str, visitor: Visitor
) -> None:
    visitor.navigate(link(core, uuid))
    unused = link(core, uuid)
    core.openings.close(uuid, PORT)
    check_problem(visitor.visit(**POLL), 401, "unauthorized")
    assert visitor.navigate(unused).status_code == 403
    visitor.navigate(link(core, uuid))
    core.openings.open(uuid, 8000, int(time.time()) + 600)
    client.post(f"/session/{uuid}/revoke")
    check_problem(visitor.visit(**POLL), 401, "unauthorized")
    check_problem(visitor.visit(host=f"8000--vs-code-{uuid}.localhost", **POLL), 401, "unauthorized")


def test_the_program_gets_its_own_credentials_and_none_of_ours(
    client: Client, core: Core, uuid: str, visitor: Visitor
) -> None:
    visitor.navigate(link(core, uuid))
    visitor.cookies["theme"] = "dark"
    own = visitor.visit(Authorization="Basic dTpw", X_API_Key="its own").headers
    assert (own["Authorization"], own["X-API-Key"], own["Cookie"]) == ("Basic dTpw", "its own", "theme=dark")
    token = bearer(client.post(f"/session/{uuid}/token").json["token"])
    ours = visitor.visit(X_API_Key=ADMIN_KEY, **token)
    assert ours.status_code == 200
    assert {"Authorization", "X-API-Key"} & set(ours.headers.keys()) == set()


def test_all_ports_being_public_is_told(app: Flask, client: Client, core: Core, uuid: str) -> None:
    for port in range(4000, 4016):
        core.openings.open(uuid, port, int(time.time()) + 600)
    mine = Visitor(app, uuid)
    mine.navigate(workspace_link(client, uuid))
    refused = mine.navigate("/.session/port?port=3000&path=/")
    assert refused.status_code == 403
    assert "can&#39;t be opened now" in refused.text


def test_opening_has_the_ingress_led_there(client: Client, core: Core, app: Flask, uuid: str) -> None:
    mine = Visitor(app, uuid)
    mine.navigate(workspace_link(client, uuid))
    mine.navigate("/.session/port?port=3000&path=/")
    assert core.tasks.waiting().has(task_queue.LEAD_PORTS, uuid)
    assert core.store.pending(keys.OPENINGS, uuid)
    core.openings.led(core.store.get(uuid))
    mine.navigate("/.session/port?port=3000&path=/")
    assert not core.store.pending(keys.OPENINGS, uuid), "it leads there"


def test_where_nothing_answers_the_page_names_the_port(app: Flask, uuid: str, host: str) -> None:
    client = forward_auth_client(app)
    page = client.get("/auth/waking", headers={"Host": host, "Accept": "text/html"})
    assert (page.status_code, page.headers["Workspace-Status"]) == (503, "unknown")
    assert "Nothing answers at port 3000 yet" in page.text
    told: Any = check_problem(client.get("/auth/waking", headers={"Host": host}), 503, "port_not_listening")
    assert str(PORT) in told["for_people"]["title"]
    assert (
        "Opening the workspace"
        in client.get("/auth/waking", headers={"Host": f"vs-code-{uuid}.localhost", "Accept": "text/html"}).text
    )


def test_nginx_leads_visitors_the_same_ways(
    app: Flask, client: Client, core: Core, uuid: str, visitor: Visitor, host: str
) -> None:
    """By redirects to /auth/again, with what forward auth told nginx."""
    page = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Accept": "text/html"}

    def again(said: Any, url: str) -> Any:
        assert said.status_code == 401
        query = {"rd": url, "next": said.headers["Workspace-Next"]}
        return client.get("/auth/again", query_string=query, headers=page)

    asks = forward_auth_client(app)
    deep = asks.get("/auth/verify", **asked_by_nginx(host, "/deep", **page))
    by_workspace = again(deep, f"http://{host}/deep").headers["Location"]
    assert by_workspace.startswith(f"http://vs-code-{uuid}.localhost/.session/port?port=3000&path=%2Fdeep")
    mine = Visitor(app, uuid)
    mine.navigate(workspace_link(client, uuid))
    cookie = "; ".join(f"{name}={value}" for name, value in mine.cookies.items())
    uri = by_workspace.partition("localhost")[2]
    led = asks.get("/auth/verify", **asked_by_nginx(f"vs-code-{uuid}.localhost", uri, Cookie=cookie, **page))
    goal = again(led, by_workspace).headers["Location"]
    assert goal.startswith(f"http://{host}/deep?workspace-link=")
    assert visitor.navigate("/deep?" + goal.partition("?")[2]).status_code == 302
    for said in ("to_port.short", f"to_port.{'x' * 43}\n", "gone\n", "to_port", "enter"):
        assert client.get("/auth/again", query_string={"rd": f"http://{host}/", "next": said}).status_code == 400, said
