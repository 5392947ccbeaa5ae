"""A prompt is undone: its files, its part of the conversation, and what comes after; it never runs again."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.agent.conversation import UNDONE
from app.agent.model import Reply
from app.agent.protocol import Event
from app.agent.settings import AgentSettings
from app.agent.turns import Busy
from app.agent.undo import points, undoing
from app.agent.undo.points import UndoFailed, UndoPoints
from app.agent.undo.undoing import Undoing
from tests.model_server import Answer, ModelServer, ToolCall
from tests.sampling import dice, times
from tests.unit.agent.fake_gateway import FakeGateway
from tests.unit.agent.fakes import World, says
from tests.unit.agent.process import AgentProcess


class FakePoints:
    """Counts; `fails` are the swaps that fail."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fails = 0
        self.code = "failed"
        self.ids: list[str] = []

    def listed(self) -> list[dict[str, Any]]:
        return [{"message_id": each} for each in self.ids]

    def stage(self, id_: str) -> int:
        self.done.append(f"stage {id_}")
        return 3

    def swap(self, id_: str) -> None:
        if self.fails:
            self.fails -= 1
            raise UndoFailed(self.code, "a test's failure")
        self.done.append(f"swap {id_}")


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.points = FakePoints()
        self.told: list[Event] = []
        self.open()

    def open(self) -> None:
        self.world = World(self.folder)
        points: Any = self.points
        self.undoing = Undoing(self.world.state, self.world.turns, points, self.told.append)

    def prompts(self, *ids: str) -> None:
        for id_ in ids:
            self.world.run(id_, text=f"text of {id_}")

    def reopen(self) -> None:
        """After the process was killed."""
        self.world.state.close()
        self.open()

    def fail_to_undo(self, id_: str) -> str:
        """The code of the failure."""
        with pytest.raises(UndoFailed) as failed:
            self.undoing.undo(id_)
        return failed.value.code


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_conversation_is_cut_before_the_prompt(place: Place) -> None:
    place.prompts("m1", "m2", "m3")
    assert place.undoing.undo("m2") == {"files": 3, "messages_cut": ["m2", "m3"]}
    assert place.world.contents() == ["text of m1", "done"]
    assert place.points.done == ["stage m2", "swap m2"]
    place.reopen()
    assert place.world.contents() == ["text of m1", "done"]


def test_a_prompt_that_was_undone_never_runs_again(place: Place) -> None:
    """Sent again, it has ended; another text makes no difference. Also after a restart."""
    place.prompts("m1", "m2")
    place.undoing.undo("m2")
    for _ in range(2):
        assert place.world.state.accept("m2", "text of m2", limit=9) is False
        assert place.world.state.accept("m2", "another", limit=9) is False
        assert place.world.outcome("m2")["code"] == "rolled_back"
        assert not place.world.turns.run_next()
        place.reopen()
    assert place.world.model.asked == []


def test_undoing_again_changes_nothing(place: Place) -> None:
    """An answer that got lost is asked for again; what was done since stays."""
    place.prompts("m1", "m2")
    first = place.undoing.undo("m2")
    place.prompts("m3")
    assert place.undoing.undo("m2") == first
    place.reopen()
    assert place.undoing.undo("m2") == first
    assert place.world.contents() == ["text of m1", "done", "text of m3", "done"]
    assert place.points.done == ["stage m2", "swap m2"]


def test_a_waiting_prompt_goes_with_it_and_its_end_is_told(place: Place) -> None:
    place.prompts("m1", "m2")
    place.world.turns.cancel("sleep")
    place.world.prompt("m3")
    assert place.undoing.undo("m2")["messages_cut"] == ["m2", "m3"]
    assert ("m3", "rolled_back") in [(event.message_id, event.data["code"]) for event in place.told]
    assert place.world.state.waiting() == 0
    place.reopen()
    assert place.world.state.unreported()["m3"] == UNDONE


def test_the_manager_is_told_of_all_that_was_undone_though_nobody_waits_for_the_answer(place: Place) -> None:
    """A prompt that had ended, and whose end the manager knows, too: again after a restart, until it has heard."""
    place.prompts("m1", "m2", "m3")
    place.world.state.reported(["m1", "m2", "m3"])
    place.undoing.undo("m2")
    assert [(event.message_id, event.data["code"]) for event in place.told] == [
        ("m2", "rolled_back"),
        ("m3", "rolled_back"),
    ]
    place.reopen()
    assert place.world.state.unreported() == {"m2": UNDONE, "m3": UNDONE}
    place.world.state.reported(["m2", "m3"])
    place.reopen()
    assert place.world.state.unreported() == {}


def test_the_model_is_asked_without_what_was_undone(place: Place) -> None:
    place.prompts("m1", "m2")
    place.undoing.undo("m2")
    place.prompts("m3")
    asked = [message["content"] for message in place.world.model.asked[-1]]
    assert asked == ["You are a test.", "text of m1", "done", "text of m3"]


def during_a_turn(place: Place, act: Callable[[], object]) -> object:
    """What `act` returns while the turn of "m2" runs, which then ends as any other."""
    acted: list[object] = []

    def during(*_: object) -> Reply:
        acted.append(act())
        return says("done")

    place.world.model.script = [during]
    place.prompts("m2")
    assert place.world.outcome("m2")["status"] == "processed"
    return acted.pop()


def test_a_turn_that_runs_is_in_the_way(place: Place) -> None:
    """Of its own prompt, whose point may still be being made, and of earlier ones that have a point."""

    def undo() -> None:
        for each in ("m1", "m2"):
            with pytest.raises(Busy):
                place.undoing.undo(each)

    place.prompts("m1")
    place.points.ids = ["m1"]
    during_a_turn(place, undo)


def test_without_a_point_the_turn_that_runs_is_not_in_the_way(place: Place) -> None:
    """To cancel it would be in vain."""

    def undo() -> list[str]:
        place.world.prompt("m3")
        return [place.fail_to_undo(each) for each in ("m1", "m3", "nobody's")]

    place.prompts("m1")
    assert during_a_turn(place, undo) == ["no_point"] * 3


def test_what_was_undone_is_told_again_while_a_turn_runs(place: Place) -> None:
    place.prompts("m1")
    first = place.undoing.undo("m1")
    assert during_a_turn(place, lambda: place.undoing.undo("m1")) == first


def test_no_turn_begins_meanwhile(place: Place) -> None:
    place.prompts("m1")
    with place.world.turns.hold():
        place.world.prompt("m2")
        assert not place.world.turns.run_next()
        with pytest.raises(Busy), place.world.turns.hold():
            pass
    assert place.world.turns.run_next()


def test_a_prompt_nobody_knows_has_no_point(place: Place) -> None:
    place.prompts("m1")
    assert place.fail_to_undo("other") == "no_point"
    assert place.points.done == []


def test_a_restore_that_was_interrupted_is_completed_at_the_next_start(place: Place) -> None:
    place.prompts("m1", "m2")
    place.points.fails = 1
    assert place.fail_to_undo("m2") == "failed"
    place.reopen()
    assert place.world.state.restoring == "m2"
    place.undoing.complete(threading.Event())
    assert place.points.done == ["stage m2", "swap m2"]
    assert place.world.state.restoring == ""
    assert place.undoing.undo("m2") == {"files": 3, "messages_cut": ["m2"]}


def test_asked_again_it_completes(place: Place) -> None:
    place.prompts("m1", "m2")
    place.points.fails = 1
    assert place.fail_to_undo("m2") == "failed"
    assert place.undoing.undo("m2") == {"files": 3, "messages_cut": ["m2"]}
    assert place.points.done == ["stage m2", "swap m2"]


@pytest.mark.parametrize("code", ["failed", "no_point"])
def test_what_can_not_be_completed_is_given_up(place: Place, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Prompts must not wait forever."""
    monkeypatch.setattr(undoing, "RETRY_SECONDS", 0)
    place.prompts("m1")
    place.points.fails, place.points.code = 99, code
    assert place.fail_to_undo("m1") == code
    place.undoing.complete(threading.Event())
    assert place.world.state.restoring == ""
    assert place.world.contents() == []


# With a real agent

EDIT = "echo changed > file; echo made > new; mkdir -p node_modules; echo x > node_modules/x; rm gone"


@pytest.mark.slow
def test_an_agent_undoes_what_a_prompt_did(agent: AgentProcess, gateway: FakeGateway, model: ModelServer) -> None:
    (agent.folder / ".gitignore").write_text("node_modules\n")
    (agent.folder / "file").write_text("mine")
    (agent.folder / "gone").write_text("still here")
    agent.start()
    assert agent.chat("m0", "hello")[0] == 200
    model.script(Answer(tool_calls=[ToolCall("run_command", {"command": EDIT})]), Answer(text="done"))
    assert agent.chat("m1", "edit")[1]["status"] == "processed"
    assert (agent.folder / "node_modules" / "x").exists() and not (agent.folder / "gone").exists()
    agent.call("POST", "/checkpoint", {})
    status, listed = agent.call("GET", "/checkpoints")
    assert status == 200 and [point["message_id"] for point in listed["checkpoints"]] == ["m1", "m0"]
    assert agent.call("GET", "/checkpoints/m1") == (200, {"message_id": "m1", "restored": False})
    status, undone = agent.call("POST", "/checkpoints/m1/restore")
    assert status == 200, undone
    assert undone["messages_cut"] == ["m1"] and undone["files"] == 4 and undone["ms"] >= 0
    assert sorted(path.name for path in agent.folder.iterdir()) == [".gitignore", "file", "gone"]
    assert agent.call("GET", "/checkpoints/m1")[1]["restored"] is True
    assert (agent.folder / "file").read_text() == "mine"
    assert {message["id"] for message in agent.history()} == {"m0"}
    assert agent.call("POST", "/checkpoint", {})[1]["saved"] is True
    assert gateway.checkpoint is not None
    assert {message["id"] for message in gateway.checkpoint["history"]} == {"m0"}
    asked = len(model.requests)
    for _ in range(2):
        status, answer = agent.chat("m1", "edit")
        assert (status, answer["status"], answer["code"]) == (200, "failed", "rolled_back")
        agent.kill()
        agent.start()
    assert len(model.requests) == asked
    assert agent.call("POST", "/checkpoints/m1/restore")[1]["messages_cut"] == ["m1"]
    assert agent.call("POST", "/checkpoints/nobody/restore")[1]["error"] == "no_checkpoint"
    assert agent.call("GET", "/checkpoints/nobody")[1]["error"] == "no_checkpoint"
    assert [point["message_id"] for point in agent.call("GET", "/checkpoints")[1]["checkpoints"]] == ["m0"]


@pytest.mark.slow
def test_a_running_turn_is_busy(agent: AgentProcess, gateway: FakeGateway, model: ModelServer) -> None:
    held = threading.Event()
    model.script(Answer(text="slowly", hold=held))
    agent.start()
    agent.prompt("m1", "wait")
    gateway.wait(lambda: any(event["type"] == "token" for event in gateway.events))
    found = agent.call("GET", "/checkpoints/m1")
    status, answer = agent.call("POST", "/checkpoints/m1/restore")
    held.set()
    assert found[0] == 200, "its point may still be being made"
    assert (status, answer["error"]) == (409, "busy")
    gateway.outcome("m1")


@pytest.mark.slow
def test_a_point_that_can_not_be_made_fails_no_prompt(agent: AgentProcess, model: ModelServer) -> None:
    """Here because the project is over its bound. It is told."""
    agent.environment["UNDO_MAX_BYTES"] = "10"
    (agent.folder / "file").write_text("more than ten bytes")
    agent.start()
    model.script(Answer(tool_calls=[ToolCall("run_command", {"command": "echo x > made"})]), Answer(text="done"))
    assert agent.chat("m1", "edit")[1]["status"] == "processed"
    assert (agent.folder / "made").exists()
    told = agent.call("GET", "/checkpoints")[1]
    assert told["checkpoints"] == [] and told["missing"][0]["message_id"] == "m1"
    assert "more than the 10" in told["missing"][0]["reason"]
    assert agent.call("POST", "/checkpoints/m1/restore")[0] == 404
    assert "can't be undone" in agent.log.read_text()


@pytest.mark.slow
def test_without_undo_points_nothing_is_stored(agent: AgentProcess) -> None:
    agent.environment["UNDO_POINTS"] = "0"
    agent.start()
    assert agent.chat("m1", "hello")[0] == 200
    assert agent.call("GET", "/checkpoints")[1]["checkpoints"] == []
    assert not (agent.folder.parent / ".undo").exists()


@pytest.mark.slow
def test_files_and_conversation_agree_after_a_kill(agent: AgentProcess, model: ModelServer) -> None:
    """Killed at some moment of an undo; once it runs again, both are of before the prompt, or both of after it."""
    rnd = dice("kills of an undo")

    def restore(id_: str) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            agent.call("POST", f"/checkpoints/{id_}/restore")

    for n in range(60):
        (agent.folder / f"file{n}").write_text("mine")
    agent.start()
    for n in range(times(20, 3)):
        model.script(
            Answer(tool_calls=[ToolCall("run_command", {"command": "for f in file*; do echo x > $f; done"})]),
            Answer(text="done"),
        )
        assert agent.chat(f"m{n}", "edit")[1]["status"] == "processed"
        asking = threading.Thread(target=restore, args=(f"m{n}",))
        asking.start()
        asking.join(rnd.uniform(0, 0.5))
        agent.kill()
        asking.join()
        agent.start()
        assert agent.chat(f"then{n}", "hello")[0] == 200
        texts = {(agent.folder / f"file{each}").read_text() for each in range(60)}
        is_undone = f"m{n}" not in {message["id"] for message in agent.history()}
        assert texts == ({"mine"} if is_undone else {"x\n"})
        if not is_undone:
            assert agent.call("POST", f"/checkpoints/m{n}/restore")[0] == 200
        assert {path.read_text() for path in agent.folder.iterdir()} == {"mine"}


@pytest.mark.parametrize("told", ["[]", '{"points": [["m1", 1.0, 1]]}'])
def test_an_answer_that_a_command_writes_in_the_helpers_place_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    """It ends the helper before that answers itself."""
    program = tmp_path / "helper.py"
    program.write_text(f"import os\nprint({told!r}, flush=True)\nos.kill(os.getpid(), 9)\n")
    monkeypatch.setattr(points, "PROGRAM", program)
    (tmp_path / points.FOLDER_NAME).mkdir()
    settings = AgentSettings("abcd1234", tmp_path / "app", tmp_path / "state", tmp_path / "token", tmp_path / "home")
    with pytest.raises(UndoFailed):
        UndoPoints(settings, {}, None).listed()
