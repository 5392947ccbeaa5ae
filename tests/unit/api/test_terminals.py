"""The calls on terminals, with a real agent behind them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.api.helpers import ASYNC, LONG_WAIT, Client, check_problem
from tests.unit.api.real_agent import Workspace
from tests.unit.api.test_execs import LONG, run
from tests.waiting import wait_for

TTY = {"rows": 30, "columns": 100}
CAT = "stty -echo; echo ready; cat > typed"


def terminal(client: Client, uuid: str, workspace: Workspace, command: str = CAT, id_: str = "it") -> str:
    """The path of a command that runs in a terminal, and is ready."""
    begun = run(client, uuid, command, ASYNC, id=id_, tty=TTY)
    assert (begun.status_code, begun.json["tty"], begun.json["input_bytes"]) == (202, TTY, 0), begun.text
    path = f"/session/{uuid}/exec/{id_}"
    wait_for(lambda: "ready" in client.get(path).json["stdout"], "the command begins")
    return path


def typed(client: Client, path: str, at: int, data: bytes) -> Any:
    return client.put(f"{path}/input?at={at}", data=data, content_type="application/octet-stream")


def test_a_terminal_is_typed_into_and_each_piece_once(client: Client, uuid: str, workspace: Workspace) -> None:
    path = terminal(client, uuid, workspace)
    for _ in range(2):
        answer = typed(client, path, 0, "grün\n".encode())
        assert (answer.status_code, answer.json) == (200, {"uuid": uuid, "exec_id": "it", "input_bytes": 6})
    check_problem(typed(client, path, 3, b"x"), 409, "input_moved")
    assert client.get(path).json["input_bytes"] == 6
    assert typed(client, path, 6, b"\x04").json["input_bytes"] == 7
    ended = client.get(path, headers=LONG_WAIT).json
    assert (ended["state"], ended["exit_code"], (workspace.app / "typed").read_text()) == ("exited", 0, "grün\n")
    check_problem(typed(client, path, 7, b"x"), 409, "no_terminal")
    check_problem(client.put(f"{path}/window", json=TTY), 409, "no_terminal")


def test_the_size_of_a_terminal_follows_its_callers(client: Client, uuid: str, workspace: Workspace) -> None:
    path = terminal(client, uuid, workspace, "echo ready; read; stty size")
    assert client.put(f"{path}/window", json={"rows": 5, "columns": 7}).status_code == 204
    assert client.get(path).json["tty"] == {"rows": 5, "columns": 7}
    typed(client, path, 0, b"\r")
    assert client.get(path, headers=LONG_WAIT).json["stdout"].endswith("5 7\r\n")
    assert client.get(f"/session/{uuid}/exec").json["execs"][0]["tty"] == {"rows": 5, "columns": 7}


def test_a_command_without_a_terminal_takes_no_input(client: Client, uuid: str, workspace: Workspace) -> None:
    told = run(client, uuid, LONG, ASYNC, id="plain").json
    assert (told["tty"], told["input_bytes"]) == (None, 0)
    check_problem(typed(client, f"/session/{uuid}/exec/plain", 0, b"x"), 409, "no_terminal")
    check_problem(typed(client, f"/session/{uuid}/exec/other", 0, b"x"), 404, "exec_not_found")
    check_problem(typed(client, f"/session/{uuid}/exec/..", 0, b"x"), 404, "exec_not_found")


@pytest.mark.parametrize("query", ["", "?at=", "?at=-1", "?at=1e3", "?at=1000000000000", "?at=0&more=1"])
def test_input_needs_its_place(client: Client, uuid: str, workspace: Workspace, query: str) -> None:
    check_problem(client.put(f"/session/{uuid}/exec/it/input{query}", data=b"x"), 400, "invalid_request")


def test_input_has_a_size(client: Client, uuid: str, workspace: Workspace) -> None:
    path = terminal(client, uuid, workspace, "stty raw -echo; echo ready; cat > typed")
    assert typed(client, path, 0, b"").json["input_bytes"] == 0
    check_problem(typed(client, path, 0, b"x" * 65_537), 413, "payload_too_large")
    assert 0 < typed(client, path, 0, b"x" * 65_536).json["input_bytes"] <= 65_536


WRONG_TERMINALS: list[dict[str, Any]] = [
    {"tty": {"rows": 0, "columns": 80}},
    {"tty": {"rows": 24}},
    {"tty": {"rows": 24, "columns": 1001}},
    {"tty": {"rows": 24, "columns": "80"}},
    {"tty": True},
    {"tty": TTY, "stdin": "in"},
    {"tty": TTY, "timeout": 86_401},
]


@pytest.mark.parametrize("wrong", WRONG_TERMINALS, ids=str)
def test_no_such_terminal(client: Client, uuid: str, workspace: Workspace, wrong: dict[str, Any]) -> None:
    check_problem(run(client, uuid, "true", **wrong), 400, "invalid_request")


def test_typing_wakes_nothing(client: Client, uuid: str, workspace: Workspace) -> None:
    """A sleep has ended the terminal: what is typed for it belongs nowhere."""
    path = terminal(client, uuid, workspace)
    workspace.sleep()
    check_problem(typed(client, path, 0, b"x"), 409, "asleep")
    check_problem(client.put(f"{path}/window", json=TTY), 409, "asleep")


@pytest.mark.settings(rate_limit_input="2/minute")
def test_typing_has_a_rate_of_its_own(client: Client, uuid: str, workspace: Workspace) -> None:
    path = terminal(client, uuid, workspace)
    answers = [typed(client, path, at, b"x") for at in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert client.get(path).status_code == 200
