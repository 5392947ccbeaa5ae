"""The core with a real Redis, a runtime in memory, a clock that stands still, and a queue that is worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis

from app.core.composition import Core
from app.core.redis import keys, task_queue
from app.core.redis.events import FROM_START, SessionEvent
from app.core.redis.task_queue import Waiting
from app.core.restore_points.index import RestorePoint
from app.core.service import NewSession
from app.core.sessions.counted_time import CountedTime
from app.core.sessions.idle_policy import IdleVerdict, idle_verdict
from app.core.sessions.model import Record, Signal
from app.process.settings import Settings
from tests.fake_agent import FakeAgent
from tests.fakes import FakeRuntime
from workers.agents.disconnect import end_connections, replace_workspace
from workers.agents.notices import tell_files, warn_of_sleep
from workers.agents.token_renewal import renew
from workers.drills import Drills
from workers.erasing import Erasing
from workers.lifecycle import port_routes
from workers.lifecycle.intents import Lifecycle
from workers.observer import Observer
from workers.points import Points
from workers.sweeps import Sweeps

SECRET_KEY = "a-secret-key-of-the-tests-and-of-nobody-else"


class FakeTasks:
    """A queue that keeps what was sent until `World.work` does it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, tuple[Any, ...]]] = []

    def send(self, task: str, *args: str | int, request_id: str = "") -> None:
        self.sent.append((task, args))

    def waiting(self) -> Waiting:
        return Waiting(frozenset((task, tuple(map(str, args))) for task, args in self.sent), frozenset())

    def lose_all(self) -> None:
        """The broker forgot everything."""
        self.sent.clear()


class World:
    """Everything between the API and the runtime, in one process. `now` is seconds since the epoch."""

    def __init__(self, client: redis.Redis, folder: Path, **settings: Any) -> None:
        self.now = 1_763_625_600.0
        self.tasks = FakeTasks()
        # Full looks come at a time that depends on the session's random uuid: only a test of theirs asks for them.
        plain = Settings(data_dir=folder, secret_key=SECRET_KEY, restore_point_check_interval=0.0)
        self.settings = replace(plain, **settings)
        self.core = Core(
            self.settings,
            knows_keys=True,
            client=client,
            tasks=self.tasks,  # type: ignore[arg-type]
            clock=self.clock,
            ticks=self.clock,
            pause=lambda seconds: None,
        )
        self.sessions = self.core.sessions
        self.runtime = FakeRuntime(self.clock)
        self.lifecycle = Lifecycle(self.core, self.runtime, self.clock)
        self.points = Points(self.core, self.runtime, self.lifecycle, self.clock)
        self.drills = Drills(self.core, self.runtime, self.lifecycle, self.clock)
        self.sweeps = Sweeps(self.core, self.runtime, self.lifecycle, self.clock, self.clock)
        self.erasing = Erasing(self.core, self.runtime, self.clock)
        self.observer = Observer(self.core, self.runtime, self.clock)

    def clock(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        """Let time pass in which the service runs: its sweeps tick all along. `now += …` is a clock that jumps."""
        CountedTime(self.core.redis).tick(self.now)
        self.now += seconds
        self.core.redis.hset(keys.CLOCK, "tick", self.now)

    def get(self, uuid: str) -> Record:
        return self.core.store.get(uuid)

    def use(self, uuid: str) -> None:
        """Someone does something in the editor now."""
        self.core.activity.write(uuid, {"editor": Signal(self.now)})

    def verdict(self, uuid: str) -> IdleVerdict:
        """Whether the session is idle now."""
        return idle_verdict(self.get(uuid), self.core.policy, self.now)

    def events_of(self, uuid: str) -> list[SessionEvent]:
        """All events of the session so far."""
        told = self.core.events.follow(uuid, FROM_START, seconds=5.0, quiet=0.01)
        return [event for event in iter(lambda: next(told), None) if event is not None]

    def told(self, uuid: str, kind: str) -> list[dict[str, Any]]:
        """What the session's events of this kind tell."""
        return [dict(event.data) for event in self.events_of(uuid) if event.type == kind]

    def files(self, uuid: str) -> dict[str, bytes]:
        """What its workspace has on its volume."""
        return self.runtime.workspaces[uuid].files

    def newest(self, uuid: str) -> RestorePoint:
        """Its newest restore point."""
        point = self.core.restore_points.newest(uuid)
        assert point is not None
        return point

    def work(self) -> list[str]:
        """Do every task that waits, in order; answers their names. Bounded, so that a loop shows as a failure."""
        done: list[str] = []
        for _ in range(100):
            if not self.tasks.sent:
                return done
            task, args = self.tasks.sent.pop(0)
            done.append(task)
            self.do(task, args)
        raise AssertionError(f"the queue never became empty: {done[-10:]}")

    def sweep(self, sweep: Callable[[], None], seconds: float = 0.0) -> list[str]:
        """Let time pass, then do what this sweep sends; answers the names of that."""
        self.pass_time(seconds)
        sweep()
        return self.work()

    def catch_up(self) -> list[str]:
        """All that waits is overdue: do what the stale sweep sends again; answers the names of that."""
        return self.sweep(self.sweeps.stale, self.settings.stale_after + 1)

    def watch(self, seconds: float) -> None:
        """Let time pass, in which the observer reports and the stale sweep judges each second."""
        for _ in range(round(seconds)):
            self.now += 1.0
            self.core.heartbeats.observer_alive(self.now)
            self.sweeps.stale()

    def expire(self, seconds: float = 0.0) -> None:
        """Let time pass, then what is unused for too long goes as far as it gets: to a point, to the archive."""
        self.pass_time(seconds)
        for _ in range(3):
            self.sweep(self.sweeps.expired)

    def look(self, uuid: str, **changed: Any) -> None:
        """The observer sees the workspace as it is now, but for what `changed` says of it."""
        seen = self.runtime.observe(uuid)
        assert seen is not None or not changed
        if seen is not None:
            self.observer.apply(replace(seen, **changed))

    def agent_calls(self, uuid: str, agent: FakeAgent, boot: str = "boot-1") -> None:
        """This is the session's agent from now on."""
        assert self.core.inbox.agent_here(uuid, agent.address, "pod", boot, self.now)

    def active(self, user_id: str = "ada", **wanted: Any) -> str:
        """A session that was created and came up; answers its uuid."""
        uuid = self.create(user_id, **wanted)
        self.up(uuid)
        return uuid

    def active_with(self, agent: FakeAgent, **wanted: Any) -> str:
        """A session that came up, and whose agent has called; answers its uuid."""
        uuid = self.active(**wanted)
        self.agent_calls(uuid, agent)
        return uuid

    def create(self, user_id: str = "ada", **wanted: Any) -> str:
        """A session that was asked for, and no more; answers its uuid."""
        return self.sessions.create(NewSession(user_id=user_id, **wanted)).uuid

    def up(self, uuid: str) -> Record:
        """Do what waits, then its workspace answers and is seen to."""
        self.work()
        self.runtime.become_ready(uuid)
        self.look(uuid)
        return self.get(uuid)

    def wake(self, uuid: str) -> Record:
        """A session that slept comes up."""
        self.sessions.wake(uuid)
        return self.up(uuid)

    def sleep(self, uuid: str) -> Record:
        """Put it to sleep, and do what that takes."""
        self.sessions.sleep(uuid)
        self.work()
        return self.get(uuid)

    def delete(self, uuid: str, **terms: Any) -> Record:
        """Delete it, and do what that takes."""
        self.sessions.delete(uuid, **terms)
        self.work()
        return self.get(uuid)

    def back_up(self, uuid: str) -> Record:
        """Ask for a backup of it, and do what that takes."""
        self.sessions.request_backup(uuid)
        self.work()
        return self.get(uuid)

    def save(self, uuid: str) -> RestorePoint:
        """Ask for a restore point of it, and do what that takes."""
        self.sessions.request_point(uuid)
        self.work()
        return self.newest(uuid)

    def asleep(self, user_id: str = "ada", **wanted: Any) -> str:
        """A session that sleeps, settled; answers its uuid."""
        uuid = self.active(user_id, **wanted)
        self.sleep(uuid)
        return uuid

    def do(self, task: str, args: tuple[Any, ...]) -> None:
        """A worker does this task."""
        sweeps = {
            task_queue.SWEEP_IDLE: self.sweeps.idle,
            task_queue.SWEEP_EXPIRED: self.sweeps.expired,
            task_queue.SWEEP_STALE: self.sweeps.stale,
            task_queue.SWEEP_POINTS: self.points.sweep,
            task_queue.SWEEP_DRILLS: self.drills.sweep,
            task_queue.RECONCILE: self.sweeps.reconcile,
            task_queue.SWEEP_INDEX: self.sweeps.index,
            task_queue.SWEEP_RETENTION: self.sweeps.retention,
        }
        if task in sweeps:
            sweeps[task]()
        elif task == task_queue.BACKUP:
            self.lifecycle.back_up(*args)
        elif task == task_queue.ERASE:
            self.erasing.erase(*args)
        elif task == task_queue.POINT:
            self.points.make(*args)
        elif task == task_queue.DRILL:
            self.drills.drill(*args)
        elif task == task_queue.LOST:
            self.lifecycle.check_files(*args)
        elif task == task_queue.TELL_FILES:
            tell_files(self.core, args[0])
        elif task == task_queue.DELIVER:
            self.core.delivery.deliver(*args)
        elif task == task_queue.DISCONNECT:
            end_connections(self.core, args[0], self.now, pause=lambda seconds: None)
        elif task == task_queue.REPLACE:
            replace_workspace(self.core, *args)
        elif task == task_queue.TOKEN_ENDED:
            self.tasks.send(task_queue.RENEW_TOKEN, args[0])
        elif task == task_queue.RENEW_TOKEN:
            renew(self.core, self.runtime, args[0])
        elif task == task_queue.LOOK_AGAIN:
            self.runtime.look_again(args[0])
        elif task == task_queue.LEAD_PORTS:
            port_routes.lead(self.core, self.runtime, args[0])
        elif task == task_queue.WARN:
            warn_of_sleep(self.core, args[0], self.now)
        else:
            self.lifecycle.carry_out(*args)
