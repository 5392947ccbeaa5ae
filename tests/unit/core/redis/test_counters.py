"""Who may count what: each process as its own user of Redis."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from app.core.composition import Core
from app.core.redis import task_queue, users
from app.core.redis.counters import ANSWERED, FIRST_TOKEN, PROMPT_BUCKETS
from app.core.sessions.model import Status
from app.process.settings import Settings
from tests.redis_users import Guarded
from tests.unit.core.conftest import a_record
from tests.world import World


@pytest.mark.real_redis
def test_each_process_may_count_what_it_counts(guarded: Guarded, tmp_path: Path) -> None:
    def core(user: str) -> Core:
        return Core(Settings(data_dir=tmp_path, secret_key="k" * 32, redis_url=guarded.url(user)))

    now, web = time.time(), core("web")
    record = a_record(created_at=now, last_activity=now, status=Status.ACTIVE, epoch=1)
    web.store.create(record, quota=None)
    for user in ("worker", "sweeper", "backup-worker", "observer"):
        counters = core(user).counters
        counters.acted("sleep", {"total": 1_000})
        counters.action_failed("sleep")
    for user in ("gateway", "delivery-worker", "web"):
        web.inbox.take(record.uuid, "a prompt", user, now=now)
        inbox = core(user).inbox
        assert inbox.answer_begins(record.uuid, user, now + 1)
        assert inbox.finish(record.uuid, user, response={"text": "x"}, now=now + 2)
    core("sweeper").counters.look_at_queues(task_queue.QUEUES, now)

    durations, failures = web.counters.actions()
    assert (sum(durations["sleep", "total"].counts), failures) == (4, {"sleep": 4})
    prompts, _ = web.counters.prompts()
    assert {name: round(each.total) for name, each in prompts.items()} == {ANSWERED: 6, FIRST_TOKEN: 3}
    assert web.counters.oldest(task_queue.QUEUES, now + 1) == dict.fromkeys(task_queue.QUEUES, 0.0)
    assert web.dead_letters.count() == 0
    assert guarded.refused() == []


def test_users_that_count_nothing_may_not() -> None:
    for user in (each for each in users.USERS if each.name in ("forward-auth", "beat", "flower", "keda")):
        assert not {"actions", "prompts:times", "queues:seen"} & {*user.both, *user.writes}


def test_a_prompt_is_counted_in_the_bucket_of_its_time(world: World, uuid: str) -> None:
    """Lua does what `bisect` does for the others: a bound is part of its bucket."""
    inbox = world.core.inbox
    for number, seconds in enumerate((0.0, PROMPT_BUCKETS[1], PROMPT_BUCKETS[1] + 0.01, PROMPT_BUCKETS[-1] + 1)):
        inbox.take(uuid, "a prompt", f"m{number}", now=1_000.0)
        inbox.finish(uuid, f"m{number}", response={"text": "x"}, now=1_000.0 + seconds)
    durations, _ = world.core.counters.prompts()
    assert [index for index, count in enumerate(durations[ANSWERED].counts) if count] == [0, 1, 2, len(PROMPT_BUCKETS)]
