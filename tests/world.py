"""The core with a real Redis, a runtime in memory, a clock that stands still, and a queue that is worked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import redis

from app.sessions import keys, queue
from app.sessions.agents import AgentClient
from app.sessions.archive_store import Archive
from app.sessions.audit import Audit
from app.sessions.backup_files import BackupFiles
from app.sessions.backups import BackupIndex
from app.sessions.byte_budget import ByteBudget
from app.sessions.clock import CountedTime
from app.sessions.conversations import Conversations
from app.sessions.core import Core
from app.sessions.delivery import Deliveries
from app.sessions.events import FROM_START, EventLog, SessionEvent
from app.sessions.fleet import Fleet
from app.sessions.inbox import Inbox
from app.sessions.leases import Leases
from app.sessions.links import Links
from app.sessions.lockouts import Lockouts
from app.sessions.memory import Memory
from app.sessions.model import Record, Signal
from app.sessions.passes import Passes
from app.sessions.queue import Waiting
from app.sessions.secrets import SessionSecrets
from app.sessions.service import NewSession, SessionService
from app.sessions.signals import Signals
from app.sessions.store import SessionStore
from app.sessions.stored import Direct
from app.sessions.tickets import Tickets
from app.sessions.verdict import IdleVerdict, Policy, idle_verdict
from app.settings import Settings
from tests.fakes import FakeRuntime
from workers.lifecycle import Lifecycle
from workers.lockout import lock_out
from workers.sweeps import Sweeps
from workers.tokens import renew
from workers.warning import warn
from workers.watcher import Watcher

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
        self.settings = replace(Settings(data_dir=folder, secret_key=SECRET_KEY), **settings)
        memory = Memory(client, self.settings.redis_reserve)
        store = SessionStore(client, self.settings.tombstone_ttl, self.settings.session_event_bytes)
        events = EventLog(client, memory, most=self.settings.session_event_bytes)
        backups = BackupIndex(client)
        files = BackupFiles(self.settings.backups_location())
        inbox = Inbox(client, store, self.settings)
        archive = Archive(self.settings.archive_location())
        secrets = SessionSecrets(self.settings.secret_keys())
        signals = Signals(client, ticks=self.clock)
        lockouts = Lockouts(client, store, self.settings.stale_after)
        budget = ByteBudget(self.settings.body_budget_bytes)
        agents = AgentClient(secrets, self.settings.agent_timeout, budget)
        self.sessions = SessionService(
            store=store,
            events=events,
            backups=backups,
            inbox=inbox,
            tasks=self.tasks,  # type: ignore[arg-type]
            signals=signals,
            lockouts=lockouts,
            settings=self.settings,
            clock=self.clock,
        )
        self.core = Core(
            settings=self.settings,
            redis=client,
            memory=memory,
            store=store,
            events=events,
            backups=backups,
            files=files,
            stored=Direct(files, backups, self.clock),
            tickets=Tickets(client, self.tasks, block=0.05),  # type: ignore[arg-type]
            archive=archive,
            secrets=secrets,
            passes=Passes(self.settings.secret_keys(), self.settings.cookie_ttl, self.settings.token_ttl),
            links=Links(client, self.settings.link_ttl),
            lockouts=lockouts,
            fleet=Fleet(client),
            leases=Leases(client, ttl=15.0),
            tasks=self.tasks,  # type: ignore[arg-type]
            inbox=inbox,
            agents=agents,
            conversations=Conversations(inbox, agents, archive),
            signals=signals,
            policy=Policy.of(self.settings),
            sessions=self.sessions,
            budget=budget,
            audit=Audit(client, self.settings.audit_bytes, self.settings.redis_reserve),
        )
        self.runtime = FakeRuntime(self.clock)
        self.lifecycle = Lifecycle(self.core, self.runtime, self.clock)
        self.sweeps = Sweeps(self.core, self.runtime, self.lifecycle, self.clock, self.clock)
        self.deliveries = Deliveries(self.core, self.clock, pause=lambda seconds: None)
        self.watcher = Watcher(self.core, self.runtime, self.clock)

    def clock(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        """Let time pass in which the service runs: its sweeps tick all along. `now += …` is a clock that jumps."""
        CountedTime.of(self.core.redis, self.settings).tick(self.now)
        self.now += seconds
        self.core.redis.hset(keys.CLOCK, "tick", self.now)

    def get(self, uuid: str) -> Record:
        return self.core.store.get(uuid)

    def use(self, uuid: str) -> None:
        """Someone does something in the editor now."""
        self.core.signals.write(uuid, {"editor": Signal(self.now)})

    def verdict(self, uuid: str) -> IdleVerdict:
        """Whether the session is idle now."""
        return idle_verdict(self.get(uuid), self.core.policy, self.now)

    def events_of(self, uuid: str) -> list[SessionEvent]:
        """All events of the session so far."""
        told = self.core.events.follow(uuid, FROM_START, seconds=5.0)
        return [event for event in iter(lambda: next(told), None) if event is not None]

    def work(self) -> list[str]:
        """Do every task that waits, in order; answers their names. Bounded, so that a loop shows as a failure."""
        done: list[str] = []
        for _ in range(100):
            if not self.tasks.sent:
                return done
            task, args = self.tasks.sent.pop(0)
            done.append(task)
            self._do(task, args)
        raise AssertionError(f"the queue never became empty: {done[-10:]}")

    def look(self, uuid: str) -> None:
        """The watcher sees the workspace as it is now."""
        seen = self.runtime.observe(uuid)
        if seen is not None:
            self.watcher.apply(seen)

    def active(self, user_id: str = "ada", **wanted: Any) -> str:
        """A session that was created and came up; answers its uuid."""
        uuid = self.sessions.create(NewSession(user_id=user_id, **wanted)).uuid
        self.work()
        self.runtime.become_ready(uuid)
        self.look(uuid)
        return uuid

    def asleep(self, user_id: str = "ada", **wanted: Any) -> str:
        """A session that sleeps, settled; answers its uuid."""
        uuid = self.active(user_id, **wanted)
        self.sessions.sleep(uuid)
        self.work()
        return uuid

    def _do(self, task: str, args: tuple[Any, ...]) -> None:
        sweeps = {
            queue.SWEEP_IDLE: self.sweeps.idle,
            queue.SWEEP_EXPIRED: self.sweeps.expired,
            queue.SWEEP_STALE: self.sweeps.stale,
            queue.RECONCILE: self.sweeps.reconcile,
            queue.SWEEP_INDEX: self.sweeps.index,
            queue.SWEEP_RETENTION: self.sweeps.retention,
        }
        if task in sweeps:
            sweeps[task]()
        elif task == queue.BACKUP:
            self.lifecycle.back_up(*args)
        elif task == queue.DELIVER:
            self.deliveries.deliver(*args)
        elif task == queue.LOCK_OUT:
            lock_out(self.core, args[0], self.now)
        elif task == queue.TOKEN_ENDED:
            self.tasks.send(queue.RENEW_TOKEN, args[0])
        elif task == queue.RENEW_TOKEN:
            renew(self.core, self.runtime, args[0], self.clock)
        elif task == queue.WARN:
            warn(self.core, args[0], self.now)
        else:
            self.lifecycle.carry_out(*args)
