"""The calls on ports, with an agent behind them that tells what listens."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import pytest

from app.agent.protocol import PORTS_MOST
from app.core.composition import Core
from app.core.redis import keys
from app.core.sessions.model import Status, iso
from tests.fake_agent import NO_PORT, PORT, FakeAgent
from tests.unit.api.helpers import (
    ADMIN_KEY,
    ASYNC,
    ONCE,
    AppMaker,
    Client,
    check_problem,
    core_of,
    keyed,
    move,
    new_session,
    terminate,
)

DAY = 86_400


@pytest.fixture
def workspace(core: Core, uuid: str, agent: FakeAgent) -> FakeAgent:
    """The agent of a session that is up, where a service listens."""
    core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    agent.ports[3_000] = dict(PORT)
    return agent


@pytest.fixture
def path(uuid: str) -> str:
    return f"/session/{uuid}/ports"


def address(uuid: str, port: int) -> str:
    return f"http://{port}--vs-code-{uuid}.localhost"


def asked(workspace: FakeAgent) -> list[str]:
    return [path for _, path, _ in workspace.requests]


def opened(core: Core, uuid: str) -> list[int]:
    return [each.port for each in core.store.get(uuid).opened_ports]


def test_ports_are_listed_by_number_with_how_they_are_opened(
    client: Client, core: Core, uuid: str, path: str, workspace: FakeAgent
) -> None:
    """Those that the workspace tells of, and opened ones where nothing is."""
    until = int(time.time()) - 60
    workspace.ports[80] = {"port": 80, "state": "starting", "process": None, "service": "db"}
    first, second = core.openings.open(uuid, 3_000), core.openings.open(uuid, 8_080, until)
    assert client.get(path).json == {
        "ports": [
            {
                **workspace.ports[80],
                "url": address(uuid, 80),
                "opened_at": None,
                "public_until": None,
            },
            {
                **PORT,
                "url": address(uuid, 3_000),
                "opened_at": iso(first.opened_at),
                "public_until": None,
            },
            {
                "port": 8_080,
                **NO_PORT,
                "url": address(uuid, 8_080),
                "opened_at": iso(second.opened_at),
                "public_until": iso(until),
            },
        ]
    }


def test_without_any_the_list_is_empty(client: Client, path: str, workspace: FakeAgent) -> None:
    workspace.ports.clear()
    assert client.get(path).json == {"ports": []}


def test_as_many_are_listed_as_an_agent_may_tell_of(client: Client, path: str, workspace: FakeAgent) -> None:
    """With the longest names."""
    long = {"process": "\u00e9" * 64, "service": "x" * 32}
    workspace.ports = {port: {**PORT, "port": port, **long} for port in range(50_000, 50_000 + PORTS_MOST)}
    assert len(client.get(path).json["ports"]) == PORTS_MOST


def test_an_opened_port_is_answered_with_a_link_into_it(
    client: Client, core: Core, uuid: str, path: str, workspace: FakeAgent
) -> None:
    answer = client.post(f"{path}/3000/open", json={"path": "/deep?x=1"})
    assert answer.status_code == 200, answer.text
    [port] = core.store.get(uuid).opened_ports
    said = answer.json
    link, expires = said.pop("url"), said.pop("expires_at")
    assert said == {**PORT, "uuid": uuid, "opened_at": iso(port.opened_at), "public_until": None}
    assert link.startswith(f"{address(uuid, 3_000)}/deep?x=1&workspace-link=")
    assert time.time() + 20 < _seconds(expires) < time.time() + 31
    assert asked(workspace) == ["/ports/3000"]


@pytest.mark.parametrize("body", [None, {}, {"public_until": None}])
def test_all_that_can_be_said_is_optional(
    client: Client, uuid: str, path: str, workspace: FakeAgent, body: Any
) -> None:
    said = client.post(f"{path}/3000/open", json=body).json
    assert said["url"].startswith(f"{address(uuid, 3_000)}/?workspace-link=")
    assert said["public_until"] is None


def test_a_public_port_is_answered_with_its_plain_address(
    client: Client, core: Core, uuid: str, path: str, workspace: FakeAgent
) -> None:
    until = time.time() + DAY + 0.5
    said = client.post(f"{path}/3000/open", json={"public_until": until, "path": "/deep?x=1"}).json
    assert (said["url"], said["expires_at"]) == (f"{address(uuid, 3_000)}/deep?x=1", None)
    assert said["public_until"] == iso(int(until))
    assert client.post(f"{path}/3000/open", json={"public_until": until}).json["url"] == f"{address(uuid, 3_000)}/"
    [port] = core.store.get(uuid).opened_ports
    assert port.public_until == int(until)
    assert core.redis.keys(keys.LINK.format(digest="*")) == []


def test_opened_without_a_time_it_is_public_no_more(
    client: Client, core: Core, uuid: str, path: str, workspace: FakeAgent
) -> None:
    first = client.post(f"{path}/3000/open", json={"public_until": time.time() + DAY}).json
    again = client.post(f"{path}/3000/open").json
    assert again["public_until"] is None
    assert again["opened_at"] == first["opened_at"]
    assert not core.store.get(uuid).opened_ports[0].public_until


def test_a_port_where_nothing_listens_is_opened_too(
    client: Client, core: Core, uuid: str, path: str, workspace: FakeAgent
) -> None:
    said = client.post(f"{path}/8080/open").json
    assert (said["port"], said["state"], said["process"]) == (8_080, "stopped", None)
    assert opened(core, uuid) == [8_080]


def test_a_call_waits_while_the_service_there_starts(client: Client, path: str, workspace: FakeAgent) -> None:
    """One that is still starting when the wait is over is answered as it is."""
    workspace.ports[3_000] = {**PORT, "state": "starting"}
    assert client.post(f"{path}/3000/open", headers=ASYNC).json["state"] == "starting"
    assert len(workspace.requests) == 1
    answer = client.post(f"{path}/3000/open", headers={"Prefer": "wait=1"})
    assert answer.json["state"] == "starting"
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert len(workspace.requests) > 2
    before = len(workspace.requests)
    workspace.ports[3_000] = dict(PORT)
    assert client.post(f"{path}/3000/open", headers={"Prefer": "wait=30"}).json["state"] == "listening"
    assert len(workspace.requests) == before + 1


def test_a_repeated_call_makes_another_link(client: Client, path: str, workspace: FakeAgent) -> None:
    """Secrets are not stored."""
    first, again = (client.post(f"{path}/3000/open", headers=ONCE) for _ in range(2))
    assert first.json["url"] != again.json["url"]
    assert "Idempotency-Replayed" not in again.headers


def test_a_closed_port_is_gone_and_no_workspace_is_asked(
    client: Client, core: Core, uuid: str, path: str, workspace: FakeAgent
) -> None:
    core.openings.open(uuid, 3_000)
    move(core, uuid, Status.SLEEPING)
    for _ in range(2):
        answer = client.delete(f"{path}/3000")
        assert (answer.status_code, answer.data) == (204, b"")
    assert opened(core, uuid) == []
    assert workspace.requests == []
    assert core.store.get(uuid).status is Status.SLEEPING


def test_a_session_that_sleeps_is_woken_or_left_so(client: Client, core: Core, uuid: str, path: str) -> None:
    move(core, uuid, Status.SLEEPING)
    for method, rest in (("GET", ""), ("POST", "/3000/open")):
        check_problem(client.open(f"{path}{rest}?wake=false", method=method), 409, "asleep")
    assert core.store.get(uuid).status is Status.SLEEPING
    check_problem(client.post(f"{path}/3000/open"), 504, "wake_late")
    assert core.store.get(uuid).status is Status.WAKING
    assert opened(core, uuid) == []


def test_ports_are_use(client: Client, core: Core, uuid: str, path: str, workspace: FakeAgent) -> None:
    client.get(path)
    assert core.activity.read(uuid)["exec"].at > time.time() - 60


@pytest.mark.parametrize(
    "name", ["0", "00", "03000", "65536", "99999", "100000", "-1", "%2b1", "1.0", "x", "%20", "%0a"]
)
def test_what_is_no_port_is_no_path(client: Client, path: str, workspace: FakeAgent, name: str) -> None:
    check_problem(client.post(f"{path}/{name}/open"), 404, "not_found")
    check_problem(client.delete(f"{path}/{name}"), 404, "not_found")
    assert workspace.requests == []


@pytest.mark.parametrize("name", ["3000%0a", "%0a3000", "3000%20", "٣٠٠٠"])
def test_nothing_stands_beside_a_port(client: Client, path: str, workspace: FakeAgent, name: str) -> None:
    check_problem(client.delete(f"{path}/{name}"), 404, "not_found")


@pytest.mark.parametrize("port", [1, 65_535])
def test_all_ports_there_are_can_be_opened(
    client: Client, core: Core, uuid: str, path: str, workspace: FakeAgent, port: int
) -> None:
    assert client.post(f"{path}/{port}/open").json["port"] == port
    assert client.delete(f"{path}/{port}").status_code == 204


@pytest.mark.settings(public_port_max=3600.0)
@pytest.mark.parametrize(
    "until", [0, -1, 1, -60, 3_660, 1e300, float("inf"), float("nan"), True, "x", "1e9", [], {}, 10**400]
)
def test_a_time_that_is_none_that_has_passed_or_is_too_far_ahead_is_a_400(
    client: Client, core: Core, uuid: str, path: str, workspace: FakeAgent, until: Any
) -> None:
    seconds = time.time() + until if until in (-60, 3_660) else until
    text = json.dumps({"public_until": seconds})
    refused: dict[str, Any] = check_problem(
        client.post(f"{path}/3000/open", data=text, content_type="application/json"), 400, "invalid_request"
    )
    assert refused["errors"].keys() == {"public_until"}
    assert (workspace.requests, opened(core, uuid)) == ([], [])
    assert client.post(f"{path}/3000/open", json={"public_until": time.time() + 3_599}).status_code == 200


@pytest.mark.parametrize(
    "body", [{"path": "//elsewhere"}, {"path": "x"}, {"path": "/?workspace-link=x"}, {"more": 1}, [], 7]
)
def test_a_wrong_order_is_a_400(client: Client, path: str, workspace: FakeAgent, body: Any) -> None:
    check_problem(client.post(f"{path}/3000/open", json=body), 400, "invalid_request")
    assert workspace.requests == []


@pytest.mark.settings(ports_per_session=1)
def test_one_port_too_many_is_refused_where_all_are_public(
    client: Client, core: Core, uuid: str, path: str, workspace: FakeAgent
) -> None:
    client.post(f"{path}/3000/open")
    client.post(f"{path}/4000/open", json={"public_until": time.time() + DAY})
    assert opened(core, uuid) == [4_000], "the private one was closed for it"
    check_problem(client.post(f"{path}/3000/open"), 409, "too_many_ports")
    assert opened(core, uuid) == [4_000]


def test_of_what_is_no_session_and_of_a_deleted_one(
    client: Client, core: Core, uuid: str, path: str, workspace: FakeAgent
) -> None:
    calls = (("GET", ""), ("POST", "/3000/open"), ("DELETE", "/3000"))
    for method, rest in calls:
        check_problem(client.open(f"/session/zzzzzzzz/ports{rest}", method=method), 404, "session_not_found")
    core.openings.open(uuid, 3_000)
    terminate(core, uuid)
    check_problem(client.post(f"{path}/3000/open"), 409, "illegal_state")
    assert client.delete(f"{path}/3000").status_code == 204
    assert (workspace.requests, opened(core, uuid)) == ([], [])


def test_without_a_secret_key_nothing_is_opened(make_app: AppMaker) -> None:
    app = make_app(secret_key="")
    client = keyed(app, ADMIN_KEY)
    uuid = new_session(client)
    move(core_of(app), uuid, Status.ACTIVE)
    check_problem(client.post(f"/session/{uuid}/ports/3000/open"), 503, "forward_auth_not_configured")
    assert opened(core_of(app), uuid) == []


@pytest.mark.settings(wait_default=0.0)
def test_an_agent_that_lies_costs_a_503_and_opens_nothing(
    client: Client, core: Core, uuid: str, path: str, workspace: FakeAgent
) -> None:
    """Whatever it answers: no other port than the one it was asked of, no endless list."""
    many = json.dumps({"ports": [PORT] * (PORTS_MOST + 1)}).encode()
    other = json.dumps({**PORT, "port": 80}).encode()
    long = b'{"port": 3000, "state": "listening", "process": "%s"}' % (b"x" * 1_000_000)
    for raw in (b"{}", b"[]", b'{"ports": 7}', b'{"ports": [7]}', many, other, b"\xff", b"[" * 10_000, long):
        workspace.raw_response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(raw), raw)
        for method, rest in (("GET", ""), ("POST", "/3000/open")):
            answer = client.open(f"{path}{rest}", method=method)
            assert answer.status_code == 503, (raw[:40], method, rest)
    assert opened(core, uuid) == []


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
