"""What is logged when an action on a session ends: one line each, by the attempt that ended it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from app.core.errors import PermanentError, RetryableError, WorkspaceConflict
from app.core.redis import keys, task_queue
from app.core.service import NewSession
from app.core.sessions.attempts import MAX_ATTEMPTS
from app.process import logs
from app.process.private_text import private
from tests.fakes import raising
from tests.world import World
from workers.archive.terms import incomplete
from workers.lifecycle.action_log import log as outcomes

Ended = Callable[[], list[dict[str, Any]]]
"""Takes the fields of the lines that were logged since it was called last."""


@pytest.fixture
def ended(caplog: pytest.LogCaptureFixture) -> Ended:
    caplog.set_level(logging.INFO, outcomes.name)

    def take() -> list[dict[str, Any]]:
        names = ("levelname", "uuid", "action", "outcome", "duration", "phases", "reason", "request_id")
        lines = [each for each in caplog.records if each.name == outcomes.name]
        caplog.clear()
        return [{name: getattr(each, name, None) for name in names} for each in lines]

    return take


def brief(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(each["levelname"], each["action"], each["duration"]) for each in lines]


def again(world: World, uuid: str) -> None:
    """The message of the newest intent is delivered once more, as is one for a backup."""
    world.lifecycle.carry_out(uuid, world.get(uuid).generation)
    world.lifecycle.back_up(uuid)
    world.look(uuid)
    world.look(uuid)


def test_each_action_logs_its_end_once_with_its_duration_phases_and_request(world: World, ended: Ended) -> None:
    uuid = world.sessions.create(NewSession(user_id="ada"), "r-create").uuid
    done = {"levelname": "INFO", "uuid": uuid, "outcome": "done", "reason": ""}
    world.now += 0.25
    world.work()
    assert ended() == []
    world.runtime.become_ready(uuid)
    world.now += 1.0
    world.look(uuid)
    phases = {"enqueued": 250, "ready": 1250}
    create = done | {"action": "create", "duration": 1.25, "phases": phases, "request_id": "r-create"}
    assert ended() == [create]
    again(world, uuid)
    assert ended() == []

    world.sessions.sleep(uuid, "r-sleep")
    world.now += 0.5
    world.work()
    again(world, uuid)
    phases = {"enqueued": 500, "agent_shut_down": 500, "stopped": 500}
    assert ended() == [done | {"action": "sleep", "duration": 0.5, "phases": phases, "request_id": "r-sleep"}]

    world.sessions.wake(uuid)
    world.work()
    world.now += 0.123_4
    world.up(uuid)
    again(world, uuid)
    assert brief(ended()) == [("INFO", "wake", 0.123)]

    token = logs.request_id.set("r-backup")  # as a worker does from the message of the task
    world.sessions.request_backup(uuid, "r-backup")
    world.work()
    again(world, uuid)
    logs.request_id.reset(token)
    backup = done | {"action": "backup", "duration": 0.0, "phases": {"verified": 0}, "request_id": "r-backup"}
    assert ended() == [backup]

    world.sessions.delete(uuid, request_id="r-delete")
    world.now += 2.0
    world.work()
    world.lifecycle.carry_out(uuid, world.get(uuid).generation)
    phases = {"enqueued": 2000, "stopped": 2000, "backed_up": 2000, "removed": 2000}
    delete = done | {"action": "delete", "duration": 2.0, "phases": phases, "request_id": "r-delete"}
    first, last = ended()
    assert (brief([first]), last) == ([("INFO", "backup", 0.0)], delete)


def test_a_restore_is_logged_by_its_name(world: World, ended: Ended) -> None:
    name = world.back_up(world.active()).backup
    ended()
    uuid = world.sessions.restore(name, "ada").uuid
    world.work()
    world.now += 3.0
    world.up(uuid)
    again(world, uuid)
    assert brief(ended()) == [("INFO", "restore", 3.0)]


def test_a_failed_action_is_a_warning_with_its_reason(
    world: World, ended: Ended, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(world.runtime, "start", raising(PermanentError("The quota is used up.")))
    uuid = world.create()
    world.now += 0.5
    world.work()
    assert "create failed: The quota is used up." in caplog.text
    world.lifecycle.carry_out(uuid, world.get(uuid).generation)
    assert brief(ended()) == [("WARNING", "create", 0.5)]


def test_a_failed_backup_is_logged_and_changes_nothing(
    world: World, ended: Ended, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uuid = world.active()
    ended()
    monkeypatch.setattr(world.runtime, "backup", raising(PermanentError("The store is full.")))
    world.back_up(uuid)
    assert "backup failed: The store is full." in caplog.text
    again(world, uuid)
    assert brief(ended()) == [("WARNING", "backup", 0.0)]


def test_an_attempt_that_is_repeated_logs_nothing(world: World, ended: Ended) -> None:
    uuid = world.active()
    ended()
    world.runtime.errors["stop"] = RetryableError("Busy.")
    world.sessions.sleep(uuid)
    with pytest.raises(RetryableError):
        world.work()
    assert ended() == []
    world.tasks.send(task_queue.SLEEP, uuid, world.get(uuid).generation)
    world.work()
    assert [line[:2] for line in brief(ended())] == [("INFO", "sleep")]


def test_a_crash_of_an_active_session_is_no_action(
    world: World, ended: Ended, caplog: pytest.LogCaptureFixture
) -> None:
    """The last lines of the workspace's log, which are its user's, are not in the service's."""
    uuid = world.active()
    ended()
    world.runtime.crash(uuid, "a secret")
    world.look(uuid)
    assert "session failed: The editor ended unexpectedly." in caplog.text and "a secret" not in caplog.text
    assert brief(ended()) == [("WARNING", None, None)]


def test_a_failed_action_has_its_reason_without_the_names_of_files(
    world: World, ended: Ended, caplog: pytest.LogCaptureFixture
) -> None:
    """Its user reads them in the session's status."""
    uuid = world.active()
    ended()
    world.runtime.errors["backup"] = incomplete(2, ["canary.txt", "folder/canary"])
    world.delete(uuid, request_id="r1")
    logged = caplog.text
    [said] = ended()
    assert said["reason"].startswith("Unreadable files or folders would be missing from the backup: 2 (“…”).")
    assert (said["action"], said["outcome"], said["request_id"]) == ("delete", "failed", "r1")
    assert "canary.txt" in world.get(uuid).reason and "canary" not in logged


def test_a_given_up_task_leaves_a_dead_letter_without_the_names_of_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = world.active()
    unreadable = RetryableError(f"{private('canary.txt')} cannot be read.")
    monkeypatch.setattr(world.runtime, "backup", raising(unreadable))
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
        world.runtime.errors["stop"] = error
        world.sleep(uuid)
    assert world.core.counters.failures_by_reason() == {"sleep_failed": 1, "workspace_conflict": 1}
