"""The conversation on disk is read back as it was, whoever had their hands in it."""

import json
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from app.agent import state as state_module
from app.agent.documents import Documents, Unreadable, documents_from
from app.agent.settings import settings_from
from app.agent.state import State
from tests.unit.agent.fakes import FakeModel, World, calls, opened, says


def test_it_lies_beside_the_workspace_unless_the_runtime_says_where(tmp_path):
    given = {"WORKSPACE_UUID": "u1", "AGENT_TOKEN_FILE": "/run/agent/token", "WORKSPACE_DIR": str(tmp_path / "app")}
    assert settings_from(given).state_folder == tmp_path / ".session"
    assert settings_from(given | {"AGENT_STATE_DIR": "/elsewhere"}).state_folder == Path("/elsewhere")


def test_documents_hold_all_and_the_journal_is_empty_after_a_turn(tmp_path):
    world = World(tmp_path)
    world.run("m1", text="grüß dich 😀")
    folder = tmp_path / ".session"
    assert json.loads((folder / "history.json").read_text()) == world.state.history()[0]
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["uuid"] == "u1" and metadata["unreported"] == ["m1"] and metadata["queue"] == []
    assert (folder / "journal").stat().st_size == 0
    assert world.state.last_finished_at and world.state.last_prompt_at


def test_what_was_accepted_survives_without_any_document(tmp_path):
    """The journal alone is enough; so is reading it twice."""
    world = World(tmp_path)
    world.prompt("m1", "one")
    world.prompt("m2", "two")
    for _ in range(2):
        world.state.close()
        world = World(tmp_path)
        assert world.state.waiting() == 2
    world.run()
    assert world.prompts() == ["one", "two"]


def test_a_torn_line_at_the_end_of_the_journal_is_cut_off(tmp_path):
    state = opened(tmp_path)
    state.accept("m1", "one", limit=10)
    state.close()
    with (tmp_path / ".session" / "journal").open("ab") as file:
        file.write(b'{"kind":"prompt","prompt":{"id":"m2"')
    state = opened(tmp_path)
    state.accept("m3", "three", limit=10)
    state.close()
    assert [prompt["id"] for prompt in opened(tmp_path).documents().metadata["queue"]] == ["m1", "m3"]


def test_a_missing_history_is_fetched_once(tmp_path):
    """From the manager's checkpoint; prompts that waited then still do."""
    world = World(tmp_path)
    world.run("m1")
    world.prompt("m2", "two")
    kept = json.loads(json.dumps(vars(world.state.documents())))
    other = tmp_path / "other"
    other.mkdir()
    fetch = Mock(side_effect=lambda: documents_from(kept))
    for _ in range(2):
        state = opened(other, fetch=fetch)
        assert state.history()[1] == 2 and state.waiting() == 1 and list(state.unreported()) == ["m1"]
        state.close()
    fetch.assert_called_once()


def test_a_fetch_that_fails_leaves_the_question_open(tmp_path):
    """Nothing is written, so the next start asks again."""
    state = State(tmp_path / ".session", "u1")
    with pytest.raises(ConnectionError):
        state.open(Mock(side_effect=ConnectionError))
    assert not state.loaded and list((tmp_path / ".session").iterdir()) == []
    state.open(lambda: Documents([{"id": "m0", "role": "user", "content": "x", "outcome": {}}], [], {}))
    assert state.history()[1] == 1


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[1]", b'{"a":1}', b"\xff\xfe", b'[{"id":1,"role":"user","content":"x"}]']
)
def test_a_history_that_is_none_is_set_aside(tmp_path, damage):
    """The agent begins with what the manager has, and what was there is kept under another name."""
    world = World(tmp_path)
    world.run("m1", text="one")
    world.state.close()
    path = tmp_path / ".session" / "history.json"
    path.write_bytes(damage)
    assert opened(tmp_path).history() == ([], 0)
    aside = [file for file in path.parent.iterdir() if file.name.startswith("history.json.unreadable")]
    assert len(aside) == 1 and aside[0].read_bytes() == damage


@pytest.mark.parametrize("name", ["context.json", "metadata.json", "journal"])
@pytest.mark.parametrize(
    "damage", [None, b"nonsense", b'{"kind":"message"}\n{"queue":3}\n', b'{"queue":[{"id":[]}],"unreported":7}']
)
def test_every_other_file_can_be_damaged_without_losing_the_history(tmp_path, name, damage):
    world = World(tmp_path)
    world.run("m1", text="one")
    world.state.close()
    path = tmp_path / ".session" / name
    path.unlink() if damage is None else path.write_bytes(damage)
    again = World(tmp_path)
    assert again.contents() == ["one", "done"]
    again.run("m2", text="two")
    assert again.contents() == ["one", "done", "two", "done"]
    assert [message["content"] for message in again.model.asked[-1][1:]] == ["one", "done", "two"]


def test_history_is_read_from_an_index_on(tmp_path):
    world = World(tmp_path)
    world.run(*"01234")
    whole, total = world.state.history()
    assert len(whole) == total == 10
    assert world.state.history(after=8) == (whole[8:], 10)
    assert world.state.history(after=3, limit=2)[0] == whole[3:5]
    assert world.state.history(after=99) == ([], 10)


def test_a_reported_outcome_is_not_reported_again(tmp_path):
    world = World(tmp_path, FakeModel(calls("a"), says("x")))
    world.run("m1", "m2")
    assert list(world.state.unreported()) == ["m1", "m2"]
    world.state.reported(["m1", "unknown"])
    world.state.close()
    assert list(opened(tmp_path).unreported()) == ["m2"]


def test_documents_are_checked(tmp_path):
    """A history must be one; what can be made anew from it may be anything."""
    with pytest.raises(Unreadable):
        documents_from({"history": {}})
    assert documents_from({"history": [], "context": 3, "metadata": []}) == Documents()


def test_while_documents_are_written_the_conversation_goes_on(tmp_path, monkeypatch):
    """A prompt taken meanwhile is on disk too, and nobody waits for the documents."""
    world = World(tmp_path)
    world.run("m1")
    world.prompt("m3", "three")
    real = state_module.write_document

    def write(path, document):
        if path.name == "context.json":
            done = threading.Thread(target=world.prompt, args=("m2", "two"))
            done.start()
            done.join(30)
            assert not done.is_alive()
        real(path, document)

    monkeypatch.setattr(state_module, "write_document", write)
    world.state.fold()
    world.state.close()
    assert opened(tmp_path).waiting() == 2


def test_what_is_there_already_is_not_written_again(tmp_path):
    """An unchanged volume needs no new restore point, also after a restart."""
    world = World(tmp_path)
    world.run("m1")
    world.state.fold()
    files = [tmp_path.joinpath(*each.parts) for each in tmp_path.rglob("*.json")]
    before = {each: each.stat().st_ctime_ns for each in files}
    assert before
    world.state.fold()
    world.state.close()
    opened(tmp_path).fold()
    assert {each: each.stat().st_ctime_ns for each in files} == before


def test_a_long_journal_is_folded_even_so(tmp_path, monkeypatch):
    """It doesn't grow with the conversation when something always happens meanwhile."""
    monkeypatch.setattr(state_module, "JOURNAL_BYTES", 1)
    world = World(tmp_path)
    real, count = state_module.write_document, iter(range(1000))

    def write(path, document):
        real(path, document)
        if path.name == "context.json" and (n := next(count)) % 2 == 0:
            world.prompt(f"m{n}", "x")

    monkeypatch.setattr(state_module, "write_document", write)
    for number in range(3):
        world.prompt(f"own{number}", "x")
        world.state.fold()
        assert (tmp_path / ".session" / "journal").stat().st_size == 0
    world.state.close()
    assert opened(tmp_path).waiting() == 6
