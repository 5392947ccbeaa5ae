"""Services of a workspace: what is sent, and how their log is read and followed where connections break."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.unit.clients.api import UUID, Api, answer, asked, problem, service, session, sse, stream
from workspaces import (
    Asleep,
    InvalidRequest,
    LogEvent,
    ServiceNotFound,
    StoppedEvent,
    TooManyServices,
    WakeLate,
    WorkspacesError,
)
from workspaces.models import ReportedService

HERE = f"/session/{UUID}/services"
FIRST = sse("4", "log", text="ü\n")
NEXT = sse("9", "log", text="more\n")
STOPPED = sse("9", "stopped", **service(state="failed", exit_code=1))


def test_a_service_is_started_with_all_that_it_is_given() -> None:
    api = Api(answer(service(state="starting"), 201))
    given: dict[str, Any] = {"port": 3000, "cwd": "src", "restart": "always", "autostart": True}
    found = api.client().services.start(UUID, "web", "make", wake=False, wait=20, idempotency_key="k1", **given)
    assert (found.name, found.port, found.state, found.exit_code) == ("web", 3000, "starting", None)
    assert asked(api) == [f"POST {HERE}?wake=false"]
    assert api.bodies == [{"name": "web", "command": "make", **given}]
    headers = api.requests[0].headers
    assert (headers["Prefer"], headers["Idempotency-Key"]) == ("wait=20", "k1")


def test_what_is_not_given_is_left_to_the_api() -> None:
    api = Api(answer(service()))
    api.client().services.start(UUID, "web", "make")
    assert asked(api) == [f"POST {HERE}"]
    assert api.bodies == [{"name": "web", "command": "make"}]
    assert "Prefer" not in api.requests[0].headers


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "invalid_request", InvalidRequest),
        (404, "service_not_found", ServiceNotFound),
        (409, "asleep", Asleep),
        (409, "too_many_services", TooManyServices),
        (504, "wake_late", WakeLate),
    ],
)
def test_a_refusal_is_an_error_of_its_own(status: int, code: str, error: type[WorkspacesError]) -> None:
    api = Api(problem(status, code))
    with pytest.raises(error) as raised:
        api.client(retries=0).services.start(UUID, "web", "make")
    assert (type(raised.value), raised.value.code) == (error, code)


def test_services_are_listed() -> None:
    api = Api(answer({"services": [service("db", port=None), service()]}))
    found = api.client().services.list(UUID, wake=False).services
    assert [(each.name, each.port) for each in found] == [("db", None), ("web", 3000)]
    assert asked(api) == [f"GET {HERE}?wake=false"]


@pytest.mark.parametrize(("wait", "sent"), [(None, None), (0, "respond-async"), (5, "wait=5")])
def test_a_look_at_a_service_may_wait(wait: float | None, sent: str | None) -> None:
    api = Api(answer(service()))
    assert api.client().services.get(UUID, "web", wait=wait).state == "running"
    assert (asked(api), api.requests[0].headers.get("Prefer")) == ([f"GET {HERE}/web"], sent)


def test_a_service_is_restarted_once_where_the_answer_got_lost() -> None:
    api = Api(httpx.ReadTimeout("lost"), answer(service(starts=1)))
    assert api.client().services.restart(UUID, "web", wake=False, wait=5).starts == 1
    assert asked(api) == [f"POST {HERE}/web/restart?wake=false"] * 2
    assert len({each.headers["Idempotency-Key"] for each in api.requests}) == 1
    assert {each.headers["Prefer"] for each in api.requests} == {"wait=5"}


def test_a_service_is_stopped() -> None:
    api = Api(httpx.Response(204))
    api.client().services.stop(UUID, "a/b", wake=False)
    assert asked(api) == [f"DELETE {HERE}/a%2Fb?wake=false"]


# Its log


def test_a_log_is_a_text() -> None:
    plain = {"Content-Type": "text/plain; charset=utf-8"}
    api = Api(httpx.Response(200, content=b"\xc3\xbc\r\n", headers=plain))
    assert api.client().services.log(UUID, "web", tail=4, wake=False) == "ü\r\n"
    assert asked(api) == [f"GET {HERE}/web/log?tail=4&wake=false"]
    assert api.requests[0].headers["Accept"] == "text/plain"


def test_a_log_is_followed_until_its_service_has_ended() -> None:
    api = Api(stream(": still here\n\n", FIRST, STOPPED, NEXT))
    text, end = api.client().services.follow(UUID, "web", tail=4, wake=False)
    assert isinstance(text, LogEvent) and (text.id, text.text) == ("4", "ü\n")
    assert isinstance(end, StoppedEvent) and (end.name, end.state, end.exit_code) == ("web", "failed", 1)
    assert asked(api) == [f"GET {HERE}/web/log?tail=4&wake=false"]
    assert api.requests[0].headers["Accept"] == "text/event-stream"


@pytest.mark.parametrize("breaks", [True, False])
def test_a_log_is_followed_on_where_it_broke(breaks: bool) -> None:
    api = Api(stream(FIRST, breaks=breaks), httpx.ConnectError("refused"), stream(NEXT, STOPPED))
    found = api.client().services.follow(UUID, "web", after="1", wake=False)
    assert [event.type for event in found] == ["log", "log", "stopped"]
    assert [each.headers["Last-Event-ID"] for each in api.requests] == ["1", "4", "4"]


def test_only_the_first_look_at_a_service_wakes_its_session() -> None:
    api = Api(answer(service()), stream(FIRST), problem(409, "asleep"))
    with pytest.raises(Asleep):
        list(api.client().services.follow(UUID, "web"))
    assert asked(api) == [f"GET {HERE}/web", *[f"GET {HERE}/web/log?wake=false"] * 2]


# In its session


def test_a_session_tells_of_its_services() -> None:
    noted: dict[str, Any] = {"name": "web", "port": 3000, "state": "running"}
    api = Api(answer(session(services=[noted])), answer(session()))
    assert api.client().sessions.get(UUID).services == (ReportedService(**noted),)
    assert api.client().sessions.get(UUID).services == ()
