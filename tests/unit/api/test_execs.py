"""The calls on commands, with a real agent behind them."""

from __future__ import annotations

import time
from threading import Thread
from typing import Any

import pytest

from app.api import execs
from app.core.composition import Core
from app.core.redis import task_queue
from app.core.sessions.model import Status
from tests.events import Events
from tests.fake_agent import FakeAgent
from tests.unit.api.helpers import ASYNC, LONG_WAIT, ONCE, Client, check_problem, meanwhile, move
from tests.unit.api.real_agent import Workspace
from tests.waiting import wait_for

STREAM = {"Accept": "text/event-stream"}
LONG = ["sleep", "1000"]


def run(client: Client, uuid: str, command: Any, headers: Any = LONG_WAIT, query: str = "", **body: Any) -> Any:
    return client.post(f"/session/{uuid}/exec{query}", json={"command": command, **body}, headers=headers)


def streamed(answer: Any) -> Events:
    assert answer.status_code == 200, answer.text
    return Events(line for part in answer.response for line in part.decode().split("\n"))


def test_a_command_runs_to_its_end(client: Client, uuid: str, workspace: Workspace) -> None:
    answer = run(client, uuid, "pwd; cat; echo $X >&2; exit 3", stdin="in\n", env={"X": "own"})
    assert answer.status_code == 200, answer.text
    told = answer.json
    assert (told["state"], told["exit_code"], told["signal"], told["reason"]) == ("exited", 3, None, None)
    assert (told["stdout"], told["stderr"], told["truncated"]) == (f"{workspace.app}\nin\n", "own\n", False)
    assert (told["uuid"], told["command"], told["cwd"], told["left"]) == (uuid, "pwd; cat; echo $X >&2; exit 3", ".", 0)
    again = client.get(f"/session/{uuid}/exec/{told['exec_id']}").json
    assert again == told


def test_a_list_is_no_shells(client: Client, uuid: str, workspace: Workspace) -> None:
    assert run(client, uuid, ["echo", "$HOME", "*"]).json["stdout"] == "$HOME *\n"


def test_one_that_outlives_the_wait_runs_on_and_is_ended_on_request(
    client: Client, uuid: str, workspace: Workspace
) -> None:
    answer = run(client, uuid, "touch ready; exec sleep 1000", ASYNC, id="mine")
    wait_for((workspace.app / "ready").exists, "the command begins")
    assert (answer.status_code, answer.json["state"], answer.json["ended_at"]) == (202, "running", None)
    assert client.get(f"/session/{uuid}/exec/mine").json["state"] == "running"
    ended = client.delete(f"/session/{uuid}/exec/mine", headers=LONG_WAIT)
    assert (ended.status_code, ended.json["signal"], ended.json["reason"]) == (200, "SIGTERM", "killed")
    assert client.delete(f"/session/{uuid}/exec/mine").json == ended.json


def test_a_detached_one_is_answered_at_once_and_can_be_sent_a_signal(
    client: Client, uuid: str, workspace: Workspace
) -> None:
    answer = run(client, uuid, "trap 'echo caught; exit 7' INT; touch ready; while :; do sleep 0.01; done", detach=True)
    assert (answer.status_code, answer.json["detached"]) == (202, True)
    id_ = answer.json["exec_id"]
    wait_for((workspace.app / "ready").exists, "the command begins")
    ended = client.delete(f"/session/{uuid}/exec/{id_}?signal=SIGINT", headers=LONG_WAIT).json
    assert (ended["exit_code"], ended["stdout"], ended["reason"]) == (7, "caught\n", None)


def test_the_newest_are_listed_first(client: Client, uuid: str, workspace: Workspace) -> None:
    for number in range(3):
        run(client, uuid, "echo out", id=f"id{number}")
    listed = client.get(f"/session/{uuid}/exec").json["execs"]
    assert [(each["exec_id"], each["stdout_bytes"]) for each in listed] == [("id2", 4), ("id1", 4), ("id0", 4)]
    assert "stdout" not in listed[0]
    run(client, uuid, ["true", *["x" * 300] * 30])
    assert client.get(f"/session/{uuid}/exec").json["execs"][0]["command"] == ["true", *["x" * 200] * 9]


def test_a_repeated_call_runs_nothing_again(client: Client, uuid: str, workspace: Workspace) -> None:
    """By its idempotency key, by its id, and by both after the stored answer is gone."""
    first = run(client, uuid, "echo x >> count", LONG_WAIT | ONCE)
    assert run(client, uuid, "echo x >> count", LONG_WAIT | ONCE).json == first.json
    by_id = run(client, uuid, "echo x >> count", id=first.json["exec_id"])
    assert (by_id.status_code, by_id.json) == (200, first.json)
    assert (workspace.app / "count").read_text() == "x\n"
    check_problem(run(client, uuid, "echo y", id=first.json["exec_id"]), 422, "exec_id_reused")


def test_the_bytes_of_a_stream_and_parts_of_them(client: Client, uuid: str, workspace: Workspace) -> None:
    id_ = run(client, uuid, r"head -c 3000000 /dev/zero; printf '\377end'").json["exec_id"]
    path = f"/session/{uuid}/exec/{id_}?stream=stdout"
    whole = client.get(path)
    assert (whole.status_code, whole.content_type) == (200, "application/octet-stream")
    assert whole.data == bytes(3_000_000) + b"\xffend"
    part = client.get(path, headers={"Range": "bytes=2999999-3000001"})
    assert (part.status_code, part.data) == (206, b"\0\xffe")
    assert part.headers["Content-Range"] == "bytes 2999999-3000001/3000004"
    check_problem(client.get(path, headers={"Range": "bytes=9000000-"}), 416, "range_not_satisfiable")
    assert client.get(path.replace("stdout", "stderr")).data == b""


def test_a_workspace_that_ends_before_the_first_bytes_is_told_as_a_problem(
    client: Client, uuid: str, workspace: Workspace, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = core.execs.show

    def and_asleep(*asked: Any) -> Any:
        found = look(*asked)
        workspace.sleep()
        return found

    run(client, uuid, "echo here", id="it")
    monkeypatch.setattr(core.execs, "show", and_asleep)
    check_problem(client.get(f"/session/{uuid}/exec/it?stream=stdout&wake=false"), 409, "asleep")


def test_the_output_is_streamed_as_it_comes(client: Client, uuid: str, workspace: Workspace) -> None:
    answer = run(client, uuid, "echo ü; while [ ! -e go ]; do sleep 0.01; done; echo late >&2; exit 2", STREAM, id="it")
    events = streamed(answer)
    assert next(events) == ("stdout", {"text": "ü\n"})
    seen = events.last_id
    (workspace.app / "go").touch()
    assert next(events) == ("stderr", {"text": "late\n"})
    kind, last = next(events)
    assert (kind, last["exec_id"], last["exit_code"]) == ("exit", "it", 2)
    assert list(events) == []
    resumed = streamed(client.get(f"/session/{uuid}/exec/it", headers=STREAM | {"Last-Event-ID": seen}))
    assert [kind for kind, _ in resumed] == ["stderr", "exit"]


def test_an_idle_stream_says_that_it_is_there(
    client: Client, uuid: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execs, "HEARTBEAT", 1.0)
    answer = run(client, uuid, LONG, STREAM, id="it")
    lines = iter(answer.response)
    assert [next(lines), next(lines)] == [b": still here\n\n"] * 2
    answer.close()


def test_a_sleeping_session_is_woken(client: Client, core: Core, uuid: str, workspace: Workspace) -> None:
    workspace.sleep()
    check_problem(run(client, uuid, "true", query="?wake=false"), 409, "asleep")
    check_problem(client.get(f"/session/{uuid}/exec?wake=false"), 409, "asleep")
    assert core.store.get(uuid).status is Status.SLEEPING
    meanwhile(lambda: core.store.get(uuid).status is Status.WAKING, workspace.wake)
    answer = run(client, uuid, "echo awake", LONG_WAIT)
    assert (answer.status_code, answer.json["stdout"]) == (200, "awake\n")
    assert core.store.get(uuid).task == task_queue.WAKE


def test_a_wake_that_takes_too_long_runs_nothing(client: Client, uuid: str, workspace: Workspace) -> None:
    workspace.sleep()
    check_problem(run(client, uuid, "touch ran", id="it"), 504, "wake_late")
    workspace.wake()
    assert run(client, uuid, "true").status_code == 200
    assert not (workspace.app / "ran").exists()


def test_a_sleep_ends_it_and_the_next_look_says_so(client: Client, uuid: str, workspace: Workspace) -> None:
    run(client, uuid, "echo begun; sleep 1000", ASYNC, id="it")
    wait_for(lambda: client.get(f"/session/{uuid}/exec/it").json["stdout"], "the command begins")
    workspace.sleep()
    workspace.wake()
    told = client.get(f"/session/{uuid}/exec/it").json
    assert (told["state"], told["reason"], told["stdout"]) == ("exited", "sleep", "begun\n")


def test_a_caller_that_waits_while_its_session_falls_asleep_is_told(
    client: Client, uuid: str, workspace: Workspace
) -> None:
    """By the agent's last answer, or by the session's state if that was lost."""

    def asleep() -> None:
        wait_for((workspace.app / "ready").exists, "the command begins")
        workspace.sleep()

    sleeper = Thread(target=asleep)
    sleeper.start()
    answer = run(client, uuid, "touch ready; sleep 1000", id="it")
    sleeper.join()
    if answer.status_code == 200:
        assert answer.json["reason"] == "sleep"
    else:
        check_problem(answer, 409, "illegal_state")


def test_commands_are_use(client: Client, core: Core, uuid: str, workspace: Workspace) -> None:
    run(client, uuid, "true")
    assert core.activity.read(uuid)["exec"].at > time.time() - 60


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"command": ""},
        {"command": " \n"},
        {"command": []},
        {"command": [1]},
        {"command": {"a": 1}},
        {"command": "a\0b"},
        {"command": "\ud800"},
        {"command": "true", "env": {"A=B": "1"}},
        {"command": "true", "env": {"A": 1}},
        {"command": "true", "timeout": 0},
        {"command": "true", "timeout": 1e8},
        {"command": "true", "detach": "yes"},
        {"command": "true", "id": "../x"},
        {"command": "true", "id": ".."},
        {"command": "true", "cwd": "missing"},
        {"command": "true", "cwd": "../.session"},
        {"command": "true", "more": 1},
        {"command": "x" * 100_001},
        {"command": "cat", "stdin": "x" * 100_001},
    ],
)
def test_a_wrong_order_is_a_400(client: Client, uuid: str, workspace: Workspace, body: dict[str, Any]) -> None:
    check_problem(client.post(f"/session/{uuid}/exec", json=body), 400, "invalid_request")
    assert client.get(f"/session/{uuid}/exec").json["execs"] == []


def test_a_larger_request_is_a_413(client: Client, uuid: str, workspace: Workspace) -> None:
    check_problem(run(client, uuid, "x" * 2_000_000), 413, "payload_too_large")


def test_an_unknown_command_or_signal(client: Client, uuid: str, workspace: Workspace) -> None:
    for path in ("nothing", "nothing?stream=stdout", "a/b", "..", "%2e%2e", "%3f", "x%3fwait=1", "x%0d%0ax", "%20"):
        assert client.get(f"/session/{uuid}/exec/{path}").status_code == 404, path
    check_problem(client.get(f"/session/{uuid}/exec/nothing", headers=STREAM), 404, "exec_not_found")
    check_problem(client.delete(f"/session/{uuid}/exec/nothing"), 404, "exec_not_found")
    check_problem(client.delete(f"/session/{uuid}/exec/it?signal=SIGSEGV"), 400, "invalid_request")
    check_problem(client.get(f"/session/{uuid}/exec/it?stream=stdin"), 400, "invalid_request")
    for wrong in ("x", "1", "1-2-3", "1-x"):
        answer = client.get(f"/session/{uuid}/exec/it", headers=STREAM | {"Last-Event-ID": wrong})
        check_problem(answer, 400, "invalid_request")


def test_a_session_that_cannot_run(client: Client, core: Core, uuid: str) -> None:
    move(core, uuid, Status.FAILED, reason="no volume")
    check_problem(run(client, uuid, "true"), 409, "illegal_state")
    move(core, uuid, Status.TERMINATING)
    check_problem(run(client, uuid, "true"), 409, "illegal_state")
    check_problem(run(client, "zzzzzzzz", "true"), 404, "session_not_found")


@pytest.mark.settings(rate_limit_work="2/minute", rate_limit_default="1000/minute")
def test_the_rate_is_each_sessions_own(client: Client, core: Core, uuid: str, workspace: Workspace) -> None:
    for _ in range(2):
        assert run(client, uuid, "true").status_code == 200
    refused = run(client, uuid, "true")
    check_problem(refused, 429, "rate_limited")
    assert refused.headers["Retry-After"]
    check_problem(run(client, "zzzzzzzz", "true"), 404, "session_not_found")


def test_an_agent_that_lies_or_hangs_costs_a_503(
    client: Client, core: Core, uuid: str, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it answers: no page of another kind, no missing field, no endless list."""
    core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    for raw in (b"{}", b"[]", b'{"state": "exited"}', b'{"state": 7, "command": "x"}', b"\xff", b"[" * 10_000):
        agent.raw_response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(raw), raw)
        assert run(client, uuid, "true").status_code == 503
        assert client.get(f"/session/{uuid}/exec").status_code == 503
