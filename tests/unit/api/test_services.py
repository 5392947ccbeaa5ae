"""The calls on services, with an agent behind them that keeps what it is told."""

from __future__ import annotations

import time
from typing import Any

import pytest

from app.core.composition import Core
from app.core.sessions.model import Status
from tests.events import Events
from tests.fake_agent import SERVICE, FakeAgent
from tests.unit.api.helpers import ASYNC, ONCE, Client, check_problem, move

STREAM = {"Accept": "text/event-stream"}
WEB = {"name": "web", "command": "npm run dev", "port": 3_000}
ENDED = {"state": "failed", "exit_code": 1, "ended_at": 2.0}


@pytest.fixture
def workspace(core: Core, uuid: str, agent: FakeAgent) -> FakeAgent:
    """The agent of a session that is up."""
    core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    return agent


@pytest.fixture
def path(uuid: str) -> str:
    return f"/session/{uuid}/services"


def streamed(answer: Any) -> Events:
    assert answer.status_code == 200, answer.text
    return Events(line for part in answer.response for line in part.decode().split("\n"))


def asked(workspace: FakeAgent) -> list[tuple[str, str]]:
    return [(method, path) for method, path, _ in workspace.requests]


def test_a_service_is_started_once_and_shown(client: Client, uuid: str, path: str, workspace: FakeAgent) -> None:
    first = client.post(path, json=WEB)
    assert first.status_code == 201, first.text
    assert first.json == {
        **{name: value for name, value in SERVICE.items() if name not in ("started_at", "ended_at")},
        **WEB,
        "uuid": uuid,
        "started_at": "1970-01-01T00:00:01.000Z",
        "ended_at": None,
    }
    again = client.post(path, json=WEB)
    assert (again.status_code, again.json) == (200, first.json)
    assert client.get(f"{path}/web").json == first.json
    [_, _, sent] = workspace.requests[0]
    assert sent == {**WEB, "cwd": ".", "restart": "on_failure", "autostart": False, "wait": pytest.approx(0.3, abs=0.2)}


def test_all_that_can_be_said_of_it_reaches_the_agent(client: Client, path: str, workspace: FakeAgent) -> None:
    body = {**WEB, "port": None, "cwd": "app", "restart": "always", "autostart": True}
    assert client.post(path, json=body, headers=ASYNC).status_code == 201
    assert workspace.requests[0][2] == {**body, "wait": 0}
    assert client.post(path, json=WEB | {"port": 3_000.0}).json["port"] == 3_000


def test_they_are_listed_by_name(client: Client, path: str, workspace: FakeAgent) -> None:
    assert client.get(path).json == {"services": []}
    for name in ("b", "a"):
        client.post(path, json=WEB | {"name": name})
    assert [each["name"] for each in client.get(path).json["services"]] == ["a", "b"]


def test_a_call_waits_until_it_is_up_or_has_failed(client: Client, path: str, workspace: FakeAgent) -> None:
    """One that is still starting when the wait is over is answered as it is."""
    workspace.services["web"] = {**SERVICE, "state": "starting"}
    assert client.get(f"{path}/web").json["state"] == "starting"
    assert len(workspace.requests) == 1
    assert client.get(f"{path}/web", headers={"Prefer": "wait=1"}).json["state"] == "starting"
    assert len(workspace.requests) > 2
    workspace.services["web"] = {**SERVICE, **ENDED}
    asked_before = len(workspace.requests)
    found = client.get(f"{path}/web", headers={"Prefer": "wait=30"})
    assert (found.json["state"], found.json["exit_code"]) == ("failed", 1)
    assert found.headers["Preference-Applied"] == "wait=30"
    assert len(workspace.requests) == asked_before + 1


def test_it_is_restarted_and_stopped(client: Client, path: str, workspace: FakeAgent) -> None:
    client.post(path, json=WEB)
    assert client.post(f"{path}/web/restart").json["name"] == "web"
    assert client.delete(f"{path}/web").status_code == 204
    assert asked(workspace)[1:] == [("POST", "/services/web/restart"), ("DELETE", "/services/web")]
    check_problem(client.delete(f"{path}/web"), 404, "service_not_found")


def test_a_repeated_call_restarts_nothing_again(client: Client, path: str, workspace: FakeAgent) -> None:
    client.post(path, json=WEB)
    first = client.post(f"{path}/web/restart", headers=ONCE)
    assert client.post(f"{path}/web/restart", headers=ONCE).json == first.json
    assert asked(workspace).count(("POST", "/services/web/restart")) == 1


def test_a_log_is_text_read_by_pieces(client: Client, path: str, workspace: FakeAgent) -> None:
    workspace.services["web"] = dict(SERVICE)
    workspace.logs["web"] = b"x" * 150_000 + b"\xffend\n"
    whole = client.get(f"{path}/web/log")
    assert (whole.status_code, whole.content_type) == (200, "text/plain; charset=utf-8")
    assert whole.text == "x" * 150_000 + "\ufffdend\n"
    assert len(workspace.requests) == 3
    assert client.get(f"{path}/web/log?tail=4").text == "end\n"
    workspace.logs["web"] = b""
    assert client.get(f"{path}/web/log").text == ""


@pytest.mark.settings(max_concurrent_per_session=1)
def test_a_log_that_is_read_holds_one_of_its_callers_calls_to_agents(
    client: Client, path: str, workspace: FakeAgent
) -> None:
    workspace.services["web"] = dict(SERVICE)
    workspace.logs["web"] = b"x" * 100_000
    reading = client.get(f"{path}/web/log", buffered=False)
    check_problem(client.get(path), 429, "too_many_agent_calls")
    reading.close()
    assert client.get(path).status_code == 200


def test_a_log_is_streamed_as_it_comes_and_last_the_services_end(
    client: Client, uuid: str, path: str, workspace: FakeAgent
) -> None:
    workspace.services["web"] = dict(SERVICE)
    workspace.logs["web"] = b"one\n"
    events = streamed(client.get(f"{path}/web/log", headers=STREAM))
    assert next(events) == ("log", {"text": "one\n"})
    seen = events.last_id
    workspace.logs["web"] += b"two\n"
    workspace.services["web"] = {**SERVICE, **ENDED}
    assert next(events) == ("log", {"text": "two\n"})
    kind, last = next(events)
    assert (kind, last["uuid"], last["state"], last["exit_code"]) == ("stopped", uuid, "failed", 1)
    assert (list(events), events.last_id) == ([], "8")
    for headers, query, kinds in (
        ({"Last-Event-ID": seen}, "", ["log", "stopped"]),
        ({"Last-Event-ID": "8"}, "", ["stopped"]),
        ({}, "?tail=0", ["stopped"]),
    ):
        again = streamed(client.get(f"{path}/web/log{query}", headers=STREAM | headers))
        assert [kind for kind, _ in again] == kinds


def test_a_quiet_stream_says_that_it_is_there(client: Client, path: str, workspace: FakeAgent) -> None:
    workspace.services["web"] = dict(SERVICE)
    answer = client.get(f"{path}/web/log", headers=STREAM)
    lines = iter(answer.response)
    assert [next(lines), next(lines)] == [b": still here\n\n"] * 2
    answer.close()


def test_a_session_that_sleeps_is_woken_or_left_so(client: Client, core: Core, uuid: str, path: str) -> None:
    move(core, uuid, Status.SLEEPING)
    calls = (("GET", ""), ("POST", ""), ("GET", "/web"), ("DELETE", "/web"), ("POST", "/web/restart"))
    for method, rest in (*calls, ("GET", "/web/log")):
        body = WEB if (method, rest) == ("POST", "") else None
        check_problem(client.open(f"{path}{rest}?wake=false", method=method, json=body), 409, "asleep")
    assert core.store.get(uuid).status is Status.SLEEPING
    check_problem(client.post(path, json=WEB), 504, "wake_late")
    assert core.store.get(uuid).status is Status.WAKING


def test_services_are_use(client: Client, core: Core, uuid: str, path: str, workspace: FakeAgent) -> None:
    client.get(path)
    assert core.activity.read(uuid)["exec"].at > time.time() - 60


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "web"},
        {"command": "true"},
        WEB | {"name": ""},
        WEB | {"name": "-web"},
        WEB | {"name": "web\n"},
        WEB | {"name": "x" * 33},
        WEB | {"name": "../x"},
        WEB | {"command": ""},
        WEB | {"command": " \n"},
        WEB | {"command": ["npm"]},
        WEB | {"command": "a\0b"},
        WEB | {"command": "\ud800"},
        WEB | {"cwd": "a\0b"},
        WEB | {"port": 0},
        WEB | {"port": 65_536},
        WEB | {"port": "3000"},
        WEB | {"port": True},
        WEB | {"port": 3000.5},
        WEB | {"port": float("inf")},
        WEB | {"restart": "sometimes"},
        WEB | {"restart": True},
        WEB | {"autostart": "yes"},
        WEB | {"more": 1},
    ],
)
def test_a_wrong_order_is_a_400(client: Client, path: str, workspace: FakeAgent, body: dict[str, Any]) -> None:
    check_problem(client.post(path, json=body), 400, "invalid_request")
    assert workspace.requests == []


def test_an_unknown_service_or_a_wrong_question(client: Client, path: str, workspace: FakeAgent) -> None:
    for name in ("web", "a.b", "%2e%2e", "%3f", "x%3fwait=1", "x%0d%0ax", "%20", "x" * 33):
        for method, rest in (("GET", ""), ("DELETE", ""), ("POST", "/restart"), ("GET", "/log")):
            check_problem(client.open(f"{path}/{name}{rest}", method=method), 404, "service_not_found")
    check_problem(client.get(f"{path}/web/log", headers=STREAM), 404, "service_not_found")
    assert {path for _, path in asked(workspace)} == {"/services/web", "/services/web/restart", "/services/web/log"}
    workspace.services["web"] = dict(SERVICE)
    for tail in ("-1", "x", "1.5", ""):
        check_problem(client.get(f"{path}/web/log?tail={tail}"), 400, "invalid_request")
    for wrong in ("x", "-1", "1-2", "1" * 16, "١"):
        answer = client.get(f"{path}/web/log", headers=STREAM | {"Last-Event-ID": wrong.encode().decode("latin-1")})
        check_problem(answer, 400, "invalid_request")


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, (400, "invalid_request")),
        (429, (409, "too_many_services")),
        (503, (503, "agent_not_ready")),
        (507, (507, "workspace_full")),
    ],
)
def test_what_an_agent_refuses_is_said(
    client: Client, path: str, workspace: FakeAgent, status: int, answer: tuple[int, str]
) -> None:
    said = b'{"detail": "It is so."}'
    head = b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n"
    workspace.raw_response = head % (status, len(said)) + said
    refused = client.post(path, json=WEB)
    check_problem(refused, *answer)


@pytest.mark.settings(wait_default=0.0)
def test_an_agent_that_lies_costs_a_503(client: Client, path: str, workspace: FakeAgent) -> None:
    """Whatever it answers: no page of another kind, no missing field, no endless list or log."""
    many = b'{"services": [' + b"{}," * 16 + b"{}]}"
    long = b'{"text": "%s"}' % (b"x" * 1_000_000)
    for raw in (b"{}", b"[]", b'{"services": 7}', b'{"services": [7]}', many, b"\xff", b"[" * 10_000, long):
        workspace.raw_response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(raw), raw)
        for method, rest in (("GET", ""), ("POST", ""), ("GET", "/web"), ("POST", "/web/restart"), ("GET", "/web/log")):
            body = WEB if (method, rest) == ("POST", "") else None
            answer = client.open(f"{path}{rest}", method=method, json=body)
            assert answer.status_code == 503, (raw[:40], method, rest)
