"""Ports of a workspace: what is sent, and what is told of those that are opened."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.unit.clients.api import TIME, UUID, Api, answer, asked, opened, port, problem, session
from workspaces import (
    Asleep,
    InvalidRequest,
    PortState,
    SessionNotFound,
    TooManyPorts,
    WakeLate,
    WorkspacesError,
)
from workspaces.models import OpenedPort

HERE = f"/session/{UUID}/ports"
AT = datetime(2026, 11, 20, 8, tzinfo=UTC)


def test_ports_are_listed() -> None:
    found = [port(3000, service="web", opened_at=TIME), port(8080, state="stopped", process=None, public_until=TIME)]
    api = Api(answer({"ports": found}))
    first, last = api.client().ports.list(UUID, wake=False).ports
    assert (first.port, first.state, first.process, first.service) == (3000, PortState.LISTENING, "node", "web")
    assert (first.url, first.opened_at, first.public_until) == (found[0]["url"], AT, None)
    assert (last.state, last.process, last.service, last.opened_at, last.public_until) == (
        *("stopped", None, None, None),
        AT,
    )
    assert asked(api) == [f"GET {HERE}?wake=false"]


def test_a_port_is_opened_with_all_that_it_is_given() -> None:
    api = Api(answer(opened(public_until=TIME, expires_at=None, state="starting")))
    until = datetime(2026, 11, 20, 8, 0, 0, 900_000, tzinfo=UTC)
    found = api.client().ports.open(
        UUID, 3000, public_until=until, path="/a?b=1", wake=False, wait=20, idempotency_key="k1"
    )
    assert (found.uuid, found.port, found.state, found.public_until) == (UUID, 3000, "starting", AT)
    assert asked(api) == [f"POST {HERE}/3000/open?wake=false"]
    assert api.bodies == [{"public_until": int(AT.timestamp()), "path": "/a?b=1"}]
    headers = api.requests[0].headers
    assert (headers["Prefer"], headers["Idempotency-Key"]) == ("wait=20", "k1")


def test_a_port_is_opened_to_who_has_access_unless_more_is_said() -> None:
    api = Api(answer(opened()))
    found = api.client().ports.open(UUID, 3000)
    assert (found.url, found.expires_at, found.public_until) == (opened()["url"], AT, None)
    assert (asked(api), api.bodies) == ([f"POST {HERE}/3000/open"], [{}])
    assert "Prefer" not in api.requests[0].headers


def test_a_port_is_opened_once_where_the_answer_got_lost() -> None:
    api = Api(httpx.ReadTimeout("lost"), answer(opened()))
    assert api.client().ports.open(UUID, 3000).port == 3000
    assert asked(api) == [f"POST {HERE}/3000/open"] * 2
    assert len({each.headers["Idempotency-Key"] for each in api.requests}) == 1


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (422, "invalid_request", InvalidRequest),
        (404, "session_not_found", SessionNotFound),
        (409, "asleep", Asleep),
        (409, "too_many_ports", TooManyPorts),
        (504, "wake_late", WakeLate),
    ],
)
def test_a_refusal_is_an_error_of_its_own(status: int, code: str, error: type[WorkspacesError]) -> None:
    api = Api(problem(status, code))
    with pytest.raises(error) as raised:
        api.client(retries=0).ports.open(UUID, 3000)
    assert (type(raised.value), raised.value.code) == (error, code)


def test_a_port_is_closed() -> None:
    api = Api(httpx.Response(204))
    api.client().ports.close(UUID, 3000)
    assert asked(api) == [f"DELETE {HERE}/3000"]


def test_a_session_tells_of_its_opened_ports() -> None:
    noted: dict[str, Any] = {"port": 3000, "url": port()["url"], "opened_at": TIME, "public_until": None}
    api = Api(answer(session(opened_ports=[noted])), answer(session()))
    assert api.client().sessions.get(UUID).opened_ports == (OpenedPort(**noted | {"opened_at": AT}),)
    assert api.client().sessions.get(UUID).opened_ports == ()
