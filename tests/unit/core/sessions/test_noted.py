"""What the gateway notes of a session's use: beside the record, which it can't write, and part of it for who reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from app.core.redis import keys, users
from app.core.redis.use_fields import USE_FIELDS, Form, well_formed
from app.core.sessions.model import CODECS, PHASES, Record, Signal, Status
from app.core.signal_kinds import SIGNAL_PREFIX, SIGNALS
from tests.redis_users import Guarded
from tests.world import World


@pytest.fixture
def manager(guarded: Guarded, tmp_path: Path) -> World:
    """The processes that carry out what is asked for."""
    return World(guarded.client(users.ADMIN), tmp_path)


@pytest.fixture
def gateway(guarded: Guarded, manager: World, tmp_path: Path) -> World:
    """What workspaces reach, with the rights it has on a cluster."""
    made = World(guarded.client("gateway"), tmp_path)
    made.now = manager.now + 5
    return made


def record_of(world: World, uuid: str) -> dict[str, str]:
    """The record's hash, alone."""
    return dict(world.core.redis.hgetall(keys.SESSION.format(uuid=uuid)))


def use_of(world: World, uuid: str) -> dict[str, str]:
    return dict(world.core.redis.hgetall(keys.USE.format(uuid=uuid)))


def test_the_gateway_writes_no_record(manager: World, gateway: World) -> None:
    """Whatever workspaces make it do."""
    uuid = manager.active()
    message_id = manager.core.inbox.take(uuid, "go", now=manager.now).prompt.id
    manager.core.inbox.delivered(uuid, message_id, manager.now)
    before, seen = record_of(manager, uuid), manager.get(uuid)
    gateway.core.inbox.agent_here(uuid, "http://127.0.0.1:1", "pod-1", "boot-1", gateway.now)
    gateway.core.activity.write(uuid, {"turn": Signal(gateway.now)})
    gateway.core.store.note_unarchived(uuid, {"since": gateway.now, "reason": "full"})
    gateway.core.inbox.finish(uuid, message_id, response={"text": "done"}, now=gateway.now)
    assert record_of(manager, uuid) == before
    assert manager.get(uuid) == replace(
        seen,
        last_activity=gateway.now,
        waiting=0,
        unfinished=0,
        signals={**seen.signals, "turn": Signal(gateway.now)},
        unarchived={"since": gateway.now, "reason": "full"},
    )


def readers(world: World, uuid: str) -> list[Record]:
    """The record as each way of reading it has it."""
    store, redis = world.core.store, world.core.redis
    link = world.core.login_links.make(uuid, store.get(uuid).access_epoch)
    looks = [world.core.login_links.lookup(uuid).record, world.core.login_links.lookup(uuid, link).record]
    return [store.get(uuid), *store.find([uuid]), *(look for look in looks if look), store.change(uuid, 0.0).record] + [
        Record.from_hash(redis.hgetall(keys.SESSION.format(uuid=uuid)))
    ]


def test_all_who_read_a_record_see_the_same(world: World, uuid: str) -> None:
    world.now += 60
    world.core.activity.write(uuid, {"editor": Signal(world.now)})
    world.core.store.note_unarchived(uuid, {"reason": "full"})
    seen = readers(world, uuid)
    assert len(seen) == 6
    assert {each.last_activity for each in seen} == {world.now}
    assert all(each == seen[0] for each in seen)


def test_nobody_takes_anything_else_from_there(world: World, uuid: str) -> None:
    """A gateway that was taken over writes what it likes."""
    before = world.get(uuid)
    everything = [*CODECS, *(f"phase_{name}" for name in PHASES), *(SIGNAL_PREFIX + name for name in SIGNALS)]
    foreign = {name: "7" for name in everything if name not in USE_FIELDS}
    assert {"task", "generation", "access_epoch", "epoch", "user_id", "status"} <= set(foreign)
    world.core.redis.hset(keys.USE.format(uuid=uuid), mapping=foreign)
    assert readers(world, uuid) == [before] * 6
    assert use_of(world, uuid) == {}


MALFORMED = {
    "last_activity": ["", "soon", "-1", "1e400", "9" * 300, "1 2"],
    "waiting": ["1.5", "many", "-1", "٣", "9" * 1_001],
    "disk_used_mib": ["", "1.5", "-1"],
    "unarchived": ["[]", "null", "{", '{"since": "now", "reason": ""}', '{"since": 1e300, "reason": ""}', '{"a": 1}'],
    "signal_browser": ["", "a b c", "1 b", "1 2 \n", f"1 {'9' * 300} x", "1\t2"],
    "services": [
        *("web", "web:3000", "web:3000:asleep", "web:03000:running", "web:0:running", "web:65536:running"),
        *("-web:3000:running", "we b::running", "wéb::running", "web:٣:running", "web::running,", ",web::running"),
        *("web::running\n", "web::running,,web::running", ":80:running", "web:1:2:running", "web::Running"),
        *(f"{'x' * 33}::running", ",".join(["web::running"] * 17), "web:123456:running", "web::", "web::running:"),
    ],
    "signal_unknown": ["1"],
    "task": ["1"],
}
WELL_FORMED = {
    "last_activity": ["0", "1763625600.125"],
    "waiting": ["0", "12"],
    "disk_used_mib": ["0", "1073741824"],
    "services": [
        *("", "web:3000:running", "web:3000:running,worker::stopped", "a-b_C9:65535:failed,0:1:waiting,x::starting"),
        ",".join([f"{'x' * 32}:65535:starting"] * 16),
    ],
    "unarchived": ["{}", '{"since": 1.5, "reason": "it is full"}'],
    "signal_browser": ["1.5", "1.5 2", "1.5 2 a detail, of words é"],
}


def test_a_malformed_text_is_ignored_by_every_reader_and_writer(world: World, uuid: str) -> None:
    """Lua and Python agree on every text: what one took into the record the other must be able to read."""
    cases = [(name, text, False) for name, texts in MALFORMED.items() for text in texts]
    cases += [(name, text, True) for name, texts in WELL_FORMED.items() for text in texts]
    for name, text, good in cases:
        world.core.redis.hset(keys.USE.format(uuid=uuid), name, text)
        before = world.core.redis.hget(keys.SESSION.format(uuid=uuid), name)
        assert well_formed(name, text) is good, (name, text)
        assert len(set(map(repr, readers(world, uuid)))) == 1
        world.core.store.change(uuid, world.now, reason="")
        after = world.core.redis.hget(keys.SESSION.format(uuid=uuid), name)
        taken = None if text in ("0", "{}", "") else text
        assert after == (taken if good else before), (name, text)
        assert not world.core.redis.exists(keys.USE.format(uuid=uuid))


GOOD = {
    Form.NUMBER: "1.5",
    Form.COUNT: "2",
    Form.SIGNAL: "1.5 2 make",
    Form.NOTE: '{"since": 1, "reason": ""}',
    Form.SERVICES: "web:80:running",
}


def test_a_change_takes_every_field_of_use_into_the_record_and_no_other(world: World, uuid: str) -> None:
    before = record_of(world, uuid)
    noted = {name: GOOD[form] for name, form in USE_FIELDS.items()}
    foreign = {"signal_unknown": "1.5", "signal_": "1.5", "number": "1.5"}
    world.core.redis.hset(keys.USE.format(uuid=uuid), mapping=noted | foreign)
    world.core.store.change(uuid, world.now)
    assert record_of(world, uuid) == before | noted


def test_what_is_noted_are_fields_of_a_record() -> None:
    known = {each.name for each in fields(Record)}
    assert {name for name in USE_FIELDS if not name.startswith(SIGNAL_PREFIX)} <= known


def test_a_use_that_was_noted_ends_the_pause_of_an_expiry(manager: World, gateway: World) -> None:
    uuid = manager.active()
    manager.core.store.change(uuid, manager.now, expiry_tries=3)
    gateway.core.activity.write(uuid, {"turn": Signal(gateway.now)})
    assert manager.get(uuid).expiry_tries == 0
    manager.core.store.change(uuid, manager.now)
    assert "expiry_tries" not in record_of(manager, uuid)


@pytest.mark.parametrize("rest", [lambda world, uuid: world.sessions.sleep(uuid), lambda world, uuid: None])
def test_nothing_stands_beside_a_record_for_long(world: World, uuid: str, rest: Callable[[World, str], Any]) -> None:
    """A session that sleeps takes no more than its record, and one that is gone no more than that."""
    message_id = world.core.inbox.take(uuid, "go", now=world.now).prompt.id
    world.core.inbox.finish(uuid, message_id, response={}, now=world.now)
    world.use(uuid)
    assert use_of(world, uuid)
    rest(world, uuid)
    world.work()
    if world.get(uuid).status is Status.SLEEPING:
        assert use_of(world, uuid) == {}
        assert not {"waiting", "unfinished"} & set(record_of(world, uuid))
    world.sessions.delete(uuid, backup=False)
    world.work()
    world.core.store.note_unarchived(uuid, {"reason": "late"})
    world.core.inbox.finish(uuid, message_id, response={}, now=world.now)
    assert (world.get(uuid).status, use_of(world, uuid)) == (Status.TERMINATED, {})


def test_what_stands_in_the_record_counts_until_something_newer_is_noted(world: World, uuid: str) -> None:
    world.core.store.change(uuid, world.now, waiting=2, unfinished=1, signals={"editor": Signal(world.now - 9)})
    assert (world.get(uuid).waiting, world.get(uuid).unfinished) == (2, 1)
    assert world.core.activity.read(uuid)["editor"] == Signal(world.now - 9)
    world.core.inbox.delivered(uuid, "none", world.now)
    assert (world.get(uuid).waiting, world.get(uuid).unfinished) == (0, 0)
