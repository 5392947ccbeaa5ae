"""Commands: what is sent, how their output is followed and read where connections break, and how long they are waited
for."""

from __future__ import annotations

import itertools
import time
from typing import Any

import httpx
import pytest

from tests.unit.clients.api import (
    RUNNING,
    UUID,
    Api,
    Body,
    Broken,
    Turn,
    answer,
    asked,
    command,
    problem,
    sse,
    stream,
    with_output,
)
from workspaces import (
    Asleep,
    ConnectionFailed,
    ExecNotFound,
    ExitEvent,
    InputMoved,
    InvalidAnswer,
    KeyReused,
    NoTerminal,
    StderrEvent,
    StdoutEvent,
    TooManyAtOnce,
    WaitTimedOut,
    WakeLate,
    Window,
    WorkspacesError,
)

HERE = f"/session/{UUID}/exec"
OUT = sse("4-0", "stdout", text="out\n")
ERR = sse("4-3", "stderr", text="no\n")
EXIT = sse("4-3", "exit", **command(exit_code=2))
CONTENT = bytes(range(256)) * 300


def test_a_command_is_run_with_all_that_it_is_given() -> None:
    api = Api(answer(with_output(exit_code=3)))
    given: dict[str, Any] = {
        "cwd": "src",
        "env": {"A": "1"},
        "stdin": "in",
        "timeout": 5.0,
        "detach": False,
        "id": "e1",
    }
    found = api.client().execs.run(UUID, ["make", "all"], wake=False, wait=20, idempotency_key="k1", **given)
    assert (found.exit_code, found.stdout, found.running) == (3, "out\n", False)
    assert asked(api) == [f"POST {HERE}?wake=false"]
    assert api.bodies == [{"command": ["make", "all"], **given}]
    headers = api.requests[0].headers
    assert (headers["Prefer"], headers["Idempotency-Key"]) == ("wait=20", "k1")


def test_a_repeated_call_runs_nothing_twice() -> None:
    api = Api(httpx.ReadTimeout("lost"), answer(with_output()))
    api.client().execs.run(UUID, "make")
    assert api.bodies[0] == api.bodies[1]
    assert api.bodies[0]["id"]


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (409, "asleep", Asleep),
        (504, "wake_late", WakeLate),
        (404, "exec_not_found", ExecNotFound),
        (422, "exec_id_reused", KeyReused),
        (429, "too_many_execs", TooManyAtOnce),
    ],
)
def test_a_refusal_is_an_error_of_its_own(status: int, code: str, error: type[WorkspacesError]) -> None:
    with pytest.raises(error) as raised:
        Api(problem(status, code)).client().execs.run(UUID, "make")
    assert raised.value.code == code


# Following


def test_a_stream_brings_the_output_and_last_the_end() -> None:
    api = Api(stream(": still here\n\n", OUT, ERR, EXIT))
    out, err, end = api.client().execs.stream(UUID, "make", wake=False)
    assert isinstance(out, StdoutEvent) and out.text == "out\n"
    assert isinstance(err, StderrEvent) and err.text == "no\n"
    assert isinstance(end, ExitEvent) and (end.exec_id, end.exit_code) == ("e1", 2)
    assert asked(api) == [f"POST {HERE}?wake=false"]
    assert api.requests[0].headers["Accept"] == "text/event-stream"


@pytest.mark.parametrize("breaks", [True, False])
@pytest.mark.parametrize(("seen", "after"), [([OUT], "4-0"), ([], None)])
def test_a_stream_goes_on_where_it_broke_and_wakes_nothing(seen: list[str], after: str | None, breaks: bool) -> None:
    """A command that has written nothing yet is followed too, and not run again."""
    api = Api(stream(*seen, breaks=breaks), stream(ERR, breaks=True), stream(EXIT))
    kinds = [event.type for event in api.client().execs.stream(UUID, "make", id="e1")]
    assert kinds == [*["stdout"] * len(seen), "stderr", "exit"]
    assert asked(api) == [f"POST {HERE}", *[f"GET {HERE}/e1?wake=false"] * 2]
    assert [each.headers.get("Last-Event-ID") for each in api.requests[1:]] == [after, "4-3"]


def test_a_stream_of_a_session_that_was_put_to_sleep_says_so() -> None:
    with pytest.raises(Asleep):
        list(Api(stream(OUT), problem(409, "asleep")).client().execs.stream(UUID, "make"))


def test_a_command_that_was_never_taken_raises() -> None:
    with pytest.raises(ConnectionFailed):
        list(Api(httpx.ConnectError("refused")).client(retries=0).execs.stream(UUID, "make"))


def test_only_the_first_look_at_a_command_wakes_its_session() -> None:
    api = Api(answer(with_output(**RUNNING)), stream(OUT, EXIT))
    found = [event.type for event in api.client().execs.follow(UUID, "e1", after="0-0")]
    assert found == ["stdout", "exit"]
    assert asked(api) == [f"GET {HERE}/e1", f"GET {HERE}/e1?wake=false"]
    assert api.requests[1].headers["Last-Event-ID"] == "0-0"


# Terminals

TERMINAL: dict[str, Any] = {"tty": {"rows": 40, "columns": 120}, "input_bytes": 9}


def typed(input_bytes: int) -> httpx.Response:
    return answer({"uuid": UUID, "exec_id": "e1", "input_bytes": input_bytes})


def test_a_command_is_run_in_a_terminal() -> None:
    api = Api(answer(with_output(**RUNNING, **TERMINAL), 202), stream(sse("0-0", "exit", **command(**TERMINAL))))
    calls = api.client().execs
    found = calls.run(UUID, "bash", id="e1", tty=Window(40, 120), wait=0)
    (end,) = calls.stream(UUID, "bash", id="e1", tty=Window(rows=40, columns=120))
    assert isinstance(end, ExitEvent)
    assert [(each.tty, each.input_bytes) for each in (found, end)] == [(Window(40, 120), 9)] * 2
    assert api.bodies == [{"command": "bash", "id": "e1", "tty": {"rows": 40, "columns": 120}}] * 2


def test_what_is_typed_is_sent_as_it_is() -> None:
    api = Api(typed(12))
    assert api.client().execs.write_input(UUID, "e1", b"\xff\x03\r", at=9).input_bytes == 12
    assert (asked(api), api.requests[0].content) == ([f"PUT {HERE}/e1/input?at=9"], b"\xff\x03\r")
    assert api.requests[0].headers["Content-Type"] == "application/octet-stream"


def test_a_call_whose_answer_got_lost_types_the_same_again() -> None:
    api = Api(httpx.ReadTimeout("lost"), typed(12))
    api.client().execs.write_input(UUID, "e1", b"ls\r", at=9)
    assert asked(api) == [f"PUT {HERE}/e1/input?at=9"] * 2
    assert [each.content for each in api.requests] == [b"ls\r"] * 2


def test_a_terminals_size_is_set() -> None:
    api = Api(httpx.Response(204))
    api.client().execs.set_window(UUID, "e1", 50, 132)
    assert (asked(api), api.bodies) == ([f"PUT {HERE}/e1/window"], [{"rows": 50, "columns": 132}])


@pytest.mark.parametrize(
    ("code", "error"), [("input_moved", InputMoved), ("no_terminal", NoTerminal), ("asleep", Asleep)]
)
def test_input_that_is_not_taken_is_an_error_of_its_own(code: str, error: type[WorkspacesError]) -> None:
    with pytest.raises(error):
        Api(problem(409, code)).client().execs.write_input(UUID, "e1", b"x", at=0)


# Looking, ending, waiting


def test_commands_are_listed() -> None:
    api = Api(answer({"execs": [command("e2", command=["make", "all"]), command()]}))
    found = api.client().execs.list(UUID, wake=False).execs
    assert [(each.exec_id, each.command) for each in found] == [("e2", ["make", "all"]), ("e1", "make")]
    assert asked(api) == [f"GET {HERE}?wake=false"]


def test_a_command_is_sent_a_signal() -> None:
    api = Api(answer(with_output(**RUNNING), 202))
    assert api.client().execs.end(UUID, "e1", signal="SIGINT", wait=0).running
    assert asked(api) == [f"DELETE {HERE}/e1?signal=SIGINT"]
    assert api.requests[0].headers["Prefer"] == "respond-async"


def test_a_command_is_waited_for() -> None:
    api = Api(answer(with_output(**RUNNING)), answer(with_output()))
    assert api.client().execs.wait_until_ended(UUID, "e1", timeout=100).exit_code == 0
    assert asked(api) == [f"GET {HERE}/e1?wake=false"] * 2
    assert [each.headers["Prefer"] for each in api.requests] == ["wait=60"] * 2


def test_a_wait_for_a_command_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count(0.0, 10.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    turns = [answer(with_output(**RUNNING)) for _ in range(9)]
    with pytest.raises(WaitTimedOut):
        Api(*turns).client().execs.wait_until_ended(UUID, "e1", timeout=60)


# Its bytes


def part(status: int, content: bytes, *, of: int, breaks: bool = False) -> httpx.Response:
    """An answer that promises `of` bytes and brings these."""
    body = Broken(content) if breaks else Body(content)
    return httpx.Response(status, stream=body, headers={"Content-Length": str(of)})


def test_bytes_are_read_on_where_the_connection_broke() -> None:
    """To the end that they had at first: what is written meanwhile is not theirs."""
    size = len(CONTENT)
    api = Api(
        part(200, CONTENT[:1_000], of=size, breaks=True),
        httpx.ConnectError("refused"),
        part(206, CONTENT[1_000:5_000], of=size - 1_000),
        part(206, CONTENT[5_000:], of=size - 5_000),
    )
    assert b"".join(api.client().execs.output(UUID, "e1", "stderr", wake=False)) == CONTENT
    assert {*asked(api)} == {f"GET {HERE}/e1?wake=false&stream=stderr"}
    first, *others = (each.headers.get("Range") for each in api.requests)
    assert first is None
    assert others == [f"bytes={begin}-{size - 1}" for begin in (1_000, 1_000, 5_000)]


def test_no_bytes_are_none() -> None:
    assert list(Api(part(200, b"", of=0)).client().execs.output(UUID, "e1", "stdout")) == []


@pytest.mark.parametrize(
    ("turns", "error"),
    [
        ([httpx.Response(200, stream=Body(b"x"))], InvalidAnswer),
        ([part(200, b"x", of=2), part(200, b"xy", of=2)], InvalidAnswer),
        ([part(200, b"x", of=2), *[part(206, b"", of=1) for _ in range(9)]], ConnectionFailed),
        ([problem(404, "exec_not_found")], ExecNotFound),
    ],
)
def test_bytes_that_are_not_those_asked_for_are_an_error(turns: list[Turn], error: type[WorkspacesError]) -> None:
    with pytest.raises(error):
        list(Api(*turns).client().execs.output(UUID, "e1", "stdout"))
