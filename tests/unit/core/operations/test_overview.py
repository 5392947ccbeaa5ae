"""Samples of the service: one a minute, what happened in it, and hours made of minutes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import redis

from app.core.composition import Core
from app.core.operations.overview import Counted, Present, Sampler, history, made, merged, quantile
from app.core.redis import keys
from app.core.redis.counters import START_BUCKETS
from app.core.redis.dead_letters import DeadLetter
from app.core.redis.task_queue import QUEUES
from app.core.sessions.model import Status
from app.core.sessions.samples import HOUR, HOURS_KEPT, MINUTES_KEPT, Last, Sample
from app.process.settings import Settings
from tests.redis_users import guarded_redis
from tests.world import World

BUCKETS = len(START_BUCKETS) + 1
NOON = 1_763_640_000
NOW = Present({"active": 2}, {"wake": 1}, 3)


def buckets(**counts: int) -> tuple[int, ...]:
    """So many starts by the number of their bucket, as `b3=2`."""
    return tuple(counts.get(f"b{number}", 0) for number in range(BUCKETS))


def test_a_sample_has_what_happened_since_the_one_before() -> None:
    before = Counted(buckets(b1=2), buckets(), 1.0, 0.5, {"no_capacity": 1})
    after = Counted(buckets(b1=3, b4=1), buckets(b2=1), 1.5, 0.75, {"no_capacity": 3, "wake_failed": 1})
    assert made(NOON, before, after, NOW) == Sample(
        at=NOON,
        sessions={"active": 2},
        wakes=buckets(b1=1, b4=1),
        creates=buckets(b2=1),
        cost=0.5,
        saved=0.25,
        failures={"no_capacity": 2, "wake_failed": 1},
        queues={"wake": 1},
        dead_letters=3,
    )


def test_the_first_sample_and_counters_that_begin_anew_say_that_nothing_happened() -> None:
    counted = Counted(buckets(b1=3), buckets(), 5.0, 4.0, {"wake_failed": 7})
    empty = Counted(buckets(), buckets(), 0.0, 0.0, {})
    for sample in (made(NOON, None, counted, NOW), made(NOON, counted, empty, NOW)):
        assert (sum(sample.wakes), sample.cost, sample.saved, sample.failures) == (0, 0.0, 0.0, {})


def test_an_hour_has_sums_means_and_the_longest_queues() -> None:
    some = [
        Sample(at=NOON + 60 * number, sessions={"active": number}, wakes=buckets(b1=1), creates=buckets(), cost=0.5)
        for number in range(1, 4)
    ]
    last = Sample(
        at=NOON, wakes=buckets(b2=1), creates=buckets(), failures={"x": 2}, queues={"wake": 9}, dead_letters=4
    )
    hour = replace(last, sessions={"active": 2}, wakes=buckets(b1=3, b2=1), cost=1.5)
    assert merged(NOON, [*some, last]) == hour
    assert merged(NOON, []) is None


@pytest.mark.parametrize(
    ("found", "share", "ms"),
    [
        (buckets(), 0.5, None),
        (buckets(b5=1), 0.5, 875),
        (buckets(b5=10), 0.95, 988),
        (buckets(b0=5, b5=5), 0.5, 50),
        (buckets(b0=9, b6=1), 0.95, 1250),
        (buckets(b13=2), 0.5, 60_000),
    ],
)
def test_quantiles_come_from_the_buckets(found: tuple[int, ...], share: float, ms: int | None) -> None:
    assert quantile(found, share) == ms


def test_a_sample_is_kept_in_a_short_text() -> None:
    sample = Sample(
        at=NOON,
        sessions=dict.fromkeys(map(str, Status), 12_345),
        wakes=tuple(range(BUCKETS)),
        creates=tuple(range(BUCKETS)),
        cost=123.456789,
        saved=1234.567891,
        failures=dict.fromkeys(("no_capacity", "wake_failed", "create_failed"), 9),
        queues=dict.fromkeys(QUEUES, 1_000),
        dead_letters=1_000,
    )
    assert Sample.from_text(sample.to_text(), BUCKETS) == sample
    # With all lists full of such samples, less than 1 MB, where a usual one has a third of this.
    assert len(sample.to_text()) * (MINUTES_KEPT + HOURS_KEPT) < 1_000_000


def test_one_sample_is_taken_a_minute_whoever_tries(world: World) -> None:
    first, second = Sampler(world.core), Sampler(world.core)
    for sampler in (first, second, first):
        sampler.sample(NOON + 5)
    second.sample(NOON + 59.9)
    assert [each.at for each in world.core.samples.minutes()] == [NOON]
    second.sample(NOON + 60)
    first.sample(NOON + 61)
    assert [each.at for each in world.core.samples.minutes()] == [NOON, NOON + 60]


def test_of_two_that_looked_at_once_one_adds_its_sample(world: World) -> None:
    assert world.core.samples.add(Last(""), {}, Sample(at=NOON))
    assert not world.core.samples.add(Last(""), {}, Sample(at=NOON))
    assert len(world.core.samples.minutes()) == 1


def test_a_sample_shows_sessions_starts_failures_and_dead_letters(world: World) -> None:
    sampler = Sampler(world.core)
    sampler.sample(NOON)
    world.active()
    world.core.counters.started("wake", {"enqueued": 10, "ready": 900})
    world.core.counters.failed_because("no_capacity")
    world.core.dead_letters.add(DeadLetter(task="sessions.wake"))
    sampler.sample(NOON + 60)
    [_, sample] = world.core.samples.minutes()
    assert sample.sessions == {"active": 1}
    assert (sum(sample.wakes), sum(sample.creates)) == (1, 1)
    assert quantile(sample.wakes, 0.5) == 875
    assert (sample.failures, sample.dead_letters) == ({"no_capacity": 1}, 1)
    sampler.sample(NOON + 120)
    assert sum(world.core.samples.minutes()[-1].wakes) == 0


def test_hours_are_made_of_their_minutes(world: World) -> None:
    sampler = Sampler(world.core)
    begun = NOON // HOUR * HOUR
    for minute in range(121):
        sampler.sample(begun + 60 * minute)
        world.core.counters.started("wake", {"ready": 100})
    hours = world.core.samples.hours()
    assert [(each.at, sum(each.wakes)) for each in hours] == [(begun, 59), (begun + HOUR, 60)]


def test_a_clock_that_is_put_back_is_sampled_on(world: World) -> None:
    sampler = Sampler(world.core)
    sampler.sample(NOON + 86_400)
    world.core.counters.started("wake", {"ready": 100})
    sampler.sample(NOON)
    assert [(each.at, sum(each.wakes)) for each in world.core.samples.minutes()] == [(NOON + 86_400, 0), (NOON, 0)]
    assert [each.at for each in history(world.core, 1, NOON)[0]] == [NOON]


def test_the_lists_are_capped(world: World, redis_client: redis.Redis) -> None:
    last = Last("")
    text = Sample(at=NOON, wakes=buckets(), creates=buckets()).to_text()
    redis_client.rpush(keys.MINUTES, *[text] * MINUTES_KEPT)
    redis_client.rpush(keys.HOURS, *[text] * HOURS_KEPT)
    sample = Sample(at=NOON + 60, wakes=buckets(), creates=buckets())
    assert world.core.samples.add(last, {}, sample, sample)
    assert (redis_client.llen(keys.MINUTES), redis_client.llen(keys.HOURS)) == (MINUTES_KEPT, HOURS_KEPT)
    assert world.core.samples.minutes()[-1] == world.core.samples.hours()[-1] == sample


def test_up_to_a_day_is_shown_by_minutes_and_more_by_hours(world: World, redis_client: redis.Redis) -> None:
    for key, step, count in ((keys.MINUTES, 60, MINUTES_KEPT), (keys.HOURS, HOUR, HOURS_KEPT)):
        texts = [Sample(at=NOON - step * back).to_text() for back in reversed(range(count))]
        redis_client.rpush(key, *texts)
    for hours, count, interval in ((1, 60, 60), (24, 1_440, 60), (25, 25, HOUR), (720, 720, HOUR)):
        found, seconds = history(world.core, hours, NOON + 1)
        assert (len(found), seconds, found[-1].at) == (count, interval, NOON)


def test_the_sweep_takes_samples(world: World) -> None:
    world.sweeps.stale()
    assert [each.at for each in world.core.samples.minutes()] == [int(world.now) // 60 * 60]


@pytest.mark.real_redis
def test_the_sweeper_may_sample_and_web_may_read(tmp_path: Path) -> None:
    with guarded_redis(tmp_path) as guarded:
        users = ("worker", "backup-worker", "observer", "sweeper", "web")
        *counting, sweeper, web = (Core(Settings(data_dir=tmp_path, redis_url=guarded.url(user))) for user in users)
        for each in counting:
            each.counters.failed_because("no_capacity")
        Sampler(sweeper).sample(NOON)
        assert len(history(web, 24, NOON + 1)[0]) == 1
        assert guarded.refused() == []
