"""What a clock skips, and time in which no manager runs, ages nothing that the sweeps delete."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.backups.index import Backup
from app.core.errors import BackupNotFound
from app.core.prompts.history_store import Checkpoint
from app.core.redis import task_queue
from app.core.sessions.counted_time import GAPS_KEPT, JUMP, Counted, CountedTime
from app.core.sessions.model import Status
from tests.world import World
from workers.sweeps import Sweeps

DAY = 86_400.0


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """Sessions end after their time to live: nothing is archived without a key."""
    return make_world(archive_retention=1.0)


@pytest.fixture
def backup(world: World) -> Backup:
    """The last one of a session that is terminated, whose tombstone is gone too."""
    uuid = world.asleep("bob")
    world.sessions.delete(uuid)
    world.work()
    name = world.get(uuid).backup
    world.core.redis.delete(f"session:{uuid}")
    with world.core.backup_store.writing(name) as part:
        part.write(b"PK")
        whole = {"changed": [], "unreadable": [], "complete": True}
        identity = {"uuid": uuid, "user_id": "bob", "created_at": 1}
        part.commit({**world.core.backups.get(name).to_hash(), **whole, "identity": identity})
    return world.core.backups.get(name)


def sweep(world: World, passed: float = 0.0) -> None:
    """All that delete something, as beat asks for them; after so much time in which the service ran."""
    if passed:
        world.pass_time(passed)
    world.sweeps.expired()
    world.sweeps.index()
    world.sweeps.retention()
    world.work()


def restart(world: World) -> None:
    """A worker that knows nothing of before."""
    world.sweeps = Sweeps(world.core, world.runtime, world.lifecycle, world.clock, world.clock)


def is_kept(world: World, backup: Backup) -> bool:
    try:
        world.core.backups.get(backup.name)
    except BackupNotFound:
        return False
    return world.core.backup_store.exists(backup.name)


def test_a_clock_that_jumps_by_100_days_deletes_nothing(world: World, backup: Backup) -> None:
    uuid = world.asleep(ttl=30 * DAY)
    world.core.history_store.write(backup.uuid, Checkpoint([{"id": "m"}]))
    world.now = max(world.now, world.core.history_store.last_written(backup.uuid) or 0.0)
    sweep(world)
    world.now += 100 * DAY
    for _ in range(3):
        sweep(world)
        world.now += 1
    assert (world.get(uuid).status, is_kept(world, backup)) == (Status.SLEEPING, True)
    assert world.core.history_store.read(backup.uuid) is not None


def test_after_a_jump_everything_goes_when_its_time_has_really_passed(world: World, backup: Backup) -> None:
    uuid = world.asleep(ttl=30 * DAY)
    sweep(world, 10 * DAY)
    world.now += 100 * DAY
    sweep(world)
    sweep(world, 20 * DAY - 60)
    assert world.get(uuid).status is Status.SLEEPING
    sweep(world, 120)
    assert world.get(uuid).status is Status.TERMINATED
    sweep(world, 60 * DAY - 120)
    assert is_kept(world, backup)
    sweep(world, 120)
    assert not is_kept(world, backup)


def test_a_restart_under_a_wrong_clock_deletes_nothing(world: World, backup: Backup) -> None:
    """Its Redis is the one of before, its memory isn't."""
    uuid = world.asleep(ttl=30 * DAY)
    sweep(world)
    world.now += 100 * DAY
    restart(world)
    world.sweeps.retention()
    sweep(world)
    assert (world.get(uuid).status, is_kept(world, backup)) == (Status.SLEEPING, True)


def test_a_service_that_was_off_for_100_days_counts_none_of_them(world: World, backup: Backup) -> None:
    """Off twice: what ran in between counts."""
    uuid = world.asleep(ttl=30 * DAY)
    for _ in range(2):
        sweep(world)
        world.now += 100 * DAY
        restart(world)
        sweep(world)
        sweep(world, 14 * DAY)
    assert (world.get(uuid).status, is_kept(world, backup)) == (Status.SLEEPING, True)
    sweep(world, 3 * DAY)
    assert world.get(uuid).status is Status.TERMINATED


def test_a_clock_that_goes_wrong_and_back_again_changes_nothing(world: World, backup: Backup) -> None:
    """Both ways round: ahead and corrected, behind and corrected."""
    uuid = world.asleep(ttl=30 * DAY)
    for wrong in (100 * DAY, -100 * DAY):
        sweep(world, 5 * DAY)
        world.now += wrong
        sweep(world)
        sweep(world, 600)
        world.now -= wrong
        sweep(world)
    assert (world.get(uuid).status, is_kept(world, backup)) == (Status.SLEEPING, True)
    sweep(world, 31 * DAY)
    assert world.get(uuid).status is Status.TERMINATED


def test_a_use_noted_by_a_clock_that_was_ahead_is_written_down_as_now(world: World) -> None:
    """Else the session lived for as long as the clock was wrong, on top of its time to live."""
    uuid = world.asleep(ttl=30 * DAY)
    world.now += 1_000 * DAY
    sweep(world)
    world.sessions.wake(uuid)
    world.work()
    world.sessions.sleep(uuid)
    world.work()
    sweep(world)
    world.now -= 1_000 * DAY
    sweep(world)
    assert world.get(uuid).last_activity == world.now
    sweep(world, 30 * DAY + 60)
    assert world.get(uuid).status is Status.TERMINATED


def test_a_use_under_a_clock_that_is_behind_makes_no_session_older(world: World) -> None:
    """The clock was right again before a sweep could see it."""
    world.pass_time(50 * DAY)
    uuid = world.asleep(ttl=30 * DAY)
    world.now -= 40 * DAY
    world.sessions.wake(uuid)
    world.now += 40 * DAY
    world.pass_time(2 * DAY)
    world.sweeps.expired()
    assert world.get(uuid).status is Status.WAKING


def test_after_redis_was_lost_the_age_of_backups_counts_from_then(world: World, backup: Backup) -> None:
    """Nobody knows any more which of the time before was counted."""
    world.now += 100 * DAY
    world.core.redis.flushall()
    world.sweeps.retention()
    sweep(world)
    assert is_kept(world, backup)
    sweep(world, 89 * DAY)
    assert is_kept(world, backup)
    sweep(world, 2 * DAY)
    assert not is_kept(world, backup)


@pytest.mark.parametrize("ttl", [1.0, 5.0])
def test_a_time_to_live_of_seconds_is_kept_to(world: World, ttl: float) -> None:
    """Also under the first sweep there ever was."""
    uuid = world.asleep(ttl=ttl)
    for _ in range(int(ttl)):
        world.sweeps.expired()
        assert world.get(uuid).status is Status.SLEEPING
        world.now += 1
    world.sweeps.expired()
    world.work()
    assert world.get(uuid).status is Status.TERMINATED


# The ledger


def test_moments_in_a_gap_are_as_old_as_its_end() -> None:
    counted = Counted(1_000.0, ((0.0, 100.0), (400.0, 900.0)))
    ages = {1_100: -100, 1_000: 0, 950: 50, 900: 100, 600: 100, 400: 100, 300: 200, 100: 400, 50: 400, 0: 400}
    assert {moment: counted.age(moment) for moment in ages} == ages
    assert [counted.ago(seconds) for seconds in (0, 50, 100, 150, 400)] == [1_000, 950, 900, 350, 100]
    assert counted.ago(401) < 0


def test_sweeps_in_their_interval_leave_no_gap(redis_client: redis.Redis, world: World) -> None:
    """Some of them may fail to run."""
    time, interval = CountedTime(redis_client), task_queue.SWEEP_INTERVAL
    for n in range(5):
        counted = time.tick(world.now + n * 3 * interval)
    assert counted.age(world.now) == 12 * interval


STEPS = st.lists(
    st.tuples(st.sampled_from([1.0, 20.0, JUMP, JUMP + 1, 5_000.0, -1.0, -50.0, -4_000.0]), st.booleans()), max_size=60
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
@pytest.mark.slow
def test_nothing_is_ever_older_than_the_service_ran_since(
    redis_client: redis.Redis, world: World, steps: list[tuple[float, bool]]
) -> None:
    """However the clock goes, with things made under any of the times it showed; and `age` and `ago` agree."""
    redis_client.flushall()
    time, now, ran = CountedTime(redis_client), world.now, 0.0
    made = [(now - 1_000.0, 0.0)]
    counted = time.tick(now)
    for step, makes in steps:
        now += step
        ran += step if 0 < step <= JUMP else 0.0
        counted = time.tick(now)
        if makes:
            made.append((now, ran))
    for moment, then in made:
        age = counted.age(moment)
        assert age <= ran - then + 0.001
        assert age < 0.01 or moment <= counted.ago(age - 0.005) < counted.ago(age - 0.01) + 0.01
    assert list(counted.gaps) == sorted(counted.gaps)


def test_gaps_are_kept_in_bounds_and_become_longer_only(redis_client: redis.Redis, world: World) -> None:
    time, now, ran = CountedTime(redis_client), world.now, 0.0
    time.tick(now)
    for n in range(GAPS_KEPT + 50):
        for _ in range(1 + n % 3):
            now, ran = now + JUMP, ran + JUMP
            counted = time.tick(now)
        now += 1_000 + n
        counted = time.tick(now)
    assert len(counted.gaps) == GAPS_KEPT
    assert ran - 50 * 3 * JUMP <= counted.age(world.now) <= ran
    assert all(before[1] < after[0] for before, after in zip(counted.gaps, counted.gaps[1:], strict=False))
