"""Processes report themselves, and one that stops doing so is silent."""

from __future__ import annotations

import json
import time

import pytest
import redis

from app.core.redis import keys
from app.core.redis.processes import EVERY, FORGOTTEN, KINDS, SILENCE, Process, Processes, Reporter, Reports
from scripts.lib.processes import MANAGER
from tests.redis_users import Guarded
from tests.waiting import wait_for


class Moved(Processes):
    """Whose Redis has another time than the real one's."""

    now = 1_000_000.0

    def _time(self) -> float:
        return self.now


@pytest.fixture
def processes(redis_client: redis.Redis) -> Moved:
    return Moved(redis_client, clock=lambda: Moved.now)


def of(processes: Processes, kind: str) -> list[Process]:
    return [each for each in processes.all() if each.kind == kind]


def test_a_kind_of_the_manager_of_which_none_reports_is_silent(processes: Moved) -> None:
    found = processes.all()
    assert [each.name for each in found] == list(KINDS)
    assert set(KINDS) == set(MANAGER)
    assert not any(each.alive or each.host or each.seen for each in found)


def test_a_process_is_alive_until_it_stops_reporting(processes: Moved) -> None:
    start = processes.now
    processes.report("web", "web@a:1", "a", start - 60)
    assert of(processes, "web") == [Process("web@a:1", "web", "a", start - 60, start, alive=True)]
    for later, found in ((SILENCE, ("a", True)), (SILENCE + 1, ("a", False)), (FORGOTTEN + 1, (None, False))):
        processes.now = start + later
        assert [(each.host, each.alive) for each in of(processes, "web")] == [found]


def test_another_clock_makes_nobody_silent(redis_client: redis.Redis) -> None:
    ahead = Processes(redis_client, clock=lambda: time.time() + 300)
    ahead.report("observer", "observer@a:1", "a", time.time() + 290)
    [found] = of(Processes(redis_client), "observer")
    assert found.alive
    assert found.skew == pytest.approx(300, abs=5)
    assert found.since == pytest.approx(time.time() - 10, abs=5)


def test_a_new_process_takes_the_place_of_silent_ones_of_its_host(processes: Moved) -> None:
    for name, host in (("web@a:1", "a"), ("web@b:1", "b")):
        processes.report("web", name, host, processes.now)
    processes.now += SILENCE + 1
    processes.report("web", "web@a:2", "a", processes.now)
    processes.tidy("web")
    assert [(each.name, each.alive) for each in of(processes, "web")] == [("web@a:2", True), ("web@b:1", False)]
    processes.now += FORGOTTEN + 1
    processes.tidy("web")
    assert of(processes, "web")[0].seen is None


def test_a_killed_process_is_not_shown_once_another_has_its_place(processes: Moved) -> None:
    """Each that began takes the place of one: of two that were killed, one is missing."""
    start = processes.now
    for name in ("web@a:1", "web@b:1"):
        processes.report("web", name, name[4], start - 60)
    processes.now = start + 0.5
    processes.report("web", "web@c:1", "c", start - 60)
    processes.report("web", "web@d:1", "d", start + 1)
    processes.now = start + SILENCE + 1
    processes.report("web", "web@a:1", "a", start - 60)
    processes.report("web", "web@d:1", "d", start + 1)
    assert [(each.host, each.alive) for each in of(processes, "web")] == [("a", True), ("c", False), ("d", True)]


def test_what_is_no_report_is_not_shown(processes: Moved, redis_client: redis.Redis) -> None:
    """A process that was taken over writes what it likes."""
    told = {"host": "<b>" * 100, "since": 1, "seen": processes.now + 1e6, "skew": 0}
    key = keys.PROCESSES.format(kind="gateway")
    redis_client.hset(key, mapping={"a": "{", "b": "[]", "c": '{"host": 1}', "d" * 500: json.dumps(told)})
    [found] = of(processes, "gateway")
    assert (len(found.name), len(found.host or ""), found.seen) == (128, 128, processes.now)


def test_a_reporter_reports_every_few_seconds_and_leaves(redis_client: redis.Redis) -> None:
    ticks = [0.0]
    reporter = Reporter(redis_client, "beat", ticks=lambda: ticks[0])
    key = keys.PROCESSES.format(kind="beat")
    for seconds, written in ((0.0, True), (EVERY - 0.1, False), (EVERY, True)):
        redis_client.delete(key)
        ticks[0] = seconds
        reporter.tick()
        assert bool(redis_client.exists(key)) is written
    reporter.leave()
    assert not redis_client.exists(key)


def test_redis_being_away_ends_no_process() -> None:
    away = redis.Redis(host="127.0.0.1", port=1, retry=None)
    reporter = Reporter(away, "beat")
    reporter.tick()
    reporter.leave()


def test_a_process_that_hangs_is_not_reported(redis_client: redis.Redis) -> None:
    works = [False]
    reports = Reports(Reporter(redis_client, "observer"), lambda: works[0])
    reports.look()
    assert not of(Processes(redis_client), "observer")[0].alive
    works[0] = True
    reports.start()
    wait_for(lambda: of(Processes(redis_client), "observer")[0].alive, "the report")
    reports.stop()
    assert not of(Processes(redis_client), "observer")[0].alive


@pytest.mark.real_redis
def test_each_kind_may_report_itself_and_no_other(guarded: Guarded) -> None:
    for kind in KINDS:
        Reporter(guarded.client(kind), kind).tick()
    assert all(each.alive for each in Processes(guarded.client("web")).all())
    assert guarded.refused() == []
    for kind, other in zip(KINDS, (*KINDS[1:], KINDS[0]), strict=True):
        with pytest.raises(redis.exceptions.NoPermissionError):
            guarded.client(kind).hset(keys.PROCESSES.format(kind=other), "x", "y")
