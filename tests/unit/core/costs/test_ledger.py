"""The ledger over a real Redis: what begins and ends to cost, as workers, the observer and the gateway change it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.costs.usage import DAY, bill, by_day, day_number, month_start, number_of
from app.core.errors import SessionNotFound, Superseded
from app.core.prompts.token_usage import Tokens, TokenUsage
from app.core.redis import keys
from app.core.redis.scripts import sections
from app.core.service import NewSession
from app.core.sessions.attempts import MAX_ATTEMPTS
from app.core.sessions.change import Intervals
from app.core.sessions.model import Status, Tier
from app.core.storage.archive_keys import new_key
from tests.world import World
from workers.runtime.base import Snapshot

HOUR = 3_600.0


def used(world: World, uuid: str) -> Counter[str]:
    """All that a session used, until now."""
    first, last = day_number(world.now) - 395, day_number(world.now)
    [found] = world.core.ledger.read([uuid], first, last, world.now)
    return found.days.total(first, last)


def seconds(world: World, uuid: str) -> float:
    """How long its processes ran."""
    return used(world, uuid)["c:standard"] / 1000


def total(world: World, user_id: str = "ada") -> Counter[str]:
    """A user's running total of this month."""
    [amounts] = world.core.ledger.running_totals([keys.USER_COSTS.format(user_id=user_id)], world.now)
    return +amounts


def wake(world: World, uuid: str) -> None:
    world.sessions.wake(uuid)
    world.work()
    world.runtime.become_ready(uuid)
    world.look(uuid)


def sleep(world: World, uuid: str) -> None:
    world.sessions.sleep(uuid)
    world.work()


def test_processes_cost_from_their_start_to_their_end(world: World) -> None:
    uuid = world.active()
    world.now += HOUR
    assert seconds(world, uuid) == HOUR, "what runs on counts"
    sleep(world, uuid)
    world.now += HOUR
    assert seconds(world, uuid) == HOUR, "asleep costs nothing"
    wake(world, uuid)
    world.now += HOUR / 2
    sleep(world, uuid)
    assert seconds(world, uuid) == 1.5 * HOUR
    assert world.get(uuid).compute_since == 0


def test_a_volume_costs_from_its_making_to_its_removal_and_the_ledger_outlives_the_session(world: World) -> None:
    uuid = world.active(labels={"course": "a"}, size="large")
    world.now += HOUR
    sleep(world, uuid)
    world.now += 49 * HOUR
    world.sessions.delete(uuid, backup=False)
    world.work()
    assert used(world, uuid) == {"c:large": HOUR * 1000, "d:large:5120": 50 * HOUR}
    world.core.redis.delete(keys.SESSION.format(uuid=uuid))
    assert used(world, uuid) == {"c:large": HOUR * 1000, "d:large:5120": 50 * HOUR}
    payer = world.core.ledger.payer(uuid)
    assert payer is not None
    assert (payer.user_id, payer.size, payer.labels) == ("ada", "large", {"course": "a"})


def test_a_backup_costs_until_it_is_deleted_also_after_its_session(world: World) -> None:
    uuid = world.active()
    world.runtime.workspaces[uuid].files["a"] = b"x" * 10_000
    world.sessions.delete(uuid)
    world.work()
    [backup] = world.core.backups.page(uuid=uuid).items
    world.now += 10 * HOUR
    assert used(world, uuid)["b"] == total(world)["b"] == 10 * 10 * HOUR
    world.core.backups.retire(backup.name, world.now)
    world.now += 10 * HOUR
    assert used(world, uuid)["b"] == total(world)["b"] == 10 * 10 * HOUR
    world.core.backups.retire(backup.name, world.now)
    world.core.backups.files_deleted(backup.name)
    assert used(world, uuid)["b"] == 10 * 10 * HOUR


def test_a_backup_that_was_indexed_by_mistake_costs_nothing(world: World) -> None:
    uuid = world.active()
    world.runtime.workspaces[uuid].files["a"] = b"x" * 10_000
    world.sessions.request_backup(uuid)
    world.work()
    [backup] = world.core.backups.page(uuid=uuid).items
    for _ in range(2):
        world.core.backups.add(backup)
    world.now += HOUR
    assert total(world)["b"] == 10 * HOUR, "it is metered once"
    for _ in range(2):
        world.core.backups.delete(backup.name)
    world.now += HOUR
    assert total(world)["b"] == used(world, uuid)["b"] == 0


def saving(make_world: Callable[..., World], **settings: Any) -> World:
    """A world with restore points, each of which keeps 10 KiB in the store besides its files."""
    world = make_world(archive_key=new_key(), **settings)
    # The points of the fake are not in the store, with which a new Redis is compared.
    world.core.store.first_sight(world.now)
    return world


def write(world: World, uuid: str, kib: int) -> None:
    world.runtime.workspaces[uuid].files["a"] = b"x" * kib * 1_024


def test_restore_points_cost_what_they_keep_until_their_session_ends(make_world: Callable[..., World]) -> None:
    world = saving(make_world)
    uuid = world.active()
    world.now += HOUR
    assert used(world, uuid)["r"] == 0, "there is none yet"
    write(world, uuid, 10)
    sleep(world, uuid)
    world.now += 5 * HOUR
    assert used(world, uuid)["r"] == total(world)["r"] == 20 * 5 * HOUR
    wake(world, uuid)
    write(world, uuid, 20)
    sleep(world, uuid)
    world.now += HOUR
    assert used(world, uuid)["r"] == total(world)["r"] == 20 * 5 * HOUR + 50 * HOUR
    wake(world, uuid)
    sleep(world, uuid)
    world.now += HOUR
    assert used(world, uuid)["r"] == 20 * 5 * HOUR + 50 * 2 * HOUR, "an unchanged sleep adds nothing"
    world.sessions.delete(uuid, backup=False)
    world.work()
    assert (world.get(uuid).points_since, world.get(uuid).points_kib) == (0, 0)
    world.now += HOUR
    assert used(world, uuid)["r"] == total(world)["r"] == 20 * 5 * HOUR + 50 * 2 * HOUR
    assert world.core.redis.keys("costs:*:open") == []


def test_an_archived_session_costs_its_points_alone(make_world: Callable[..., World]) -> None:
    """The volume ends with the archive, and what sleeping saved with it: nothing could run without it."""
    world = saving(make_world)
    uuid = world.active(ttl=HOUR)
    write(world, uuid, 10)
    world.now += HOUR
    sleep(world, uuid)
    world.pass_time(2 * HOUR)
    for _ in range(3):
        world.sweeps.expired()
        world.work()
    assert world.get(uuid).tier is Tier.ARCHIVED
    before = used(world, uuid)
    assert (before["c:standard"], before["d:standard:5120"]) == (HOUR * 1_000, 3 * HOUR)
    kept = world.get(uuid).points_kib
    assert kept >= 20
    world.now += 100 * HOUR
    assert used(world, uuid) - before == total(world) - before == {"r": kept * 100 * HOUR}
    prices = world.core.prices
    assert bill(used(world, uuid), prices).saved == bill(before, prices).saved == 2 * prices.compute_hour("standard")


def test_the_size_of_points_is_booked_once_and_never_by_an_older_figure(world: World) -> None:
    """A maker that lost its lease may come after a newer one, and after the session's end."""
    uuid, begun = world.active(), world.now
    change = world.core.store.change
    for _ in range(3):
        change(uuid, world.now, ledger=Intervals.of_points(begun, 10_240))
    world.now += HOUR
    for _ in range(3):
        change(uuid, world.now, ledger=Intervals.of_points(world.now, 20_000))
    change(uuid, world.now, ledger=Intervals.of_points(begun + 1, 5))
    world.now += HOUR
    assert (world.get(uuid).points_since, world.get(uuid).points_kib) == (begun + HOUR, 20)
    assert used(world, uuid)["r"] == total(world)["r"] == (10 + 20) * HOUR
    world.sessions.delete(uuid, backup=False)
    world.work()
    change(uuid, world.now, ledger=Intervals.of_points(world.now, 5_000))
    world.now += HOUR
    assert used(world, uuid)["r"] == total(world)["r"] == (10 + 20) * HOUR


@pytest.mark.parametrize("dies_at", ["change", "put"])
def test_a_worker_that_dies_with_a_made_point_leaves_its_cost_to_the_next(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    """Before it notes the size, or between that and the index."""
    world = saving(make_world)
    uuid = world.asleep()
    world.now += HOUR
    wake(world, uuid)
    write(world, uuid, 10)
    owner = world.core.store if dies_at == "change" else world.core.restore_points
    call = getattr(owner, dies_at)

    def dying(*args: Any, **wanted: Any) -> Any:
        if dies_at == "put" or (wanted.get("ledger") or Intervals()).points_from:
            raise KeyboardInterrupt
        return call(*args, **wanted)

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(owner, dies_at, dying)
        sleep(world, uuid)
    world.core.redis.delete(keys.BACKUP_LEASE.format(uuid=uuid), keys.POINT_SLOT.format(number=0))
    world.now += HOUR
    world.points.sweep()
    world.work()
    # The fake keeps the point that the dead worker made, too.
    assert world.get(uuid).points_kib == 10 + 20 + 20
    open_since = world.get(uuid).points_since
    assert (open_since, len(world.core.restore_points.of(uuid))) == (world.now, 2)


def test_tokens_are_booked_by_model_with_the_budgets_count(world: World) -> None:
    uuid = world.active()
    counts = TokenUsage(world.core.redis)
    counts.add(uuid, "ada", Tokens(1_000, 50), world.now, "gpt-5")
    counts.add(uuid, "ada", Tokens(10, 0, estimated=10), world.now, "other")
    assert used(world, uuid) == total(world) == {"p:gpt-5": 1_000, "t:gpt-5": 50, "p:other": 10}
    assert counts.of_day("ada", world.now) == 1_060


def test_a_crash_ends_the_costs_when_the_process_ended(world: World) -> None:
    """Not when it was noticed."""
    uuid = world.active()
    world.now += HOUR
    world.runtime.crash(uuid, "boom")
    world.now += 100
    world.look(uuid)
    assert world.get(uuid).status is Status.FAILED
    assert seconds(world, uuid) == HOUR


def test_a_start_that_waits_in_vain_costs_nothing(world: World) -> None:
    uuid = world.sessions.create(NewSession(user_id="ada")).uuid
    world.work()
    workspace = world.runtime.workspaces[uuid]
    workspace.waiting, workspace.began = "No machine has room.", 0.0
    world.look(uuid)
    world.now += 600
    assert seconds(world, uuid) == 0
    workspace.waiting, workspace.began = "", world.now - 5
    world.runtime.become_ready(uuid)
    world.look(uuid)
    world.now += 100
    assert seconds(world, uuid) == 105, "from the process' start"


@pytest.mark.parametrize(("answers", "status"), [(True, Status.ACTIVE), (False, Status.SLEEPING)])
def test_who_is_started_by_something_else_costs_from_its_process_start(
    world: World, answers: bool, status: Status
) -> None:
    """As by KEDA: the observer finds it running. And also if it never answers."""
    uuid = world.asleep()
    world.now += HOUR
    workspace = world.runtime.workspaces[uuid]
    workspace.running, workspace.ready, workspace.began = True, answers, world.now
    world.now += 7
    world.look(uuid)
    assert seconds(world, uuid) == 7
    world.work()
    world.look(uuid)
    assert world.get(uuid).status is status
    world.now += 3
    assert seconds(world, uuid) == 10


def test_an_old_observation_begins_and_ends_nothing(world: World) -> None:
    """One of a process that has ended, or of a time before the newest start."""
    uuid = world.active()
    ran = world.runtime.observe(uuid)
    world.now += HOUR
    sleep(world, uuid)
    slept = world.runtime.observe(uuid)
    assert ran is not None
    assert slept is not None
    world.observer.apply(ran)
    assert world.get(uuid).compute_since == 0
    world.tasks.lose_all()
    world.now += HOUR
    wake(world, uuid)
    since = world.get(uuid).compute_since
    world.observer.apply(slept)
    assert world.get(uuid).compute_since == since != 0


def test_processes_that_vanished_while_nobody_watched_end_with_the_next_look(world: World) -> None:
    uuid = world.active()
    sleeping = world.active("bob")
    world.now += HOUR
    for each in (uuid, sleeping):
        workspace = world.runtime.workspaces[each]
        workspace.running = workspace.ready = False
    world.core.store.change(sleeping, world.now, to=Status.SLEEPING, settle=True)
    world.observer.apply(Snapshot(()))
    world.now += HOUR
    assert seconds(world, sleeping) == HOUR
    assert world.get(uuid).compute_since == 0


def test_a_wake_that_overtakes_a_stop_begins_anew(world: World) -> None:
    uuid = world.active()
    world.now += HOUR
    world.runtime.errors["stop"] = KeyboardInterrupt()
    world.sessions.sleep(uuid)
    with pytest.raises(KeyboardInterrupt):
        world.work()
    world.now += 20
    world.core.redis.delete(keys.LEASE.format(uuid=uuid))
    wake(world, uuid)
    world.now += HOUR
    assert seconds(world, uuid) == 2 * HOUR + 20


def test_a_repeated_change_books_once(world: World) -> None:
    """redis-py repeats a call whose answer was lost."""
    uuid = world.active()
    world.now += HOUR
    for _ in range(3):
        world.core.store.change(uuid, world.now, ledger=Intervals(ran_until=world.now))
    assert seconds(world, uuid) == HOUR
    world.core.store.change(uuid, world.now, ledger=Intervals(runs_from=world.now + 5))
    world.core.store.change(uuid, world.now, ledger=Intervals(ran_until=world.now))
    assert world.get(uuid).compute_since == world.now + 5, "the end of the interval before"


def test_a_refused_change_books_nothing(world: World) -> None:
    uuid = world.active()
    world.now += HOUR
    with pytest.raises(Superseded):
        world.core.store.change(uuid, world.now, expect={"generation": 99}, ledger=Intervals(ran_until=world.now))
    assert world.get(uuid).compute_since


def test_when_redis_was_lost_costs_go_on_with_what_is_known(world: World) -> None:
    uuid = world.active()
    world.now += HOUR
    world.core.redis.flushall()
    world.sweeps.reconcile()
    world.now += HOUR
    assert seconds(world, uuid) == 2 * HOUR


def test_files_that_are_gone_cost_nothing_more(world: World) -> None:
    uuid = world.asleep()
    world.active("bob")
    world.now += HOUR
    del world.runtime.workspaces[uuid]
    world.sweeps.reconcile()
    world.now += HOUR
    assert used(world, uuid)["d:standard:5120"] == HOUR
    assert world.get(uuid).disk_since == 0


def test_running_totals_are_the_sum_of_the_sessions(world: World) -> None:
    """For users and for keys, and for the service since it began."""
    mine = world.sessions.create(NewSession(user_id="ada"), made_by="backend").uuid
    world.work()
    others = [world.active("ada"), world.active("bob")]
    world.now += HOUR
    sleep(world, others[0])
    world.now += HOUR
    TokenUsage(world.core.redis).add(mine, "ada", Tokens(7, 8), world.now, "gpt-5")
    assert total(world) == used(world, mine) + used(world, others[0])
    [key] = world.core.ledger.running_totals([keys.KEY_COSTS.format(key="backend")], world.now)
    assert +key == used(world, mine)
    world.sessions.delete(others[1], backup=False)
    world.work()
    totals = world.core.ledger.totals(world.now)
    exact = bill(total(world, "ada") + total(world, "bob"), world.core.prices)
    assert totals.dollars == pytest.approx({kind: float(each) for kind, each in exact.dollars.items()})
    assert totals.saved == pytest.approx(float(exact.saved))


def test_figures_never_go_back(world: World) -> None:
    """Though a start may turn out to have begun later; a scrape would take that for a restart of the counter."""
    uuid = world.sessions.create(NewSession(user_id="ada")).uuid
    world.work()
    world.now += 100
    before = world.core.ledger.totals(world.now).dollars["compute"]
    world.core.store.change(uuid, world.now, ledger=Intervals(runs_from=world.now - 1))
    assert world.core.ledger.totals(world.now).dollars["compute"] == before > 0
    world.now += 500
    assert world.core.ledger.totals(world.now).dollars["compute"] > before


def test_nothing_of_a_deleted_session_runs_on(world: World) -> None:
    uuid = world.active()
    world.now += HOUR
    world.sessions.delete(uuid, backup=False)
    world.work()
    client = world.core.redis
    assert client.keys("costs:*:open") == []
    assert client.zcard(keys.RUNNING) == 0
    expiring = [*client.scan_iter("ledger:*"), *client.scan_iter("costs:user:*")]
    assert expiring
    # To the end of this month 10 days, and 13 months from there.
    assert all(400 * DAY < client.ttl(name) < 460 * DAY for name in expiring)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(since=st.floats(1_700_000_000, 2_000_000_000), length=st.one_of(st.floats(0, 90_000), st.floats(0, 380 * DAY)))
def test_the_script_splits_days_and_months_as_the_calendar(
    redis_client: redis.Redis, since: float, length: float
) -> None:
    """The same as the pure function, whose days are tested by themselves."""
    redis_client.flushall()
    since, until = round(since, 3), round(since + length, 3)
    redis_client.hset("session:aaaa0000", mapping={"user_id": "ada", "compute_since": str(since)})
    redis_client.hset("session:aaaa0000", mapping={"disk_since": str(since), "disk_mib": "5120"})
    given_ends = json.dumps({"ran_until": str(until), "kept_until": str(until)})
    parts = "\n".join(sections()[name].text for name in ("meters", "intervals"))
    text = f"{parts}\nkeep_ledger(KEYS[1], 'aaaa0000', cjson.decode(ARGV[1]), tonumber(ARGV[2]))"
    redis_client.register_script(text)(keys=["session:aaaa0000"], args=[given_ends, until])
    found: dict[str, dict[int, int]] = {"c:standard": {}, "d:standard:5120": {}}
    for name in redis_client.scan_iter("ledger:aaaa0000:*"):
        for field, amount in redis_client.hgetall(name).items():
            found[field[3:]][month_start(name[-7:]) + int(field[:2]) - 1] = int(amount)
    assert found["c:standard"] == by_day(round(since * 1000), round(until * 1000), 1000)
    assert found["d:standard:5120"] == by_day(int(since), int(until))


def test_a_month_goes_13_months_after_its_end(world: World) -> None:
    """What is booked later for a month that is gone already counts in the totals alone."""
    uuid = world.active()
    world.now += 460 * DAY
    sleep(world, uuid)
    months = sorted(name[-7:] for name in world.core.redis.scan_iter(f"ledger:{uuid}:*"))
    assert (months[0], len(months)) == ("2026-01", 14)
    assert int(world.core.redis.hget(keys.TOTALS, "c:standard")) == 400 * DAY * 1000


def test_an_interval_without_end_is_bounded(world: World) -> None:
    uuid = world.active()
    world.now += 5_000 * DAY
    sleep(world, uuid)
    booked = world.core.redis.hgetall(keys.TOTALS)
    assert int(booked["c:standard"]) == 400 * DAY * 1000


def test_the_sessions_of_a_month_are_those_that_may_have_cost_something(world: World) -> None:
    here, gone, stored = world.active("ada"), world.active("bob"), world.active("bob")
    world.sessions.delete(gone, backup=False)
    world.sessions.delete(stored)
    world.work()
    for each in (gone, stored):
        world.core.redis.delete(keys.SESSION.format(uuid=each))
    today = day_number(world.now)
    assert world.core.ledger.sessions(today, today) == sorted([here, stored])
    world.now += HOUR
    gone_later = world.active("bob")
    world.now += HOUR
    world.sessions.delete(gone_later, backup=False)
    world.work()
    assert world.core.ledger.sessions(today, today, "bob") == sorted([stored, gone_later])
    assert world.core.ledger.sessions(today - 60, today - 59, "bob") == [stored]


def test_who_is_unknown_used_nothing(world: World) -> None:
    assert list(world.core.ledger.read(["aaaa0000"], 1, 2, world.now)) == []
    assert world.core.ledger.payer("aaaa0000") is None
    with pytest.raises(SessionNotFound):
        world.get("aaaa0000")


@pytest.mark.real_redis
@pytest.mark.slow
def test_a_session_and_month_of_the_ledger_is_small(make_world: Callable[..., World]) -> None:
    """Every day of it awake and at work: one month's hash stays in its compact form (docs/cost.md has the figure)."""
    world = make_world()
    world.now = number_of(date(2026, 1, 1)) * DAY + 1.0
    uuid = world.active()
    for day in range(30):
        world.core.store.change(uuid, world.now, ledger=Intervals.of_points(world.now, 160_000_000 + day * 60_000))
        TokenUsage(world.core.redis).add(uuid, "ada", Tokens(20_000, 900), world.now, "gpt-5-mini")
        world.now += 2 * HOUR
        sleep(world, uuid)
        world.now += 22 * HOUR
        wake(world, uuid)
    client = world.core.redis
    names = [*client.scan_iter(f"ledger:{uuid}:*")]
    assert names
    assert {client.object("encoding", name) for name in names} <= {"listpack", "ziplist"}
    taken = [client.memory_usage(name, samples=0) for name in names]
    assert max(taken) < 2_600


def test_a_stop_that_was_given_up_ends_the_costs_of_what_it_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers died each time before they noted that."""
    uuid = world.active()
    world.now += HOUR
    world.sessions.sleep(uuid)
    change = world.core.store.change

    def dying(*args: Any, **wanted: Any) -> Any:
        if wanted.get("next_epoch"):
            raise KeyboardInterrupt
        return change(*args, **wanted)

    for _ in range(MAX_ATTEMPTS + 1):
        with suppress(KeyboardInterrupt), monkeypatch.context() as patched:
            patched.setattr(world.core.store, "change", dying)
            world.work()
        world.tasks.lose_all()
        world.core.redis.delete(keys.LEASE.format(uuid=uuid))
        world.now += world.settings.stale_after + 1
        world.sweeps.stale()
    world.work()
    assert world.get(uuid).status is Status.FAILED
    world.now += HOUR
    assert HOUR <= seconds(world, uuid) < HOUR + 120


def test_the_reconcile_sweep_ends_and_begins_what_nobody_noted(world: World) -> None:
    """Processes that are gone, and a volume that a killed worker made; not what is about to begin."""
    slept, made, starting = world.active(), world.asleep(), world.asleep()
    workspace = world.runtime.workspaces[slept]
    workspace.running = workspace.ready = False
    session = keys.SESSION.format(uuid=made)
    world.core.redis.hdel(session, "disk_since", "disk_mib")
    world.sessions.wake(starting)
    world.core.store.change(starting, world.now, ledger=Intervals(runs_from=world.now))
    world.now += 30
    world.sweeps.reconcile()
    assert world.get(slept).compute_since == 0
    assert seconds(world, slept) == 30
    assert (world.get(made).disk_since, world.get(made).disk_mib) == (world.now, 5_120)
    assert world.get(starting).compute_since
