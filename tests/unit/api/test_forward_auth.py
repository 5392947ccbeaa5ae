"""Forward auth over HTTP, as the ingress calls it: cookies, links, pages, and what the workspace gets to see."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import pytest
import redis
from flask import Flask

from app.api.pages import Pages
from app.core.access.tokens import Kind
from app.core.composition import Core
from app.core.prompts.token_usage import Tokens, TokenUsage
from app.core.redis import keys, task_queue
from app.core.sessions.model import Status
from tests.ports import free_port
from tests.unit.api.helpers import (
    ADMIN_KEY,
    BOUND_KEY,
    AppMaker,
    Client,
    check_problem,
    core_of,
    forward_auth_of,
    keyed,
    move,
    new_session,
)
from tests.unit.api.visitors import HANDSHAKE, NAVIGATION, POLL, Visitor, asked, asked_by_nginx, link
from tests.world import SECRET_KEY


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return make_app(rate_limit_default="10000/minute", rate_limit_create="10000/minute", secret_key=SECRET_KEY)


def test_a_link_logs_a_browser_in_once_and_leaves_the_address(client: Client, uuid: str, visitor: Visitor) -> None:
    path = link(client, uuid)
    answer = visitor.navigate(path + "&folder=/x")
    assert (answer.status_code, answer.headers["Location"]) == (302, f"http://vs-code-{uuid}.localhost/?folder=/x")
    (cookie,) = answer.headers.getlist("Set-Cookie")
    assert cookie.startswith("__Host-workspace=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=43200"} <= set(cookie.split("; "))
    assert visitor.navigate().status_code == 200
    assert visitor.navigate(path).status_code == 302, "it needs no link any more"
    other = Visitor(visitor.client.application, uuid)
    refused = other.navigate(path)
    assert refused.status_code == 403
    assert "ask for a new one" in refused.text
    assert other.cookies == {}


def test_a_path_of_two_slashes_leads_to_no_other_host(client: Client, uuid: str, visitor: Visitor) -> None:
    answer = visitor.navigate("//example.com" + link(client, uuid))
    assert answer.headers["Location"] == f"http://vs-code-{uuid}.localhost//example.com/"


def test_a_browser_without_a_cookie_gets_a_page_and_a_program_a_problem(visitor: Visitor) -> None:
    page = visitor.navigate()
    assert (page.status_code, page.mimetype) == (401, "text/html")
    assert "not open to you" in page.text
    check_problem(visitor.visit(**POLL), 401, "unauthorized")
    unknown = visitor.navigate(host="vs-code-zzzzzzzz.localhost")
    assert (unknown.status_code, unknown.text) == (401, page.text), "nobody learns by it which workspaces there are"
    check_problem(visitor.visit(host="vs-code-zzzzzzzz.localhost"), 401, "unauthorized")


def test_a_cookie_opens_its_own_workspace_only(client: Client, core: Core, uuid: str, visitor: Visitor) -> None:
    visitor.navigate(link(client, uuid))
    other = new_session(client)
    move(core, other, Status.ACTIVE)
    assert visitor.navigate(host=f"vs-code-{other}.localhost").status_code == 401
    assert visitor.navigate().status_code == 200


def test_the_workspace_sees_neither_cookie_nor_key_nor_token(client: Client, uuid: str, visitor: Visitor) -> None:
    """Traefik puts the answer's headers in place of the visitor's, or nothing where there is none."""
    visitor.navigate(link(client, uuid))
    answer = visitor.visit(X_API_Key=ADMIN_KEY, Authorization="Bearer x")
    assert answer.status_code == 200
    assert {"Cookie", "Authorization", "X-API-Key", "Set-Cookie"} & set(answer.headers.keys()) == set()
    visitor.cookies["theme"] = "dark"
    assert visitor.visit().headers["Cookie"] == "theme=dark"


def test_who_gets_in_is_announced_to_the_editor_and_nobody_else(
    make_app: AppMaker, client: Client, core: Core, uuid: str, visitor: Visitor
) -> None:
    """By the session's secret of each key, whatever the visitor says it is; no refusal, no link and no agent has it."""
    entered = visitor.navigate(link(client, uuid))
    mine = visitor.visit(X_Workspace_Secret="of my own")
    (secret,) = core.credentials.editor_secrets(uuid)
    assert (mine.status_code, mine.headers["X-Workspace-Secret"]) == (200, f"{secret} epoch=0")
    asleep, agent = new_session(client), f"/chat/{uuid}/history"
    others = [
        entered,
        Visitor(visitor.client.application, uuid).visit(**POLL),
        visitor.visit(host=f"vs-code-{asleep}.localhost"),
        visitor.visit(**POLL, Sec_Fetch_Site="same-site"),
        visitor.visit(agent, host="api.localhost", X_API_Key=ADMIN_KEY),
        visitor.client.get("/auth/waking"),
    ]
    assert [each.status_code for each in others] == [302, 401, 401, 403, 200, 503]
    assert [each for each in others if "X-Workspace-Secret" in each.headers] == []
    rotated = make_app(secret_key=f"{'n' * 32},{SECRET_KEY}")
    later = Visitor(rotated, uuid)
    later.cookies = visitor.cookies
    *both, epoch = later.visit().headers["X-Workspace-Secret"].split()
    assert (both, epoch) == (list(core_of(rotated).credentials.editor_secrets(uuid)), "epoch=0")
    assert both[1:] == [secret]
    client.post(f"/session/{uuid}/revoke")
    later.navigate(link(client, uuid))
    assert later.visit().headers["X-Workspace-Secret"].split() == [*both, "epoch=1"]


def test_a_siblings_cookie_shuts_nobody_out(client: Client, uuid: str, visitor: Visitor) -> None:
    """A page of another workspace may set one for all of the domain, with any value; a comma does not end it."""
    visitor.navigate(link(client, uuid))
    visitor.cookies = {"theirs": "x,__Host-workspace=junk"} | visitor.cookies
    answer = visitor.visit()
    assert answer.status_code == 200
    assert "__Host-workspace" not in answer.headers.get("Cookie", "")


@pytest.mark.parametrize("origin", ["", "http://vs-code-zzzzzzzz.localhost", "https://example.com", "null"])
def test_a_handshake_from_elsewhere_is_refused(client: Client, uuid: str, visitor: Visitor, origin: str) -> None:
    visitor.navigate(link(client, uuid))
    headers = HANDSHAKE | ({"Origin": origin} if origin else {})
    check_problem(visitor.visit(**headers), 403, "foreign_origin")
    assert visitor.visit(**HANDSHAKE, Origin=f"http://vs-code-{uuid}.localhost").status_code == 200


def test_taken_back_passes_open_nothing(client: Client, uuid: str, visitor: Visitor) -> None:
    """Cookie, link and token alike; a new link does again."""
    visitor.navigate(link(client, uuid))
    unused, token = link(client, uuid), client.post(f"/session/{uuid}/token").json["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert visitor.visit(**bearer).status_code == 200
    assert client.post(f"/session/{uuid}/revoke").json["status"] == "success"
    assert visitor.navigate().status_code == 401
    assert visitor.navigate(unused).status_code == 403
    visitor.cookies.clear()
    check_problem(visitor.visit(**bearer), 401, "unauthorized")
    assert visitor.navigate(link(client, uuid)).status_code == 302
    assert visitor.navigate().status_code == 200


def test_a_terminated_session_has_no_way_in(client: Client, core: Core, uuid: str, visitor: Visitor) -> None:
    visitor.navigate(link(client, uuid))
    move(core, uuid, Status.TERMINATING)
    assert visitor.navigate().status_code == 404
    check_problem(client.post(f"/session/{uuid}/open"), 409, "illegal_state")


def test_opening_a_sleeping_workspace_wakes_it_and_shows_how_far_it_is(
    client: Client, core: Core, uuid: str, visitor: Visitor
) -> None:
    visitor.navigate(link(client, uuid))
    for took in (9_000, *[700] * 13, *[800] * 12):  # The oldest of them counts no more.
        core.counters.started("wake", {"enqueued": 5, "ready": took})
    move(core, uuid, Status.SLEEPING)
    for headers in (POLL, HANDSHAKE | {"Origin": f"http://{visitor.host}"}):
        assert visitor.visit(**headers).status_code == 503
        assert core.store.get(uuid).status is Status.SLEEPING
    page = visitor.navigate()
    assert (page.status_code, page.mimetype) == (503, "text/html")
    assert page.headers["Retry-After"] == "1"
    assert core.store.get(uuid).status is Status.WAKING
    assert 'data-estimate="700"' in page.text
    core.store.change(uuid, 0.0, phases={"enqueued": 12})
    told = check_problem(visitor.visit(**POLL), 503, "workspace_not_up")
    assert (told["session_status"], told["phases"]) == ("waking", {"enqueued": 12})
    move(core, uuid, Status.ACTIVE)
    assert visitor.visit(**POLL).status_code == 200


def test_a_visitor_of_a_user_past_the_budget_reads_why_the_workspace_stays_asleep(make_app: AppMaker) -> None:
    app = make_app(budget_per_user=1.0, secret_key=SECRET_KEY)
    client, core = keyed(app, ADMIN_KEY), core_of(app)
    uuid = new_session(client)
    move(core, uuid, Status.ACTIVE)
    visitor = Visitor(app, uuid)
    visitor.navigate(link(client, uuid))
    TokenUsage(core.redis).add(uuid, "ada", Tokens(0, 1_000_000), time.time(), "gpt-5")
    assert visitor.navigate().status_code == 200, "what runs goes on"
    move(core, uuid, Status.SLEEPING)
    page = visitor.navigate()
    assert (page.status_code, page.mimetype) == (403, "text/html")
    assert "The budget for this month is used up" in page.text
    assert core.store.get(uuid).status is Status.SLEEPING


def test_a_workspace_that_waits_for_room_says_so(client: Client, core: Core, uuid: str, visitor: Visitor) -> None:
    """On the waking page, which goes on to it by itself, and to what asks for it."""
    visitor.navigate(link(client, uuid))
    move(core, uuid, Status.SLEEPING)
    visitor.navigate()
    core.store.change(uuid, time.time(), reason="No machine has room.", reason_code="no_capacity")
    page = visitor.navigate()
    assert "Waking the workspace" in page.text
    assert "No machine has room." in page.text
    assert visitor.visit(**POLL).json["reason"] == "No machine has room."
    move(core, uuid, Status.ACTIVE, reason="")
    core.store.change(uuid, time.time(), to=Status.SLEEPING, reason="Of its agent.")
    assert visitor.visit(**POLL).json["reason"] == ""


def test_a_failed_workspace_says_why_and_is_tried_again_by_its_button(
    client: Client, core: Core, uuid: str, visitor: Visitor
) -> None:
    visitor.navigate(link(client, uuid))
    move(core, uuid, Status.FAILED, reason="The editor <ended>.")
    page = visitor.navigate()
    assert "The editor &lt;ended&gt;." in page.text
    assert core.store.get(uuid).status is Status.FAILED
    action = re.search(r'action="([^"]+)"', page.text)
    assert action is not None
    check_problem(visitor.visit(action[1], "POST", Origin="https://example.com"), 403, "foreign_origin")
    pressed = visitor.visit(action[1], "POST", Origin=f"http://{visitor.host}")
    assert (pressed.status_code, pressed.headers["Location"]) == (303, f"http://{visitor.host}/")
    assert core.store.get(uuid).status is Status.WAKING


def test_the_pages_ask_for_nothing_and_allow_only_what_is_in_them(visitor: Visitor) -> None:
    page = visitor.navigate()
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"(?:src|href)=", page.text) == []


def test_what_no_page_is_there_for_is_the_same_page(app: Flask) -> None:
    """The ingress shows it where it reaches nothing; it knows no session and needs no Redis."""
    forward_auth = forward_auth_of(app).test_client()
    page = forward_auth.get("/auth/waking", headers=NAVIGATION)
    assert (page.status_code, page.mimetype, page.headers["Workspace-Status"]) == (503, "text/html", "unknown")
    check_problem(forward_auth.get("/auth/waking", headers=POLL), 503, "workspace_not_up")


def test_an_agent_is_reached_with_a_token_or_a_key_and_shown_its_own_secret(
    app: Flask, client: Client, core: Core, uuid: str
) -> None:
    visitor, path = Visitor(app, uuid), f"/chat/{uuid}/history"
    token = client.post(f"/session/{uuid}/token").json["token"]
    for headers in ({"Authorization": f"Bearer {token}"}, {"X-API-Key": ADMIN_KEY}):
        answer = visitor.visit(path, host="api.localhost", **headers)
        assert answer.status_code == 200
        assert answer.headers["Authorization"] == f"Bearer {core.credentials.agent_secrets(uuid, 1)[0]}"
        assert "X-API-Key" not in answer.headers
    for headers in ({}, {"X-API-Key": BOUND_KEY}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer x"}):
        check_problem(visitor.visit(path, host="api.localhost", **headers), 401, "unauthorized")
    never = path.replace(uuid, "zzzzzzzz")
    check_problem(visitor.visit(never, host="api.localhost", X_API_Key=ADMIN_KEY), 404, "session_not_found")
    check_problem(visitor.visit(never, host="api.localhost", X_API_Key=BOUND_KEY), 401, "unauthorized")
    move(core, uuid, Status.SLEEPING)
    check_problem(visitor.visit(path, host="api.localhost", X_API_Key=ADMIN_KEY), 503, "workspace_not_up")


def test_the_api_does_not_answer_for_forward_auth(app: Flask, uuid: str) -> None:
    """What it tells the ingress is not for callers of the API, whatever name they reach it by."""
    client = app.test_client()
    for headers in (asked(f"vs-code-{uuid}.localhost"), asked_by_nginx(f"vs-code-{uuid}.localhost")["headers"]):
        for key in ({}, {"X-API-Key": ADMIN_KEY}):
            check_problem(client.get("/auth/verify?proxy=nginx", headers=headers | key), 404, "not_found")


def test_forward_auth_is_asked_about_workspaces_and_answers_nothing_else(app: Flask) -> None:
    forward_auth = forward_auth_of(app).test_client()
    check_problem(forward_auth.get("/auth/verify", headers=asked("vs-code-zzzzzzzz.localhost")), 401, "unauthorized")
    check_problem(forward_auth.get("/auth/verify"), 400, "no_visit")
    for host in ("agents.localhost", "vs-code-short.localhost", "grafana.localhost"):
        check_problem(forward_auth.get("/auth/verify", headers=asked(host)), 404, "not_found")
        page = forward_auth.get("/auth/verify", headers=asked(host, **NAVIGATION))
        assert (page.status_code, page.mimetype, "does not exist" in page.text) == (404, "text/html", True)
    check_problem(forward_auth.get("/sessions", headers={"X-API-Key": ADMIN_KEY}), 404, "not_found")
    assert forward_auth.get("/livez").status_code == 200
    assert forward_auth.get("/readyz").status_code == 200


def test_without_a_secret_key_forward_auth_is_closed(make_app: AppMaker) -> None:
    app = make_app()
    client, core = keyed(app, ADMIN_KEY), core_of(app)
    uuid = new_session(client)
    move(core, uuid, Status.ACTIVE)
    for call in ("open", "token"):
        check_problem(client.post(f"/session/{uuid}/{call}"), 503, "forward_auth_not_configured")
    visitor = Visitor(app, uuid)
    assert visitor.navigate().status_code == 401
    agent = visitor.visit(f"/chat/{uuid}/health", host="api.localhost", X_API_Key=ADMIN_KEY)
    check_problem(agent, 503, "agent_not_configured")


def test_without_redis_forward_auth_is_closed(make_app: AppMaker) -> None:
    app = make_app(redis_url=f"redis://127.0.0.1:{free_port()}/0", secret_key=SECRET_KEY)
    visitor = Visitor(app, "zzzzzzzz")
    page = visitor.navigate()
    assert (page.status_code, page.mimetype) == (503, "text/html")
    check_problem(visitor.visit(**POLL), 503, "state_unavailable")


def test_forward_auth_has_no_rate_limit(make_app: AppMaker) -> None:
    app = make_app(rate_limit_default="1/minute", secret_key=SECRET_KEY)
    assert {Visitor(app, "zzzzzzzz").visit().status_code for _ in range(5)} == {401}


def test_one_visit_costs_one_round_trip(
    client: Client, uuid: str, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor.navigate(link(client, uuid))
    # Of its use a note is made, every ten seconds at most.
    visitor.navigate()
    sent: list[object] = []
    send = redis.Connection.send_packed_command

    def note(connection: redis.Connection, command: object, check_health: bool = True) -> None:
        sent.append(command)
        send(connection, command, check_health)

    monkeypatch.setattr(redis.Connection, "send_packed_command", note)
    for _ in range(10):
        assert visitor.navigate().status_code == 200
    assert len(sent) == 10


def test_nginx_is_told_what_it_knows(app: Flask, core: Core, client: Client, uuid: str) -> None:
    """2xx, 401 and 403. 401, with a cookie or without, leads to where the link is taken out of the address, or to the
    page that comes back."""
    host = f"vs-code-{uuid}.localhost"
    forward_auth = forward_auth_of(app).test_client(use_cookies=False)

    def visit(uri: str = "/", **headers: str) -> Any:
        return forward_auth.get("/auth/verify", **asked_by_nginx(host, uri, **headers))

    def navigate(uri: str = "/", **headers: str) -> Any:
        return visit(uri, **(NAVIGATION | headers))

    assert visit().status_code == 403
    path = link(client, uuid)
    entered = navigate(path)
    assert entered.status_code == 401
    cookie = entered.headers["Set-Cookie"].partition(";")[0]
    assert visit(path).status_code == 403
    passed = navigate(Cookie=f"{cookie}; theme=dark")
    assert (passed.status_code, passed.headers["Cookie"]) == (200, "theme=dark")
    tidied = navigate(path, Cookie=cookie)
    assert (tidied.status_code, "Set-Cookie" in tidied.headers) == (401, False)
    move(core, uuid, Status.SLEEPING)
    for headers in (POLL, HANDSHAKE | {"Origin": f"http://{host}"}):
        assert visit(Cookie=cookie, **headers).status_code == 401
        assert core.store.get(uuid).status is Status.SLEEPING
    assert navigate(Cookie=cookie).status_code == 401
    assert core.store.get(uuid).status is Status.WAKING


def test_nginx_leads_a_person_to_the_reason(app: Flask, core: Core, client: Client, uuid: str) -> None:
    """By a redirect to the API's host, whose page is the one that Traefik shows. Strangers read the same of a workspace
    that never was."""
    forward_auth, api = (each.test_client(use_cookies=False) for each in (forward_auth_of(app), app))

    def read(host: str, uri: str = "/", **headers: str) -> tuple[int, str]:
        told = forward_auth.get("/auth/verify", **asked_by_nginx(host, uri, service="asleep", **headers))
        assert told.status_code == 401
        query = {"next": told.headers.get("Workspace-Next", ""), "rd": f"http://{host}{uri}"}
        answer: Any = api.get("/auth/again", query_string=query, headers=headers)
        heading = re.search("<h1[^>]*>([^<]*)<", answer.text)
        return answer.status_code, heading[1] if heading else answer.json["error"]

    own, other, unknown = (f"vs-code-{each}.localhost" for each in (uuid, "zzzzzzzz", "x.y"))
    path = link(client, uuid)
    entered = forward_auth.get("/auth/verify", **asked_by_nginx(own, path, **NAVIGATION))
    held = NAVIGATION | {"Cookie": entered.headers["Set-Cookie"].partition(";")[0]}
    for host in (own, other):
        assert read(host, **NAVIGATION) == (401, "This workspace is not open to you")
        assert read(host, path, **NAVIGATION) == (403, "This link has been used, or is too old")
    assert read(own, **held) == (503, "Opening the workspace")
    move(core, uuid, Status.TERMINATING)
    assert read(own, **held) == (404, "This workspace does not exist")
    assert read(own, **NAVIGATION) == (401, "This workspace is not open to you")
    assert read(unknown, **NAVIGATION) == (404, "This workspace does not exist")
    assert read(unknown) == (404, "not_found")


def test_a_visitor_reads_what_a_new_workspace_waits_for(app: Flask, core: Core, client: Client) -> None:
    """A link that is followed at once is used up; its cookie waits for the start, or for the restore."""
    restored = {"restore_from": "a.zip", "task": task_queue.RESTORE}
    for change, heading in ({}, "Starting the workspace"), (restored, "Restoring the workspace"):
        made = client.post("/session/create", json={"user_id": "ada"}).json
        if change:
            core.redis.hset(keys.SESSION.format(uuid=made["uuid"]), mapping=change)
        core.counters.started("restore" if change else "create", {"ready": 90_000 if change else 1_500})
        visitor = Visitor(app, made["uuid"])
        assert visitor.navigate(link(client, made["uuid"])).status_code == 302
        page = visitor.navigate()
        assert (page.status_code, heading in page.text) == (503, True)
        assert f'data-estimate="{90_000 if change else 1_500}"' in page.text
        assert visitor.visit(**POLL).json["for_people"]["title"] == heading
        move(core, made["uuid"], Status.ACTIVE)
        assert visitor.navigate().status_code == 200


def test_a_pass_opens_no_workspace_whose_server_nginx_chose_by_another_name(
    app: Flask, core: Core, client: Client, uuid: str, visitor: Visitor
) -> None:
    visitor.navigate(link(client, uuid))
    ((name, value),) = visitor.cookies.items()
    own, other = f"vs-code-{uuid}.localhost", f"vs-code-{new_session(client)}.localhost"
    forward_auth = forward_auth_of(app).test_client(use_cookies=False)
    assert forward_auth.get("/auth/verify", **asked_by_nginx(own, Cookie=f"{name}={value}")).status_code == 200
    told = asked_by_nginx(own, server=other, Cookie=f"{name}={value}")
    refused: Any = forward_auth.get("/auth/verify", **told)
    assert (refused.status_code, refused.json["error"]) == (401, "not_found")


def test_nginx_brings_back_without_the_link(app: Flask, uuid: str) -> None:
    """To the same path and query as they were written, and to workspaces only."""
    own = f"http://vs-code-{uuid}.localhost"
    pages = app.test_client()

    def again(url: str, **headers: str) -> Any:
        return pages.get("/auth/again", query_string={"rd": url}, headers=NAVIGATION | headers)

    answer = again(f"{own}//x%26y?a=b%26&workspace-link=secret&c=d+e")
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{own}//x%26y?a=b%26&c=d+e")
    page = again(f"{own}/?a=b&c=d")
    assert (page.status_code, page.mimetype, page.headers["Retry-After"]) == (503, "text/html", "1")
    assert f'content="1;url={own}/?a=b&amp;c=d"' in page.text
    for told in (again(f"{own}/", **POLL), again(f"http://api.localhost/chat/{uuid}/history")):
        check_problem(told, 503, "workspace_not_up")
    for elsewhere in ("https://example.com/", f"{own}.example.com/", "javascript:alert(1)", f"{own}/\r\n"):
        check_problem(again(elsewhere), 400, "no_visit")


def test_refusals_are_logged_with_the_session_and_waiting_tabs_are_not(
    client: Client, core: Core, uuid: str, visitor: Visitor, caplog: pytest.LogCaptureFixture
) -> None:
    """And never with what was shown."""
    path = link(client, uuid)
    with caplog.at_level(logging.INFO, logger="app.requests"):
        visitor.navigate(path)
        Visitor(visitor.client.application, "zzzzzzzz").navigate(Authorization="Bearer s3cret")
        move(core, uuid, Status.SLEEPING)
        visitor.visit(**POLL)
    logged = [vars(record) for record in caplog.records if record.name == "app.requests"]
    assert [(each["status"], each["caller"]) for each in logged] == [(401, "visitor:zzzzzzzz")]
    assert "s3cret" not in str(logged)


def test_what_a_page_shows_is_escaped() -> None:
    app = Flask("test")
    with app.test_request_context():
        page = Pages().show("page.html", 200, title="<script>", text="&")
    assert "<script>" not in page.get_data(as_text=True)


def test_a_token_read_by_another_kind_of_forward_auth_is_none(core: Core, uuid: str, visitor: Visitor) -> None:
    """Neither does a session token pass for a cookie, nor a cookie for a token."""
    token, _ = core.access_tokens.issue(Kind.TOKEN, uuid, 0, 1e12)
    cookie, _ = core.access_tokens.issue(Kind.COOKIE, uuid, 0, 1e12)
    assert visitor.visit(Authorization=f"Bearer {cookie}").status_code == 401
    visitor.cookies["__Host-workspace"] = token
    assert visitor.visit().status_code == 401
