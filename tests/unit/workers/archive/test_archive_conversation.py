"""What a backup's sidecar tells of the conversation in it, whatever the workspace's user made of the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.backups.store import BackupStore, backup_name
from tests.contract.runtimes import identity
from workers import archive
from workers.archive import conversation as told

HISTORY = [
    {"id": "m1", "role": "user", "content": "hello", "at": "2026-01-01T00:00:00Z"},
    {"id": "m1", "role": "assistant", "content": "", "at": "x", "tool_calls": [{"name": "run_command"}]},
    {"id": "m1", "role": "assistant", "content": "done", "at": "x", "outcome": {"status": "processed"}},
]


@pytest.fixture
def backed_up(tmp_path: Path) -> Callable[[], Any]:
    """Backs `tmp_path/app` up, and gives what the sidecar tells of the conversation beside it."""
    (tmp_path / "app").mkdir()
    (tmp_path / ".session").mkdir()

    def back_up() -> Any:
        files = BackupStore(f"file://{tmp_path}/backups")
        name = backup_name("aaaa0001", 1_763_625_600.0)
        archive.write_backup(tmp_path / "app", files, name, identity("aaaa0001"), 1_763_625_600.0)
        return files.sidecar(name)["conversation"]

    return back_up


def test_the_sidecar_holds_the_messages_and_names_their_file(tmp_path: Path, backed_up: Callable[[], Any]) -> None:
    """Who said what and when; how the agent got there is in the file."""
    (tmp_path / ".session/history.json").write_text(json.dumps(HISTORY))
    said = backed_up()
    assert (said["file"], said["total"]) == (".session/history.json", 3)
    assert [(each["role"], each["content"]) for each in said["messages"]] == [
        ("user", "hello"), ("assistant", ""), ("assistant", "done"),
    ]  # fmt: skip
    assert {name for each in said["messages"] for name in each} == {"id", "role", "content", "at"}


def test_without_a_conversation_it_says_so(backed_up: Callable[[], Any]) -> None:
    assert backed_up() is None


def test_a_long_conversation_is_told_from_its_end(
    tmp_path: Path, backed_up: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As much as fits; the total says how much there is."""
    monkeypatch.setattr(told, "MAX_CHARS", 100)
    many = [{"role": "user", "content": f"{number:020}"} for number in range(50)]
    (tmp_path / ".session/history.json").write_text(json.dumps(many))
    said = backed_up()
    assert said["total"] == 50
    assert said["messages"] == many[-4:]


@pytest.mark.parametrize(
    "content", [b"", b"not JSON", b'{"a": 1}', b"[1]", b"[" * 100_000, b"\xff\xfe", b" " * 8_388_609]
)
def test_a_file_that_is_no_history_is_named_and_not_told(
    tmp_path: Path, backed_up: Callable[[], Any], content: bytes
) -> None:
    """The backup is made all the same."""
    (tmp_path / ".session/history.json").write_bytes(content)
    assert backed_up() == {"file": ".session/history.json", "total": None, "messages": []}


def test_no_link_is_followed_out_of_the_workspace(tmp_path: Path, backed_up: Callable[[], Any]) -> None:
    """Neither the file nor its folder may be one, and a pipe in its place blocks nothing."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/history.json").write_text(json.dumps(HISTORY))
    (tmp_path / ".session/history.json").symlink_to(tmp_path / "secret/history.json")
    assert backed_up() is None


def test_a_pipe_in_its_place_blocks_nothing(tmp_path: Path, backed_up: Callable[[], Any]) -> None:
    os.mkfifo(tmp_path / ".session/history.json")
    assert backed_up() is None


def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path, backed_up: Callable[[], Any]) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/history.json").write_text(json.dumps(HISTORY))
    (tmp_path / ".session").rmdir()
    (tmp_path / ".session").symlink_to(tmp_path / "secret")
    assert backed_up() is None
