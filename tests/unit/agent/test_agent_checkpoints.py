"""The copy at the manager's is kept up with by sending what is new, and is never a mix of two conversations."""

import shutil
import threading
from itertools import chain, repeat
from unittest.mock import DEFAULT, Mock

import pytest

from app.agent import checkpoints
from app.agent.checkpoints import Keeper, load
from app.agent.gateway_client import Gateway
from app.agent.prompt_status import ProcessEnding
from app.core.prompts.history_store import Checkpoint
from tests.unit.agent.fake_gateway import TOKEN
from tests.unit.agent.fakes import FakeModel, World, says
from tests.waiting import wait_for

CHECKPOINT, HISTORY, EVENTS = "/agent/v1/checkpoint", "/agent/v1/history", "/agent/v1/events"


@pytest.fixture
def line(gateway):
    return Gateway(gateway.url, lambda: TOKEN)


@pytest.fixture
def world(tmp_path):
    (tmp_path / "app").mkdir()
    return World(tmp_path / "app")


def kept(gateway):
    return gateway.checkpoint["history"]


def sent(gateway):
    """How many messages each piece had, since this was asked last."""
    counts = [len(piece["messages"]) for piece in gateway.pieces]
    gateway.pieces.clear()
    return counts


@pytest.mark.slow
def test_a_conversation_is_loaded_once_it_is_known_whether_there_is_one(gateway, line):
    """Errors are no answer, nor is just any 404: to begin anew would replace what is there."""
    gateway.failures[CHECKPOINT].extend([500, 503, 401, 404])
    assert load(line, threading.Event()) is None
    said = [{"id": f"m{n}", "role": "user", "content": "x" * 300} for n in range(10)]
    gateway.archive.write(gateway.uuid, Checkpoint(said, said[-1:], {"turns": 1}))
    gateway.failures[CHECKPOINT].append(502)
    gateway.failures[HISTORY].append(503)
    documents = load(line, threading.Event())
    assert documents is not None
    assert (documents.history, documents.context, documents.metadata) == (said, said[-1:], {"turns": 1})
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(ProcessEnding):
        load(line, stopped)


def test_a_long_conversation_is_loaded_in_pages(gateway, line, world, monkeypatch):
    monkeypatch.setattr("app.core.prompts.history_index.CHUNK_BYTES", 500)
    keeper = Keeper(line, world.state, 1000)
    for n in range(10):
        world.run(f"m{n}")
        assert keeper.save()
    call = Mock(wraps=line.call)
    monkeypatch.setattr(line, "call", call)
    documents = load(line, threading.Event())
    assert documents is not None and documents.history == world.state.history()[0]
    assert call.call_count > 3


def test_a_checkpoint_is_saved_when_something_changed(gateway, line, world):
    """Not an empty one, not the same twice, and again after a failure."""
    keeper = Keeper(line, world.state, 1000)
    assert keeper.save() and gateway.saved == 0
    world.prompt("m1", "hello")
    gateway.failures[CHECKPOINT].append(503)
    assert not keeper.save()
    assert keeper.save() and keeper.save() and gateway.saved == 1
    assert gateway.checkpoint["metadata"]["queue"][0]["content"] == "hello"
    world.run()
    assert keeper.save() and kept(gateway) == world.state.history()[0]


def test_a_second_checkpoint_sends_only_the_new_messages(gateway, line, world):
    """So does the first one of the next process."""
    keeper = Keeper(line, world.state, 1000)
    world.run("m1", "m2")
    assert keeper.save() and sent(gateway) == [4]
    world.run("m3")
    assert keeper.save() and sent(gateway) == [2]
    world.state.reported(["m1"])
    assert keeper.save() and sent(gateway) == []
    world.state.close()
    again = World(world.toolbox.effects.parent)
    assert Keeper(line, again.state, 1000).save() and sent(gateway) == []
    again.run("m4")
    assert Keeper(line, again.state, 1000).save() and sent(gateway) == [2]
    assert kept(gateway) == again.state.history()[0]


def test_a_long_conversation_is_sent_in_pieces_and_goes_on_where_it_was_cut_off(gateway, line, world, monkeypatch):
    """A longer message goes alone. What is there already is not sent again; until all is, nothing is kept."""
    monkeypatch.setattr(checkpoints, "PIECE_BYTES", 500)
    monkeypatch.setattr(checkpoints.pieces, "__defaults__", (500,))
    world.run(*(f"m{n}" for n in range(5)))
    world.run("long", text="x" * 2000)
    third_fails = Mock(side_effect=chain([DEFAULT, DEFAULT, OSError], repeat(DEFAULT)), wraps=gateway.archive.append)
    monkeypatch.setattr(gateway.archive, "append", third_fails)
    assert not Keeper(line, world.state, 1000).save() and gateway.checkpoint is None
    before = sum(sent(gateway)[:2])
    assert Keeper(line, world.state, 1000).save()
    counts = sent(gateway)
    assert before + sum(counts) == 12 and max(counts) < 5 and 1 in counts
    assert kept(gateway) == world.state.history()[0]


def test_an_answer_that_was_lost_leaves_no_message_twice(gateway, line, world, monkeypatch):
    """The manager has the piece, and says so when it comes again."""
    keeper = Keeper(line, world.state, 1000)
    world.run("m1")
    assert keeper.save()
    world.run("m2")
    real = gateway.archive.append

    def lose_answer(uuid, piece):
        real(uuid, piece)
        raise OSError

    monkeypatch.setattr(gateway.archive, "append", lose_answer)
    assert not keeper.save()
    monkeypatch.undo()
    world.run("m3")
    assert keeper.save() and kept(gateway) == world.state.history()[0]


def test_another_course_of_the_conversation_replaces_the_one_that_is_kept_whole(gateway, line, world, tmp_path):
    """The volume was restored as it once was, and the conversation went on otherwise: until all of that is there, the
    one that is kept stays as it was."""
    world.run("m1")
    world.state.close()
    shutil.copytree(tmp_path / "app", tmp_path / "copy")
    world = World(tmp_path / "app")
    world.run("m2", "m3")
    keeper = Keeper(line, world.state, 1000)
    assert keeper.save()
    first = kept(gateway)
    other = World(tmp_path / "copy", FakeModel(rule=lambda messages: says("otherwise")))
    other.run("m2", "m3", "m4")
    gateway.failures[CHECKPOINT].append(503)
    assert not Keeper(line, other.state, 1000).save()
    assert kept(gateway) == first
    sent(gateway)
    assert Keeper(line, other.state, 1000).save() and sent(gateway) == [], "what was brought is taken up"
    assert kept(gateway) == other.state.history()[0] != first
    # One that thinks its own is still there is told otherwise.
    world.run("m4")
    assert keeper.save() and sent(gateway) == [2, 8]
    assert kept(gateway) == world.state.history()[0]


def test_an_older_copy_of_the_volume_that_goes_on_is_another_course(gateway, line, world, tmp_path):
    """Its messages were the same up to there; the manager has some that are not in it."""
    world.run("m1")
    world.state.close()
    shutil.copytree(tmp_path / "app", tmp_path / "copy")
    world = World(tmp_path / "app")
    world.run("m2")
    assert Keeper(line, world.state, 1000).save()
    older = World(tmp_path / "copy")
    assert Keeper(line, older.state, 1000).save()
    assert kept(gateway) == older.state.history()[0] and len(kept(gateway)) == 2


def test_a_save_ends_when_its_time_is_over(gateway, line, world, monkeypatch):
    """Also while another one is under way; what was sent counts."""
    world.run("m1")
    keeper = Keeper(line, world.state, 1000)
    assert not keeper.save(0.0)
    with keeper._lock:
        assert not keeper.save(0.05)
    assert keeper.save()


def test_the_keeper_saves_by_itself(gateway, line, world):
    world.prompt("m1", "hello")
    stopping = threading.Event()
    thread = threading.Thread(target=Keeper(line, world.state, 0.001).run, args=(stopping,))
    thread.start()
    gateway.wait(lambda: gateway.saved)
    stopping.set()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.slow
def test_an_agent_pushes_its_checkpoint_when_asked_to(agent, gateway):
    """It says whether all of it is there; the documents are on its own disk too."""
    agent.start()
    journal = agent.folder.parent / ".session" / "journal"
    # While no report gets through, the end of the turn empties the journal. What then comes in is one note.
    gateway.failures[EVENTS].extend([503] * 100)
    agent.chat("m1", "remember 5")
    wait_for(lambda: not journal.stat().st_size, "an empty journal at the end of the turn")
    gateway.failures[EVENTS].clear()
    wait_for(lambda: journal.stat().st_size, "the note that the manager has the outcome")
    push = {"seconds": 5}
    assert agent.call("POST", "/checkpoint", push) == (200, {"saved": True, "messages": 2})
    assert kept(gateway) == agent.history()
    assert journal.stat().st_size == 0
    agent.chat("m2", "remember 6")
    gateway.failures[HISTORY].append(413)
    assert agent.call("POST", "/checkpoint", push) == (200, {"saved": False, "messages": 4})
    assert agent.call("POST", "/checkpoint", {**push, "seconds": "long"})[0] == 400
    assert agent.call("POST", "/checkpoint", push) == (200, {"saved": True, "messages": 4})


@pytest.mark.slow
def test_a_page_of_the_history_has_as_many_bytes_as_are_wanted(agent):
    """One message at least; without a limit all that were asked for."""
    agent.start()
    for n in range(3):
        agent.chat(f"m{n}", "remember 5")
    everything = agent.history()
    assert len(everything) == 6
    read: list[object] = []
    while len(read) < 6:
        page = agent.call("GET", f"/history?after={len(read)}&limit=100&bytes=1")[1]
        assert (len(page["messages"]), page["total"]) == (1, 6)
        read += page["messages"]
    assert read == everything
    assert agent.call("GET", "/history?after=6&bytes=1")[1] == {"messages": [], "total": 6}
