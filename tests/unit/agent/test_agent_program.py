"""A program that works on prompts: whatever it writes, does or leaves undone, each prompt comes to one end."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.agent import program_worker, run
from app.agent.compaction import estimate
from app.agent.model_context import INTERRUPTED, NOT_RUN, open_calls
from app.agent.program import LINE_BYTES, Program
from app.agent.program_answer import NO_RESULT
from app.agent.program_worker import ProgramWorker, conversation, mark_of, program_environment, program_of
from app.agent.protocol import Event
from app.agent.settings import AgentSettings
from app.agent.steps import Steps
from app.agent.tools.orphans import marked_processes
from app.agent.turn import Stopping
from app.agent.turns import RESUMES, Turns
from tests.unit.agent.fakes import opened
from tests.unit.agent.process import UUID
from tests.unit.landlock import hides
from tests.waiting import wait_for

HEAD = """
import json, os, signal, subprocess, sys, time
def tell(kind, **more):
    print(json.dumps({"type": kind, "id": prompt["id"], **more}), flush=True)
def call(id, **more):
    tell("tool_call", call_id=id, **more)
    go = json.loads(sys.stdin.readline())
    assert go == {"type": "go", "id": prompt["id"], "call_id": id}, go
"""

LOOP = "for prompt in map(json.loads, sys.stdin):\n    "


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_worker, "PAUSE", 0.0)


class World:
    """A conversation on disk, and turns that a program works on. The program is the text of a Python script, which
    notes what it is told in the file `told`."""

    def __init__(
        self, folder: Path, script: str = "", *, start: Callable[[], Any] | None = None, **limits: Any
    ) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.state = opened(folder, UUID)
        token = folder / "token"
        token.write_text("the-token\nthe-secret\n")
        (folder / "program.py").write_text(HEAD + script)
        self.settings = AgentSettings(
            UUID,
            folder / "app",
            folder / ".session",
            token,
            folder / "home",
            gateway_url="http://127.0.0.1:9",
            program=f"{sys.executable} -I -u {folder / 'program.py'} {folder}",
        )
        steps = Steps(self.state, self.events.append, limits.get("steps", 50))
        self.worker = ProgramWorker(
            start or (lambda: program_of(self.settings, {"PATH": os.environ["PATH"]})),
            lambda: conversation(self.state, limits.get("tokens", 40_000)),
            steps,
            before_tools=limits.get("before_tools", lambda stop: None),
        )
        self.turns = Turns(self.state, self.worker, steps, self.events.append, limits.get("seconds", 60.0))

    def run(self, *ids: str, text: str = "do it") -> list[dict[str, Any]]:
        """Have these prompts worked on; their outcomes."""
        for id_ in ids:
            self.state.accept(id_, text, limit=100)
        while self.turns.run_next():
            pass
        return [outcome for id_ in ids if (outcome := self.state.outcome(id_))]

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "told").read_text().splitlines()]

    def results(self) -> list[tuple[bool, str]]:
        return [(each["ok"], each["content"]) for each in self.state.history()[0] if each["role"] == "tool"]


NOTE = "open(sys.argv[1] + '/told', 'a').write(json.dumps(prompt) + '\\n')\n    "


Worlds = Callable[..., World]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Worlds]:
    made: list[World] = []

    def make(script: str = "", **more: Any) -> World:
        made.append(World(tmp_path, script, **more))
        return made[-1]

    yield make
    for each in made:
        each.worker.close()
    assert marked_processes(mark_of(UUID)) == []


# What it is told


def test_it_is_told_the_prompt_and_the_conversation_as_a_model_takes_it(world: Worlds) -> None:
    made = world(LOOP + NOTE + "tell('processed', response={'text': 'fine'})")
    made.run("m1", "m2")
    first, second = made.told()
    asked = {"role": "user", "content": "do it"}
    assert first == {"type": "prompt", "id": "m1", "message": "do it", "again": False, "messages": [asked]}
    assert second["messages"] == [asked, {"role": "assistant", "content": "fine"}, asked]


def test_a_long_conversation_is_shortened_for_it(world: Worlds) -> None:
    made = world(LOOP + NOTE + "tell('processed', response={'text': 'x' * 4_000})", tokens=3_000)
    made.run(*(f"m{number}" for number in range(12)), text="y" * 400)
    messages = made.told()[-1]["messages"]
    assert messages[0]["role"] == "system" and messages[0]["content"].startswith("# The conversation before this")
    assert estimate(messages) <= 3_000
    assert messages[-1] == {"role": "user", "content": "y" * 400}
    assert len(made.state.history()[0]) == 24, "the history has all of it"


def test_its_environment_has_no_secret_and_no_home_of_the_users(world: Worlds) -> None:
    """What is in the user's home would tell libraries what to do, in the process that reads the token."""
    kept = {"PATH": "/bin", "GOFLAGS": "-x"}
    hidden = {"HOME": "/workspace/home", "GATEWAY_URL": "http://g", "X": "the-token"}
    told = world().settings
    assert program_environment(told, kept | hidden) == kept | {
        "HOME": "/nonexistent",
        "WORKSPACE_UUID": UUID,
        "WORKSPACE_DIR": str(told.folder),
        "WORKSPACE_HOME": str(told.home),
        "LLM_BASE_URL": "http://127.0.0.1:9/llm/v1",
        "LLM_MODEL": "default",
        "AGENT_TOKEN_FILE": str(told.token_file),
        "AGENT_RUN": run.command_line(),
        "AGENT_COMMAND_TIMEOUT": "120",
        "AGENT_TURN_TIMEOUT": "900",
    }


# What it answers


def test_its_response_is_its_own_with_what_is_known_besides(world: Worlds) -> None:
    """The text is what was told since the last call, unless it says otherwise; usage is counted if it makes sense."""
    made = world(
        LOOP + "tell('token', text='first'); call('c', name='look', arguments={'at': 'a'}); "
        "tell('tool_result', call_id='c', ok=True, text='seen'); tell('token', text='no'); "
        "tell('token', text='ye', again=True); tell('token', text='s'); "
        "tell('processed', response={'usage': {'prompt_tokens': 7, 'completion_tokens': -1}, 'preview': 'http://x', "
        "'steps': 99})"
    )
    [outcome] = made.run("m1")
    assert outcome["response"] == {
        "text": "yes",
        "preview": "http://x",
        "steps": 2,
        "tool_calls": [{"name": "look", "ok": True}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7},
    }
    assert [message["content"] for message in made.state.history()[0]] == ["do it", "first", "seen", "yes"]
    assert [event.type for event in made.events] == [
        *("token", "tool_call", "tool_result", "token", "token", "token", "processed")
    ]


def test_what_is_no_event_is_ignored(world: Worlds) -> None:
    """A library's greeting, an event of a later version, a late word about the prompt before."""
    made = world(
        LOOP
        + "print('hello'); print('[1]'); print('{\"type\": NaN}'); print('[' * 100_000); tell('thought'); tell([]); "
        "print(json.dumps({'type': 'token', 'id': 'm0', 'text': 'late'})); tell('processed', response={'text': 'fine'})"
    )
    [outcome] = made.run("m1")
    assert outcome["response"]["text"] == "fine"
    assert [event.type for event in made.events] == ["processed"]


@pytest.mark.parametrize(
    ("event", "lacks"),
    [
        ({"type": "token", "id": "m1"}, "`text`"),
        ({"type": "token", "text": "x"}, "`id`"),
        ({"type": "token", "id": "m1", "text": 5}, "`text`"),
        ({"type": "tool_call", "id": "m1", "name": "x"}, "`call_id`"),
        ({"type": "tool_call", "id": "m1", "name": "x" * 129, "call_id": "c"}, "128"),
        ({"type": "tool_result", "id": "m1", "call_id": "c", "ok": True, "text": "x"}, "`tool_call` before it"),
        ({"type": "processed", "id": "m1"}, "`response`"),
        ({"type": "processed", "id": "m1", "response": {"text": 1}}, "`text`"),
        ({"type": "failed", "id": "m1"}, "`reason`"),
        ({"type": "token", "id": "m1", "text": "x" * (LINE_BYTES + 1)}, "bytes"),
    ],
)
def test_a_broken_contract_fails_the_prompt_and_says_how(world: Worlds, event: dict[str, Any], lacks: str) -> None:
    """The next prompt gets a new program."""
    broken = f"print({json.dumps(event)!r}, flush=True); time.sleep(1000)"
    made = world(LOOP + f"if prompt['id'] == 'm2': tell('processed', response={{}})\n    else: {broken}")
    outcome, after = made.run("m1", "m2")
    assert outcome["code"] == "internal"
    assert "broke its contract" in outcome["reason"] and lacks in outcome["reason"]
    assert after["status"] == "processed"


def test_a_call_without_a_result_gets_one(world: Worlds) -> None:
    """A model refuses a conversation in which one is missing."""
    made = world(
        LOOP + "call('c1', name='a'); call('c2', name='b', arguments='x'); tell('processed', response={'text': 'fine'})"
    )
    made.run("m1")
    told = [(each["role"], each.get("call_id", "")) for each in made.state.history()[0]]
    assert told == [("user", ""), *(("assistant", ""), ("tool", "c1")), *(("assistant", ""), ("tool", "c2")), told[1]]
    assert made.results() == [(False, NO_RESULT)] * 2


def test_a_call_is_carried_out_once_it_is_on_disk(world: Worlds) -> None:
    """And its prompt has an undo point: else a crash would have it done twice, and no undo would know of it."""
    seen: list[Any] = []

    def before(stop: Callable[[], bool]) -> None:
        kept = opened(made.folder, UUID)
        seen.append((kept.history()[0][-1]["tool_calls"][0]["call_id"], (made.folder / "done").exists()))
        kept.close()

    made = world(
        LOOP + "call('c', name='make'); open(sys.argv[1] + '/done', 'w').close(); "
        "tell('tool_result', call_id='c', ok=True, text='made'); tell('processed', response={})",
        before_tools=before,
    )
    [outcome] = made.run("m1")
    assert outcome["status"] == "processed"
    assert seen == [("c", False)]
    assert (made.folder / "done").exists()


def test_a_failure_has_its_reason_and_its_code(world: Worlds) -> None:
    made = world(LOOP + "tell('token', text='x'); tell('failed', reason='no more', code=prompt['message'])")
    [known] = made.run("m1", text="budget_exceeded")
    [unknown] = made.run("m2", text="made_up")
    assert (known["reason"], known["code"]) == ("no more", "budget_exceeded")
    assert unknown["code"] == "other"


@pytest.mark.parametrize(
    ("told", "counted"),
    [
        ("{'prompt_tokens': 7, 'completion_tokens': 2}", (7, 2)),
        ("{'prompt_tokens': -7, 'completion_tokens': True}", (0, 0)),
        ("'much'", (0, 0)),
    ],
)
def test_a_failure_has_what_was_told_and_spent_by_then(world: Worlds, told: str, counted: tuple[int, int]) -> None:
    made = world(
        LOOP + f"tell('token', text='I '); tell('token', text='try'); tell('failed', reason='no', usage={told})"
    )
    [outcome] = made.run("m1")
    usage = {"prompt_tokens": counted[0], "completion_tokens": counted[1], "total_tokens": sum(counted)}
    assert outcome["response"] == {"text": "I try", "steps": 1, "tool_calls": [], "usage": usage}


RUN = "subprocess.run(['sh', '-c', '$AGENT_RUN \"$0\"', prompt['message']], stdout=subprocess.PIPE, text=True)"

SHOW = "echo $HOME; env | grep -E 'AGENT_|LLM_|PYTHON|WORKSPACE_HOME'; pwd; cat ../hidden/token || echo hidden; exit 4"


@hides
def test_what_it_runs_for_the_model_is_kept_from_the_token(world: Worlds) -> None:
    """And runs as a command of the service's own agent does: in the project, at home with the user, in the end told."""
    made = world(LOOP + f"done = {RUN}; tell('processed', response={{'text': done.stdout, 'status': done.returncode}})")
    [folder, hidden] = made.settings.folder, made.folder / "hidden"
    folder.mkdir()
    hidden.mkdir()
    made.settings = made.settings._replace(token_file=made.settings.token_file.rename(hidden / "token"))
    [outcome] = made.run("m1", text=SHOW)
    assert outcome["response"]["status"] == 1
    told = [line for line in outcome["response"]["text"].splitlines() if "Permission denied" not in line]
    assert told == [str(made.settings.home), str(folder), "hidden", "[exit status 4]"]


@pytest.mark.parametrize(("arguments", "says"), [([], "usage"), (["a", "b"], "usage"), (["true"], "WORKSPACE_UUID")])
def test_the_wrong_use_of_it_is_told(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(arguments, {}) == 2
    assert says in capsys.readouterr().err


def test_a_cancel_ends_what_it_runs_for_the_model(world: Worlds) -> None:
    made = world(LOOP + f"{RUN}; time.sleep(1000)")
    made.settings.folder.mkdir()
    up = made.settings.folder / "up"
    outcome = cancelled(made, up.exists, text="sleep 1000 & touch up; wait")
    assert outcome["code"] == "user"
    wait_for(lambda: marked_processes(UUID) == [], "the command ended")


def test_what_it_runs_for_the_model_ends_with_it_whoever_ends_it(world: Worlds) -> None:
    """All of its group killed at once: nothing of the command is left, that nobody listens to any more."""
    made = world(
        LOOP + "open(sys.argv[1] + '/pid', 'w').write(str(os.getpid()))\n    "
        f"if prompt['again']: tell('processed', response={{}})\n    else: {RUN}"
    )
    made.settings.folder.mkdir()
    made.state.accept("m1", "sleep 1000 & touch up; wait", limit=100)
    runs = threading.Thread(target=made.run)
    runs.start()
    wait_for((made.settings.folder / "up").exists, "the command runs")
    os.killpg(int((made.folder / "pid").read_text()), signal.SIGKILL)
    runs.join(30)
    wait_for(lambda: marked_processes(UUID) == [], "the command ended")


# What becomes of one that ends


def test_one_that_ends_after_each_answer_is_started_for_the_next(world: Worlds) -> None:
    made = world("prompt = json.loads(input())\n" + NOTE.strip() + "\ntell('processed', response={'text': 'fine'})")
    outcomes = made.run(*(f"m{number}" for number in range(4)))
    assert [outcome["status"] for outcome in outcomes] == ["processed"] * 4


def test_one_that_ends_in_the_midst_is_told_how_far_it_was(world: Worlds) -> None:
    made = world(
        LOOP + NOTE + "if prompt['again']: tell('processed', response={'text': 'fine'})\n    "
        "else: call('c', name='make'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    [outcome] = made.run("m1")
    assert outcome["response"]["text"] == "fine"
    first, second = made.told()
    assert (first["again"], second["again"]) == (False, True)
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool"]
    assert second["messages"][-1]["content"] == INTERRUPTED


@pytest.mark.parametrize("end", ["sys.exit(3)", "os.close(1); time.sleep(1000)"])
def test_one_that_always_ends_or_closes_its_output_fails_the_prompt(world: Worlds, end: str) -> None:
    made = world(LOOP + NOTE + end)
    [outcome] = made.run("m1")
    assert outcome["code"] == "crashed"
    assert [each["again"] for each in made.told()] == [False] + [True] * RESUMES


def test_one_that_ends_after_each_step_is_ended_by_the_steps(world: Worlds) -> None:
    made = world(LOOP + "call('c', name='make'); sys.exit(3)", steps=4)
    [outcome] = made.run("m1")
    assert outcome["code"] == "step_limit"


@pytest.mark.parametrize("command", ["/nonexistent/agent", "'", "/"])
def test_one_that_cannot_be_started_fails_the_prompt(world: Worlds, command: str) -> None:
    made = world()
    made.settings = made.settings._replace(program=command)
    [outcome] = made.run("m1")
    assert outcome["code"] == "internal" and "can't be started" in outcome["reason"]
    made.worker.warm()


# What ends it


def cancelled(made: World, ready: Callable[[], bool], **prompt: str) -> dict[str, Any]:
    """The outcome of a prompt that is cancelled once `ready`."""
    made.state.accept("m1", prompt.get("text", "do it"), limit=100)
    runs = threading.Thread(target=made.run)
    runs.start()
    wait_for(ready, "it works")
    made.turns.cancel("user")
    runs.join(30)
    assert not runs.is_alive()
    outcome = made.state.outcome("m1")
    assert outcome is not None
    return outcome


def test_a_cancel_ends_it_with_all_that_it_started(world: Worlds) -> None:
    """Also what ignores SIGTERM, and what has left its group."""
    made = world(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        + LOOP
        + "subprocess.Popen(['sleep', '1000'], start_new_session=True); tell('token', text='x'); time.sleep(1000)"
    )
    outcome = cancelled(made, lambda: bool(made.events))
    assert outcome["code"] == "user"
    assert marked_processes(mark_of(UUID)) == []


def test_a_call_that_a_cancel_interrupts_may_have_come_far(world: Worlds) -> None:
    made = world(LOOP + "call('c', name='make'); tell('token', text='x'); time.sleep(1000)")
    cancelled(made, lambda: any(event.type == "token" for event in made.events))
    assert made.results() == [(False, INTERRUPTED)]


def test_a_call_that_a_cancel_comes_before_is_not_run(world: Worlds) -> None:
    waits = threading.Event()

    def before(stop: Callable[[], bool]) -> None:
        waits.set()
        wait_for(stop, "the cancel")

    made = world(LOOP + "call('c', name='make'); open(sys.argv[1] + '/done', 'w').close()", before_tools=before)
    cancelled(made, waits.is_set)
    assert made.results() == [(False, NOT_RUN)]
    assert not (made.folder / "done").exists()


def test_a_cancel_lets_it_put_its_things_in_order(world: Worlds) -> None:
    end = (
        "def end(*_):\n    open(sys.argv[1] + '/ended', 'w').close(); sys.exit()\nsignal.signal(signal.SIGTERM, end)\n"
    )
    made = world(end + LOOP + "tell('token', text='x'); time.sleep(1000)")
    cancelled(made, lambda: bool(made.events))
    assert (made.folder / "ended").exists()


def test_one_that_does_not_listen_can_be_cancelled(world: Worlds) -> None:
    """Its prompt is longer than the pipe to it holds."""
    made = world("open(sys.argv[1] + '/up', 'w').close(); time.sleep(1000)")
    outcome = cancelled(made, (made.folder / "up").exists, text="y" * 100_000)
    assert outcome["code"] == "user"


def test_one_that_ended_keeps_its_number_until_it_is_ended(tmp_path: Path) -> None:
    """Else a signal to its group could meet another's."""
    program = Program(["true"], {"PATH": os.environ["PATH"]}, mark_of(UUID))
    wait_for(lambda: not program.running, "it ended")
    assert Path(f"/proc/{program._process.pid}").exists()
    assert program.end() == 0
    assert not program.running


# Whatever it writes

NAMES = st.sampled_from(["m1", "m1", "m1", "m0", "c1", "c2", ""])
TEXTS = st.one_of(st.text(max_size=5), st.just("\ud800"), st.integers(), st.none(), st.just("m1"))
EVENTS = st.dictionaries(
    st.sampled_from(["text", "call_id", "name", "arguments", "ok", "response", "reason", "code", "again"]),
    st.one_of(TEXTS, NAMES, st.booleans(), st.dictionaries(st.sampled_from(["text", "usage", "x"]), TEXTS, max_size=3)),
).flatmap(
    lambda event: st.tuples(
        st.sampled_from(["token", "tool_call", "tool_result", "processed", "failed", "thought", ["token"]]), NAMES
    ).map(lambda head: {**event, "type": head[0], "id": head[1]})
)
LINES = st.one_of(EVENTS.map(lambda event: json.dumps(event).encode()), st.binary(max_size=20))


class Scripted:
    """A program that has written these lines, and ends then."""

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines
        self.running = True

    def send(self, line: bytes, stop: Callable[[], bool]) -> None:
        json.loads(line)

    def line(self, stop: Callable[[], bool]) -> bytes | None:
        return self.lines.pop(0) if self.lines else None

    def end(self) -> int:
        self.running = False
        return 0


@settings(deadline=None, max_examples=200)
@given(st.lists(LINES, max_size=12))
def test_whatever_it_writes_the_prompt_ends_once_and_the_conversation_is_sound(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    made = World(tmp_path_factory.mktemp("any"), start=lambda: Scripted(lines))
    [outcome] = made.run("m1")
    assert outcome["status"] in ("processed", "failed")
    assert [event.type for event in made.events if event.ends] == [outcome["status"]]
    history, _ = made.state.history()
    assert open_calls(history) == []
    json.dumps(history, ensure_ascii=False, allow_nan=False).encode()
    messages = conversation(made.state, 40_000)
    calls = [call["id"] for message in messages for call in message.get("tool_calls") or []]
    results = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    assert calls == results


def test_an_agent_that_ends_lets_its_turn_rest(world: Worlds) -> None:
    """Even while its thread waits for a line: the program is ended, and the prompt is no failure."""
    made = world(LOOP + "tell('token', text='x'); time.sleep(1000)")
    made.state.accept("m1", "do it", limit=100)
    runs = threading.Thread(target=made.turns.run)
    runs.start()
    wait_for(lambda: made.events, "it works")
    made.turns._stopping.set()
    made.worker.close()
    made.turns.stop()
    runs.join(30)
    assert not runs.is_alive()
    assert made.state.outcome("m1") is None and made.state.open_turn() == "m1"


def test_it_is_not_started_once_the_agent_ends(world: Worlds) -> None:
    made = world()
    made.worker.close()
    with pytest.raises(Stopping):
        made.worker._running()
    made.worker.warm()


def test_warm_starts_it_before_the_first_prompt(world: Worlds) -> None:
    made = world(
        "open(sys.argv[1] + '/up', 'w').write(str(os.getpid()))\n" + LOOP + NOTE + "tell('processed', response={})"
    )
    made.worker.warm()
    wait_for(lambda: (made.folder / "up").exists() and (made.folder / "up").read_text(), "it runs")
    pid = (made.folder / "up").read_text()
    made.run("m1")
    assert (made.folder / "up").read_text() == pid
