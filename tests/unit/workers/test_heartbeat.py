"""The sign that a process does its work: who gives it, when, and who can't."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.lib import procfile
from tests.conftest import ROOT
from tests.world import World
from workers import observer
from workers.celery import broker, liveness
from workers.celery.app import app
from workers.heartbeat_file import EVERY, Heartbeat
from workers.observer import Observer


class Beats(Heartbeat):
    """Counts the beats."""

    def __init__(self) -> None:
        super().__init__("")
        self.count = 0

    def beat(self) -> None:
        self.count += 1
        super().beat()


def test_a_beat_touches_the_file_once_a_second(tmp_path: Path) -> None:
    """A loop may go round as often as it likes."""
    now = [100.0]
    file = tmp_path / "beat"
    heart = Heartbeat(str(file), lambda: now[0])
    heart.beat()
    assert file.exists()
    os.utime(file, (1, 1))
    now[0] += EVERY / 2
    heart.beat()
    assert file.stat().st_mtime == 1
    assert heart.age == 0
    now[0] += EVERY
    assert heart.age == EVERY
    heart.beat()
    assert file.stat().st_mtime > 1


def test_only_the_loop_itself_beats(tmp_path: Path) -> None:
    """Not a thread beside it, nor a process of a worker's pool, which has inherited it."""
    file = tmp_path / "beat"
    heart = Heartbeat(str(file))
    thread = threading.Thread(target=heart.beat)
    thread.start()
    thread.join()
    child = os.fork()
    if child == 0:
        heart.beat()
        os._exit(0)
    os.waitpid(child, 0)
    assert not file.exists()


def test_a_heartbeat_that_can_not_be_noted_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Heartbeat(str(tmp_path / "missing" / "beat")).beat()
    assert "heartbeat file was not touched" in caplog.text


BEGUN, NOT_BEGUN = (SimpleNamespace(_accepted=accepted) for accepted in (True, False))


def pool(*jobs: SimpleNamespace, processes: int = 1) -> Any:
    return SimpleNamespace(_pool=[object()] * processes, _cache=dict(enumerate(jobs)))


@pytest.mark.parametrize(
    ("seen", "works"),
    [
        (pool(), True),
        # However long it runs: its time limit ends it.
        (pool(BEGUN), True),
        # All processes have something to do.
        (pool(BEGUN, NOT_BEGUN), True),
        (pool(NOT_BEGUN), False),
        (pool(BEGUN, NOT_BEGUN, processes=2), False),
        (pool(processes=0), False),
    ],
)
def test_a_pool_that_takes_no_tasks_is_noticed(seen: Any, works: bool) -> None:
    watch = liveness.PoolWatch()
    looks = [watch.works(seen) for _ in range(liveness.STUCK)]
    assert looks[-1] is works
    assert looks[0] is bool(seen._pool)


def test_a_task_that_is_begun_late_is_forgiven() -> None:
    watch = liveness.PoolWatch()
    for seen in (pool(NOT_BEGUN), pool(BEGUN)) * liveness.STUCK:
        assert watch.works(seen)


def test_a_worker_beats_from_its_event_loop_and_in_no_other_way() -> None:
    """A look each second, by the loop's own timer."""
    heart, timers = Beats(), []
    worker = SimpleNamespace(app=SimpleNamespace(heartbeat=heart), pool=SimpleNamespace(_pool=pool()), steps=[])
    hub = SimpleNamespace(call_repeatedly=lambda *timer: timers.append(timer))

    assert liveness.HeartbeatStep in app.steps["worker"]
    liveness.HeartbeatStep(worker).register_with_event_loop(worker, hub)

    [(seconds, look, seen)] = timers
    assert (seconds, heart.count) == (EVERY, 0)
    look(seen)
    assert heart.count == 1
    look(pool(processes=0))
    assert heart.count == 1


def test_whoever_tries_to_reach_redis_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that is away is no reason to end a process: it tries again."""
    heart = Beats()
    monkeypatch.setattr(broker.Transport, "trying", staticmethod(heart.beat))
    client = SimpleNamespace(transport_options={}, port=1, hostname="127.0.0.1", virtual_host="0")
    transport = broker.Transport(client)
    monkeypatch.setattr(transport, "create_channel", lambda _: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            transport.establish_connection()
    assert heart.count == 2


def test_beat_beats_with_each_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least each second, whatever it waits for."""
    heart = Beats()
    monkeypatch.setattr(app, "heartbeat", heart)
    scheduler = liveness.Scheduler(app=app, schedule_filename=str(tmp_path / "schedule"), lazy=True)
    monkeypatch.setattr(type(scheduler), "schedule", {})
    assert scheduler.tick() <= EVERY
    assert heart.count == 1
    assert app.conf.beat_scheduler is liveness.Scheduler


@pytest.mark.slow
def test_the_observer_beats_from_the_loop_that_looks(world: World) -> None:
    """Also where nothing happens, and where another one leads."""
    stop = threading.Event()

    class StopsAt(Beats):
        def beat(self) -> None:
            super().beat()
            if self.count == 50:
                stop.set()

    heart = StopsAt()
    Observer(world.core, world.runtime, heartbeat=heart).run(stop)
    assert heart.count >= 50


def test_a_observer_whose_loop_hangs_does_not_count_as_one_that_sees(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its threads do beside it."""
    monkeypatch.setattr(observer, "BEAT", 0.01)
    now = [0.0]
    watching = Observer(world.core, world.runtime, world.clock, Heartbeat("", lambda: now[0]))
    told: list[float] = []
    asked = threading.Semaphore(0)
    monkeypatch.setattr(world.core.heartbeats, "observer_alive", told.append)
    monkeypatch.setattr(world.runtime, "ping", asked.release)
    now[0] = observer.HUNG + 1
    with watching._heartbeat():
        for _ in range(3):
            assert asked.acquire(timeout=60)
        assert told == []
        now[0] = 0.0
        for _ in range(3):
            assert asked.acquire(timeout=60)
    assert told


def test_each_process_without_gunicorn_is_watched_with_the_limit(tmp_path: Path) -> None:
    """Locally; the limit of the pods' probes is held by test_manifest_probes."""
    found = procfile.programs((ROOT / "Procfile").read_text(), {"DATA_DIR": str(tmp_path)}, heartbeat_limit=77.0)
    limited = {each.name: each.heartbeat_limit for each in found if each.heartbeat_limit is not None}
    assert list(limited) == ["worker", "sweeper", "backup-worker", "delivery-worker", "observer", "beat"]
    assert set(limited.values()) == {77.0}
    assert len({each.environment["HEARTBEAT_FILE"] for each in found}) == len(found)
