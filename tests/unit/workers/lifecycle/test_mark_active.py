"""A session becomes active when its workspace answers and its start has come to its end, in whatever order."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import RetryableError, StateUnavailable
from app.core.sessions.model import Status
from tests.world import World


def answering(world: World, *, then: type[Exception] | None = None) -> str:
    """A new session whose workspace answers, and is seen to, before its start has come to its end; which is cut off
    there by `then`."""
    uuid = world.create()
    start = world.runtime.start

    def and_then_it_answers(*args: Any) -> bool:
        ran = start(*args)
        world.runtime.become_ready(uuid)
        world.look(uuid)
        assert world.get(uuid).status is Status.CREATED
        world.runtime.start = start  # type: ignore[method-assign]
        if then is not None:
            raise then("cut off")
        return ran

    world.runtime.start = and_then_it_answers  # type: ignore[method-assign, assignment]
    return uuid


def test_one_that_answers_first_is_active_when_its_start_has_come_to_its_end(world: World) -> None:
    uuid = answering(world)
    world.work()
    record = world.get(uuid)
    assert (record.status, record.settled, record.replicas) == (Status.ACTIVE, record.generation, 1)
    assert record.phases["ready"] >= 0


def test_one_that_answers_first_is_started_again_where_its_start_was_cut_off(world: World) -> None:
    """What its start was yet to do would be done by nobody."""
    uuid = answering(world, then=StateUnavailable)
    with pytest.raises(StateUnavailable):
        world.work()
    world.look(uuid)
    assert world.get(uuid).status is Status.CREATED
    world.catch_up()
    assert world.get(uuid).status is Status.ACTIVE
    assert world.runtime.called.count("start") == 2


def test_one_that_answered_does_not_fail_where_that_could_not_be_seen_again(world: World) -> None:
    """Nor where the worker was killed at that very moment."""
    uuid = answering(world)
    observe = world.runtime.observe
    looks = iter([observe, observe])

    def away(uuid: str) -> Any:
        if look := next(looks, None):
            return look(uuid)
        raise RetryableError("The runtime is away.")

    world.runtime.observe = away  # type: ignore[method-assign]
    next(looks)
    world.work()
    assert world.get(uuid).status is Status.CREATED
    world.runtime.observe = observe  # type: ignore[method-assign]
    world.now += 10 * world.settings.start_timeout
    world.sweeps.stale()
    assert world.get(uuid).status is Status.ACTIVE


def test_one_whose_start_ends_while_it_is_seen_is_active_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The observer's look at the record is a moment old."""
    uuid = world.create()
    old = world.get(uuid)
    world.work()
    world.runtime.become_ready(uuid)
    with monkeypatch.context() as moment:
        moment.setattr(world.core.store, "get", lambda uuid: old)
        world.look(uuid)
    assert world.get(uuid).status is Status.ACTIVE


def test_one_that_answered_and_fell_silent_is_not_active(world: World) -> None:
    uuid = answering(world)
    observe = world.runtime.observe

    def silent(uuid: str) -> Any:
        seen = observe(uuid)
        if world.get(uuid).started_at:
            world.runtime.workspaces[uuid].ready = False
            return observe(uuid)
        return seen

    world.runtime.observe = silent  # type: ignore[method-assign]
    world.work()
    assert world.get(uuid).status is Status.CREATED
    world.runtime.become_ready(uuid)
    world.runtime.observe = observe  # type: ignore[method-assign]
    world.look(uuid)
    assert world.get(uuid).status is Status.ACTIVE
