"""The conversation lies beside the project: a backup holds both, its sidecar tells it, and a restore puts both back, or
neither."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import ArchiveError, RetryableError
from tests.unit.workers.archive.conftest import BEFORE, IDENTITY, NAME, Bench, files
from workers.archive import conversation

HISTORY = json.dumps([{"id": "m1", "role": "user", "content": "a private prompt", "at": "x"}])
CONVERSATION = {".session/history.json": HISTORY, ".session/metadata.json": '{"uuid": "abcd1234"}'}
AFTER = {"app/file": "content", **CONVERSATION}


class Killed(BaseException):
    """The process ends."""


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """With a project of one file."""
    (bench.root / "file").write_text("content")
    return bench


@pytest.fixture
def beside(bench: Bench) -> Path:
    """The project's conversation."""
    return converse(bench.root.parent)


def converse(folder: Path) -> Path:
    (folder / ".session").mkdir()
    for path, text in CONVERSATION.items():
        (folder / path).write_text(text)
    return folder / ".session"


def bring_back(bench: Bench, user_id: str = IDENTITY.user_id) -> dict[str, str]:
    """The files of the workspace once the backup was restored to this user's."""
    bench.bring_back(user_id=user_id)
    return files(bench.place)


# What is backed up and restored


def test_it_comes_back_beside_the_project(bench: Bench, beside: Path) -> None:
    bench.back_up()
    assert bring_back(bench) == AFTER
    assert (bench.place / ".session").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("user_id", [IDENTITY.user_id, "ben"])
def test_a_folder_in_the_project_is_no_conversation(bench: Bench, user_id: str) -> None:
    """Whatever is in it: a repository can bring one that looks like a conversation, and the agent must not go on with
    that. It comes back where it was, for any user."""
    converse(bench.root)
    bench.back_up()
    with zipfile.ZipFile(bench.stored) as archive:
        assert not [name for name in archive.namelist() if name.startswith(".session")]
    assert bench.store.sidecar(NAME)["conversation"] is None
    assert bring_back(bench, user_id) == {f"app/{name.removeprefix('app/')}": text for name, text in AFTER.items()}


def test_one_begun_while_the_project_is_read_is_in_the_backup(bench: Bench) -> None:
    """An agent's first start makes it, and its first prompt may change the files that are read."""
    calls = count()
    bench.back_up(check=lambda: converse(bench.root.parent) if next(calls) == 0 else None)
    assert bring_back(bench) == AFTER


def test_a_backup_without_one_leaves_none(bench: Bench) -> None:
    """The conversation that was there belongs to the files that were there."""
    bench.back_up()
    assert bring_back(bench) == {"app/file": "content"}
    assert bench.store.sidecar(NAME)["conversation"] is None


def test_a_project_may_have_a_folder_of_that_name(bench: Bench, beside: Path) -> None:
    """Each comes back where it was; the project's may have a link, and another user gets it too."""
    (bench.root / ".session").mkdir()
    (bench.root / ".session" / "cache").write_text("mine")
    (bench.root / ".session" / "link").symlink_to("../file")
    (bench.root / ".session" / "out").symlink_to("../../else")
    (bench.root / ".session-notes").write_text("x")
    bench.back_up()
    own = {"app/.session/cache": "mine", "app/.session/link": "content", "app/.session-notes": "x"}
    assert bring_back(bench) == AFTER | own
    assert bring_back(bench, "ben") == {"app/file": "content"} | own


@pytest.mark.parametrize("names", [["history.json", "metadata.json"], ["journal"]])
def test_another_user_gets_no_conversation(bench: Bench, names: list[str]) -> None:
    """No file of it, whichever there are; and none that was there before stays."""
    (bench.root.parent / ".session").mkdir()
    for name in names:
        (bench.root.parent / ".session" / name).write_text(HISTORY)
    bench.back_up()
    assert bring_back(bench, "ben") == {"app/file": "content"}


def test_links_in_it_are_left_out(bench: Bench, beside: Path) -> None:
    """They could lead anywhere on the volume, to secrets too; the agent makes none."""
    (beside.parent / "secret").write_text("secret")
    (beside / "link").symlink_to("../secret")
    bench.back_up()
    assert bring_back(bench) == AFTER
    assert not os.path.lexists(bench.place / ".session" / "link")


@contextmanager
def failing_renames(which: range, error: type[BaseException]) -> Iterator[None]:
    """Within it these calls of `os.rename` fail."""
    rename, calls = os.rename, count()

    def sometimes(source: Path, target: Path) -> None:
        if next(calls) in which:
            raise error(5, "Input/output error")
        rename(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", sometimes)
        yield


@pytest.mark.parametrize("at", range(5))
def test_a_run_killed_between_the_renames_is_completed_or_has_done_nothing(bench: Bench, beside: Path, at: int) -> None:
    """By the next run, even if that run's own backup is refused."""
    bench.back_up()
    with failing_renames(range(at, 100), Killed), pytest.raises(Killed):
        bench.bring_back()
    bench.target.mkdir(exist_ok=True)  # a provision makes it again
    bench.stored.write_bytes(b"damaged")
    with pytest.raises(ArchiveError):
        bench.bring_back()
    assert files(bench.place) == (AFTER if at else BEFORE)
    assert sorted(os.listdir(bench.place)) == [".session", "app"]


@pytest.mark.parametrize("at", range(5))
def test_a_rename_that_fails_is_undone_with_those_before_it(bench: Bench, beside: Path, at: int) -> None:
    bench.back_up()
    with failing_renames(range(at, at + 1), OSError), pytest.raises(RetryableError):
        bench.bring_back()
    bench.expect_untouched()


# What the sidecar tells, whatever the workspace's user made of the file


def told(bench: Bench) -> Any:
    bench.back_up()
    return bench.store.sidecar(NAME)["conversation"]


def test_the_sidecar_holds_the_messages_and_names_their_file(bench: Bench, beside: Path) -> None:
    """Who said what and when; how the agent got there is in the file."""
    messages = [
        {"id": "m1", "role": "user", "content": "hello", "at": "2026-01-01T00:00:00Z"},
        {"id": "m1", "role": "assistant", "content": "", "at": "x"},
        {"id": "m1", "role": "assistant", "content": "done", "at": "x"},
    ]
    more: list[dict[str, Any]] = [{}, {"tool_calls": [{"name": "run_command"}]}, {"outcome": {"status": "processed"}}]
    (beside / "history.json").write_text(json.dumps([each | extra for each, extra in zip(messages, more, strict=True)]))
    assert told(bench) == {"file": ".session/history.json", "total": 3, "messages": messages}


def test_a_long_conversation_is_told_from_its_end(bench: Bench, beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as fits; the total says how much there is."""
    monkeypatch.setattr(conversation, "MAX_CHARS", 100)
    many = [{"role": "user", "content": f"{number:020}"} for number in range(50)]
    (beside / "history.json").write_text(json.dumps(many))
    assert told(bench) == {"file": ".session/history.json", "total": 50, "messages": many[-4:]}


@pytest.mark.parametrize(
    "content", [b"", b"not JSON", b'{"a": 1}', b"[1]", b"[" * 100_000, b"\xff\xfe", b" " * 8_388_609]
)
def test_a_file_that_is_no_history_is_named_and_not_told(bench: Bench, beside: Path, content: bytes) -> None:
    """The backup is made all the same."""
    (beside / "history.json").write_bytes(content)
    assert told(bench) == {"file": ".session/history.json", "total": None, "messages": []}


def link_instead(folder: Path, secret: Path) -> None:
    folder.rmdir()
    folder.symlink_to(secret)


@pytest.mark.parametrize(
    "put",
    [
        lambda folder, secret: None,
        lambda folder, secret: (folder / "history.json").symlink_to(secret / "history.json"),
        lambda folder, secret: os.mkfifo(folder / "history.json"),
        link_instead,
    ],
    ids=["nothing", "link", "pipe", "link for a folder"],
)
def test_no_link_is_followed_out_of_the_workspace_and_no_pipe_waited_for(
    bench: Bench, put: Callable[[Path, Path], None]
) -> None:
    """Neither the file nor its folder may be one."""
    folder = bench.root.parent / ".session"
    folder.mkdir()
    put(folder, converse(bench.folder))
    assert told(bench) is None
