"""sessionctl's commands on services: what they print, and which code tells whether a service runs."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.unit.clients.api import UUID, Api, answer, asked, problem, service, session, sse, stream
from tests.unit.clients.conftest import Sessionctl
from workspaces.cli.context import FAILED, NOT_FOUND, TIMED_OUT, USAGE

HERE = f"/session/{UUID}/services"
CRASHED: dict[str, Any] = {"state": "failed", "exit_code": 1}
OUT = sse("4", "log", text="ü\x1b[31m\n")
STOPPED = sse("9", "stopped", **service(**CRASHED))


def log(text: str) -> httpx.Response:
    return httpx.Response(200, content=text.encode(), headers={"Content-Type": "text/plain; charset=utf-8"})


def test_services_are_listed_with_how_they_ended(sessionctl: Sessionctl) -> None:
    found = [
        service("a", **CRASHED),
        service("b", state="stopped", signal="SIGTERM", reason="sleep", port=None),
        service("c", state="waiting", signal="SIGKILL", restart="always"),
        service("d", command="a\nb"),
        service("e", state="starting", exit_code=7),
        service("f", state="stopped", started_at=None, ended_at=None),
    ]
    api = Api(*(answer({"services": each}) for each in (found, found, [])))
    shown = sessionctl(api, "services", UUID).out
    assert [line.split() for line in shown.splitlines()[1:]] == [
        ["a", "failed,", "exit", "1", "3000", "on_failure", "npm", "run", "dev"],
        ["b", "stopped,", "sleep", "on_failure", "npm", "run", "dev"],
        ["c", "waiting,", "SIGKILL", "3000", "always", "npm", "run", "dev"],
        ["d", "running", "3000", "on_failure", "a", "b"],
        ["e", "starting", "3000", "on_failure", "npm", "run", "dev"],
        ["f", "stopped", "3000", "on_failure", "npm", "run", "dev"],
    ]
    assert json.loads(sessionctl(api, "services", UUID, "--json").out) == found
    assert "Start one with" in sessionctl(api, "services", UUID, "--no-wake").err
    assert asked(api) == [*[f"GET {HERE}?wake=true"] * 2, f"GET {HERE}?wake=false"]


def test_a_session_is_shown_with_its_services(sessionctl: Sessionctl) -> None:
    noted = [{"name": name, "port": None, "state": "stopped"} for name in ("db", "web")]
    assert "db stopped, web stopped" in sessionctl(Api(answer(session("sleeping", services=noted))), "status", UUID).out


# Starting


def test_a_service_that_runs_is_shown(sessionctl: Sessionctl) -> None:
    api = Api(answer(service(), 201))
    ended = sessionctl(api, "serve", UUID, "web", "npm run dev")
    assert [line.split() for line in ended.out.splitlines()] == [
        ["service", "web"],
        ["state", "running"],
        ["port", "3000"],
    ]
    assert (ended.code, ended.err) == (0, "")
    assert (asked(api), api.requests[0].headers["Prefer"]) == ([f"POST {HERE}?wake=true"], "wait=60")
    assert api.bodies == [{"name": "web", "command": "npm run dev", "autostart": False}]


def test_options_reach_the_api(sessionctl: Sessionctl) -> None:
    api = Api(answer(service()))
    given = ("--port", "3000", "--cwd", "src", "--restart", "always", "--autostart", "--no-wake", "--json")
    ended = sessionctl(api, "serve", UUID, "web", *given, "--", "ls", "a b")
    assert (ended.code, json.loads(ended.out)) == (0, service())
    assert asked(api) == [f"POST {HERE}?wake=false"]
    options = {"port": 3000, "cwd": "src", "restart": "always", "autostart": True}
    assert api.bodies == [{"name": "web", "command": "ls 'a b'", **options}]


def test_a_word_for_restart_that_is_none_is_a_usage_error(sessionctl: Sessionctl) -> None:
    assert sessionctl(Api(), "serve", UUID, "web", "make", "--restart", "sometimes").code == USAGE


@pytest.mark.parametrize("command", [("serve", UUID, "web", "npm run dev"), ("restart", UUID, "web")])
@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        (CRASHED, FAILED),
        ({"state": "stopped", "exit_code": 0}, FAILED),
        ({"state": "waiting", "exit_code": 1}, TIMED_OUT),
        ({"state": "starting"}, TIMED_OUT),
    ],
)
def test_a_service_that_does_not_run_shows_the_end_of_its_log(
    sessionctl: Sessionctl, command: tuple[str, ...], options: tuple[str, ...], fields: dict[str, Any], code: int
) -> None:
    api = Api(answer(service(**fields)), log("no such file\n"))
    ended = sessionctl(api, *command, *options)
    assert (ended.code, fields["state"] in ended.out) == (code, True)
    assert ended.err.startswith("no such file\n")
    assert (f"sessionctl services {UUID}" in ended.err) == (code == TIMED_OUT)
    assert asked(api)[1] == f"GET {HERE}/web/log?tail=4096&wake=false"


def test_a_service_is_restarted(sessionctl: Sessionctl) -> None:
    api = Api(answer(service()))
    ended = sessionctl(api, "restart", UUID, "web", "--no-wake")
    assert (ended.code, "running" in ended.out) == (0, True)
    sent = (asked(api), api.requests[0].headers["Prefer"])
    assert sent == ([f"POST {HERE}/web/restart?wake=false"], "wait=60")


@pytest.mark.parametrize(("status", "code", "exit_code"), [(409, "too_many_services", 1), (504, "wake_late", 5)])
def test_a_service_that_is_not_started_is_an_error(
    sessionctl: Sessionctl, status: int, code: str, exit_code: int
) -> None:
    assert sessionctl(Api(problem(status, code)), "serve", UUID, "web", "make").code == exit_code


# Ending


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_service_is_ended_and_forgotten(sessionctl: Sessionctl, options: tuple[str, ...]) -> None:
    api = Api(httpx.Response(204))
    ended = sessionctl(api, "unserve", UUID, "web", *options)
    assert (ended.code, asked(api)) == (0, [f"DELETE {HERE}/web?wake=true"])
    if options:
        assert json.loads(ended.out) == {"name": "web", "status": "forgotten"}
    else:
        assert (ended.out, "web" in ended.err) == ("", True)


def test_a_service_that_is_unknown_is_not_found(sessionctl: Sessionctl) -> None:
    assert sessionctl(Api(problem(404, "service_not_found")), "unserve", UUID, "web").code == NOT_FOUND


# Its log


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_log_is_printed_as_it_is(sessionctl: Sessionctl, options: tuple[str, ...]) -> None:
    api = Api(log("ü\r\n"))
    ended = sessionctl(api, "service-log", UUID, "web", "--tail", "4", "--no-wake", *options)
    assert ended.code == 0
    assert json.loads(ended.out) == {"text": "ü\r\n"} if options else ended.out == "ü\r\n"
    assert asked(api) == [f"GET {HERE}/web/log?tail=4&wake=false"]


def test_a_log_is_followed_to_the_end(sessionctl: Sessionctl) -> None:
    api = Api(answer(service()), stream(OUT, sse("9", "log", text="more\n"), STOPPED))
    ended = sessionctl(api, "service-log", UUID, "web", "-f", "--tail", "9")
    assert (ended.code, ended.out, ended.err) == (0, "ü\x1b[31m\nmore\n", "")
    assert asked(api) == [f"GET {HERE}/web?wake=true", f"GET {HERE}/web/log?tail=9&wake=false"]


def test_a_followed_log_as_json_is_a_line_for_each_event(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(answer(service()), stream(OUT, STOPPED)), "service-log", UUID, "web", "-f", "--json")
    first, last = (json.loads(line) for line in ended.out.splitlines())
    assert first == {"id": "4", "type": "log", "data": {"text": "ü\x1b[31m\n"}}
    assert (last["type"], last["data"]["state"]) == ("stopped", "failed")
