"""The checks of a diagnosis: they run side by side, and none can hold up or break the others."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from app.core.composition import Core
from app.core.errors import ArchiveError, RetryableError, StateUnavailable
from app.core.operations import checks
from app.core.operations.checks import CHECKS, Look, diagnose
from app.core.operations.verdicts import State, Verdict
from app.core.redis import task_queue
from app.core.redis.dead_letters import DeadLetter
from app.core.redis.processes import KINDS, Reporter
from app.core.sessions.model import Status
from app.core.storage.archive_keys import new_key
from app.process.settings import Settings
from tests.fakes import raising
from tests.ports import free_port
from tests.redis_users import guarded_redis
from tests.world import World
from workers import rpc


@pytest.fixture
def world(redis_client: redis.Redis, tmp_path: Path) -> World:
    return World(redis_client, tmp_path, forward_auth_port=free_port())


def verdict(world: World, check: str) -> Verdict:
    return CHECKS[check](Look(world.core, world.now))


def test_a_healthy_service_has_nothing_to_say(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        Reporter(world.core.redis, kind).tick()
    world.core.heartbeats.observer_alive(world.now)
    world.core.counters.look_at_queues(task_queue.QUEUES, world.now)
    world.core.model_answers.note(world.now, status=200, ms=7)
    world.core.settings = replace(world.settings, llm_base_url="http://model")
    monkeypatch.setattr(checks, "_answers", lambda port: True)
    monkeypatch.setattr(world.core.rpc, "ask", lambda *_: {"backups": "", "conversations": ""})
    found = diagnose(world.core, world.now)
    assert [each.check for each in found] == list(CHECKS)
    # The tests' Redis may keep no file.
    assert [each for each in found if each.status is not State.OK and each.check != "redis"] == []


def test_of_a_service_that_is_not_there_each_part_is_missed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.core.rpc, "ask", raising(RetryableError("No worker responded in time; retry.")))
    found = {each.check: each.status for each in diagnose(world.core, world.now)}
    missed = ("web", "gateway", "workers", "beat", "observer", "ingress")
    assert {name: found[name] for name in missed} == dict.fromkeys(missed, State.FAILED)
    assert (found["cluster"], found["storage"], found["model"]) == (State.UNKNOWN, State.UNKNOWN, State.WARNING)


def test_without_redis_it_says_so_and_the_rest_is_unknown(settings: Settings) -> None:
    away = Core(replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    found = {each.check: each for each in diagnose(away, time.time())}
    assert found["redis"].status is State.FAILED
    assert "REDIS_URL" in found["redis"].remedy
    others = {each.status for name, each in found.items() if name not in ("redis", "model", "policies")}
    assert others == {State.UNKNOWN}


@pytest.mark.slow
def test_a_check_that_hangs_or_breaks_holds_up_no_other(world: World) -> None:
    ends = threading.Event()

    def hangs(look: Look) -> Verdict:
        ends.wait(60)
        return Verdict("hangs", State.OK, "late")

    def breaks(look: Look) -> Verdict:
        raise ValueError("a secret text")

    def works(look: Look) -> Verdict:
        return Verdict("works", State.OK, "well")

    found = diagnose(world.core, world.now, {"hangs": hangs, "breaks": breaks, "works": works}, deadline=0.5)
    ends.set()
    states = {"hangs": State.UNKNOWN, "breaks": State.UNKNOWN, "works": State.OK}
    assert [(each.check, each.status) for each in found] == list(states.items())
    assert "secret" not in str(found)


def test_sessions_that_wait_for_a_machine_are_counted(world: World) -> None:
    world.core.heartbeats.observer_alive(world.now)
    for number in range(2):
        uuid = world.active(f"user{number}")
        world.core.store.change(uuid, world.now, to=Status.WAKING, reason_code="no_capacity")
    assert "2 sessions" in verdict(world, "cluster").found


def test_a_queue_that_nobody_works_on_is_named(world: World) -> None:
    world.core.redis.lpush("wake", json.dumps({"headers": {"enqueued_at": world.now - 60}}))
    world.core.counters.look_at_queues(task_queue.QUEUES, world.now)
    assert "wake (1 tasks, the oldest for 60 s)" in verdict(world, "queues").found


def test_dead_letters_are_counted(world: World) -> None:
    world.core.dead_letters.add(DeadLetter(task=task_queue.BACKUP))
    assert verdict(world, "dead_letters").status is State.WARNING


def test_forward_auth_is_asked_on_this_machine_alone(world: World) -> None:
    Reporter(world.core.redis, "forward-auth").tick()
    assert "FORWARD_AUTH_PORT" in verdict(world, "ingress").found
    world.core.settings = replace(world.settings, runtime="kubernetes", ingress_forward_auth='{"a": "b"}')
    assert verdict(world, "ingress").status is State.OK


def test_the_ingress_of_this_machine_is_looked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    Reporter(world.core.redis, "forward-auth").tick()
    monkeypatch.setattr(checks, "_answers", lambda port: True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        world.core.settings = replace(world.settings, workspace_port=listener.getsockname()[1])
        assert verdict(world, "ingress").status is State.OK
    assert "WORKSPACE_PORT" in verdict(world, "ingress").found


class At:
    """A worker that takes an RPC at once."""

    def __init__(self, world: World) -> None:
        self._world = world

    def send(self, task: str, *args: str, request_id: str = "") -> None:
        assert task == task_queue.CHECK_STORES
        rpc.check_stores(self._world.core, args[1])


@pytest.fixture
def served(make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> World:
    world = make_world(archive_key=new_key())
    monkeypatch.setattr(world.core.rpc, "_tasks", At(world))
    return world


def test_a_worker_tries_both_stores_and_leaves_nothing(served: World) -> None:
    assert verdict(served, "storage").status is State.OK
    assert [path for path in served.settings.data_dir.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("store", "name"), [("backup_store", "backups"), ("history_store", "conversations")])
def test_a_store_that_refuses_is_named(served: World, monkeypatch: pytest.MonkeyPatch, store: str, name: str) -> None:
    refusal = "The store can't be used: permission denied."
    monkeypatch.setattr(getattr(served.core, store), "check", raising(ArchiveError(refusal)))
    found = verdict(served, "storage")
    assert (found.status, found.found) == (State.FAILED, f"{name}: {refusal}")


def test_a_check_that_nobody_waits_for_is_not_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.core.backup_store, "check", lambda: pytest.fail("the store was written"))
    rpc.check_stores(world.core, "0" * 32)


def test_redis_that_goes_away_is_no_verdict_on_the_stores(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.core.backup_store, "check", raising(StateUnavailable("away")))
    found = {each.check: each for each in diagnose(served.core, served.now, {"storage": CHECKS["storage"]})}
    assert "Redis" in found["storage"].found


@pytest.mark.real_redis
def test_web_may_look_at_all_of_it(tmp_path: Path) -> None:
    """As its own user of Redis; and the gateway may note what the model answered."""
    with guarded_redis(tmp_path) as guarded:
        core, gateway = (Core(Settings(data_dir=tmp_path, redis_url=guarded.url(user))) for user in ("web", "gateway"))
        diagnose(core, time.time(), {name: check for name, check in CHECKS.items() if name != "storage"})
        gateway.model_answers.note(time.time(), status=200)
        assert guarded.refused() == []
        assert core.model_answers.last(time.time())
