"""Signals on their way into the record: how few writes they cost, and that none is lost on a sweep."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from app.core.errors import Superseded
from app.core.redis import keys, task_queue
from app.core.sessions import signals as signals_module
from app.core.sessions.model import Signal, Status
from app.core.sessions.signals import WRITE_INTERVAL
from app.core.signal_kinds import SIGNALS
from tests.world import World
from workers.clock import JUMP, SETTLING, ClockGuard


def writes(client: redis.Redis) -> int:
    """How many scripts Redis has run."""
    return int(client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


def test_a_signal_is_in_the_record_and_counts_as_use_which_an_older_one_does_not_take_back(
    world: World, uuid: str
) -> None:
    world.now += 50
    world.core.activity.note(uuid, "browser", world.now)
    assert world.core.activity.read(uuid)["browser"] == Signal(world.now)
    world.core.activity.write(uuid, {"editor": Signal(world.now - 500)})
    record = world.get(uuid)
    assert (record.signals["browser"], record.last_activity) == (Signal(world.now), world.now)


def test_many_signals_of_a_session_cost_one_write_in_10_seconds(world: World, uuid: str) -> None:
    """And what came in between is written with the next."""
    world.core.activity.note(uuid, "browser", world.now)
    before = writes(world.core.redis)
    for number in range(200):
        world.core.activity.note(uuid, ("browser", "editor")[number % 2], world.now + number / 100)
    assert writes(world.core.redis) == before
    world.now += WRITE_INTERVAL
    world.core.activity.note(uuid, "browser", world.now)
    assert writes(world.core.redis) == before + 1
    noted = world.core.activity.read(uuid)
    assert noted["browser"].at == world.now
    assert noted["editor"].at == pytest.approx(world.now - WRITE_INTERVAL + 1.99)


def test_what_was_written_for_is_forgotten_beyond_a_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sessions a process sees, and whatever names it is asked for."""
    monkeypatch.setattr(signals_module, "REMEMBERED", 10)
    activity = signals_module.Activity(world.core.redis, world.clock)
    for _ in range(2):
        for number in range(100):
            activity.note(f"none{number:04}", "browser", world.now)
            activity.note(f"none{number:04}", "editor", world.now)
    assert (len(activity._throttle._last), len(activity._pending)) == (10, 10)


def test_a_signal_of_a_session_that_is_gone_leaves_nothing_behind(world: World, uuid: str) -> None:
    world.sessions.delete(uuid)
    for gone in (uuid, "zzzzzzzz"):
        assert not world.core.activity.write(gone, {"browser": Signal(world.now)})
    assert world.core.redis.exists(*(key.format(uuid="zzzzzzzz") for key in (keys.SESSION, keys.USE))) == 0


def test_a_name_that_is_none_is_a_bug(world: World, uuid: str) -> None:
    with pytest.raises(ValueError, match="noise"):
        world.core.activity.write(uuid, {"noise": Signal(world.now)})


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_between_the_verdict_and_the_sleep_wins(world: World, name: str) -> None:
    """Any of them, also one that is older than the last use of another kind."""
    uuid = world.active(idle_timeout=60)
    world.now += 70
    seen = world.get(uuid)
    assert world.verdict(uuid).due
    world.core.activity.write(uuid, {name: Signal(seen.last_activity - 5, until=world.now + 60)})
    with pytest.raises(Superseded):
        world.sessions.sleep(uuid, seen=seen)
    assert world.get(uuid).status is Status.ACTIVE


@pytest.mark.slow
def test_500_races_of_a_signal_with_the_idle_sweep_put_nothing_to_sleep_that_was_used_before(world: World) -> None:
    """Both at once: a signal is refused by no one, and a sweep that comes after one is."""
    uuid = world.active(idle_timeout=60)

    def sweep() -> bool:
        try:
            return world.sessions.sleep(uuid, seen=seen).status is Status.SLEEPING
        except Superseded:
            return False

    with ThreadPoolExecutor(2) as pool:
        for number in range(500):
            world.now += 100
            seen = world.get(uuid)
            assert world.verdict(uuid).due
            used = {"editor": Signal(world.now)}
            if number % 2:
                done = pool.submit(sweep), pool.submit(world.core.activity.write, uuid, used)
                asleep = done[0].result()
                assert done[1].result()
            else:
                world.core.activity.write(uuid, used)
                asleep = sweep()
                assert not asleep
            assert world.get(uuid).signals["editor"].at == world.now
            if asleep:
                world.core.store.change(uuid, world.now, to=Status.WAKING)
                world.core.store.change(uuid, world.now, to=Status.ACTIVE, settle=True, idle_at=world.now + 60)
    assert world.get(uuid).status is Status.ACTIVE


@pytest.mark.slow
def test_500_races_of_a_prompt_with_the_idle_sweep_lose_no_prompt_and_leave_no_session_asleep(world: World) -> None:
    """The whole of both: the sweep that looks, judges and writes, and the prompt that is taken, at one moment. Each
    prompt waits for its agent then, in a session that is up or on its way."""
    uuid = world.active(idle_timeout=60)
    woken = 0
    with ThreadPoolExecutor(2) as pool:
        for number in range(500):
            world.now += 100
            world.core.redis.zadd(keys.IDLE, {uuid: world.now})
            assert world.verdict(uuid).due
            sweep = pool.submit(world.sweeps.idle)
            prompt = pool.submit(world.sessions.prompt, uuid, "x", f"m{number}")
            sweep.result()
            prompt.result()
            record = world.get(uuid)
            assert record.status in (Status.ACTIVE, Status.WAKING)
            head = world.core.inbox.head(uuid)
            assert head is not None
            assert (head.id, record.waiting) == (f"m{number}", 1)
            world.core.inbox.finish(uuid, f"m{number}", response={}, now=world.now)
            world.tasks.lose_all()
            if record.status is Status.WAKING:
                woken += 1
                world.core.store.change(uuid, world.now, to=Status.ACTIVE, settle=True, idle_at=world.now + 60)
    assert world.get(uuid).generation == 1 + 2 * woken, "each sleep was followed by a wake"


def test_the_sweep_announces_a_sleep_once_and_has_the_editor_told(world: World) -> None:
    uuid = world.active(idle_timeout=600)
    world.now += 545
    for _ in range(3):
        world.sweeps.idle()
    told = [event.data for event in world.events_of(uuid) if event.type == "idle_warning"]
    assert [(each["why"], each["sleeps_at"]) for each in told] == [("it woke 545 s ago", "2025-11-20T08:10:00.000Z")]
    assert world.work() == [task_queue.WARN]
    world.now += 55
    world.sweeps.idle()
    assert world.get(uuid).status is Status.SLEEPING


def test_times_in_the_future_are_brought_back_by_the_sweep(world: World) -> None:
    """The clock jumped back by a day: its look is a day away, and its last use a day ahead."""
    uuid = world.active(idle_timeout=600)
    world.use(uuid)
    world.now -= 86_400
    world.sweeps.idle()
    record = world.get(uuid)
    assert record.status is Status.ACTIVE
    assert record.last_activity == record.awake_since == record.signals["editor"].at == world.now
    world.now += 600
    world.sweeps.idle()
    assert world.get(uuid).status is Status.SLEEPING


def test_a_clock_that_jumped_forward_is_not_trusted_for_a_minute(world: World) -> None:
    """Meanwhile whoever uses a session is seen again; adjusting a clock slowly is no jump."""
    steady = ClockGuard()
    assert steady.trusts(1_000.0, 0.0)
    assert steady.trusts(1_000.0 + JUMP, 1.0)
    assert not steady.trusts(1_000.0 + 3_600, 2.0)
    assert not steady.trusts(1_000.0 + 3_650, 52.0)
    assert steady.trusts(1_000.0 + 3_660, 2.0 + SETTLING)
    assert steady.trusts(500.0, 100.0), "back: ages only look younger"
