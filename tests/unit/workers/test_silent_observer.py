"""An observer that is silent, or sees a part only, fails nobody: a start is judged by what is there when it is
judged."""

from __future__ import annotations

import pytest
import redis

from app.core.errors import FilesGone, PermanentError, RetryableError
from app.core.redis.connections import connect
from app.core.redis.heartbeats import OBSERVER_SILENCE, Heartbeats
from app.core.sessions.model import Status
from tests.fakes import raising
from tests.losing import losing
from tests.world import World


def starting(world: World) -> str:
    """A session whose processes were started under the observer's eyes."""
    uuid = world.create()
    world.core.heartbeats.observer_alive(world.now)
    world.work()
    return uuid


def test_a_pause_counts_though_the_answer_to_the_first_report_after_it_was_lost(
    redis_server: str, redis_client: redis.Redis
) -> None:
    """redis-py reports once more: by then there is no pause to be seen any more."""
    with losing(redis_server) as proxy, connect(proxy.url, 5.0) as far:
        heartbeats = Heartbeats(far)
        heartbeats.observer_alive(1_000.0)
        proxy.lose(b"observer:seen")
        heartbeats.observer_alive(1_100.0)
        assert proxy.lost == 1
        assert heartbeats.observed_since(1_101.0) == 1_100.0


def test_short_silences_are_no_pause_and_longer_ones_are(redis_client: redis.Redis) -> None:
    """Nor does a clock that goes back prove that anybody looked."""
    heartbeats = Heartbeats(redis_client)
    for now in (1_000.0, 1_000.0 + OBSERVER_SILENCE, 1_001.0 + OBSERVER_SILENCE):
        heartbeats.observer_alive(now)
    assert heartbeats.observed_since(now) == 1_000.0
    for back in (now + OBSERVER_SILENCE + 0.1, now):
        heartbeats.observer_alive(back)
        assert heartbeats.observed_since(back) == back


def test_an_editor_that_answers_is_active_though_the_observers_feed_is_silent(world: World) -> None:
    """It is led and reports, and hears nothing of this workspace."""
    uuid = starting(world)
    world.runtime.workspaces[uuid].ready = True
    world.watch(world.settings.start_timeout + 2)
    assert world.get(uuid).status is Status.ACTIVE


def test_a_start_whose_volume_is_gone_has_lost_its_files_and_is_not_slow(world: World) -> None:
    """So it is brought back where there is a copy of them; here is none."""
    uuid = starting(world)
    world.active("another")
    del world.runtime.workspaces[uuid]
    world.watch(world.settings.start_timeout + 2)
    assert (world.get(uuid).status, world.get(uuid).reason_code) == (Status.FAILED, FilesGone.code)


def test_nobody_fails_while_the_runtime_can_not_be_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = starting(world)
    monkeypatch.setattr(world.runtime, "observe", raising(RetryableError("The API server can't be reached.")))
    world.watch(3 * world.settings.start_timeout)
    assert world.get(uuid).status is Status.CREATED
    monkeypatch.undo()
    world.watch(world.settings.stale_after + 1)
    assert (world.get(uuid).status, world.get(uuid).reason) == (Status.FAILED, "The editor did not answer within 60 s.")


def test_a_start_that_can_not_be_looked_at_for_good_has_failed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid, reason = starting(world), "The notes of this workspace are broken."
    monkeypatch.setattr(world.runtime, "observe", raising(PermanentError(reason)))
    world.watch(world.settings.start_timeout + 2)
    assert (world.get(uuid).status, world.get(uuid).reason) == (Status.FAILED, reason)


@pytest.mark.slow
def test_the_time_to_answer_counts_from_when_the_editor_began(world: World) -> None:
    """Before, the workspace waited for a machine, its volume or its image: how long it may is not judged here."""
    uuid = starting(world)
    workspace = world.runtime.workspaces[uuid]
    workspace.waiting = "No machine of the cluster has room for the workspace."
    world.watch(5 * world.settings.start_timeout)
    assert world.get(uuid).status is Status.CREATED
    workspace.waiting, workspace.began = "", world.now
    world.watch(world.settings.start_timeout)
    assert world.get(uuid).status is Status.CREATED
    world.watch(world.settings.start_timeout)
    assert world.get(uuid).status is Status.FAILED
