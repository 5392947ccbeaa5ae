"""What is logged when an action on a session ends: one line each, by the attempt that ended it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from app.core.errors import PermanentError, RetryableError
from app.core.redis import task_queue
from app.core.service import NewSession
from tests.world import World
from workers.outcomes import log as outcomes


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
