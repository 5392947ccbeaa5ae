"""Forward auth over HTTP, as the ingress calls it: cookies, links, pages, and what the workspace gets to see."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import pytest
import redis
from flask import Flask

from app.core.access.tokens import Kind
from app.core.composition import Core
from app.core.prompts.token_usage import Tokens, TokenUsage
from app.core.redis import keys, task_queue
from app.core.sessions.model import Status
from tests.unit.api.helpers import (
    ADMIN_KEY,
    BOUND_KEY,
    NO_REDIS,
    AppMaker,
    Client,
    bearer,
    check_problem,
    core_of,
    create,
    move,
    new_session,
)
from tests.unit.api.visitors import HANDSHAKE, NAVIGATION, POLL, Visitor, asked, asked_by_nginx, link
from tests.world import SECRET_KEY


def agents(visitor: Visitor, uuid: str, call: str = "history", **headers: str) -> Any:
    """The answer to a call to a session's agent."""
    return visitor.visit(f"/chat/{uuid}/{call}", host="api.localhost", **headers)


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
    assert re.findall(r"(?:src|href)=", page.text) == []
    policy = page.headers["Content-Security-Policy"]
    assert ("default-src 'none'" in policy, "unsafe" in policy) == (True, False)
    check_problem(visitor.visit(**POLL), 401, "unauthorized")
    unknown = visitor.navigate(host="vs-code-zzzzzzzz.localhost")
    assert (unknown.status_code, unknown.text) == (401, page.text), "nobody learns by it which workspaces there are"
    check_problem(visitor.visit(host="vs-code-zzzzzzzz.localhost"), 401, "unauthorized")


def test_a_cookie_opens_its_own_workspace_only(client: Client, core: Core, entered: Visitor) -> None:
    other = new_session(client)
    move(core, other, Status.ACTIVE)
    assert entered.navigate(host=f"vs-code-{other}.localhost").status_code == 401
    assert entered.navigate().status_code == 200


def test_the_workspace_sees_neither_cookie_nor_key_nor_token(entered: Visitor) -> None:
    """Traefik puts the answer's headers in place of the visitor's, or nothing where there is none."""
    answer = entered.visit(X_API_Key=ADMIN_KEY, Authorization="Bearer x")
    assert answer.status_code == 200
    assert {"Cookie", "Authorization", "X-API-Key", "Set-Cookie"} & set(answer.headers.keys()) == set()
    entered.cookies["theme"] = "dark"
    assert entered.visit().headers["Cookie"] == "theme=dark"


def test_who_gets_in_is_announced_to_the_editor_and_nobody_else(
    make_app: AppMaker, client: Client, core: Core, uuid: str, visitor: Visitor
) -> None:
    """By the session's secret of each key, whatever the visitor says it is; no refusal, no link and no agent has it."""
    entered = visitor.navigate(link(client, uuid))
    mine = visitor.visit(X_Workspace_Secret="of my own")
    (secret,) = core.credentials.editor_secrets(uuid)
    assert (mine.status_code, mine.headers["X-Workspace-Secret"]) == (200, f"{secret} epoch=0")
    asleep = new_session(client)
    others = [
        entered,
        Visitor(visitor.client.application, uuid).visit(**POLL),
        visitor.visit(host=f"vs-code-{asleep}.localhost"),
        visitor.visit(**POLL, Sec_Fetch_Site="same-site"),
        agents(visitor, uuid, X_API_Key=ADMIN_KEY),
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


def test_a_siblings_cookie_shuts_nobody_out(entered: Visitor) -> None:
    """A page of another workspace may set one for all of the domain, with any value; a comma does not end it."""
    entered.cookies = {"theirs": "x,__Host-workspace=junk"} | entered.cookies
    answer = entered.visit()
    assert answer.status_code == 200
    assert "__Host-workspace" not in answer.headers.get("Cookie", "")


@pytest.mark.parametrize("origin", ["", "http://vs-code-zzzzzzzz.localhost", "https://example.com", "null"])
def test_a_handshake_from_elsewhere_is_refused(uuid: str, entered: Visitor, origin: str) -> None:
    headers = HANDSHAKE | ({"Origin": origin} if origin else {})
    check_problem(entered.visit(**headers), 403, "foreign_origin")
    assert entered.visit(**HANDSHAKE, Origin=f"http://vs-code-{uuid}.localhost").status_code == 200


def test_taken_back_passes_open_nothing(client: Client, uuid: str, entered: Visitor) -> None:
    """Cookie, link and token alike; a new link does again."""
    unused, token = link(client, uuid), bearer(client.post(f"/session/{uuid}/token").json["token"])
    assert entered.visit(**token).status_code == 200
    assert client.post(f"/session/{uuid}/revoke").json["status"] == "success"
    assert entered.navigate().status_code == 401
    assert entered.navigate(unused).status_code == 403
    entered.cookies.clear()
    check_problem(entered.visit(**token), 401, "unauthorized")
    assert entered.navigate(link(client, uuid)).status_code == 302
    assert entered.navigate().status_code == 200


def test_a_terminated_session_has_no_way_in(client: Client, core: Core, uuid: str, entered: Visitor) -> None:
    move(core, uuid, Status.TERMINATING)
    assert entered.navigate().status_code == 404
    check_problem(client.post(f"/session/{uuid}/open"), 409, "illegal_state")


def test_opening_a_sleeping_workspace_wakes_it_and_shows_how_far_it_is(core: Core, uuid: str, entered: Visitor) -> None:
    for took in (9_000, *[700] * 13, *[800] * 12):  # The oldest of them counts no more.
        core.counters.started("wake", {"enqueued": 5, "ready": took})
    move(core, uuid, Status.SLEEPING)
    for headers in (POLL, HANDSHAKE | {"Origin": f"http://{entered.host}"}):
        assert entered.visit(**headers).status_code == 503
        assert core.store.get(uuid).status is Status.SLEEPING
    page = entered.navigate()
    assert (page.status_code, page.mimetype) == (503, "text/html")
    assert page.headers["Retry-After"] == "1"
    assert core.store.get(uuid).status is Status.WAKING
    assert 'data-estimate="700"' in page.text
    core.store.change(uuid, 0.0, phases={"enqueued": 12})
    told = check_problem(entered.visit(**POLL), 503, "workspace_not_up")
    assert (told["session_status"], told["phases"]) == ("waking", {"enqueued": 12})
    move(core, uuid, Status.ACTIVE)
    assert entered.visit(**POLL).status_code == 200


@pytest.mark.settings(budget_per_user=1.0)
def test_a_visitor_of_a_user_past_the_budget_reads_why_the_workspace_stays_asleep(
    core: Core, uuid: str, entered: Visitor
) -> None:
    TokenUsage(core.redis).add(uuid, "ada", Tokens(0, 1_000_000), time.time(), "gpt-5")
    assert entered.navigate().status_code == 200, "what runs goes on"
    move(core, uuid, Status.SLEEPING)
    page = entered.navigate()
    assert (page.status_code, page.mimetype) == (403, "text/html")
    assert "The budget for this month is used up" in page.text
    assert core.store.get(uuid).status is Status.SLEEPING


def test_a_workspace_that_waits_for_room_says_so(core: Core, uuid: str, entered: Visitor) -> None:
    """On the waking page, which goes on to it by itself, and to what asks for it."""
    move(core, uuid, Status.SLEEPING)
    entered.navigate()
    core.store.change(uuid, time.time(), reason="No machine has room.", reason_code="no_capacity")
    page = entered.navigate()
    assert "Waking the workspace" in page.text
    assert "No machine has room." in page.text
    assert entered.visit(**POLL).json["reason"] == "No machine has room."
    move(core, uuid, Status.ACTIVE, reason="")
    core.store.change(uuid, time.time(), to=Status.SLEEPING, reason="Of its agent.")
    assert entered.visit(**POLL).json["reason"] == ""


def test_a_failed_workspace_says_why_and_is_tried_again_by_its_button(core: Core, uuid: str, entered: Visitor) -> None:
    move(core, uuid, Status.FAILED, reason="The editor <ended>.")
    page = entered.navigate()
    assert "The editor &lt;ended&gt;." in page.text
    assert core.store.get(uuid).status is Status.FAILED
    action = re.search(r'action="([^"]+)"', page.text)
    assert action is not None
    check_problem(entered.visit(action[1], "POST", Origin="https://example.com"), 403, "foreign_origin")
    pressed = entered.visit(action[1], "POST", Origin=f"http://{entered.host}")
    assert (pressed.status_code, pressed.headers["Location"]) == (303, f"http://{entered.host}/")
    assert core.store.get(uuid).status is Status.WAKING


def test_what_no_page_is_there_for_is_the_same_page(forward_auth: Client) -> None:
    """The ingress shows it where it reaches nothing; it knows no session and needs no Redis."""
    page = forward_auth.get("/auth/waking", headers=NAVIGATION)
    assert (page.status_code, page.mimetype, page.headers["Workspace-Status"]) == (503, "text/html", "unknown")
    check_problem(forward_auth.get("/auth/waking", headers=POLL), 503, "workspace_not_up")


def test_an_agent_is_reached_with_a_token_or_a_key_and_shown_its_own_secret(
    client: Client, core: Core, uuid: str, visitor: Visitor
) -> None:
    token = client.post(f"/session/{uuid}/token").json["token"]
    for headers in (bearer(token), {"X-API-Key": ADMIN_KEY}):
        answer = agents(visitor, uuid, **headers)
        assert answer.status_code == 200
        assert answer.headers["Authorization"] == f"Bearer {core.credentials.agent_secrets(uuid, 1)[0]}"
        assert "X-API-Key" not in answer.headers
    for headers in ({}, {"X-API-Key": BOUND_KEY}, {"X-API-Key": "wrong"}, bearer("x")):
        check_problem(agents(visitor, uuid, **headers), 401, "unauthorized")
    check_problem(agents(visitor, "zzzzzzzz", X_API_Key=ADMIN_KEY), 404, "session_not_found")
    check_problem(agents(visitor, "zzzzzzzz", X_API_Key=BOUND_KEY), 401, "unauthorized")
    move(core, uuid, Status.SLEEPING)
    check_problem(agents(visitor, uuid, X_API_Key=ADMIN_KEY), 503, "workspace_not_up")


def test_the_api_does_not_answer_for_forward_auth(stranger: Client, uuid: str) -> None:
    """What it tells the ingress is not for callers of the API, whatever name they reach it by."""
    for headers in (asked(f"vs-code-{uuid}.localhost"), asked_by_nginx(f"vs-code-{uuid}.localhost")["headers"]):
        for key in ({}, {"X-API-Key": ADMIN_KEY}):
            check_problem(stranger.get("/auth/verify?proxy=nginx", headers=headers | key), 404, "not_found")


def test_forward_auth_is_asked_about_workspaces_and_answers_nothing_else(forward_auth: Client) -> None:
    check_problem(forward_auth.get("/auth/verify", headers=asked("vs-code-zzzzzzzz.localhost")), 401, "unauthorized")
    check_problem(forward_auth.get("/auth/verify"), 400, "bad_forwarded_request")
    for host in ("agents.localhost", "vs-code-short.localhost", "grafana.localhost"):
        check_problem(forward_auth.get("/auth/verify", headers=asked(host)), 404, "not_found")
        page = forward_auth.get("/auth/verify", headers=asked(host, **NAVIGATION))
        assert (page.status_code, page.mimetype, "does not exist" in page.text) == (404, "text/html", True)
    check_problem(forward_auth.get("/sessions", headers={"X-API-Key": ADMIN_KEY}), 404, "not_found")
    for probe in ("/livez", "/readyz"):
        assert forward_auth.get(probe).status_code == 200


@pytest.mark.settings(secret_key="", llm_base_url="")
def test_without_a_secret_key_forward_auth_is_closed(client: Client, uuid: str, visitor: Visitor) -> None:
    for call in ("open", "token"):
        check_problem(client.post(f"/session/{uuid}/{call}"), 503, "forward_auth_not_configured")
    check_problem(create(client, user_id="bob", open=True), 503, "forward_auth_not_configured")
    assert client.get("/sessions").json["total"] == 1
    assert visitor.navigate().status_code == 401
    check_problem(agents(visitor, uuid, "health", X_API_Key=ADMIN_KEY), 503, "agent_not_configured")


@pytest.mark.settings(redis_url=NO_REDIS)
def test_without_redis_forward_auth_is_closed(app: Flask) -> None:
    visitor = Visitor(app, "zzzzzzzz")
    page = visitor.navigate()
    assert (page.status_code, page.mimetype) == (503, "text/html")
    check_problem(visitor.visit(**POLL), 503, "state_unavailable")


@pytest.mark.settings(rate_limit_default="1/minute")
def test_forward_auth_has_no_rate_limit(app: Flask) -> None:
    assert {Visitor(app, "zzzzzzzz").visit().status_code for _ in range(5)} == {401}


def test_one_visit_costs_one_round_trip(entered: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of its use a note is made, every ten seconds at most.
    entered.navigate()
    sent: list[object] = []
    send = redis.Connection.send_packed_command

    def note(connection: redis.Connection, command: object, check_health: bool = True) -> None:
        sent.append(command)
        send(connection, command, check_health)

    monkeypatch.setattr(redis.Connection, "send_packed_command", note)
    for _ in range(10):
        assert entered.navigate().status_code == 200
    assert len(sent) == 10


def test_nginx_is_told_what_it_knows(forward_auth: Client, core: Core, client: Client, uuid: str) -> None:
    """2xx, 401 and 403. 401, with a cookie or without, leads to where the link is taken out of the address, or to the
    page that comes back."""
    host = f"vs-code-{uuid}.localhost"

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


def test_nginx_leads_a_person_to_the_reason(
    app: Flask, forward_auth: Client, core: Core, client: Client, uuid: str
) -> None:
    """By a redirect to the API's host, whose page is the one that Traefik shows. Strangers read the same of a workspace
    that never was."""
    api: Client = app.test_client(use_cookies=False)

    def read(host: str, uri: str = "/", **headers: str) -> tuple[int, str]:
        told = forward_auth.get("/auth/verify", **asked_by_nginx(host, uri, service="asleep", **headers))
        assert told.status_code == 401
        query = {"next": told.headers.get("Workspace-Next", ""), "rd": f"http://{host}{uri}"}
        answer = api.get("/auth/again", query_string=query, headers=headers)
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
        made = create(client).json
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
    client: Client, forward_auth: Client, uuid: str, entered: Visitor
) -> None:
    ((name, value),) = entered.cookies.items()
    own, other = f"vs-code-{uuid}.localhost", f"vs-code-{new_session(client)}.localhost"
    assert forward_auth.get("/auth/verify", **asked_by_nginx(own, Cookie=f"{name}={value}")).status_code == 200
    refused = forward_auth.get("/auth/verify", **asked_by_nginx(own, server=other, Cookie=f"{name}={value}"))
    assert (refused.status_code, refused.json["error"]) == (401, "not_found")


def test_nginx_brings_back_without_the_link(stranger: Client, uuid: str) -> None:
    """To the same path and query as they were written, and to workspaces only."""
    own = f"http://vs-code-{uuid}.localhost"

    def again(url: str, **headers: str) -> Any:
        return stranger.get("/auth/again", query_string={"rd": url}, headers=NAVIGATION | headers)

    answer = again(f"{own}//x%26y?a=b%26&workspace-link=secret&c=d+e")
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{own}//x%26y?a=b%26&c=d+e")
    page = again(f"{own}/?a=b&c=d")
    assert (page.status_code, page.mimetype, page.headers["Retry-After"]) == (503, "text/html", "1")
    assert f'content="1;url={own}/?a=b&amp;c=d"' in page.text
    for told in (again(f"{own}/", **POLL), again(f"http://api.localhost/chat/{uuid}/history")):
        check_problem(told, 503, "workspace_not_up")
    for elsewhere in ("https://example.com/", f"{own}.example.com/", "javascript:alert(1)", f"{own}/\r\n"):
        check_problem(again(elsewhere), 400, "bad_forwarded_request")


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


def test_a_token_read_by_another_kind_of_forward_auth_is_none(core: Core, uuid: str, visitor: Visitor) -> None:
    """Neither does a session token pass for a cookie, nor a cookie for a token."""
    token, _ = core.access_tokens.issue(Kind.TOKEN, uuid, 0, 1e12)
    cookie, _ = core.access_tokens.issue(Kind.COOKIE, uuid, 0, 1e12)
    assert visitor.visit(Authorization=f"Bearer {cookie}").status_code == 401
    visitor.cookies["__Host-workspace"] = token
    assert visitor.visit().status_code == 401
