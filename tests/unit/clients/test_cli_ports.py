"""sessionctl's commands on ports: what they print, and which code tells whether something listens."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.unit.clients.api import TIME, UUID, Api, answer, asked, opened, port, problem, session
from tests.unit.clients.conftest import Sessionctl
from workspaces.cli.context import FAILED, NOT_FOUND, TIMED_OUT, USAGE
from workspaces.cli.output import when

HERE = f"/session/{UUID}/ports"
AT = datetime(2026, 11, 20, 8, tzinfo=UTC)
LINK = opened()["url"]


def test_ports_are_listed_with_what_is_there(sessionctl: Sessionctl) -> None:
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    found = [
        port(22, process=None),
        port(3000, service="web", opened_at=hour_ago),
        port(3001, process="a\nb\x1b", state="starting"),
        port(8080, state="stopped", process=None, opened_at=hour_ago, public_until=TIME),
    ]
    api = Api(*(answer({"ports": each}) for each in (found, found, [])))
    shown = sessionctl(api, "ports", UUID).out
    assert [line.split() for line in shown.splitlines()[1:]] == [
        ["22", "listening"],
        ["3000", "listening", "node", "web", "1", "h", "ago"],
        ["3001", "starting", "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"],
        ["8080", "stopped", "1", "h", "ago", *when(AT).split()],
    ]
    assert json.loads(sessionctl(api, "ports", UUID, "--json").out) == found
    assert "sessionctl serve" in sessionctl(api, "ports", UUID, "--no-wake").err
    assert asked(api) == [*[f"GET {HERE}?wake=true"] * 2, f"GET {HERE}?wake=false"]


def test_a_session_is_shown_with_its_opened_ports(sessionctl: Sessionctl) -> None:
    noted = [
        {"port": number, "url": port(number)["url"], "opened_at": TIME, "public_until": until}
        for number, until in ((3000, None), (8080, TIME))
    ]
    shown = sessionctl(Api(answer(session("sleeping", opened_ports=noted))), "status", UUID).out
    assert f"3000, 8080 public until {when(AT)}" in shown


# Opening


def test_a_previews_link_is_all_that_is_printed(sessionctl: Sessionctl) -> None:
    api = Api(answer(opened()))
    ended = sessionctl(api, "preview", UUID, "3000")
    assert (ended.code, ended.out, ended.err) == (0, f"{LINK}\n", "")
    assert (asked(api), api.bodies) == ([f"POST {HERE}/3000/open?wake=true"], [{}])
    assert api.requests[0].headers["Prefer"] == "wait=60"


def test_options_reach_the_api(sessionctl: Sessionctl) -> None:
    shown = opened(public_until=TIME, expires_at=None)
    api = Api(answer(shown))
    given = ("--public-for", "2h", "--path", "/a?b=1", "--no-wake", "--json")
    ended = sessionctl(api, "preview", UUID, "3000", *given)
    assert (ended.code, json.loads(ended.out)) == (0, shown)
    assert asked(api) == [f"POST {HERE}/3000/open?wake=false"]
    (body,) = api.bodies
    ahead = body.pop("public_until") - datetime.now(UTC).timestamp()
    assert (body, 7_190 < ahead <= 7_200) == ({"path": "/a?b=1"}, True)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1_800), ("30min", 1_800), ("7d", 604_800)])
def test_a_duration_has_a_unit(sessionctl: Sessionctl, text: str, seconds: int) -> None:
    api = Api(answer(opened()))
    assert sessionctl(api, "preview", UUID, "3000", "--public-for", text).code == 0
    ahead = api.bodies[0]["public_until"] - datetime.now(UTC).timestamp()
    assert seconds - 10 < ahead <= seconds


@pytest.mark.parametrize("text", ["2", "0h", "-1h", "h", "2 h", "1.5h", "2h\n", "٢h", "1000000d", ""])
def test_a_duration_that_is_none_is_a_usage_error(sessionctl: Sessionctl, text: str) -> None:
    ended = sessionctl(Api(), "preview", UUID, "3000", f"--public-for={text}")
    assert (ended.code, "90s, 30min, 2h or 7d" in ended.err) == (USAGE, True)


def test_the_longest_duration_is_refused_by_the_api_alone(sessionctl: Sessionctl) -> None:
    api = Api(problem(422, "invalid_request", errors={"public_until": ["Too late."]}))
    ended = sessionctl(api, "preview", UUID, "3000", "--public-for", "999999d")
    assert (ended.code, "Too late." in ended.err) == (FAILED, True)


@pytest.mark.parametrize("command", ["preview", "close-port"])
@pytest.mark.parametrize("number", ["0", "65536", "web"])
def test_a_number_that_no_port_has_is_a_usage_error(sessionctl: Sessionctl, command: str, number: str) -> None:
    assert sessionctl(Api(), command, UUID, number).code == USAGE


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize(
    ("fields", "code", "way_on"),
    [
        ({"state": "stopped"}, FAILED, f"sessionctl serve {UUID} NAME COMMAND --port 3000"),
        ({"state": "stopped", "service": "web"}, FAILED, f"sessionctl restart {UUID} web"),
        ({"state": "starting", "service": "web"}, TIMED_OUT, f"sessionctl ports {UUID}"),
    ],
)
def test_a_port_where_nothing_listens_is_opened_and_says_what_to_do(
    sessionctl: Sessionctl, options: tuple[str, ...], fields: dict[str, Any], code: int, way_on: str
) -> None:
    ended = sessionctl(Api(answer(opened(process=None, **fields))), "preview", UUID, "3000", *options)
    assert (ended.code, LINK in ended.out) == (code, True)
    assert ("Nothing listens at port 3000" in ended.err, way_on in ended.err) == (True, True)


@pytest.mark.parametrize(("status", "code", "exit_code"), [(409, "too_many_ports", 1), (504, "wake_late", 5)])
def test_a_port_that_is_not_opened_is_an_error(sessionctl: Sessionctl, status: int, code: str, exit_code: int) -> None:
    ended = sessionctl(Api(problem(status, code)), "preview", UUID, "3000")
    assert (ended.code, ended.out) == (exit_code, "")


# Closing


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_port_is_closed(sessionctl: Sessionctl, options: tuple[str, ...]) -> None:
    api = Api(httpx.Response(204))
    ended = sessionctl(api, "close-port", UUID, "3000", *options)
    assert (ended.code, asked(api)) == (0, [f"DELETE {HERE}/3000"])
    if options:
        assert json.loads(ended.out) == {"port": 3000, "status": "closed"}
    else:
        assert (ended.out, "3000" in ended.err) == ("", True)


def test_a_port_of_a_session_that_is_unknown_is_not_found(sessionctl: Sessionctl) -> None:
    assert sessionctl(Api(problem(404, "session_not_found")), "close-port", UUID, "3000").code == NOT_FOUND
