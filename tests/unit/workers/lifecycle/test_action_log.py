"""What is logged when an action on a session ends: one line each, by the attempt that ended it."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import pytest

from app.core.errors import PermanentError, RetryableError, WorkspaceConflict
from app.core.redis import keys, task_queue
from app.core.service import NewSession
from app.core.sessions.attempts import MAX_ATTEMPTS
from app.process import logs
from app.process.private_text import private
from tests.world import World
from workers.archive.terms import incomplete
from workers.lifecycle.action_log import log as outcomes


@pytest.fixture
def ended(caplog: pytest.LogCaptureFixture) -> Any:
    """Takes the lines that were logged since it was called last."""
    caplog.set_level(logging.INFO, outcomes.name)

    def take() -> list[tuple[str, str, Any]]:
        lines = [each for each in caplog.records if each.name == outcomes.name]
        caplog.clear()
        return [(each.levelname, getattr(each, "action", ""), getattr(each, "duration", None)) for each in lines]

    return take


def again(world: World, uuid: str) -> None:
    """The message of the newest intent is delivered once more, as is one for a backup."""
    world.lifecycle.carry_out(uuid, world.get(uuid).generation)
    world.lifecycle.back_up(uuid)
    world.look(uuid)
    world.look(uuid)


def test_each_action_logs_its_end_once(world: World, ended: Any) -> None:
    uuid = world.sessions.create(NewSession(user_id="ada")).uuid
    world.now += 0.25
    world.work()
    assert ended() == []
    world.runtime.become_ready(uuid)
    world.now += 1.0
    world.look(uuid)
    assert ended() == [("INFO", "create", 1.25)]
    again(world, uuid)
    assert ended() == []

    world.sessions.sleep(uuid)
    world.now += 0.5
    world.work()
    again(world, uuid)
    assert ended() == [("INFO", "sleep", 0.5)]

    world.sessions.wake(uuid)
    world.work()
    world.runtime.become_ready(uuid)
    world.now += 0.123_4
    world.look(uuid)
    again(world, uuid)
    assert ended() == [("INFO", "wake", 0.123)]

    world.sessions.request_backup(uuid)
    world.work()
    again(world, uuid)
    assert ended() == [("INFO", "backup", 0.0)]

    world.sessions.delete(uuid)
    world.now += 2.0
    world.work()
    world.lifecycle.carry_out(uuid, world.get(uuid).generation)
    assert ended() == [("INFO", "backup", 0.0), ("INFO", "delete", 2.0)]


def test_a_restore_is_logged_by_its_name(world: World, ended: Any) -> None:
    backup = world.active()
    world.sessions.request_backup(backup)
    world.work()
    ended()
    uuid = world.sessions.restore(world.get(backup).backup, "ada").uuid
    world.work()
    world.runtime.become_ready(uuid)
    world.now += 3.0
    world.look(uuid)
    again(world, uuid)
    assert ended() == [("INFO", "restore", 3.0)]


def test_a_failed_action_is_a_warning_with_its_reason(
    world: World, ended: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermanentError("The quota is used up.")

    monkeypatch.setattr(world.runtime, "start", refuse)
    uuid = world.sessions.create(NewSession(user_id="ada")).uuid
    world.now += 0.5
    world.work()
    assert "create failed: The quota is used up." in caplog.text
    world.lifecycle.carry_out(uuid, world.get(uuid).generation)
    assert ended() == [("WARNING", "create", 0.5)]


def test_a_failed_backup_is_logged_and_changes_nothing(
    world: World, ended: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uuid = world.active()
    ended()

    def refuse(*_: object, **__: object) -> None:
        raise PermanentError("The store is full.")

    monkeypatch.setattr(world.runtime, "backup", refuse)
    world.sessions.request_backup(uuid)
    world.work()
    assert "backup failed: The store is full." in caplog.text
    again(world, uuid)
    assert ended() == [("WARNING", "backup", 0.0)]


def test_an_attempt_that_is_repeated_logs_nothing(world: World, ended: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = world.active()
    ended()
    stop = world.runtime.stop

    def busy(*_: object, **__: object) -> None:
        raise RetryableError("Busy.")

    monkeypatch.setattr(world.runtime, "stop", busy)
    world.sessions.sleep(uuid)
    with pytest.raises(RetryableError):
        world.work()
    assert ended() == []
    monkeypatch.setattr(world.runtime, "stop", stop)
    world.tasks.send(task_queue.SLEEP, uuid, world.get(uuid).generation)
    world.work()
    assert [line[:2] for line in ended()] == [("INFO", "sleep")]


def test_a_crash_of_an_active_session_is_no_action(world: World, ended: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The last lines of the workspace's log, which are its user's, are not in the service's."""
    uuid = world.active()
    ended()
    world.runtime.crash(uuid, "a secret")
    world.look(uuid)
    assert "session failed: The editor ended unexpectedly." in caplog.text and "a secret" not in caplog.text
    assert ended() == [("WARNING", "", None)]


@pytest.fixture
def line(caplog: pytest.LogCaptureFixture) -> Any:
    """The fields of the newest line, without the duration, which the tests above hold."""
    caplog.set_level(logging.INFO, outcomes.name)

    def newest() -> dict[str, Any]:
        record = [each for each in caplog.records if each.name == outcomes.name][-1]
        return {
            name: getattr(record, name, None)
            for name in ("uuid", "action", "outcome", "phases", "reason", "request_id")
        }

    return newest


def test_a_line_has_the_phases_and_the_request_of_its_action(world: World, line: Any) -> None:
    uuid = world.sessions.create(NewSession(user_id="ada"), "r-create").uuid
    world.now += 0.25
    world.work()
    world.runtime.become_ready(uuid)
    world.now += 1.0
    world.look(uuid)
    told = {"uuid": uuid, "outcome": "done", "reason": ""}
    assert line() == told | {
        "action": "create",
        "phases": {"enqueued": 250, "ready": 1250},
        "request_id": "r-create",
    }

    world.sessions.sleep(uuid, "r-sleep")
    world.now += 0.5
    world.work()
    phases = {"enqueued": 500, "agent_shut_down": 500, "stopped": 500}
    assert line() == told | {"action": "sleep", "phases": phases, "request_id": "r-sleep"}

    token = logs.request_id.set("r-backup")  # as a worker does from the message of the task
    world.sessions.request_backup(uuid, "r-backup")
    world.work()
    logs.request_id.reset(token)
    assert line() == told | {"action": "backup", "phases": {"verified": 0}, "request_id": "r-backup"}

    world.sessions.delete(uuid, request_id="r-delete")
    world.now += 2.0
    world.work()
    phases = {"enqueued": 2000, "stopped": 2000, "backed_up": 2000, "removed": 2000}
    assert line() == told | {"action": "delete", "phases": phases, "request_id": "r-delete"}


def test_a_failed_action_has_its_reason_without_the_names_of_files(
    world: World, line: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its user reads them in the session's status."""

    def unreadable(*_: object, **__: object) -> None:
        raise incomplete(2, ["canary.txt", "folder/canary"])

    uuid = world.active()
    monkeypatch.setattr(world.runtime, "backup", unreadable)
    world.sessions.delete(uuid, request_id="r1")
    world.work()
    said = line()
    assert said["reason"].startswith("Unreadable files or folders would be missing from the backup: 2 (“…”).")
    assert (said["action"], said["outcome"], said["request_id"]) == ("delete", "failed", "r1")
    assert "canary.txt" in world.get(uuid).reason and "canary" not in caplog.text


def test_a_given_up_task_leaves_a_dead_letter_without_the_names_of_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RetryableError(f"{private('canary.txt')} cannot be read.")

    uuid = world.active()
    monkeypatch.setattr(world.runtime, "backup", refuse)
    world.sessions.request_backup(uuid)
    for _ in range(MAX_ATTEMPTS):
        with suppress(RetryableError):
            world.lifecycle.back_up(uuid)
    letters = world.core.redis.lrange(keys.DEAD_LETTERS, 0, -1)
    assert len(letters) == 1 and "cannot be read" in letters[0] and "canary" not in letters[0]


def test_a_failure_is_counted_by_its_reason(world: World) -> None:
    """By the code where that says something, else by what failed."""
    first, second = world.active("ada"), world.active("bob")
    for uuid, error in ((first, PermanentError("broken")), (second, WorkspaceConflict("another's"))):
        world.sessions.sleep(uuid)
        world.runtime.errors["stop"] = error
        world.work()
    assert world.core.counters.failures_by_reason() == {"sleep_failed": 1, "workspace_conflict": 1}
