"""sessionctl's commands on commands: where output goes, which code they end with, and what Ctrl-C does."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.unit.clients.api import RUNNING, UUID, Api, Body, answer, asked, command, problem, sse, stream, with_output
from tests.unit.clients.conftest import Sessionctl
from workspaces.cli.context import FAILED, NOT_FOUND, TIMED_OUT, USAGE
from workspaces.cli.output import relay, relay_bytes, shortened
from workspaces.cli.running import ENDED, INTERRUPTED

HERE = f"/session/{UUID}/exec"
OUT = sse("4-0", "stdout", text="ü\x1b[31m\n")
ERR = sse("4-3", "stderr", text="no\n")


def over(**fields: Any) -> str:
    return sse("4-3", "exit", **command(**fields))


class Interrupted(httpx.SyncByteStream):
    """A body during which somebody presses Ctrl-C."""

    def __init__(self, *events: str) -> None:
        self._events = events

    def __iter__(self) -> Iterator[bytes]:
        yield from (event.encode() for event in self._events)
        raise KeyboardInterrupt


class Terminal(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> str:
        written = self.buffer
        assert isinstance(written, io.BytesIO)
        return written.getvalue().decode()


def interrupted(*events: str) -> httpx.Response:
    return httpx.Response(200, stream=Interrupted(*events))


def test_a_commands_output_is_its_own_and_so_is_its_code(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(stream(OUT, ERR, over(exit_code=7))), "run", UUID, "make")
    assert (ended.code, ended.out, ended.err) == (7, "ü\x1b[31m\n", "no\n")


def test_options_reach_the_api(sessionctl: Sessionctl) -> None:
    api = Api(stream(over()))
    given = ("--cwd", "src", "--env", "A=1", "--env", "B=x=y", "--timeout", "5", "--id", "e1", "--no-wake", "--stdin")
    assert sessionctl(api, "run", UUID, *given, "--", "ls", "-l", typed="in\r\n").code == 0
    assert asked(api) == [f"POST {HERE}?wake=false"]
    sent = {"command": ["ls", "-l"], "id": "e1", "cwd": "src", "stdin": "in\r\n", "timeout": 5.0}
    assert api.bodies == [sent | {"env": {"A": "1", "B": "x=y"}}]


def test_one_argument_is_a_text_for_the_shell_and_input_is_only_sent_where_asked_for(sessionctl: Sessionctl) -> None:
    api = Api(stream(over()))
    sessionctl(api, "run", UUID, "ls | wc", typed="in")
    assert (api.bodies[0]["command"], "stdin" in api.bodies[0]) == ("ls | wc", False)


@pytest.mark.parametrize("options", [("--env", "A"), ("--stdin",)])
def test_a_value_or_an_input_that_is_none_is_a_usage_error(
    sessionctl: Sessionctl, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    assert sessionctl(Api(), "run", UUID, *options, "make").code == USAGE


def test_an_input_that_is_no_text_is_a_usage_error(sessionctl: Sessionctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    assert sessionctl(Api(), "run", UUID, "--stdin", "make").code == USAGE


@pytest.mark.parametrize(
    ("fields", "code", "why"),
    [
        ({"signal": "SIGKILL"}, 128 + signal.SIGKILL, ""),
        ({"signal": "SIGRTMIN+3"}, 128, ""),
        ({"reason": "timeout", "signal": "SIGTERM", "left": 1}, ENDED, "longer than its time limit"),
        ({"reason": "sleep"}, ENDED, "put to sleep"),
        ({"reason": "unheard_of"}, ENDED, "unheard_of"),
    ],
)
def test_a_command_that_did_not_exit_has_a_code_and_words(
    sessionctl: Sessionctl, fields: dict[str, Any], code: int, why: str
) -> None:
    ended = sessionctl(Api(stream(over(exit_code=None, **fields))), "run", UUID, "make")
    assert ended.code == code
    assert len(ended.err.splitlines()) == bool(why)
    assert why in ended.err


def test_processes_that_were_left_are_told(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(stream(over(left=2))), "run", UUID, "server &")
    assert (ended.code, "left running were ended: 2" in ended.err) == (0, True)


def test_a_run_as_json_is_a_line_for_each_event(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(stream(ERR, over(exit_code=1))), "run", UUID, "make", "--json")
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert lines[0] == {"id": "4-3", "type": "stderr", "data": {"text": "no\n"}}
    assert (lines[1]["type"], lines[1]["data"]["exit_code"], ended.code) == ("exit", 1, 1)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_detached_command_is_named(sessionctl: Sessionctl, options: tuple[str, ...]) -> None:
    api = Api(answer(with_output("e1", detached=True, **RUNNING), 202))
    ended = sessionctl(api, "run", UUID, "--detach", "make", *options)
    assert (ended.code, api.bodies[0]["detach"]) == (0, True)
    assert json.loads(ended.out)["exec_id"] == "e1" if options else ended.out == "e1\n"


@pytest.mark.parametrize(
    ("status", "code", "exit_code"), [(409, "asleep", FAILED), (504, "wake_late", TIMED_OUT), (404, "x", NOT_FOUND)]
)
def test_a_command_that_is_not_run_is_an_error(sessionctl: Sessionctl, status: int, code: str, exit_code: int) -> None:
    assert sessionctl(Api(problem(status, code)), "run", UUID, "make").code == exit_code


# Ctrl-C


def test_ctrl_c_is_passed_on_and_the_output_goes_on(sessionctl: Sessionctl) -> None:
    api = Api(interrupted(OUT), answer(with_output(**RUNNING), 202), stream(ERR, over(signal="SIGINT", exit_code=None)))
    ended = sessionctl(api, "run", UUID, "--id", "e1", "make")
    assert (ended.code, ended.out) == (INTERRUPTED, "ü\x1b[31m\n")
    assert "no\n" in ended.err
    sent, signalled, rest = asked(api)
    assert (sent, signalled) == (f"POST {HERE}?wake=true", f"DELETE {HERE}/e1?signal=SIGINT&wake=false")
    assert (rest, api.requests[2].headers["Last-Event-ID"]) == (f"GET {HERE}/e1?wake=false", "4-0")


def test_a_second_ctrl_c_leaves_it_running_and_says_how_to_look(sessionctl: Sessionctl) -> None:
    api = Api(interrupted(OUT), answer(with_output(**RUNNING), 202), interrupted())
    ended = sessionctl(api, "run", UUID, "--id", "e1", "make")
    assert ended.code == INTERRUPTED
    assert f"sessionctl logs {UUID} e1 -f" in ended.err
    assert f"sessionctl kill {UUID} e1" in ended.err


@pytest.mark.parametrize(("status", "code"), [(404, "exec_not_found"), (409, "asleep")])
def test_ctrl_c_before_it_began_says_how_to_look(sessionctl: Sessionctl, status: int, code: str) -> None:
    ended = sessionctl(Api(interrupted(), problem(status, code)), "run", UUID, "make")
    assert (ended.code, f"sessionctl execs {UUID}" in ended.err) == (INTERRUPTED, True)


# Lists and output


def test_a_long_command_is_one_short_line() -> None:
    assert shortened("a\nb" + "x" * 100, 5) == "a bxx …"


def test_commands_are_listed_with_how_they_ended(sessionctl: Sessionctl) -> None:
    listed = [
        command("e4", **RUNNING),
        command("e3", exit_code=2, command=["ls", "a b"]),
        command("e2", exit_code=None, signal="SIGKILL"),
        command("e1", exit_code=None, signal="SIGTERM", reason="timeout", command="a\nb"),
    ]
    api = Api(*(answer({"execs": each}) for each in (listed, listed, [])))
    shown = sessionctl(api, "execs", UUID).out
    for words in ("running", "exit 2", '["ls", "a b"]', "SIGKILL", "timeout", "a b", "1.2 s", "4 B"):
        assert words in shown
    assert json.loads(sessionctl(api, "execs", UUID, "--json", "--limit", "4").out) == listed
    assert "Run one with" in sessionctl(api, "execs", UUID, "--no-wake").err


@pytest.mark.parametrize(("options", "name"), [((), "stdout"), (("--stderr",), "stderr")])
def test_output_is_printed_as_it_is(sessionctl: Sessionctl, options: tuple[str, ...], name: str) -> None:
    api = Api(httpx.Response(200, stream=Body(b"\xc3", b"\xbc\r\n"), headers={"Content-Length": "4"}))
    ended = sessionctl(api, "logs", UUID, "e1", *options)
    assert (ended.code, ended.out) == (0, "ü\r\n")
    assert asked(api) == [f"GET {HERE}/e1?wake=true&stream={name}"]


def test_output_as_json_is_the_command(sessionctl: Sessionctl) -> None:
    assert json.loads(sessionctl(Api(answer(with_output())), "logs", UUID, "e1", "--json").out) == with_output()


@pytest.mark.parametrize(("options", "out"), [((), "ü\x1b[31m\n"), (("--stderr",), "no\n")])
def test_output_is_followed_to_the_end(sessionctl: Sessionctl, options: tuple[str, ...], out: str) -> None:
    api = Api(answer(with_output(**RUNNING)), stream(OUT, ERR, over(exit_code=7)))
    ended = sessionctl(api, "logs", UUID, "e1", "-f", *options)
    assert (ended.code, ended.out, ended.err) == (0, out, "")


def test_a_terminal_gets_no_control_characters() -> None:
    terminal = Terminal()
    relay("a\x1b[31m\tb\n", terminal)
    relay_bytes([b"\xc3", b"\xbc\x1b\n"], terminal)
    assert terminal.shown == "a\N{REPLACEMENT CHARACTER}[31m\tb\nü\N{REPLACEMENT CHARACTER}\n"


# Ending


@pytest.mark.parametrize(("options", "state"), [((), "killed"), (("--json",), '"reason": "killed"')])
def test_a_command_is_ended(sessionctl: Sessionctl, options: tuple[str, ...], state: str) -> None:
    api = Api(answer(with_output(exit_code=None, signal="SIGTERM", reason="killed")))
    ended = sessionctl(api, "kill", UUID, "e1", *options)
    assert (ended.code, state in ended.out) == (0, True)
    assert (asked(api), api.requests[0].headers["Prefer"]) == ([f"DELETE {HERE}/e1?wake=true"], "wait=60")


def test_a_signal_is_not_waited_for(sessionctl: Sessionctl) -> None:
    api = Api(answer(with_output(**RUNNING), 202))
    ended = sessionctl(api, "kill", UUID, "e1", "--signal", "SIGUSR1")
    assert (ended.code, "running" in ended.out) == (0, True)
    assert api.requests[0].headers["Prefer"] == "respond-async"


def test_a_command_that_does_not_end_is_a_wait_that_ran_out(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(answer(with_output(**RUNNING), 202)), "kill", UUID, "e1")
    assert (ended.code, f"sessionctl execs {UUID}" in ended.err) == (TIMED_OUT, True)
