"""The agent as a whole: a real process, a real socket, a stub model that speaks the real wire format."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.events import Events
from tests.model_server import Answer, ToolCall
from tests.unit.agent.fake_gateway import AGENT_SECRET, TOKEN
from tests.unit.agent.process import PATIENCE, ROOT, UUID, AgentProcess
from tests.waiting import wait_for

ASYNC = {"Prefer": "respond-async"}


def command(text):
    return Answer(tool_calls=(ToolCall("run_command", {"command": text}),))


def events_of(response):
    return Events(line.decode().rstrip("\n") for line in response)


def open_stream(agent, id_, message):
    connection = agent.connect()
    body = json.dumps({"id": id_, "message": message})
    headers = {"Authorization": f"Bearer {AGENT_SECRET}", "Accept": "text/event-stream"}
    connection.request("POST", "/chat", body, headers)
    return connection.getresponse()


def test_the_demo_sentence_makes_the_file_runs_it_and_answers(agent, model, gateway):
    """Two tool calls and an answer; the manager hears of each, in order, and of the outcome once."""
    agent.start()
    status, answer = agent.chat("m1", "create hello.py that prints hi and run it")
    assert status == 200 and answer["status"] == "processed"
    assert answer["response"]["text"].endswith("hi")
    assert answer["response"]["tool_calls"] == [{"name": "write_file", "ok": True}, {"name": "run_command", "ok": True}]
    assert answer["response"]["steps"] == 3
    assert (agent.folder / "hello.py").read_text() == "print('hi')\n"
    gateway.outcome("m1")
    kinds = [event["type"] for event in gateway.events if event["type"] != "token"]
    assert kinds == ["tool_call", "tool_result", "tool_call", "tool_result", "processed"]
    text = "".join(event["data"]["text"] for event in gateway.events if event["type"] == "token")
    assert text == answer["response"]["text"]


def test_it_calls_home_with_its_address_and_listens_there(agent, gateway):
    """Also when the manager doesn't know the session yet."""
    gateway.failures["/agent/v1/hello"].extend([404, 503])
    agent.environment |= {"POD_NAME": "pod-1"}
    agent.start()
    hello = gateway.hellos[0]
    assert hello["name"] == "pod-1" and hello["boot"] and hello["address"].startswith("http://127.0.0.1:")
    assert agent.call("GET", "/health")[1] == {"status": "ok", "busy": False, "version": "1"}


def test_nothing_heavy_is_imported_before_the_socket_is_open():
    """Waking takes as long as this; what it may cost is what these lists leave."""
    heavy = "{'flask', 'openai', 'waitress', 'logging', 'http.client', 'dataclasses', 'subprocess'}"
    code = f"import sys, app.agent.__main__; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, stdout=subprocess.PIPE, timeout=PATIENCE, check=True
    )
    assert done.stdout.strip() == b"[]"


def test_everything_but_health_wants_the_secret(agent):
    """No secret, a wrong one, the one the agent shows the gateway, another scheme: 401 as a problem document."""
    agent.start()
    assert agent.call("GET", "/health", headers={"Authorization": ""})[0] == 200
    for given in ("", "Bearer", "Bearer wrong", AGENT_SECRET, f"Basic {AGENT_SECRET}", f"Bearer {TOKEN}", "Bearer ü"):
        for method, path in (("POST", "/chat"), ("GET", "/history"), ("GET", "/activity"), ("POST", "/cancel")):
            headers = {"Authorization": given.encode("utf-8").decode("latin-1")}
            status, problem = agent.call(method, path, {} if method == "POST" else None, headers)
            assert status == 401 and problem["error"] == "unauthorized"


def test_what_is_malformed_is_refused(agent):
    """Each with its status and code, and without a turn."""
    agent.environment |= {"PROMPT_MAX_BYTES": "1000"}
    agent.start()
    for body, status, code in (
        (b"{", 400, "bad_request"),
        ([], 400, "bad_request"),
        ({"id": "m1"}, 400, "bad_request"),
        ({"id": "../x", "message": "x"}, 400, "bad_request"),
        ({"id": "m1", "message": "  "}, 400, "bad_request"),
        ({"id": "m1", "message": "ü" * 501}, 413, "message_too_large"),
        ({"id": "m1", "message": "x" * 100_000}, 413, "request_entity_too_large"),
    ):
        got, problem = agent.call("POST", "/chat", body)
        assert (got, problem["error"]) == (status, code)
    assert agent.call("GET", "/history?after=-1")[0] == 400
    assert agent.call("GET", "/nowhere")[1]["error"] == "not_found"
    assert agent.call("GET", "/chat")[0] == 405
    assert agent.history() == []


def test_the_same_id_is_one_turn(agent, model):
    """However often it is delivered, before, while and after it runs; another text is refused."""
    hold = threading.Event()
    model.script(Answer(text="one two", hold=hold))
    agent.start()
    assert agent.prompt("m1", "hello") == (202, {"id": "m1", "status": "accepted"})
    model.wait_for_requests(1)
    assert agent.prompt("m1", "hello")[0] == 202
    assert agent.call("POST", "/chat", {"id": "m1", "message": "other"})[1]["error"] == "message_id_reused"
    assert agent.call("POST", "/chat", {"id": "m1", "message": "hello"}, {"Prefer": "wait=0"})[0] == 202
    hold.set()
    status, answer = agent.chat("m1", "hello")
    assert status == 200 and answer["response"]["text"] == "one two"
    assert agent.prompt("m1", "hello") == (200, answer)
    assert len(model.requests) == 1


def test_an_answer_streams_while_the_model_is_still_at_it(agent, model):
    """The first word is here before the provider has sent its last; then the outcome, and the end."""
    hold = threading.Event()
    model.script(Answer(text="one two", hold=hold))
    agent.start()
    response = open_stream(agent, "m1", "hello")
    assert response.headers["Content-Type"].startswith("text/event-stream")
    events = events_of(response)
    assert next(events) == ("token", {"id": "m1", "text": "one "})
    assert not model.requests[0].finished.is_set()
    hold.set()
    rest = list(events)
    assert rest[0] == ("token", {"id": "m1", "text": "two"})
    assert rest[-1][0] == "processed" and rest[-1][1]["response"]["text"] == "one two"
    assert [kind for kind, _ in events_of(open_stream(agent, "m1", "hello"))] == ["processed"]


def test_a_client_that_goes_away_does_not_end_its_turn(agent, model, gateway):
    """The turn belongs to the conversation, not to the connection."""
    hold = threading.Event()
    model.script(Answer(text="one two", hold=hold))
    agent.start()
    response = open_stream(agent, "m1", "hello")
    next(events_of(response))
    response.close()
    hold.set()
    assert gateway.outcome("m1")["data"]["response"]["text"] == "one two"


def test_prompts_are_worked_off_in_their_order(agent, gateway):
    """One at a time, as they were accepted."""
    agent.start()
    for n in range(10):
        assert agent.prompt(f"m{n}", f"remember {n}")[0] == 202
    gateway.outcome("m9")
    assert [m["content"] for m in agent.history()] == [
        text for n in range(10) for text in (f"remember {n}", f"{n} noted")
    ]
    status, page = agent.call("GET", "/history?after=17&limit=2")
    assert page["total"] == 20 and [m["id"] for m in page["messages"]] == ["m8", "m9"]


def test_activity_says_what_runs(agent, model):
    """And when something last began and ended."""
    hold = threading.Event()
    model.script(Answer(text="one two", hold=hold))
    agent.start()
    idle = agent.call("GET", "/activity")[1]
    assert idle == {"busy": False, "turn": None, "last_prompt_at": None, "last_finished_at": None, "queued": 0}
    agent.prompt("m1", "hello")
    agent.prompt("m2", "hello")
    model.wait_for_requests(1)
    busy = agent.call("GET", "/activity")[1]
    assert busy["busy"] and busy["turn"]["id"] == "m1" and busy["turn"]["step"] == 1 and busy["queued"] == 1
    hold.set()
    assert agent.chat("m2", "hello")[0] == 200
    done = agent.call("GET", "/activity")[1]
    assert done["last_prompt_at"] and done["last_finished_at"] and done["queued"] == 0


def test_cancel_ends_a_stream_and_a_command(agent, model, gateway):
    """By sleep no other prompt begins or is taken; the message says why it has no answer."""
    model.script(Answer(text="one two", hold=threading.Event()), command("touch here; sleep 1000"))
    agent.start()
    assert agent.call("POST", "/cancel", {"reason": "user"})[1] == {"cancelled": None}
    agent.prompt("m1", "hello")
    model.wait_for_requests(1)
    assert agent.call("POST", "/cancel", {"reason": "user"})[1] == {"cancelled": "m1"}
    cut = gateway.outcome("m1")["data"]
    assert (cut["reason"], cut["code"]) == ("Cancelled by the user.", "user")
    agent.prompt("m2", "hello")
    agent.prompt("m3", "hello")
    wait_for((agent.folder / "here").exists, "the command runs")
    assert agent.call("POST", "/cancel", {"reason": "sleep"})[1] == {"cancelled": "m2"}
    assert gateway.outcome("m2")["data"]["reason"] == "The workspace was put to sleep while this ran."
    status, problem = agent.prompt("m4", "hello")
    assert status == 503 and problem["error"] == "closing"
    assert agent.prompt("m3", "hello")[0] == 202
    assert agent.terminate() == 0
    assert not gateway.terminal("m3")
    agent.start()
    assert gateway.outcome("m3")["type"] == "processed"


def test_a_sleep_that_is_broken_off_puts_no_prompt_off(agent, model):
    """While it stands, prompts are put off; once it is known that the workspace goes on, they run. Its late cancel
    does nothing."""
    agent.start()
    assert agent.call("POST", "/cancel", {"reason": "sleep", "generation": 2})[0] == 200
    assert agent.prompt("m1", "hello")[1]["error"] == "closing"
    assert agent.call("POST", "/resume", {"generation": 3}) == (200, {})
    assert agent.chat("m1", "remember 1")[1]["status"] == "processed"
    assert agent.call("POST", "/cancel", {"reason": "sleep", "generation": 2})[1] == {"cancelled": None}
    assert agent.chat("m2", "remember 2")[1]["status"] == "processed"
    for path in ("/cancel", "/resume"):
        assert agent.call("POST", path, {"reason": "sleep", "generation": "two"})[0] == 400


def test_a_cancel_while_the_conversation_is_loaded_pauses_too(agent, gateway):
    """Else the turn it is about would begin right after."""
    gateway.failures["/agent/v1/checkpoint"].extend([503] * 100_000)
    agent.start()
    assert agent.call("POST", "/cancel", {"reason": "sleep", "generation": 2})[1] == {"cancelled": None}
    gateway.failures["/agent/v1/checkpoint"].clear()
    wait_for(lambda: agent.call("GET", "/history")[0] == 200, "the conversation is loaded")
    assert agent.prompt("m1", "hello")[1]["error"] == "closing"


def test_killed_in_the_midst_of_an_answer_it_asks_again_and_nothing_else(agent, model, gateway):
    """The prompt isn't put a second time, the tool isn't run a second time."""
    model.script(command("echo ran >> log"), Answer(text="one two", hold=threading.Event()))
    agent.start()
    agent.prompt("m1", "hello")
    model.wait_for_requests(2)
    agent.kill()
    model.script(Answer(text="fine"))
    agent.start()
    assert gateway.outcome("m1")["data"]["response"]["text"] == "fine"
    assert (agent.folder / "log").read_text() == "ran\n"
    assert [m["role"] for m in agent.history()] == ["user", "assistant", "tool", "assistant"]
    assert len(gateway.terminal("m1")) == 1


def test_killed_while_a_command_runs_the_command_ends_too(agent, model, gateway):
    """Nobody would read its output; the model is told that it was interrupted, and it is not run again."""
    model.script(command("echo ran >> log; exec python3 -c 'import time; time.sleep(1000)' mark-of-this-test"))
    agent.start()
    agent.prompt("m1", "hello")
    wait_for((agent.folder / "log").exists, "the command runs")
    agent.kill()
    model.script(Answer(text="fine"))
    agent.start()
    assert gateway.outcome("m1")["type"] == "processed"
    result = model.requests[-1].messages[-1]
    assert result["role"] == "tool" and result["content"].startswith("interrupted")
    assert (agent.folder / "log").read_text() == "ran\n"
    wait_for(lambda: not running("mark-of-this-test"), "the command ended")


def test_a_command_that_kills_agent_and_runner_is_ended_by_the_next_agent(agent, model, gateway):
    """As when every Python program is killed: nobody watched over it meanwhile."""
    runner = agent.folder / "runner"
    model.script(command("touch here; sleep 1000 & echo $! > pid; echo $PPID > runner; wait"))
    agent.start()
    agent.prompt("m1", "hello")
    wait_for(lambda: runner.exists() and runner.read_text().strip(), "the command runs")
    os.kill(agent.pid, signal.SIGSTOP)
    os.kill(int(runner.read_text()), signal.SIGKILL)
    agent.kill()
    sleeper = Path("/proc") / (agent.folder / "pid").read_text().strip()
    assert sleeper.exists()
    model.script(Answer(text="fine"))
    agent.start()
    assert gateway.outcome("m1")["type"] == "processed"
    wait_for(lambda: not sleeper.exists(), "the command ended")


def running(mark):
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes():
                    return True
            except OSError:
                continue
    return False


def test_sigterm_lets_the_turn_rest_and_saves_a_checkpoint(agent, model, gateway):
    """The command is ended and says so; the next process goes on; the manager has the whole conversation."""
    model.script(command("echo begun; touch here; sleep 1000"))
    agent.start()
    agent.prompt("m1", "hello")
    wait_for((agent.folder / "here").exists, "the command runs")
    assert agent.terminate() == 0
    assert [m["role"] for m in gateway.checkpoint["history"]] == ["user", "assistant", "tool"]
    assert (
        gateway.checkpoint["history"][-1]["content"]
        == "begun\n[interrupted because the turn was stopped: look how far it came before doing it again]"
    )
    assert not gateway.terminal("m1")
    model.script(Answer(text="fine"))
    agent.start()
    assert gateway.outcome("m1")["data"]["response"]["text"] == "fine"


def test_a_volume_without_a_conversation_gets_the_managers(agent, gateway, tmp_path):
    """Prompts wait until it is known; then the conversation goes on with all it knew."""
    agent.start()
    agent.chat("m1", "remember 17")
    assert agent.terminate() == 0
    other = tmp_path / "other"
    other.mkdir()
    gateway.failures["/agent/v1/checkpoint"].extend([500] * 3)
    fresh = AgentProcess(gateway, other)
    try:
        fresh.start()
        wait_for(lambda: fresh.call("GET", "/history")[0] == 200, "the conversation is loaded")
        assert [m["content"] for m in fresh.history()] == ["remember 17", "17 noted"]
        assert fresh.prompt("m1", "remember 17")[0] == 200
        assert fresh.chat("m2", "how many prompts did I send?")[1]["response"]["text"] == "2 prompts"
    finally:
        fresh.close()


def test_while_the_conversation_is_being_loaded_prompts_are_put_off(agent, gateway):
    """503 with Retry-After; the agent is healthy meanwhile, and has forgotten nothing it was never told."""
    gateway.failures["/agent/v1/checkpoint"].extend([503] * 100_000)
    agent.start()
    status, problem = agent.prompt("m1", "hello")
    assert status == 503 and problem["error"] == "loading"
    assert agent.call("GET", "/health")[0] == 200
    gateway.failures["/agent/v1/checkpoint"].clear()
    wait_for(lambda: agent.prompt("m1", "hello")[0] in (200, 202), "the prompt is taken")


def test_a_gateway_that_fails_for_a_while_loses_nothing(agent, model, gateway):
    """Neither a step nor the report of the outcome; also over a restart of the agent."""
    gateway.failures["/llm"].extend([500, 503])
    gateway.failures["/agent/v1/events"].extend([503] * 100_000)
    agent.start()
    assert agent.chat("m1", "remember 1")[1]["response"]["text"] == "1 noted"
    agent.kill()
    gateway.failures["/agent/v1/events"].clear()
    agent.start()
    assert gateway.outcome("m1")["data"]["response"]["text"] == "1 noted"
    assert len(gateway.terminal("m1")) == 1


def test_instructions_of_the_project_reach_the_model(agent, model):
    """AGENTS.md in the workspace, as it is when the prompt comes; a link out of it isn't followed."""
    agent.start()
    (agent.folder / "AGENTS.md").write_text("Always answer in French.")
    agent.chat("m1", "hello")
    assert "Always answer in French." in model.requests[-1].messages[0]["content"]
    (agent.folder / "AGENTS.md").unlink()
    (agent.folder / "AGENTS.md").symlink_to("/etc/passwd")
    agent.chat("m2", "hello")
    assert "root:" not in model.requests[-1].messages[0]["content"]


def test_a_command_finds_no_secret_and_no_log_holds_one(agent, model, gateway):
    """Neither the session's secret nor the way to it is in its environment; no prompt or answer in the log."""
    agent.start()
    answer = agent.chat("m1", "run: env; cat /proc/self/environ")[1]
    assert "WORKSPACE_UUID" in answer["response"]["text"]
    for hidden in (TOKEN, AGENT_SECRET, "AGENT_TOKEN_FILE", "GATEWAY_URL"):
        assert hidden not in answer["response"]["text"]
    model.script(Answer(status=500), Answer(text="a secret answer"))
    agent.chat("m2", "a secret prompt")
    agent.terminate()
    log = agent.log.read_text()
    assert "secret" not in log and TOKEN not in log and "env;" not in log


@pytest.mark.parametrize("missing", ["WORKSPACE_DIR", "AGENT_TOKEN_FILE", "WORKSPACE_UUID"])
def test_without_what_it_needs_it_says_so_and_ends(agent, missing):
    """One line, no traceback."""
    del agent.environment[missing]
    done = subprocess.run(
        [sys.executable, "-m", "app.agent"],
        env=agent.environment,
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.decode() == f"The agent can't start: {missing} is not set\n"


def test_it_ends_with_nothing_left_over(agent, gateway):
    """SIGTERM right after the start, and when idle: status 0, no process, the port free."""
    agent.start()
    assert agent.terminate() == 0
    agent.start()
    agent.chat("m1", "remember 1")
    pid = agent.pid
    assert agent.terminate() == 0
    with pytest.raises(ConnectionRefusedError):
        agent.call("GET", "/health")
    assert not os.path.exists(f"/proc/{pid}")


def test_its_paths_are_served_below_the_sessions_own_path_too(agent):
    """An ingress leads that path of the API's host here. Another session's is none of ours; the secret is needed."""
    agent.start()
    assert agent.call("GET", f"/chat/{UUID}/health", headers={"Authorization": ""})[0] == 200
    assert agent.call("GET", f"/chat/{UUID}/history")[1] == {"messages": [], "total": 0}
    assert agent.call("GET", f"/chat/{UUID}/history", headers={"Authorization": ""})[0] == 401
    assert agent.call("POST", f"/chat/{UUID}/chat", {"id": "m1", "message": "hello"})[1]["status"] == "processed"
    for path in (
        f"/chat/{UUID}",
        f"/chat/{UUID}history",
        "/chat/zzzz9999/history",
        f"/chat/{UUID}/chat/{UUID}/history",
    ):
        assert agent.call("GET", path)[0] in (404, 405)
