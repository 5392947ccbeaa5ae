"""sessionctl's commands on commands, as a program of its own, over HTTP, with a real agent behind the service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import IO

import pytest
from flask import Flask
from werkzeug.serving import make_server

from tests.conftest import ROOT
from tests.unit.api.helpers import ADMIN_KEY
from tests.unit.api.real_agent import Workspace
from tests.waiting import PATIENCE
from workspaces import Workspaces

Program = Callable[..., subprocess.Popen[bytes]]
"""Starts sessionctl with these arguments."""

PROGRAM = """
import signal
# Who was started in the background ignores SIGINT, and so does what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
from workspaces.cli.app import main
main()
"""


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    """Where the service answers."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def sessionctl(url: str) -> Iterator[Program]:
    path = str(ROOT / "clients/python")
    variables = {**os.environ, "API_URL": url, "API_KEY": ADMIN_KEY, "PYTHONPATH": path, "COLUMNS": "200"}
    begun: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, stdin: int | IO[bytes] = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        pipe = subprocess.PIPE
        begun.append(subprocess.Popen(command, env=variables, stdin=stdin, stdout=pipe, stderr=pipe))
        return begun[-1]

    yield begin
    for each in begun:
        each.kill()
        each.communicate()


def end(program: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    """The code that it ends with, and what else it prints."""
    out, err = program.communicate(timeout=PATIENCE)
    return program.returncode, out, err


def first_line(program: subprocess.Popen[bytes]) -> bytes:
    assert program.stdout is not None
    return program.stdout.readline()


def test_a_commands_input_output_and_code_are_passed_on(
    sessionctl: Program, uuid: str, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "input").write_bytes("ü\r\n".encode())
    with (tmp_path / "input").open("rb") as file:
        running = sessionctl("run", uuid, "--stdin", "cat; echo no >&2; exit 7", stdin=file)
    assert end(running) == (7, "ü\r\n".encode(), b"no\n")


def test_what_a_detached_command_writes_is_read_later(sessionctl: Program, uuid: str, workspace: Workspace) -> None:
    waits = r"while [ ! -e go ]; do sleep 0.01; done"
    code, out, _ = end(sessionctl("run", uuid, "--detach", rf"echo begun; {waits}; printf '\377end'"))
    exec_id = out.decode().strip()
    following = sessionctl("logs", uuid, exec_id, "-f")
    assert (code, first_line(following)) == (0, b"begun\n")
    (workspace.app / "go").touch()
    assert end(following) == (0, "\N{REPLACEMENT CHARACTER}end".encode(), b"")
    assert end(sessionctl("logs", uuid, exec_id)) == (0, b"begun\n\xffend", b"")


def test_ctrl_c_reaches_the_command_and_a_second_one_leaves_it(
    sessionctl: Program, uuid: str, workspace: Workspace
) -> None:
    traps = "trap 'echo caught' INT; echo up; while :; do sleep 0.01; done"
    running = sessionctl("run", uuid, "--id", "it", traps)
    assert first_line(running) == b"up\n"
    running.send_signal(signal.SIGINT)
    assert first_line(running) == b"caught\n"
    running.send_signal(signal.SIGINT)
    code, _, told = end(running)
    assert (code, f"sessionctl logs {uuid} it -f" in told.decode()) == (130, True)
    code, out, _ = end(sessionctl("kill", uuid, "it"))
    assert (code, b"killed" in out) == (0, True)


def test_a_command_that_ctrl_c_ends_has_its_code(sessionctl: Program, uuid: str, workspace: Workspace) -> None:
    running = sessionctl("run", uuid, "echo up; exec sleep 1000")
    assert first_line(running) == b"up\n"
    running.send_signal(signal.SIGINT)
    assert end(running)[:2] == (130, b"")


def test_a_long_output_is_read_whole(url: str, uuid: str, workspace: Workspace) -> None:
    with Workspaces(url, ADMIN_KEY) as client:
        found = client.execs.run(uuid, "head -c 3000000 /dev/zero", wait=PATIENCE)
        assert found.truncated
        assert sum(map(len, client.execs.output(uuid, found.exec_id, "stdout"))) == 3_000_000


def test_a_detached_command_is_waited_for(url: str, uuid: str, workspace: Workspace) -> None:
    with Workspaces(url, ADMIN_KEY) as client:
        begun = client.execs.run(uuid, "while [ ! -e go ]; do sleep 0.01; done; exit 3", detach=True)
        assert begun.running
        (workspace.app / "go").touch()
        assert client.execs.wait_until_ended(uuid, begun.exec_id, timeout=PATIENCE).exit_code == 3
