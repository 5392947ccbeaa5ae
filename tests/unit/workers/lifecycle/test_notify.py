"""What is told of the end of each action on a session: once to each listener, whatever the others do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from app.core.composition import Core
from app.core.errors import ArchiveError, PermanentError, RetryableError, StateUnavailable
from app.core.restore_points.names import reference
from app.process import tracing
from app.process.private_text import private
from tests.fakes import raising
from tests.world import World
from workers.lifecycle import notify as seam
from workers.lifecycle.action_log import log as action_lines
from workers.lifecycle.archiving import Archive
from workers.lifecycle.ended import Ended, done, failed
from workers.lifecycle.notify import Listener

TTL = 3_600.0

Steps = Iterator[None]
"""Makes a session ready for the action, yields, and carries the action out."""


@pytest.fixture
def world(saving_world: World) -> World:
    return saving_world


def come_up(world: World, uuid: str) -> None:
    world.work()
    world.now += 1.0
    world.up(uuid)


def with_point(world: World) -> str:
    uuid = world.active()
    world.save(uuid)
    return uuid


def create(world: World) -> Steps:
    yield
    come_up(world, world.create())


def wake(world: World) -> Steps:
    uuid = world.asleep()
    yield
    world.sessions.wake(uuid)
    come_up(world, uuid)


def restore(world: World) -> Steps:
    name = world.back_up(world.active()).backup
    yield
    come_up(world, world.sessions.restore(name, "bob").uuid)


def roll_back(world: World) -> Steps:
    uuid = with_point(world)
    world.files(uuid)["new.txt"] = b"later"
    world.now += 60
    yield
    world.core.going_back.roll_back(uuid, world.get(uuid).point)
    come_up(world, uuid)


def come_back_by_itself(world: World) -> Steps:
    """A failed session has no action that could end."""
    uuid = world.active()
    world.runtime.crash(uuid, "")
    world.look(uuid)
    yield
    workspace = world.runtime.workspaces[uuid]
    workspace.running, workspace.ready, workspace.failure = True, True, ""
    world.look(uuid)


def sleep(world: World) -> Steps:
    uuid = world.active()
    yield
    world.sleep(uuid)


def be_scaled_down(world: World) -> Steps:
    """Something else stops the workspace: nobody asked for that."""
    uuid = world.active()
    yield
    workspace = world.runtime.workspaces[uuid]
    workspace.running = workspace.ready = False
    world.look(uuid)


def back_up(world: World) -> Steps:
    uuid = world.active()
    yield
    world.sessions.request_backup(uuid)
    world.lifecycle.back_up(uuid)


def make_point(world: World) -> Steps:
    uuid = world.active()
    yield
    world.save(uuid)


def make_point_again(world: World) -> Steps:
    uuid = with_point(world)
    yield
    world.save(uuid)


def drill(world: World) -> Steps:
    with_point(world)
    world.now += world.settings.drill_cycle
    yield
    world.sweep(world.drills.sweep)


def archive(world: World) -> Steps:
    world.asleep(ttl=TTL)
    world.pass_time(TTL)
    yield
    world.expire()


def delete(world: World) -> Steps:
    uuid = world.active()
    yield
    world.delete(uuid)


def fail_to_create(world: World) -> Steps:
    world.runtime.errors["start"] = PermanentError("broken")
    yield
    world.create()
    world.work()


def fail_to_make_point(world: World) -> Steps:
    uuid = world.active()
    world.runtime.errors["make_point"] = RetryableError("busy")
    yield
    world.sessions.request_point(uuid)
    with pytest.raises(RetryableError):
        world.work()


def fail_a_drill(world: World) -> Steps:
    uuid = with_point(world)
    world.runtime.damaged.add(reference(uuid, world.get(uuid).point))
    world.now += world.settings.drill_cycle
    yield
    world.drills.sweep()
    world.drills.drill(uuid)


def fail_to_archive(world: World) -> Steps:
    world.asleep(ttl=TTL)
    world.pass_time(TTL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Archive, "mark", raising(ArchiveError("The store refuses.")))
        yield
        world.expire()


def fail_while_archiving(world: World) -> Steps:
    """It is the session that fails, not only its archiving."""
    uuid = world.asleep()
    yield
    record = world.core.sessions.archive(world.get(uuid))
    world.lifecycle.fail(record, "gone")


def crash(world: World) -> Steps:
    uuid = world.active()
    yield
    world.runtime.crash(uuid, "")
    world.look(uuid)


@dataclass(frozen=True)
class Told:
    """What the action's steps end and tell: lines of the log, spans, counters, the actions whose durations are counted,
    the actions whose failures are, and the reasons of these. `errors` are what the runtime answers."""

    steps: Callable[[World], Steps]
    lines: list[str]
    spans: list[str]
    counted: dict[str, int]
    timed: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)
    errors: dict[str, BaseException] = field(default_factory=dict)


def failing(
    steps: Callable[[World], Steps],
    action: str,
    reason: str,
    counted: dict[str, int],
    cause: str = "",
    at: str = "",
) -> Told:
    """Of an action that fails for this reason, maybe for the runtime's at this call."""
    errors: dict[str, BaseException] = {at: PermanentError(reason)} if at else {}
    lines, causes = [f"{action} failed: {reason}"], {cause or f"{action}_failed": 1}
    return Told(steps, lines, [action], counted, failed={action: 1}, causes=causes, errors=errors)


POINT = {"points_made": 1, "points_stored_bytes": 100}

TABLE = [
    Told(create, ["create done"], ["create"], {"starts": 1}, {"create": 1}),
    Told(wake, ["wake done"], ["wake"], {"starts": 1}, {"wake": 1}),
    Told(restore, ["restore done"], ["restore"], {"starts": 1}, {"restore": 1}),
    Told(
        roll_back,
        ["point done", "rollback done"],
        ["point", "rollback"],
        {**POINT, "rollbacks": 1, "starts": 1},
        {"point": 1, "rollback": 1},
    ),
    Told(come_back_by_itself, [], [], {"starts": 1}),
    Told(sleep, ["sleep done", "point done"], ["sleep", "point"], {"sleeps": 1, **POINT}, {"sleep": 1, "point": 1}),
    Told(be_scaled_down, ["sleep done"], [], {}),
    Told(back_up, ["backup done"], ["backup"], {"backups": 1}, {"backup": 1}),
    Told(make_point, ["point done"], ["point"], POINT, {"point": 1}),
    Told(make_point_again, ["point done"], ["point"], {"points_unchanged": 1}, {"point": 1}),
    Told(drill, ["drill done"], ["drill"], {"drills_proven": 1}, {"drill": 1}),
    Told(
        archive,
        ["point done", "archive done"],
        ["point", "archive"],
        {**POINT, "archived": 1},
        {"point": 1, "archive": 1},
    ),
    Told(
        delete,
        ["backup done", "delete done"],
        ["backup", "delete"],
        {"backups": 1, "teardowns": 1},
        {"backup": 1, "delete": 1},
    ),
    failing(fail_to_create, "create", "broken", {"sessions_failed": 1}),
    failing(sleep, "sleep", "broken", {"sessions_failed": 1}, at="stop"),
    failing(back_up, "backup", "broken", {"backups_failed": 1}, at="backup"),
    failing(fail_to_make_point, "point", "busy", {"points_failed": 1}, RetryableError.code),
    failing(fail_a_drill, "drill", "It can't be restored.", {"drills_failed": 1, "points_broken": 1}),
    failing(fail_while_archiving, "archive", "gone", {"sessions_failed": 1}),
    Told(
        fail_to_archive,
        ["point done", "archive failed: The store refuses."],
        ["point", "archive"],
        {**POINT, "archives_failed": 1},
        {"point": 1},
        failed={"archive": 1},
        causes={"archive_failed": 1},
    ),
    Told(
        crash,
        ["session failed: The editor ended unexpectedly."],
        [],
        {"sessions_failed": 1},
        causes={"session_failed": 1},
    ),
]
of_each_action = pytest.mark.parametrize("told", TABLE, ids=lambda told: "-".join((told.steps.__name__, *told.errors)))


def counted_so_far(world: World) -> list[dict[str, int]]:
    """The counters, the durations by action, the failures by action, and by reason."""
    counters = world.core.counters
    durations, failed = counters.actions()
    timed = {action: sum(each.counts) for (action, phase), each in durations.items() if phase == "total"}
    timed |= {kind: sum(each.counts) for (kind, phase), each in counters.starts().items() if phase == "ready"}
    return [counters.read(), timed, failed, counters.failures_by_reason()]


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name)}


def check(
    world: World, told: Told, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, *listeners: Listener
) -> None:
    """Carry the action out, with these listeners before all others, and compare what comes of it."""
    steps = told.steps(world)
    next(steps)
    world.runtime.errors |= told.errors
    spans: list[str] = []
    monkeypatch.setattr(tracing, "record", lambda name, *_: spans.append(name))
    monkeypatch.setattr(seam, "LISTENERS", (*listeners, *seam.LISTENERS))
    caplog.set_level(logging.INFO, action_lines.name)
    caplog.clear()
    before = counted_so_far(world)
    next(steps, None)
    assert [each.getMessage() for each in caplog.records if each.name == action_lines.name] == told.lines
    assert spans == [f"session {action}" for action in told.spans]
    found = [grown(*pair) for pair in zip(before, counted_so_far(world), strict=True)]
    assert found == [told.counted, told.timed, told.failed, told.causes]


@of_each_action
def test_each_end_is_logged_traced_and_counted_once(
    world: World, told: Told, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(world, told, caplog, monkeypatch)


@of_each_action
@pytest.mark.parametrize(
    ("error", "level"),
    [(StateUnavailable("Redis is away."), "WARNING"), (ValueError("a mistake"), "ERROR")],
    ids=["ours", "other"],
)
def test_a_listener_that_fails_hears_of_each_end_once_and_harms_nobody(
    world: World,
    told: Told,
    error: Exception,
    level: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mistake in a listener is an error with its trace."""
    heard: list[Ended] = []

    def fails(core: Core, ended: Ended) -> None:
        heard.append(ended)
        raise error

    check(world, told, caplog, monkeypatch, fails)
    ends = [f"{each.action or 'session'} {each.outcome}" for each in heard]
    assert ends == [line.partition(":")[0] for line in told.lines]
    warned = [each for each in caplog.records if each.name == seam.log.name]
    assert [getattr(each, "uuid", "") for each in warned] == [each.record.uuid for each in heard]
    assert all("not told to fails" in each.getMessage() for each in warned)
    assert all((each.levelname, bool(each.exc_info)) == (level, level == "ERROR") for each in warned)


def test_an_end_is_logged_and_timed_while_it_cannot_be_counted(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis goes away after the session fell asleep; its restore point is asked for all the same."""
    monkeypatch.setattr(world.core.counters, "count", raising(StateUnavailable("Redis is away.")))
    told = next(each for each in TABLE if each.steps is sleep)
    check(world, replace(told, counted={}), caplog, monkeypatch)


def test_the_end_of_a_tasks_time_is_no_listeners(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = world.active()
    monkeypatch.setattr(seam, "LISTENERS", (raising(SoftTimeLimitExceeded()),))
    with pytest.raises(SoftTimeLimitExceeded):
        seam.notify(world.core, done("sleep", world.get(uuid), world.now))


def test_a_reason_is_told_without_what_is_private(world: World) -> None:
    record = world.get(world.active())
    assert "canary" not in failed("backup", record, f"{private('canary.txt')} is unreadable.", world.now).reason
