"""What ten thousand sleeping sessions cost, on the API server, in Redis, and in the service's own processes.

The sessions are made by the worker's own code, with `SCALER=direct`, and fall asleep before they ever had a
pod: no kubelet takes part. Their claims wait for a first pod (a class that binds then and makes no volume),
and their Ingresses are of a class that no controller serves, so that nothing else is measured.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from threading import Event, Thread

from app.core.composition import Core
from app.core.errors import RetryableError, StateUnavailable
from app.core.redis import keys
from app.core.redis.connections import connect
from app.core.redis.errors import redis_errors
from app.core.sessions.model import Record, Status, new_uuid
from app.process.settings import Settings
from scripts.bench.administration import Administration
from scripts.bench.product import NAMESPACE, TIMEOUT, CallFailed, Manager
from scripts.bench.servers import percentile
from scripts.bench.table import Row
from workers.lifecycle.intents import Lifecycle
from workers.runtime.kubernetes import names, objects
from workers.runtime.kubernetes.api_server import ApiServer, Conflict
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.driver import KubernetesRuntime
from workers.sweeps import Sweeps

SESSIONS = 10_000
USER = "bench-many"

THREADS = 4
"""Makers at a time: as many as tasks of this kind run in a small deployment."""

MAKING_LIMIT = 600.0
"""s for the worker's code to make them, and again for the rest."""

PAUSE = 1.3
"""s between two calls of the API: below its rate limit, 100 a minute."""

CALLS = 110
"""Of each kind, after all are made: enough for a p99."""

REDIS_TIMEOUT = 10.0
"""s of a command: what is measured loads Redis, too."""

REPEATS = 5
"""How often each sweep and each list is timed; the median counts."""


@dataclass
class Making:
    """How the sessions came to be: all that were begun, and those `made`, of which the worker's code made
    `by_worker` in `seconds`."""

    begun: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    by_worker: int = 0
    seconds: float = 0.0


@dataclass
class Calls:
    """Seconds that calls of the API took, and how many got no good answer."""

    get: list[float] = field(default_factory=list)
    page: list[float] = field(default_factory=list)
    failed: int = 0


def run(sessions: int = SESSIONS, calls: int = CALLS) -> list[Row]:
    """Make so many sessions, measure, and take them away; rows of label, value and target."""
    manager, administration = Manager(), Administration()
    with tempfile.TemporaryDirectory(prefix="bench-many-") as folder, administration.room_for(sessions) as storage:
        settings = settings_for(administration, storage, Path(folder))
        core = Core(settings, client=connect(settings.redis_url, REDIS_TIMEOUT))
        cluster = ApiServer(NAMESPACE, TIMEOUT)
        runtime = KubernetesRuntime(settings, core.redis, cluster)
        with gone_afterwards(core, administration) as making:
            before = memory(core), administration.observer_memory()
            during = Calls()
            with calling(manager, making, during):
                make(core, runtime, cluster, KubernetesConfig.of(settings), sessions, making)
            after = Calls()
            measure_calls(manager, making.made, calls, after)
            rows = rows_of_making(making, sessions)
            rows += rows_of_calls("while they are made", during) + rows_of_calls("with all of them", after)
            rows += rows_of_memory(before, (memory(core), administration.observer_memory()), len(making.made))
            sweeps = Sweeps(core, runtime, Lifecycle(core, runtime))
            return [*rows, *rows_of_sweeps(sweeps), *rows_of_lists(cluster)]


def settings_for(administration: Administration, storage: str, folder: Path) -> Settings:
    """Those of a worker of this cluster, but for what `run` leaves out."""
    return replace(
        Settings(),
        runtime="kubernetes",
        scaler="direct",
        redis_url=administration.redis_url(),
        workspace_namespace=NAMESPACE,
        workspace_image=administration.workspace_image(),
        storage_class=storage,
        ingress_class=storage,
        backup_url=folder.as_uri(),
    )


def make(
    core: Core, runtime: KubernetesRuntime, cluster: ApiServer, choices: KubernetesConfig, sessions: int, making: Making
) -> None:
    """Make the sessions: by the worker's code as many as the time allows, the rest by its manifests alone."""
    began = time.monotonic()
    for maker, note in (
        (lambda record: runtime.provision(record.identity, record.generation), True),
        (lambda record: make_objects(cluster, choices, record), False),
    ):
        deadline = time.monotonic() + MAKING_LIMIT

        def one(_: int, maker: Callable[[Record], None] = maker, deadline: float = deadline) -> None:
            if time.monotonic() < deadline:
                record = sleeping()
                making.begun.append(record.uuid)
                try:
                    keep(core, record)
                    maker(record)
                except (RetryableError, StateUnavailable, Conflict) as error:
                    print(f"  {record.uuid} left out: {error}", flush=True)
                else:
                    making.made.append(record.uuid)

        with ThreadPoolExecutor(THREADS) as executor:
            list(executor.map(one, range(sessions - len(making.made))))
        if note:
            making.by_worker, making.seconds = len(making.made), time.monotonic() - began


@redis_errors
def keep(core: Core, record: Record) -> None:
    """Record a session that has been asleep for long: the events of one that sleeps expire."""
    core.store.create(record, quota=None)
    core.redis.delete(keys.EVENTS.format(uuid=record.uuid))


def sleeping() -> Record:
    """A session that was made and put to sleep, carried out."""
    now = time.time()
    return Record(
        uuid=new_uuid(),
        user_id=USER,
        created_at=now,
        status=Status.SLEEPING,
        settled=1,
        provisioned=True,
        requested_at=now,
        last_activity=now,
        idle_timeout=900.0,
        ttl=2_592_000.0,
    )


def make_objects(cluster: ApiServer, choices: KubernetesConfig, record: Record) -> None:
    """The objects of a session, without a look at what is there."""
    identity = record.identity
    cluster.create("persistentvolumeclaims", objects.claim(identity, record.generation, choices))
    deployment = objects.deployment(identity, choices, 0)
    deployment["metadata"]["annotations"] |= {
        names.IDENTITY: objects.identity_text(identity),
        names.GENERATION: str(record.generation),
    }
    owner = cluster.create("deployments", deployment)
    cluster.create("secrets", objects.secret(identity, owner, "none", "none"))
    cluster.create("services", objects.service(identity, owner, choices))
    cluster.create("ingresses", objects.ingress(identity, owner, choices))


@contextmanager
def gone_afterwards(core: Core, administration: Administration) -> Iterator[Making]:
    """What will be made is taken away again: the objects first, as one without a record is adopted."""
    making = Making()
    try:
        yield making
    finally:
        administration.delete_sessions_of(USER)
        forget(core, making.begun)


def forget(core: Core, uuids: Sequence[str]) -> None:
    """Take the records out of Redis, and out of every index."""
    indexes = [keys.ALL, keys.IDLE, keys.EXPIRY, keys.INTENTS, keys.BY_USER.format(user_id=USER)]
    indexes += [keys.BY_STATUS.format(status=status) for status in Status]
    for uuid in uuids:
        pipe = core.redis.pipeline(transaction=True)
        pipe.delete(*(key.format(uuid=uuid) for key in (keys.SESSION, keys.USE, keys.EVENTS)))
        for index in indexes:
            pipe.zrem(index, uuid)
        pipe.execute()


@contextmanager
def calling(manager: Manager, making: Making, calls: Calls) -> Iterator[None]:
    """Call the API again and again while the block runs."""
    done = Event()

    def run() -> None:
        while not done.wait(PAUSE):
            if making.made:
                call_both(manager, making.made[len(making.made) // 2], calls)

    thread = Thread(target=run, name="calls", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(TIMEOUT)


def measure_calls(manager: Manager, uuids: Sequence[str], count: int, calls: Calls) -> None:
    for uuid, _ in zip(cycle(uuids[:: max(1, len(uuids) // count)]), range(count), strict=False):
        call_both(manager, uuid, calls)
        time.sleep(PAUSE)


def call_both(manager: Manager, uuid: str, calls: Calls) -> None:
    try:
        calls.get.append(seconds(lambda: manager.call("GET", f"/session/{uuid}", wait=0)))
        calls.page.append(seconds(lambda: manager.call("GET", "/sessions?limit=100", wait=0)))
    except CallFailed:
        calls.failed += 1


def memory(core: Core) -> int:
    """Bytes of Redis' data."""
    return int(core.redis.info("memory")["used_memory"])


def rows_of_making(making: Making, wanted: int) -> list[Row]:
    made = len(making.made)
    rate = making.by_worker / max(making.seconds, 0.001)
    rows = [
        ("sleeping sessions made", f"{made:,}", f"of {wanted:,}"),
        ("  by the worker's code", f"{making.by_worker:,}", ""),
        ("  sessions / objects a second, by that", f"{rate:.1f} / {rate * 5:.0f}", ""),
    ]
    if made > making.by_worker:
        rows.append(("  by its manifests alone, for want of time", f"{made - making.by_worker:,}", ""))
    return rows


def rows_of_calls(when: str, calls: Calls) -> list[Row]:
    rows = [
        (f"{label} {when}, p50 / p99 (ms)", both(taken), "")
        for label, taken in (("GET /session/{uuid}", calls.get), ("GET /sessions?limit=100", calls.page))
    ]
    return [*rows, ("  calls without a good answer", f"{calls.failed}", "")] if calls.failed else rows


def rows_of_memory(before: tuple[int, int], after: tuple[int, int], made: int) -> list[Row]:
    data = after[0] - before[0]
    return [
        ("Redis, more than before (MB; bytes a session)", f"{data / 1e6:.1f}; {data / max(1, made):.0f}", ""),
        ("the observer, before and after (MB)", f"{before[1] / 1e6:.0f} / {after[1] / 1e6:.0f}", ""),
    ]


def rows_of_sweeps(sweeps: Sweeps) -> list[Row]:
    return [
        (f"the sweep {name} (ms)", repeated(sweep), "")
        for name, sweep in (("idle", sweeps.idle), ("expired", sweeps.expired), ("reconcile", sweeps.reconcile))
    ]


def rows_of_lists(cluster: ApiServer) -> list[Row]:
    def list_all(kind: str) -> Row:
        taken = repeated(lambda: cluster.list(kind, names.SELECTOR))
        return (f"the API server's list of all {kind} (ms)", taken, "")

    return [list_all("deployments"), list_all("persistentvolumeclaims")]


def repeated(action: Callable[[], object]) -> str:
    return f"{statistics.median(seconds(action) for _ in range(REPEATS)) * 1000:.0f}"


def seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def both(taken: Sequence[float]) -> str:
    """p50 and p99 in ms."""
    if len(taken) < 2:
        return "none"
    return f"{statistics.median(taken) * 1000:.0f} / {min(percentile(list(taken), 99), max(taken)) * 1000:.0f}"
