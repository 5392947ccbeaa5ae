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
    InvalidAnswer,
    KeyReused,
    StderrEvent,
    StdoutEvent,
    TooManyAtOnce,
    WaitTimedOut,
    WakeLate,
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
