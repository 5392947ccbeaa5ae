"""What a Redis holds that release 0.1 worked on: nothing of it is lost, and its sessions wake.

The data was written by that release on one machine: `ada` put a session to sleep after two prompts and after her access
tokens were revoked twice, `bob` deleted one with a backup, `cyd`'s is awake, and `dan`'s is waking for a prompt.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from app.core.redis import keys, task_queue
from app.core.sessions.model import Status
from tests.world import World

DATA = Path(__file__).with_name("data") / "redis-0.1.json"
ADA, BOB, CYD, DAN = "rrqu1ru4", "lo436nwa", "ohrn2g25", "ab3tmfgy"
STOPPED = 1_795_317_424.0
"""When that release was stopped, in seconds since the epoch."""


def fill(client: redis.Redis, written: dict[str, dict[str, Any]]) -> None:
    for key, typed in written.items():
        match typed:
            case {"hash": fields}:
                client.hset(key, mapping=fields)
            case {"zset": scores}:
                client.zadd(key, scores)
            case {"set": members}:
                client.sadd(key, *members)
            case {"list": entries}:
                client.rpush(key, *entries)
            case {"stream": entries}:
                for number, fields in entries:
                    client.xadd(key, fields, id=number)
            case {"string": text}:
                client.set(key, text)


@pytest.fixture
def world(redis_client: redis.Redis, tmp_path: Path) -> World:
    fill(redis_client, json.loads(DATA.read_text()))
    made = World(redis_client, tmp_path)
    made.now = STOPPED
    return made


def test_every_session_is_read_as_it_was(world: World) -> None:
    read = {uuid: world.get(uuid) for uuid in (ADA, BOB, CYD, DAN)}
    assert [record.status for record in read.values()] == ["sleeping", "terminated", "active", "waking"]
    assert [record.user_id for record in read.values()] == ["ada", "bob", "cyd", "dan"]
    assert (read[ADA].access_epoch, read[ADA].epoch) == (2, 4)
    assert {entry.act.action for entry in world.core.audit.page().entries} >= {"create", "revoke", "sleep"}
    assert world.core.store.counts()[Status.SLEEPING] == 1
    assert {record.uuid for record in world.sessions.page(user_id="ada").items} == {ADA}


def test_a_sleeping_session_wakes_and_a_new_revocation_counts_on(world: World) -> None:
    assert world.sessions.wake(ADA).status is Status.WAKING
    assert world.sessions.revoke(ADA).access_epoch == 3
    assert world.core.redis.hget(keys.SESSION.format(uuid=ADA), "door") == "3", "the release before can go on with it"


def test_a_prompt_that_waited_is_still_there(world: World) -> None:
    head = world.core.inbox.head(DAN)
    assert head is not None
    assert (head.id, head.text) == ("m9", "remember 99")
    assert world.core.inbox.get(ADA, "m1").response["text"]


def test_what_was_under_way_is_taken_up(world: World) -> None:
    """The wake was begun, so the prompt is what is left to do; workspaces are compared with the records anew."""
    world.now += world.settings.stale_after + 1
    world.sweeps.stale()
    assert {(task_queue.DELIVER, (DAN,)), (task_queue.RECONCILE, ())} <= set(world.tasks.sent)


def test_the_backup_is_listed(world: World) -> None:
    [backup] = world.core.backups.page(user_id="bob").items
    assert backup.uuid == BOB
