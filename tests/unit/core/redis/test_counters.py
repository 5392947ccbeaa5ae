"""Who may count what: each process as its own user of Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.composition import Core
from app.core.redis import task_queue, users
from app.core.redis.counters import ANSWERED, FIRST_TOKEN, PROMPT_BUCKETS, Counters
from app.core.sessions.model import Record, Status
from app.process.settings import Settings
from tests.redis_users import Guarded, guarded_redis

UUID = "abcd1234"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    with guarded_redis(tmp_path) as made:
        yield made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", secret_key="k" * 32)


def core(guarded: Guarded, settings: Settings, user: str) -> Core:
    return Core(replace(settings, redis_url=guarded.url(user)))


@pytest.mark.real_redis
def test_each_process_may_count_what_it_counts(guarded: Guarded, settings: Settings) -> None:
    now = time.time()
    web = core(guarded, settings, "web")
    record = Record(uuid=UUID, user_id="ada", created_at=now, last_activity=now, status=Status.ACTIVE, epoch=1)
    web.store.create(record, quota=None)
    for user in ("worker", "sweeper", "backup-worker", "observer"):
        counters = core(guarded, settings, user).counters
        counters.acted("sleep", {"total": 1_000})
        counters.action_failed("sleep")
    for user in ("gateway", "delivery-worker", "web"):
        web.inbox.take(UUID, "a prompt", user, now=now)
        inbox = core(guarded, settings, user).inbox
        assert inbox.answer_begins(UUID, user, now + 1)
        assert inbox.finish(UUID, user, response={"text": "x"}, now=now + 2)
    core(guarded, settings, "sweeper").counters.look_at_queues(task_queue.QUEUES, now)

    durations, failures = web.counters.actions()
    assert (sum(durations["sleep", "total"].counts), failures) == (4, {"sleep": 4})
    prompts, _ = web.counters.prompts()
    assert {name: round(each.total) for name, each in prompts.items()} == {ANSWERED: 6, FIRST_TOKEN: 3}
    assert web.counters.oldest(task_queue.QUEUES, now + 1) == dict.fromkeys(task_queue.QUEUES, 0.0)
    assert web.dead_letters.count() == 0
    assert guarded.refused() == []


def test_users_that_count_nothing_may_not() -> None:
    by_name = {each.name: each for each in users.USERS}
    for name in ("forward-auth", "beat", "flower", "keda"):
        assert not {"actions", "prompts:times", "queues:seen"} & {*by_name[name].both, *by_name[name].writes}


def test_a_prompt_is_counted_in_the_bucket_of_its_time(guarded: Guarded, settings: Settings) -> None:
    """Lua does what `bisect` does for the others: a bound is part of its bucket."""
    web, now = core(guarded, settings, "web"), 1_000.0
    record = Record(uuid=UUID, user_id="ada", created_at=now, last_activity=now, status=Status.ACTIVE, epoch=1)
    web.store.create(record, quota=None)
    for number, seconds in enumerate((0.0, PROMPT_BUCKETS[1], PROMPT_BUCKETS[1] + 0.01, PROMPT_BUCKETS[-1] + 1)):
        web.inbox.take(UUID, "a prompt", f"m{number}", now=now)
        web.inbox.finish(UUID, f"m{number}", response={"text": "x"}, now=now + seconds)
    durations, _ = Counters(web.redis).prompts()
    assert [index for index, count in enumerate(durations[ANSWERED].counts) if count] == [0, 1, 2, len(PROMPT_BUCKETS)]
