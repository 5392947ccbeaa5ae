"""Commands in workspaces of one machine (the suite is tests/suites/execs.py), and what is killed under them."""

from __future__ import annotations

import psutil
import pytest

from tests.conversation import ASYNC, Conversation
from tests.service import Service
from tests.suites.execs import Execs, Terminal, look, run
from tests.waiting import wait_for
from workspaces import NoTerminal


class TestExecsLocally(Execs):
    """The whole service, as scripts/run starts it."""


def test_a_killed_agent_leaves_no_command_and_says_that_it_is_lost(service: Service, chat: Conversation) -> None:
    """The next agent knows of it, runs it not again, and runs others."""
    command = "echo $$; exec sleep 1000"
    begun = run(chat, command, ASYNC, id="it")
    pid = int(wait_for(lambda: look(chat, "it")["stdout"], "the command begins"))
    (agent,) = service.processes("app.agent", WORKSPACE_UUID=chat.uuid)
    agent.kill()
    agent.wait()
    told = run(chat, command, id="it")
    assert (told["state"], told["reason"], told["stdout"]) == ("exited", "lost", f"{pid}\n")
    assert told["started_at"] == begun["started_at"]
    assert not psutil.pid_exists(pid)
    assert run(chat, "echo alive")["stdout"] == "alive\n"


def test_a_killed_web_process_ends_no_command(service: Service, chat: Conversation) -> None:
    """Whoever repeats the call with its id gets the end of the same run."""
    run(chat, "echo x >> count; while [ ! -e go ]; do sleep 0.05; done; echo done", ASYNC, id="it")
    chat.wait_file("count")
    killed = service.kill("web")
    chat.inside("touch go")
    service.wait_for_web(killed)
    told = run(chat, "echo x >> count; while [ ! -e go ]; do sleep 0.05; done; echo done", id="it")
    assert (told["exit_code"], told["stdout"]) == (0, "done\n")
    assert chat.inside("cat count") == "x\n"


def test_a_killed_web_process_ends_no_terminal_and_no_key_is_typed_twice(service: Service, chat: Conversation) -> None:
    terminal = Terminal(chat, "stty -echo; echo ready; cat > typed")
    terminal.shows("ready")
    terminal.type("one\n")
    killed = service.kill("web")
    service.wait_for_web(killed)
    for piece, at in ((b"one\n", 0), (b"two\n", 4), (b"two\n", 4), (b"\x04", 8)):
        assert terminal.calls.write_input(chat.uuid, "it", piece, at=at).input_bytes == at + len(piece)
    assert look(chat, "it", "wait=60")["exit_code"] == 0
    assert chat.inside("cat typed") == "one\ntwo\n"


def test_a_killed_agent_ends_a_terminal_and_says_so(service: Service, chat: Conversation) -> None:
    terminal = Terminal(chat, "echo $$; exec bash --norc")
    terminal.shows("\r\n")
    pid = int(terminal.text().split()[0])
    (agent,) = service.processes("app.agent", WORKSPACE_UUID=chat.uuid)
    agent.kill()
    agent.wait()
    wait_for(lambda: look(chat, "it")["state"] == "exited", "the next agent")
    assert look(chat, "it")["reason"] == "lost"
    assert not psutil.pid_exists(pid)
    with pytest.raises(NoTerminal):
        terminal.calls.write_input(chat.uuid, "it", b"x", at=0)
