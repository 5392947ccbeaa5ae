"""An agent takes its conversation out of the workspace's folder, where agents of earlier releases kept it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from app.agent.moving import move_conversation
from app.agent.settings import settings_from
from app.agent.state import State

CHOSEN = {"WORKSPACE_UUID": "u1", "AGENT_TOKEN_FILE": "/run/agent/token"}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    return folder


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    return tmp_path / ".session"


def converse(folder: Path, text: str) -> None:
    """A conversation with one prompt, as an agent leaves it."""
    state = State(folder, "u1")
    state.open(lambda: None)
    state.accept("m1", text, limit=10)
    state.close()


def prompts_in(folder: Path) -> list[str]:
    """The prompts in a conversation whose session knows of no other."""
    state = State(folder, "u1")
    state.open(lambda: None)
    found = [prompt["content"] for prompt in state.documents().metadata["queue"]]
    state.close()
    return found


def test_it_lies_beside_the_folder_unless_the_runtime_says_where(app: Path, beside: Path) -> None:
    """The runtime of an earlier release does not say it."""
    assert settings_from(CHOSEN | {"WORKSPACE_DIR": str(app)}).state_folder == beside
    told = settings_from(CHOSEN | {"WORKSPACE_DIR": str(app), "AGENT_STATE_DIR": "/elsewhere"})
    assert told.state_folder == Path("/elsewhere")


@pytest.mark.parametrize("made", [False, True])
def test_one_in_the_folder_is_moved_with_all_it_holds(app: Path, beside: Path, made: bool) -> None:
    """Also where an empty folder is in its place, which a start that was killed has left. Its prompt is still open."""
    converse(app / ".session", "hello")
    if made:
        beside.mkdir()
    for _ in range(2):
        move_conversation(app, beside)
    assert list(app.iterdir()) == []
    assert json.loads((beside / "metadata.json").read_text())["uuid"] == "u1"
    assert prompts_in(beside) == ["hello"]


def test_one_beside_the_folder_is_never_replaced(app: Path, beside: Path) -> None:
    """A repository may have such a folder, of this session too."""
    converse(beside, "newer")
    converse(app / ".session", "older")
    move_conversation(app, beside)
    assert prompts_in(beside) == ["newer"] and prompts_in(app / ".session") == ["older"]


def test_a_folder_that_is_no_conversation_is_the_projects(app: Path, beside: Path) -> None:
    (app / ".session").mkdir()
    (app / ".session" / "cache").touch()
    move_conversation(app, beside)
    assert not beside.exists() and (app / ".session" / "cache").exists()


@pytest.mark.parametrize("made", ["link", "file", "pipe"])
def test_nothing_but_a_folder_is_moved(app: Path, beside: Path, tmp_path: Path, made: str) -> None:
    """A link would take the conversation to wherever it leads."""
    old = app / ".session"
    if made == "link":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "metadata.json").touch()
        old.symlink_to(tmp_path / "elsewhere")
    elif made == "file":
        old.touch()
    else:
        os.mkfifo(old)
    move_conversation(app, beside)
    assert not os.path.lexists(beside) and os.path.lexists(old)


def test_a_move_that_fails_is_told_and_tried_again(app: Path, beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is begun instead: the prompts in it would run again."""
    converse(app / ".session", "hello")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="Input/output"):
        move_conversation(app, beside)
    monkeypatch.undo()
    assert not beside.exists()
    move_conversation(app, beside)
    assert prompts_in(beside) == ["hello"]
