"""Whose a conversation is, and what of it is still to be done, where the folder is a copy: of another session, or of
this one as it once was."""

import json
import shutil
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from app.agent import state as state_module
from app.agent.disk import Journal
from app.agent.documents import documents_from
from app.agent.prompt_status import PromptStatus
from app.agent.state import RESTORED, ROLLED_BACK, State
from app.agent.text import moment
from tests.model_server import Answer
from tests.unit.agent.fakes import FakeModel, World, break_after, calls, opened, says
from tests.unit.agent.process import AgentProcess

LONG_AGO_AT = float(int(time.time()) - 3600)
"""A whole second, which its text tells exactly."""
LONG_AGO = moment(LONG_AGO_AT)


def copy_of(folder, name="copy"):
    """As a backup and a restore, or an older backup, would."""
    copied = folder.parent / name
    shutil.copytree(folder, copied)
    return copied


def folder_in(tmp_path, name="app"):
    made = tmp_path / name
    made.mkdir()
    return made


def end(folder, until):
    """As a restore of files of that time asks for."""
    (folder / ".session" / f"until-{until:.3f}").touch()


def at_times(folder, *times):
    """Turns of one prompt each, m1 and so on, that begin at these times and last one second."""
    now = [0.0]
    state = State(folder / ".session", "u1", clock=lambda: now[0])
    state.open(lambda: None)
    for number, at in enumerate(times, 1):
        now[0] = at
        state.accept(f"m{number}", f"text {number}", limit=9)
        state.next_turn()
        now[0] += 1
        state.append({"id": f"m{number}", "role": "assistant", "content": "done", "outcome": DONE})
        if number == 1:
            state.fold()
    state.close()
    return folder


DONE = {"status": "processed", "response": {"text": "done"}}


# Whose it is


def test_whose_conversation_it_is_stands_on_the_disk_before_the_first_prompt(tmp_path):
    opened(tmp_path)
    assert json.loads((tmp_path / ".session" / "metadata.json").read_text())["uuid"] == "u1"


@pytest.mark.parametrize(
    ("steps", "messages"),
    [
        ([], []),
        ([State.next_turn], [("one", None), ("", RESTORED)]),
        ([State.next_turn, State.fold], [("one", None), ("", RESTORED)]),
    ],
    ids=["before it", "in it", "in it, and its documents are written"],
)
def test_a_copy_made_during_the_first_turn_does_not_work_on_it(tmp_path, steps, messages):
    """Restored as another session: its prompts and its turn are the original's."""
    original = World(folder_in(tmp_path))
    original.prompt("m1", "one")
    original.prompt("m2", "two")
    for step in steps:
        step(original.state)
    folder = copy_of(tmp_path / "app")
    for _ in range(2):
        copy = World(folder, uuid="u2")
        assert not copy.turns.run_next()
        assert copy.model.asked == [] and copy.state.waiting() == 0 and copy.state.unreported() == {}
        told = [(each["content"], each.get("outcome", {}).get("reason")) for each in copy.state.history()[0]]
        assert told == messages
        copy.state.close()
    copy = World(folder, uuid="u2")
    copy.run("m2", text="two")
    assert copy.outcome("m2")["status"] == "processed"
    original.run()
    assert len(original.model.asked) == 2


def test_a_copy_takes_prompts_that_have_an_id_of_the_originals(tmp_path):
    """A client may number its prompts. They aren't known, and the answers of before are not theirs."""
    World(folder_in(tmp_path)).run("1", text="one")
    folder = copy_of(tmp_path / "app")
    for n, text in enumerate(("another one", "one")):
        copy = World(folder, FakeModel(says(f"answer {n}")), uuid=f"copy{n}")
        assert not copy.state.knows("1") and copy.state.outcome("1") is None
        copy.run("1", text=text)
        assert copy.outcome("1")["response"]["text"] == f"answer {n}"
        assert copy.outcome("1")["response"]["steps"] == 1
        copy.state.close()
        again = World(folder, uuid=f"copy{n}")
        assert again.outcome("1")["response"]["text"] == f"answer {n}" and list(again.state.unreported()) == ["1"]
        again.state.close()


@pytest.mark.parametrize("point", range(5))
def test_a_crash_while_a_copy_is_made_ones_own_changes_nothing(tmp_path, monkeypatch, point):
    """At no moment does it say that it is ours while something of the original's is open in it."""
    original = World(folder_in(tmp_path))
    original.prompt("m1", "one")
    original.prompt("m2", "two")
    original.state.next_turn()
    folder = copy_of(tmp_path / "app")
    break_after(monkeypatch, point, OSError(5, "made up"), (state_module, "write_document"), (Journal, "clear"))
    state = State(folder / ".session", "u2")
    if point < 3:
        with pytest.raises(OSError, match="made up"):
            state.open(lambda: None)
        assert not state.loaded
    monkeypatch.undo()
    copy = World(folder, uuid="u2")
    copy.run()
    assert copy.model.asked == [] and copy.contents() == ["one", ""] and copy.state.unreported() == {}


def test_opening_again_after_a_failure_reads_nothing_twice(tmp_path, monkeypatch):
    world = World(tmp_path)
    world.run("m1")
    world.prompt("m2", "two")
    world.state.close()
    state = State(tmp_path / ".session", "u1")
    real = Journal.open
    monkeypatch.setattr(Journal, "open", lambda journal: (real(journal), journal.missing)[0])
    with pytest.raises(AttributeError):
        state.open(lambda: None)
    monkeypatch.undo()
    state.open(lambda: None)
    assert state.history()[1] == 2 and state.waiting() == 1
    state.accept("m3", "three", limit=10)
    state.close()
    assert opened(tmp_path).waiting() == 2


def test_a_journal_without_its_history_is_nobodys(tmp_path):
    """It would be read as a part of what the manager has kept, or of nothing."""
    state = opened(tmp_path)
    state.accept("m1", "one", limit=10)
    state.close()
    (tmp_path / ".session" / "history.json").unlink()
    assert opened(tmp_path, "u2").waiting() == 0


def test_a_conversation_that_names_no_session_is_nobodys(tmp_path):
    """Its metadata are lost: it may be a copy. What was said is kept, and what was to be done comes again, if at
    all."""
    state = opened(tmp_path)
    for id_ in ("m1", "m2"):
        state.accept(id_, id_, limit=10)
    state.next_turn()
    state.close()
    (tmp_path / ".session" / "metadata.json").unlink()
    for _ in range(2):
        state = opened(tmp_path)
        assert state.waiting() == 0 and state.unreported() == {} and not state.knows("m1")
        assert [message["content"] for message in state.history()[0]] == ["m1", ""]
        state.close()


# Of this session, as it once was


def rolled_back(tmp_path):
    """A copy with a turn that is open, and two prompts behind it."""
    world = World(folder_in(tmp_path), FakeModel(calls("a")))
    for n in (1, 2, 3):
        world.prompt(f"m{n}", f"prompt {n}")
    world.state.next_turn()
    world.state.append({"id": "m1", "role": "assistant", "content": "half"})
    world.state.fold()
    return copy_of(tmp_path / "app")


def test_what_has_ended_since_the_copy_was_made_does_not_run_again(tmp_path):
    """The turn is ended, the prompt is forgotten, neither is reported: that was done when they ended."""
    folder = rolled_back(tmp_path)
    world = World(folder)
    assert list(world.state.unconfirmed()) == ["m1", "m2", "m3"]
    world.state.confirm(PromptStatus(frozenset({"m3"})))
    for again in (False, True):
        assert world.outcome("m1") == {"status": "failed", "reason": ROLLED_BACK, "code": "rolled_back"}
        assert [prompt["id"] for prompt in world.state.documents().metadata["queue"]] == ["m3"]
        assert world.state.unreported() == {} and not world.state.knows("m2")
        if not again:
            world.state.close()
            world = World(folder)
    world.run()
    assert world.prompts() == ["prompt 1", "prompt 3"]
    assert world.outcome("m3")["status"] == "processed"


def test_what_the_manager_may_have_forgotten_goes_on(tmp_path):
    """Its Redis lost its data, and the agent started anew: what was accepted is not lost."""
    world = World(rolled_back(tmp_path))
    world.state.confirm(PromptStatus(frozenset({"m3"}), frozenset({"m1"})))
    world.run()
    assert world.outcome("m1")["status"] == world.outcome("m3")["status"] == "processed"
    assert not world.state.knows("m2")


def test_in_a_copy_the_manager_kept_what_may_have_ended_does_not_run(tmp_path):
    """It is certain that this is a copy; also after a crash before the manager could be asked."""
    kept = json.loads(json.dumps(vars(opened(rolled_back(tmp_path)).documents())))
    folder = folder_in(tmp_path, "fresh")
    opened(folder, fetch=lambda: documents_from(kept)).close()
    state = opened(folder, fetch=lambda: pytest.fail("fetched twice"))
    state.confirm(PromptStatus(frozenset({"m3"}), frozenset({"m1", "m2"})))
    assert state.open_turn() is None and [each["id"] for each in state.documents().metadata["queue"]] == ["m3"]
    assert "restored" not in state.documents().metadata


def test_a_prompt_the_manager_brings_again_is_not_doubtful(tmp_path):
    """It was asked about before, and came in between."""
    state = opened(rolled_back(tmp_path))
    assert state.accept("m2", "prompt 2", limit=10) is False
    state.confirm(PromptStatus(frozenset()))
    assert [prompt["id"] for prompt in state.documents().metadata["queue"]] == ["m2"]


# With a process


@pytest.mark.slow
def test_a_copy_in_another_session_leaves_the_original_its_turn(agent, model, gateway, tmp_path):
    """Made while the first turn runs; the original goes on, the copy has nothing to do."""
    model.script(Answer(text="one two", hold=(held := threading.Event())))
    agent.start()
    agent.prompt("m1", "hello")
    model.wait_for_requests(1)
    other = folder_in(tmp_path, "other")
    shutil.copytree(agent.folder.parent / ".session", other / ".session")
    with closing(AgentProcess(gateway, other, WORKSPACE_UUID="zzzz9999")) as copy:
        copy.start()
        assert copy.chat("m2", "remember 2")[1]["response"]["text"] == "2 noted"
        assert [message["id"] for message in copy.history()] == ["m1", "m1", "m2", "m2"]
        assert copy.history()[1]["outcome"]["reason"] == RESTORED
        copy.terminate()
    held.set()
    assert gateway.outcome("m1")["data"]["response"]["text"] == "one two"
    assert len(gateway.terminal("m1")) == 1
    assert len(model.requests) == 2


def interrupted(agent, model, *behind):
    """Killed in the midst of the turn `m1`, with other prompts behind it."""
    model.script(Answer(text="one two", hold=threading.Event()))
    agent.start()
    for id_ in ("m1", *behind):
        agent.prompt(id_, f"remember {id_}")
    model.wait_for_requests(1)
    agent.kill()


@pytest.mark.slow
def test_at_its_start_an_agent_asks_what_is_still_to_be_done(agent, model, gateway):
    """What has ended is not run again, by itself or when it is put again; what has not is."""
    interrupted(agent, model, "m2", "m3")
    gateway.ended |= {"m1", "m2"}
    agent.start()
    assert gateway.outcome("m3")["data"]["response"]["text"] == "m3 noted"
    assert list(gateway.asked[0]) == ["m1", "m2", "m3"]
    assert len(model.requests) == 2
    assert agent.prompt("m1", "remember m1")[1]["code"] == "rolled_back"
    assert agent.prompt("m3", "remember m3")[1]["status"] == "processed"
    assert gateway.terminal("m1") == gateway.terminal("m2") == []


@pytest.mark.slow
def test_an_agent_waits_for_a_manager_that_can_t_be_asked(agent, model, gateway):
    """Its answers to prompts meanwhile: those it has are accepted, and a new one is taken behind them."""
    interrupted(agent, model)
    gateway.failures["/agent/v1/unfinished"].extend([503, 404] * 50_000)
    agent.start()
    assert agent.prompt("m2", "remember 2") == (202, {"id": "m2", "status": "accepted"})
    assert agent.call("GET", "/activity")[1]["busy"]
    assert len(model.requests) == 1
    gateway.failures["/agent/v1/unfinished"].clear()
    gateway.outcome("m2")
    assert [event["message_id"] for event in gateway.events if event["type"] == "processed"] == ["m1", "m2"]


@pytest.mark.slow
def test_an_agent_that_has_nothing_open_asks_nothing(agent, gateway):
    """A workspace that wakes for its first prompt waits for one call less."""
    for _ in range(2):
        agent.start()
        agent.chat(f"m{len(gateway.hellos)}", "remember 1")
        assert agent.terminate() == 0
    assert gateway.asked == []


@pytest.mark.slow
def test_a_prompt_that_comes_again_is_answered_as_it_stands(agent, model, gateway):
    """While the conversation is loaded, while it runs, while it waits, and when it has ended; then with its end."""
    held = threading.Event()
    model.script(Answer(text="first", hold=held), Answer(text="second"))
    gateway.failures["/agent/v1/checkpoint"].extend([503] * 100_000)
    agent.start()
    assert agent.prompt("m1", "hello")[1]["error"] == "loading"
    gateway.failures["/agent/v1/checkpoint"].clear()
    while agent.prompt("m1", "hello")[0] == 503:
        pass
    agent.prompt("m2", "hello")
    model.wait_for_requests(1)
    for id_ in ("m1", "m2"):
        assert agent.prompt(id_, "hello") == (202, {"id": id_, "status": "accepted"})
    held.set()
    gateway.outcome("m2")
    for id_, text in (("m1", "first"), ("m2", "second")):
        status, said = agent.prompt(id_, "hello")
        assert (status, said["status"], said["response"]["text"]) == (200, "processed", text)
    assert len(model.requests) == 2


@pytest.mark.slow
def test_an_older_volume_takes_the_prompts_it_lacks_and_no_other(agent, model, gateway, tmp_path):
    """Restored from a backup of before, as the same session: what had ended by then is answered as it ended."""
    agent.start()
    agent.chat("m1", "remember 1")
    assert agent.terminate() == 0
    other = folder_in(tmp_path, "other")
    shutil.copytree(agent.folder.parent / ".session", other / ".session")
    agent.start()
    agent.chat("m2", "remember 2")
    agent.kill()
    with closing(AgentProcess(gateway, other)) as older:
        older.start()
        assert older.prompt("m1", "remember 1")[1]["response"]["text"] == "1 noted"
        assert older.chat("m2", "remember 2")[1]["response"]["text"] == "2 noted"
        assert older.terminate() == 0
    assert [message["id"] for message in gateway.checkpoint["history"]] == ["m1", "m1", "m2", "m2"]


@pytest.mark.slow
def test_a_folder_in_the_workspace_is_no_conversation(agent, tmp_path):
    """Whatever is in it, and though no other is there yet: a repository can bring one that names this session."""
    theirs = World(folder_in(tmp_path, "theirs"), uuid=agent.environment["WORKSPACE_UUID"])
    theirs.run("m1")
    theirs.state.fold()
    shutil.copytree(tmp_path / "theirs" / ".session", agent.folder / ".session")
    agent.start()
    assert agent.history() == []
    assert (agent.folder / ".session" / "history.json").exists()


# A restore of files that are older than the conversation


def test_a_conversation_ends_with_the_files_that_were_restored(tmp_path):
    """What was said while the point was made is in the journal. Its prompts are forgotten, and none is open."""
    folder = at_times(tmp_path, LONG_AGO_AT, LONG_AGO_AT + 10)
    state = opened(folder)
    assert state.accept("m3", "waits", limit=9)
    state.close()
    end(folder, LONG_AGO_AT + 5)
    for _ in range(2):
        world = World(folder)
        assert world.contents() == ["text 1", "done"] and list(world.state.unreported()) == ["m1"]
        assert [world.state.knows(each) for each in ("m1", "m2", "m3")] == [True, False, False]
        assert world.state.waiting() == 0 and world.state.open_turn() is None
        assert not list((folder / ".session").glob("until-*"))
        world.state.close()
    world = World(folder, FakeModel(says("again")))
    world.run("m4", text="go on")
    world.state.close()
    assert World(folder).contents() == ["text 1", "done", "go on", "again"]


def test_a_turn_that_ran_at_that_moment_is_open_again(tmp_path):
    """Its manager says whether it goes on."""
    folder = at_times(tmp_path, LONG_AGO_AT, LONG_AGO_AT + 10)
    end(folder, LONG_AGO_AT + 10.5)
    world = World(folder)
    assert (world.state.open_turn(), list(world.state.unconfirmed())) == ("m2", ["m2"])
    world.state.confirm(PromptStatus(frozenset()))
    assert world.outcome("m2")["code"] == "rolled_back" and list(world.state.unreported()) == ["m1"]


def test_the_conversation_of_a_fork_ends_there_too(tmp_path):
    """As what another session said."""
    folder = copy_of(at_times(folder_in(tmp_path), LONG_AGO_AT, LONG_AGO_AT + 10))
    end(folder, LONG_AGO_AT + 5)
    for _ in range(2):
        copy = World(folder, uuid="u2")
        assert copy.contents() == ["text 1", "done"]
        assert copy.state.unreported() == {} and not copy.state.knows("m1")
        copy.state.close()


def test_the_earliest_of_two_ends_counts(tmp_path):
    """It was rolled back twice before its agent started."""
    folder = at_times(tmp_path, LONG_AGO_AT, LONG_AGO_AT + 10)
    end(folder, LONG_AGO_AT + 5)
    end(folder, LONG_AGO_AT + 50)
    assert len(opened(folder).history()[0]) == 2


@pytest.mark.parametrize("name", ["until-", "until-soon", "until-nan", "until-inf", "until-1e999"])
def test_what_names_no_time_ends_nothing(tmp_path, name):
    folder = at_times(tmp_path, LONG_AGO_AT)
    (folder / ".session" / name).touch()
    assert len(opened(folder).history()[0]) == 2


@pytest.mark.parametrize("point", range(3))
def test_a_crash_while_it_is_ended_loses_nothing_that_is_said_later(tmp_path, monkeypatch, point):
    folder = at_times(tmp_path, LONG_AGO_AT, LONG_AGO_AT + 10)
    end(folder, LONG_AGO_AT + 5)
    functions = (Journal, "add"), (Path, "unlink"), (state_module, "sync_folder")
    break_after(monkeypatch, point, OSError(5, "made up"), *functions)
    state = State(folder / ".session", "u1")
    with pytest.raises(OSError, match="made up"):
        state.open(lambda: None)
    assert not state.loaded
    state.close()
    monkeypatch.undo()
    world = World(folder, FakeModel(says("again")))
    assert world.contents() == ["text 1", "done"]
    world.run("m3", text="go on")
    world.state.close()
    assert World(folder).contents() == ["text 1", "done", "go on", "again"]
