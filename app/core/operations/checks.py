"""Looks at the service for a diagnosis: each check finds its facts, and a pure function (verdicts.py) judges them.

The checks run side by side, each with a deadline. What they wait for has a timeout of its own, so that none runs on for
long after it was given up.
"""

from __future__ import annotations

import http.client
import logging
import socket
import time
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread

from app.core.composition import Core
from app.core.errors import RetryableError, StateUnavailable
from app.core.operations import verdicts
from app.core.operations.verdicts import RedisFacts, State, Verdict
from app.core.redis import task_queue
from app.core.redis.errors import redis_errors
from app.core.sessions.model import Status

log = logging.getLogger(__name__)

DEADLINE = 5.0
"""s for a check."""

PATIENCE = 4.0
"""s for what a check waits for: a worker, or forward auth."""

WAITING_SESSIONS = 500
"""Sessions that start and are looked at for one that waits for a machine."""

NO_CAPACITY = "no_capacity"

WORKERS = ("worker", "sweeper", "backup-worker", "delivery-worker")


@dataclass(frozen=True)
class Look:
    """What the checks look at. `now` is in s since the epoch."""

    core: Core
    now: float

    @redis_errors
    def redis(self) -> Verdict:
        core = self.core
        fill = core.memory.read()
        told = core.redis.info()
        said = {name: str(told.get(name, "")) for name in ("redis_version", "maxmemory_policy", "aof_enabled")}
        written = str(told.get("aof_last_write_status", ""))
        facts = RedisFacts(fill, said["redis_version"], said["maxmemory_policy"], said["aof_enabled"], written)
        return verdicts.of_redis(facts)

    def web(self) -> Verdict:
        return verdicts.of_processes("web", ("web",), self.core.processes.all())

    def gateway(self) -> Verdict:
        return verdicts.of_processes("gateway", ("gateway",), self.core.processes.all())

    def workers(self) -> Verdict:
        return verdicts.of_processes("workers", WORKERS, self.core.processes.all())

    def queues(self) -> Verdict:
        counters = self.core.counters
        return verdicts.of_queues(counters.oldest(task_queue.QUEUES, self.now), counters.backlog(task_queue.QUEUES))

    def beat(self) -> Verdict:
        swept = self.core.counters.looked_at_queues()
        age = None if swept is None else max(0.0, self.now - swept)
        return verdicts.of_beat(self._alive("beat"), age, self._alive("sweeper"))

    def observer(self) -> Verdict:
        return verdicts.of_observer(self.core.heartbeats.observer_age(self.now), self._alive("observer"))

    def cluster(self) -> Verdict:
        store = self.core.store
        starting = store.find(store.uuids([Status.CREATED, Status.WAKING])[:WAITING_SESSIONS])
        waiting = sum(record.reason_code == NO_CAPACITY for record in starting)
        age = self.core.heartbeats.observer_age(self.now)
        return verdicts.of_cluster(self.core.settings.runtime, age, self._alive("observer"), waiting)

    def ingress(self) -> Verdict:
        settings = self.core.settings
        # On a cluster only the ingress reaches it.
        answers = _answers(settings.forward_auth_port) if settings.runtime == "local" else None
        listens = _listens(settings.workspace_port) if settings.runtime == "local" and settings.workspace_port else None
        annotated = settings.ingress_forward_auth.strip() not in ("", "{}")
        return verdicts.of_ingress(settings.runtime, self._alive("forward-auth"), answers, listens, annotated)

    def policies(self) -> Verdict:
        return verdicts.of_policies(self.core.settings.runtime, self.core.heartbeats.policies())

    def storage(self) -> Verdict:
        try:
            answer = self.core.rpc.ask(task_queue.CHECK_STORES, "stores", PATIENCE)
        except StateUnavailable:
            raise
        except RetryableError:
            return verdicts.of_storage(None)
        return verdicts.of_storage({str(store): str(why) for store, why in answer.items()})

    def model(self) -> Verdict:
        configured = bool(self.core.settings.llm_base_url)
        return verdicts.of_model(configured, self.core.model_answers.last(self.now))

    def dead_letters(self) -> Verdict:
        return verdicts.of_dead_letters(self.core.dead_letters.count())

    def clocks(self) -> Verdict:
        return verdicts.of_clocks(self.core.processes.all())

    def _alive(self, kind: str) -> bool:
        return any(each.alive for each in self.core.processes.all() if each.kind == kind)


Check = Callable[[Look], Verdict]

CHECKS: Mapping[str, Check] = {
    "redis": Look.redis,
    "web": Look.web,
    "gateway": Look.gateway,
    "workers": Look.workers,
    "queues": Look.queues,
    "beat": Look.beat,
    "observer": Look.observer,
    "cluster": Look.cluster,
    "ingress": Look.ingress,
    "policies": Look.policies,
    "storage": Look.storage,
    "model": Look.model,
    "dead_letters": Look.dead_letters,
    "clocks": Look.clocks,
}
"""In the order in which they are shown: first what others depend on."""


def diagnose(core: Core, now: float, checks: Mapping[str, Check] = CHECKS, deadline: float = DEADLINE) -> list[Verdict]:
    """Run all checks side by side; one that is not done by the deadline (s) is unknown."""
    done: SimpleQueue[Verdict] = SimpleQueue()
    look, until = Look(core, now), time.monotonic() + deadline
    for name, check in checks.items():
        run = partial(copy_context().run, _judge, name, check, look)
        Thread(target=lambda run=run: done.put(run()), name=f"check-{name}", daemon=True).start()
    found: dict[str, Verdict] = {}
    while len(found) < len(checks) and (left := until - time.monotonic()) > 0:
        try:
            verdict = done.get(timeout=left)
        except Empty:
            break
        found[verdict.check] = verdict
    late = f"This check took longer than {deadline:.0f} s."
    return [found.get(name, _unknown(name, late, "Something it depends on hangs; ask again.")) for name in checks]


def _judge(name: str, check: Check, look: Look) -> Verdict:
    try:
        return check(look)
    except StateUnavailable:
        if name == "redis":
            remedy = "Start Redis, and check REDIS_URL and its password; the log of web says what Redis answered."
            return Verdict(name, State.FAILED, "Redis does not answer.", remedy)
        return _unknown(name, "Redis does not answer.", "See the check `redis` first.")
    except Exception:
        log.exception("a check of the diagnosis failed", extra={"check": name})
        return _unknown(name, "The check itself failed.", "Search web's log for the request_id of this answer.")


def _unknown(name: str, found: str, remedy: str) -> Verdict:
    return Verdict(name, State.UNKNOWN, found, remedy)


def _listens(port: int) -> bool:
    """Whether a process of this machine takes connections at its port."""
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except OSError:
        return False
    return True


def _answers(port: int) -> bool:
    """Whether a process of this machine answers at its port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
