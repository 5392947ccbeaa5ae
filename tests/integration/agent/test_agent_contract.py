"""What holds of any agent, by docs/own-agent.md: the service's own, the example, and the one that AGENT_PROGRAM names
when these tests are run with it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.model_server import Answer, ModelServer, ToolCall
from tests.unit.agent.fake_gateway import AGENT_SECRET, TOKEN, FakeGateway
from tests.unit.agent.process import ROOT, AgentProcess
from tests.waiting import wait_for

EXAMPLE = f"{sys.executable} -I {ROOT / 'docs' / 'own-image' / 'agent.py'}"

AGENTS = {"own": "", "example": EXAMPLE} | ({"yours": given} if (given := os.environ.get("AGENT_PROGRAM")) else {})


@pytest.fixture(params=[pytest.param(program, id=name) for name, program in AGENTS.items()])
def program(request: pytest.FixtureRequest) -> str:
    """The command line of the agent that is tested, "" for the service's own."""
    return str(request.param)


@pytest.fixture
def agent(gateway: FakeGateway, tmp_path: Path, program: str) -> Iterator[AgentProcess]:
    """One with this program, which isn't started yet."""
    process = AgentProcess(gateway, tmp_path, AGENT_PROGRAM=program)
    yield process
    process.close()


def writes(name: str, content: str) -> Answer:
    return Answer(tool_calls=(ToolCall("run_command", {"command": written(name, content)}),))


def written(name: str, content: str) -> str:
    """The command that writes a file."""
    return f"printf %s {content} >{name}"


def processes(agent: AgentProcess, named: str = "") -> list[int]:
    """The processes below the agent's own, whose command line has this in it."""
    found = []
    for child in psutil.Process(agent.pid).children():
        with suppress(psutil.Error):  # it has ended
            if named in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


def lasting(agent: AgentProcess, program: str) -> list[int]:
    """The processes below the agent's own once those of a turn have ended: what works on prompts."""
    wait_for(lambda: len(processes(agent)) == (1 if program else 0), "only what works on prompts runs")
    return processes(agent)


# What it is told, and what it answers


def test_a_prompt_is_answered_and_its_work_is_told(
    agent: AgentProcess, model: ModelServer, gateway: FakeGateway
) -> None:
    model.script(writes("hello.txt", "hi"), Answer(text="hello.txt says hi"))
    agent.start()
    status, answer = agent.chat("m1", "write hello.txt")
    assert (status, answer["status"]) == (200, "processed")
    assert answer["response"]["text"] == "hello.txt says hi"
    assert answer["response"]["tool_calls"] == [{"name": "run_command", "ok": True}]
    assert answer["response"]["steps"] == 2
    assert (agent.folder / "hello.txt").read_text() == "hi"
    gateway.outcome("m1")
    told = [event for event in gateway.events if event["type"] != "token"]
    assert [event["type"] for event in told] == ["tool_call", "tool_result", "processed"]
    assert told[0]["data"]["arguments"] == {"command": written("hello.txt", "hi")}
    assert told[0]["data"]["call_id"] == told[1]["data"]["call_id"]
    tokens = [event["data"]["text"] for event in gateway.events if event["type"] == "token"]
    assert "".join(tokens) == "hello.txt says hi"
    assert [message["role"] for message in agent.history()] == ["user", "assistant", "tool", "assistant"]


def test_an_answer_streams_while_the_model_is_still_at_it(
    agent: AgentProcess, model: ModelServer, gateway: FakeGateway
) -> None:
    hold = threading.Event()
    model.script(Answer(text="one two three", hold=hold))
    agent.start()
    agent.prompt("m1", "count")
    gateway.wait(lambda: any(event["type"] == "token" for event in gateway.events))
    assert not gateway.terminal("m1")
    hold.set()
    assert gateway.outcome("m1")["data"]["response"]["text"] == "one two three"


def test_a_prompt_is_told_what_was_said_before(agent: AgentProcess) -> None:
    """By another process too: the conversation is no matter of the agent's memory."""
    agent.start()
    agent.chat("m1", "remember 17")
    assert agent.chat("m2", "how many prompts did I send?")[1]["response"]["text"] == "2 prompts"
    assert agent.terminate() == 0
    agent.start()
    assert agent.chat("m3", "how many prompts did I send?")[1]["response"]["text"] == "3 prompts"


def test_a_prompt_without_an_answer_fails_with_a_reason(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.failures["/llm"].append(403)
    agent.start()
    answer = agent.chat("m1", "hello")[1]
    assert answer["status"] == "failed" and answer["reason"] and answer["code"]
    assert agent.chat("m2", "remember 3")[1]["response"]["text"] == "3 noted", "the next one is not harmed"


# How it takes a prompt once


def test_a_prompt_is_taken_once(agent: AgentProcess, model: ModelServer, gateway: FakeGateway) -> None:
    agent.start()
    agent.prompt("m1", "remember 4")
    gateway.outcome("m1")
    assert agent.prompt("m1", "remember 4")[1]["response"]["text"] == "4 noted"
    assert agent.prompt("m1", "remember 5")[0] == 422
    assert len(model.requests) == 1
    assert len(gateway.terminal("m1")) == 1


def test_prompts_are_worked_on_in_their_order(agent: AgentProcess, gateway: FakeGateway) -> None:
    agent.start()
    for number in range(1, 6):
        agent.prompt(f"m{number}", f"remember {number}")
    gateway.outcome("m5")
    ended = [event["message_id"] for event in gateway.events if event["type"] == "processed"]
    assert ended == ["m1", "m2", "m3", "m4", "m5"]


def test_killed_it_goes_on_from_its_last_step(agent: AgentProcess, model: ModelServer, gateway: FakeGateway) -> None:
    """It knows of each call that it began, although it may not know how that ended; the prompt ends once."""
    model.script(writes("a.txt", "1"), Answer(text="one two", hold=threading.Event()))
    agent.start()
    agent.prompt("m1", "write a.txt")
    model.wait_for_requests(2)
    agent.kill()
    (agent.folder / "a.txt").unlink()
    model.script(Answer(text="fine"))
    agent.start()
    assert gateway.outcome("m1")["data"]["response"]["text"] == "fine"
    told = [message for message in model.requests[-1].messages if message["role"] != "system"]
    assert [message["role"] for message in told] == ["user", "assistant", "tool"]
    assert not (agent.folder / "a.txt").exists()
    assert len(gateway.terminal("m1")) == 1


def test_a_sleep_lets_the_turn_rest(agent: AgentProcess, model: ModelServer, gateway: FakeGateway) -> None:
    """SIGTERM is no failure of a prompt: the next process goes on with it."""
    model.script(writes("a.txt", "1"), Answer(text="one two", hold=threading.Event()))
    agent.start()
    agent.prompt("m1", "write a.txt")
    model.wait_for_requests(2)
    assert agent.terminate() == 0
    assert not gateway.terminal("m1")
    model.script(Answer(text="fine"))
    agent.start()
    assert gateway.outcome("m1")["data"]["response"]["text"] == "fine"
    assert (agent.folder / "a.txt").read_text() == "1"


def test_what_a_prompt_did_is_undone(agent: AgentProcess, model: ModelServer) -> None:
    (agent.folder / "a.txt").write_text("before")
    agent.start()
    agent.chat("m1", "remember 1")
    model.script(writes("a.txt", "after"), Answer(text="done"))
    agent.chat("m2", "change a.txt")
    assert (agent.folder / "a.txt").read_text() == "after"
    status, undone = agent.call("POST", "/checkpoints/m2/restore", {})
    assert (status, undone["messages_cut"]) == (200, ["m2"])
    assert (agent.folder / "a.txt").read_text() == "before"
    assert agent.chat("m3", "how many prompts did I send?")[1]["response"]["text"] == "2 prompts"


# What ends it


@pytest.mark.parametrize(("reason", "code"), [("user", "user"), ("sleep", "sleep")])
def test_a_cancel_ends_a_turn(
    agent: AgentProcess, model: ModelServer, gateway: FakeGateway, reason: str, code: str
) -> None:
    model.script(Answer(text="one two three", hold=threading.Event()))
    agent.start()
    agent.prompt("m1", "count")
    gateway.wait(lambda: any(event["type"] == "token" for event in gateway.events))
    assert agent.call("POST", "/cancel", {"reason": reason, "generation": 1})[1] == {"cancelled": "m1"}
    outcome = gateway.outcome("m1")["data"]
    assert outcome["code"] == code
    told = "".join(event["data"]["text"] for event in gateway.events if event["type"] == "token")
    assert outcome["response"]["text"] == told, "what the user has read of the answer stays"
    assert agent.history()[-1]["content"] == told
    agent.call("POST", "/resume", {"generation": 1})
    assert agent.chat("m2", "remember 2")[1]["response"]["text"] == "2 noted"


def test_a_turn_ends_by_its_time(agent: AgentProcess, model: ModelServer, gateway: FakeGateway) -> None:
    model.script(Answer(text="one two three", hold=threading.Event()))
    agent.environment["AGENT_TURN_TIMEOUT"] = "1"
    agent.start()
    assert agent.chat("m1", "count")[1]["code"] == "turn_timeout"


def test_a_turn_ends_by_its_steps(agent: AgentProcess, model: ModelServer) -> None:
    model.script(*[writes("a.txt", str(number)) for number in range(9)])
    agent.environment["AGENT_MAX_STEPS"] = "3"
    agent.start()
    assert agent.chat("m1", "go in circles")[1]["code"] == "step_limit"
    assert [message["role"] for message in agent.history()].count("assistant") == 4, "three steps and the failure"


def test_it_ends_with_nothing_left_over(agent: AgentProcess, program: str) -> None:
    agent.start()
    agent.chat("m1", "remember 1")
    below = lasting(agent, program)
    assert agent.terminate() == 0
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), "its program ended")


@pytest.mark.parametrize("program", ["sleep 1000"], indirect=True)
def test_a_program_that_outlives_a_killed_agent_is_ended_by_the_next(agent: AgentProcess) -> None:
    """It does not notice that nobody talks to it any more."""
    agent.start()
    agent.prompt("m1", "hello")
    [left] = wait_for(lambda: processes(agent, "sleep"), "the program runs")
    agent.kill()
    assert Path(f"/proc/{left}").exists()
    agent.start()
    wait_for(lambda: not Path(f"/proc/{left}").exists(), "it ended")


@pytest.mark.parametrize("program", ["sleep 1000"], indirect=True)
def test_a_program_ends_with_an_agent_that_never_had_its_conversation(
    agent: AgentProcess, gateway: FakeGateway
) -> None:
    gateway.failures["/agent/v1/checkpoint"].extend([503] * 100_000)
    agent.start()
    [left] = wait_for(lambda: processes(agent, "sleep"), "the program is started for the first prompt")
    assert agent.terminate() == 0
    wait_for(lambda: not Path(f"/proc/{left}").exists(), "it ended")


# Secrets


def test_no_secret_is_in_an_environment_or_a_log(agent: AgentProcess, program: str) -> None:
    """Any process of the same user can read an environment."""
    agent.start()
    agent.chat("m1", "remember 1")
    for pid in (agent.pid, *lasting(agent, program)):
        shown = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
        assert TOKEN.encode() not in shown and AGENT_SECRET.encode() not in shown
    log = agent.log.read_text()
    assert TOKEN not in log and AGENT_SECRET not in log and "remember 1" not in log
