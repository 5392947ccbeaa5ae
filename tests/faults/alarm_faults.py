"""Real faults of a running service, each with the alerts that it must raise."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

import psutil
import redis
import requests

from app.core.redis import keys
from tests.faults.alarming import (
    CALL,
    CLEARED,
    PAUSE,
    SETTINGS,
    SLOW_START,
    Fault,
    Scene,
    ask,
    back_up,
    sleep_and_wake,
)
from tests.ports import free_port, listens
from tests.service import Service
from tests.waiting import wait_for
from workers.points import LONGEST_PAUSE

LARGE = 200_000_000
"""Bytes of a file whose backup takes over a second, so that two are written at the same time."""

CHUNK = 100_000
"""Bytes that a stranger writes into Redis at a time."""

NOBODY = "nobodys0"
"""A session that is not there."""


@contextmanager
def going_on(act: Callable[[], object], times: int = 1) -> Iterator[None]:
    """Do it again and again beside the block, in so many threads. That it fails is what is wanted."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(PAUSE):
            with contextlib.suppress(requests.RequestException, AssertionError):
                act()

    threads = [threading.Thread(target=repeat, daemon=True) for _ in range(times)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        over.set()
        for each in threads:
            each.join(2 * CALL)


def drop_dead_letters(service: Service) -> None:
    """The last step of the runbook: what was given up is done by now."""
    for each in service.done("GET", "/dead-letters")["dead_letters"]:
        assert service.call("DELETE", f"/dead-letters/{each['id']}").status_code == 204


@contextmanager
def frozen(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """SIGSTOP, and SIGCONT at the end."""
    try:
        for each in processes:
            each.suspend()
        yield
    finally:
        for each in reversed(processes):
            with contextlib.suppress(psutil.Error):
                each.resume()


def tree(service: Service, name: str) -> list[psutil.Process]:
    """All processes of this name."""
    leader = service.leader(name)
    return [leader, *leader.children(recursive=True)]


def hanging(name: str) -> Callable[[Scene], AbstractContextManager[None]]:
    """One of the manager's processes hangs."""
    return lambda scene: frozen(tree(scene.service, name))


@contextmanager
def late_observer(scene: Scene) -> Iterator[None]:
    """The observer reads a file that never ends, as on a disk that hangs."""
    pipe = scene.service.data_dir / "running" / f"{NOBODY}.json"
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)
    try:
        yield
    finally:
        pipe.unlink()
        os.close(held)


@contextmanager
def hanging_worker(scene: Scene) -> Iterator[None]:
    """Its processes hang while sessions are to wake."""
    service, uuids = scene.service, scene.sessions
    for each in uuids:
        service.done("POST", f"/session/{each}/sleep", headers={"Prefer": "wait=60"})
    with frozen(tree(service, "worker")):
        for each in uuids:
            service.done("POST", f"/session/{each}/wake", headers={"Prefer": "respond-async"})
        yield
    for each in uuids:
        service.wait_status(each, "active")


@contextmanager
def slow_editors(scene: Scene) -> Iterator[None]:
    """Every editor takes seconds to start, as on machines without CPU."""
    scene.slow.touch()
    try:
        with going_on(lambda: sleep_and_wake(scene.service, scene.sessions)):
            yield
    finally:
        scene.slow.unlink()
    sleep_and_wake(scene.service, scene.sessions)


@contextmanager
def ended_editors(scene: Scene) -> Iterator[None]:
    """The editor of a session that is woken ends at once."""
    service, each = scene.service, scene.sessions[0]
    service.done("POST", f"/session/{each}/sleep", headers={"Prefer": "wait=60"})
    scene.broken.touch()
    try:
        service.done("POST", f"/session/{each}/wake", headers={"Prefer": "respond-async"})
        yield
    finally:
        scene.broken.unlink()
    service.done("POST", f"/session/{each}/wake", headers={"Prefer": "respond-async"})
    service.wait_status(each, "active")


@contextmanager
def asking(scene: Scene) -> Iterator[None]:
    """Each session's user asks one thing after the other."""
    with ExitStack() as users:
        for each in scene.sessions:
            users.enter_context(going_on(partial(ask, scene.service, each)))
        yield


@contextmanager
def model_away(scene: Scene) -> Iterator[None]:
    """Nobody listens at the model's address, while prompts are asked."""
    scene.model.stop()
    try:
        with asking(scene):
            yield
    finally:
        scene.model.start()


@contextmanager
def model_refusing(scene: Scene) -> Iterator[None]:
    """The model refuses each request, so that prompts fail at once."""
    scene.model.refuses = True
    try:
        with asking(scene):
            yield
    finally:
        scene.model.refuses = False


@contextmanager
def store_away(service: Service) -> Iterator[None]:
    """Where the backups and restore points were there is no folder, as after a volume that was not mounted."""
    store = service.data_dir / "backups"
    aside = store.with_name("backups.aside")
    store.rename(aside)
    store.write_text("no folder")
    try:
        yield
    finally:
        store.unlink()
        aside.rename(store)


@contextmanager
def backups_without_store(scene: Scene) -> Iterator[None]:
    """Backups are asked for while the store is away."""
    with store_away(scene.service):
        for each in scene.sessions:
            scene.service.done("POST", f"/session/{each}/backup", headers={"Prefer": "respond-async"})
        yield
    for each in scene.sessions:
        back_up(scene.service, each)
    drop_dead_letters(scene.service)


@contextmanager
def points_without_store(scene: Scene) -> Iterator[None]:
    """A restore point is asked for while the store is away, and nobody asks again when it is back."""
    service, each = scene.service, scene.sessions[0]
    with store_away(service):
        service.done("POST", f"/session/{each}/restore-points", headers={"Prefer": "respond-async"})
        yield
        # Awake, or asleep by now as nobody used it.
        assert service.status(each)["session"]["status"] != "failed", "a session fails without the store"


@contextmanager
def broken_point(scene: Scene) -> Iterator[None]:
    """Bits of a stored restore point are flipped, before its drill."""
    service, each = scene.service, scene.sessions[0]
    service.done("POST", f"/session/{each}/restore-points", headers={"Prefer": "wait=60"})
    packs = (service.data_dir / "backups" / each).glob("repository-*/data/*/*")
    pack = max(packs, key=lambda found: found.stat().st_mtime)
    pack.chmod(0o600)
    pack.write_bytes(bytes(byte ^ 1 for byte in pack.read_bytes()))
    drill_now(service, each, 0.0)
    yield


@contextmanager
def drills_without_store(scene: Scene) -> Iterator[None]:
    """A session was proven long ago, and the store is away."""
    service, each = scene.service, scene.sessions[0]
    with store_away(service):
        drill_now(service, each, 2.0)
        yield


def drill_now(service: Service, uuid: str, late: float) -> None:
    """Have a session count as last proven one cycle ago, and `late` cycles more."""
    with service.redis() as client:
        client.zadd(keys.DRILLS, {uuid: time.time() - (1 + late) * float(SETTINGS["DRILL_CYCLE"])})


@contextmanager
def hanging_store(scene: Scene) -> Iterator[None]:
    """The processes that write backups hang while they do, as on a store that does not answer; the worker itself lives.
    (If they hung before they began a task, it would notice, and be started again.)"""
    service, store = scene.service, scene.service.data_dir / "backups"
    writers = service.leader("backup-worker").children(recursive=True)
    large = scene.sessions[: len(writers)]
    for each in large:
        (service.files(each) / "large").write_bytes(os.urandom(LARGE))
    for each in large:
        service.done("POST", f"/session/{each}/backup", headers={"Prefer": "respond-async"})
    wait_for(
        lambda: len(list(store.glob("*/.*.zip.part-*"))) == len(writers),
        "backups to be written at the same time",
        interval=0.01,
    )
    with frozen(writers):
        for each in scene.sessions[len(writers) :]:
            service.done("POST", f"/session/{each}/backup", headers={"Prefer": "respond-async"})
        yield


@contextmanager
def poisonous_session(scene: Scene) -> Iterator[None]:
    """Something holds the lock of a workspace, so that every attempt to wake it fails."""
    service, each = scene.service, scene.sessions[0]
    service.done("POST", f"/session/{each}/sleep", headers={"Prefer": "wait=60"})
    with (service.data_dir / "locks" / f"{each}.lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        service.done("POST", f"/session/{each}/wake", headers={"Prefer": "respond-async"})
        yield
    service.done("POST", f"/session/{each}/wake", headers={"Prefer": "respond-async"})
    service.wait_status(each, "active")
    drop_dead_letters(service)


@contextmanager
def dead_replica(scene: Scene) -> Iterator[None]:
    """Of two observers, the one that stands by is killed, and later started again."""
    job, port = scene.prometheus.jobs["sessions-observer"], free_port()
    given = scene.service.leader("observer").environ()
    own = {"METRICS_PORT": str(port), "HEARTBEAT_FILE": "", "PROCESS_NAME": "observer-2"}

    @contextmanager
    def standby() -> Iterator[None]:
        process = subprocess.Popen([sys.executable, "-m", "workers.observer"], env=given | own)
        try:
            wait_for(lambda: listens(port), "the second observer")
            yield
        finally:
            process.kill()
            process.wait()

    job.append(port)
    try:
        with standby():
            scene.prometheus.reload()
            wait_for(lambda: not scene.prometheus.firing(), "both observers to be scraped")
        yield
        with standby():
            wait_for(lambda: "SessionsReplicaDown" not in scene.prometheus.firing(), "the alert to clear")
    finally:
        job.remove(port)
        scene.prometheus.reload()


@contextmanager
def missing_target(scene: Scene) -> Iterator[None]:
    """Prometheus no longer knows a process, as when it has no pod."""
    ports = scene.prometheus.jobs["sessions-beat"]
    scene.prometheus.jobs["sessions-beat"] = []
    scene.prometheus.reload()
    try:
        yield
    finally:
        scene.prometheus.jobs["sessions-beat"] = ports
        scene.prometheus.reload()


@contextmanager
def full_redis(scene: Scene) -> Iterator[None]:
    """Somebody else's data fill Redis to the brim, while users create sessions."""
    with scene.service.redis() as client:
        with contextlib.suppress(redis.OutOfMemoryError):
            for number in range(10_000):
                client.set(f"foreign:{number}", "x" * CHUNK)
        try:
            with going_on(lambda: scene.service.call("POST", "/session/create", {"user_id": "late"}, timeout=CALL)):
                yield
        finally:
            for name in client.scan_iter("foreign:*"):
                client.delete(name)


@contextmanager
def hanging_redis(scene: Scene) -> Iterator[None]:
    """Redis does not answer, while workspaces are visited and sessions are looked at."""
    service, each = scene.service, scene.sessions[0]
    session = service.status(each)["session"]
    headers = {"Authorization": f"Bearer {service.token(each)}"}
    with (
        frozen([service.leader("redis")]),
        going_on(lambda: service.workspace(session, **headers), 4),
        going_on(lambda: service.call("GET", f"/session/{each}", timeout=CALL), 4),
    ):
        yield
    service.wait_status(each, "active")


FAULTS = (
    Fault("process", "the gateway hangs (SIGSTOP)", ("SessionsProcessDown",), hanging("gateway")),
    Fault("target", "Prometheus has no target for beat any more", ("SessionsScrapeMissing",), missing_target),
    Fault("observer", "the observer hangs (SIGSTOP)", ("SessionsObserverSilent",), hanging("observer")),
    Fault(
        "store",
        "the folder of the backups is gone; six backups",
        ("SessionsBackupFailed", "SessionsBackupsFailing"),
        backups_without_store,
        300.0,
    ),
    Fault("replica", "the second of two observers is killed", ("SessionsReplicaDown",), dead_replica),
    Fault("late", "the observer's disk hangs: a file of it never ends", ("SessionsObserverLag",), late_observer),
    Fault(
        "poison",
        "the lock of a workspace is held, so that each of 5 attempts to wake it fails",
        ("SessionsDeadLetters",),
        poisonous_session,
        300.0,
    ),
    Fault("worker", "the worker hangs (SIGSTOP) while sessions are to wake", ("SessionsQueueOld",), hanging_worker),
    Fault(
        "redis full",
        "a stranger's data fill Redis, while sessions are created",
        ("SessionsRedisFilling", "SessionsRedisFull", "SessionsApiBurnFast", "SessionsApiBurnSlow"),
        full_redis,
        300.0,
    ),
    Fault(
        "redis hangs",
        "Redis hangs (SIGSTOP), while workspaces are visited",
        ("SessionsForwardAuthErrors", "SessionsBeatSilent"),
        hanging_redis,
        500.0,
    ),
    Fault(
        "editors",
        f"editors start {SLOW_START} s late",
        ("SessionsWakeBurnFast", "SessionsWakeBurnSlow"),
        slow_editors,
        300.0,
    ),
    Fault("failed", "the editor of a session that is woken ends at once", ("SessionsFailed",), ended_editors),
    Fault(
        "model",
        "the model's API is away, while prompts are asked",
        ("SessionsModelDown", "SessionsModelErrors"),
        model_away,
    ),
    Fault(
        "refusals",
        "the model refuses each request, while prompts are asked",
        ("SessionsPromptsFailing",),
        model_refusing,
    ),
    Fault(
        "backups",
        "both processes that write backups hang (SIGSTOP) while they do",
        ("SessionsBackgroundQueueOld", "SessionsBackupsOld"),
        hanging_store,
        1200.0,
    ),
    Fault(
        "points",
        "the folder of the restore points is gone; one is asked for",
        ("SessionsRestorePointsLate",),
        points_without_store,
        1200.0,
        CLEARED + LONGEST_PAUSE,
    ),
    Fault("drill", "bits of a stored restore point are flipped", ("SessionsDrillFailed",), broken_point, 700.0),
    Fault(
        "drills",
        "a session was last proven three cycles ago, and the folder of the restore points is gone",
        ("SessionsDrillsLate",),
        drills_without_store,
        1200.0,
        CLEARED + LONGEST_PAUSE,
    ),
)
"""Every alert once but those of a cluster, those that take longest last."""

OF_A_CLUSTER = (
    "SessionsVolumeFull",
    "SessionsServiceVolumeFull",
    "SessionsCertificateLate",
    "SessionsCertificateExpires",
)
"""Alerts on figures of the kubelet and of cert-manager, which one machine has not."""
