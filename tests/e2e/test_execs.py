"""Commands in workspaces of one machine (the suite is tests/suites/execs.py), and what is killed under them."""

from __future__ import annotations

import psutil

from tests.conversation import ASYNC, Conversation
from tests.service import Service
from tests.suites.execs import Execs, look, run
from tests.waiting import wait_for


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
