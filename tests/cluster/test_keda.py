"""Two who scale, one state: our runtime beside a real KEDA operator.

The operator must be able to reach the tests' Redis on loopback, as it can where it runs beside the
cluster in the same network namespace.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Condition, Thread

import pytest
import redis

from app.core.sessions.model import SIZES
from app.process.settings import Settings
from tests import sampling
from tests.cluster.keda import let_in
from tests.cluster.manager import PATIENCE
from tests.contract.cluster import TIMEOUT, settings_for
from tests.contract.runtimes import identity, stop, watching
from tests.waiting import wait_for
from workers.runtime.kubernetes import names, scalers, status
from workers.runtime.kubernetes.api_server import ApiServer
from workers.runtime.kubernetes.driver import KubernetesRuntime

A = "aaaa0001"
CYCLES = int(os.environ.get("KEDA_CYCLES") or sampling.times(50, 15))
"""Of all racers together; KEDA_CYCLES has them race for longer."""
RACERS = [f"race000{number}" for number in range(5)]
"""Sessions that wake and sleep at the same time, and share the cycles."""

COOLDOWN = 5
"""s; KEDA looks every second, so it is as many looks."""

WATCH_LIMIT = 1_800
"""s; the cluster ends a watch then."""

LEAN = json.dumps(dict.fromkeys(SIZES, ["20m", "1", "64Mi", "1Gi"]))
"""Sizes that ask for little, so that all racers find a place on one small node."""


class Looks:
    """How often KEDA looked at each session's queue: its clock, as the race sees it."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._counts: Counter[str] = Counter()

    def note(self, uuid: str) -> None:
        with self._changed:
            self._counts[uuid] += 1
            self._changed.notify_all()

    def pass_by(self, uuid: str, count: int) -> None:
        """Until KEDA has looked so many times from now on."""
        with self._changed:
            enough = self._counts[uuid] + count
            assert self._changed.wait_for(lambda: self._counts[uuid] >= enough, PATIENCE), "KEDA does not look"


class Pods:
    """Every pod that ever was, and which are ready."""

    def __init__(self) -> None:
        self._changed = Condition()
        self.names: defaultdict[str, set[str]] = defaultdict(set)
        self._ready: defaultdict[str, set[str]] = defaultdict(set)

    def note(self, event: dict[str, object]) -> None:
        pod = status.pod_view(event["object"])  # type: ignore[arg-type]
        with self._changed:
            self.names[pod.uuid].add(pod.name)
            if pod.ready and not pod.gone and event["type"] != "DELETED":
                self._ready[pod.uuid].add(pod.name)
            else:
                self._ready[pod.uuid].discard(pod.name)
            self._changed.notify_all()

    def until_ready(self, uuid: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: bool(self._ready[uuid]), PATIENCE), f"{uuid} did not start"


@contextmanager
def beside(work: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    """Run `work` in a thread while the block runs; `end` lets it come to its end."""
    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end()
        thread.join(PATIENCE)


@pytest.fixture(scope="module")
def api(namespace: str) -> ApiServer:
    """The namespace, with what KEDA reads the password from."""
    let_in(namespace)
    return ApiServer(namespace, TIMEOUT)


@pytest.fixture
def runtime(
    api: ApiServer, namespace: str, settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[KubernetesRuntime]:
    monkeypatch.setattr(scalers, "COOLDOWN", COOLDOWN)
    chosen = replace(
        settings_for(settings, namespace),
        scaler="keda",
        keda_polling_interval=1,
        workspace_sizes=LEAN,
    )
    made = KubernetesRuntime(chosen, redis_client, api)
    yield made
    for uuid in (A, *RACERS):
        made.remove(uuid, 1_000_000)


@pytest.fixture
def looks(redis_server: str) -> Iterator[Looks]:
    """Counted as Redis tells what it is asked; nobody but KEDA asks for a queue's length."""
    counted = Looks()
    with (
        redis.Redis.from_url(redis_server, decode_responses=True, socket_timeout=PATIENCE) as client,
        client.monitor() as monitor,
    ):

        def count() -> None:
            for said in monitor.listen():
                verb, _, key = str(said["command"]).partition(" queue:")
                if verb.upper() == "LLEN":
                    counted.note(key)
                elif "end of the looks" in verb:
                    return

        with beside(count, lambda: client.echo("end of the looks")):
            yield counted


@pytest.fixture
def pods(api: ApiServer) -> Iterator[Pods]:
    """All of the namespace, from now on."""
    _, version = api.list("pods", names.SELECTOR)
    following = api.watch("pods", names.SELECTOR, version, WATCH_LIMIT)
    seen = Pods()

    def follow() -> None:
        for event in following:
            if event["type"] != "BOOKMARK":
                seen.note(event)
        following.release()

    with beside(follow, following.close):
        yield seen


def known_to_keda(api: ApiServer, uuid: str = A) -> None:
    """Until the operator has taken the ScaledObject up."""

    def ready() -> bool:
        scaled = api.get("scaledobjects", names.scaler(uuid)) or {}
        conditions = (scaled.get("status") or {}).get("conditions") or []
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    wait_for(ready, "KEDA to take the ScaledObject up", interval=0.1)


def replicas(api: ApiServer, uuid: str = A) -> int:
    deployment = api.get("deployments", names.workspace(uuid))
    assert deployment is not None
    return int(deployment["spec"]["replicas"])


def test_a_prompt_wakes_a_session_without_us_and_its_end_puts_it_down(
    runtime: KubernetesRuntime, api: ApiServer, redis_client: redis.Redis
) -> None:
    """No worker is there to do it; and the intent that is noted stays the one we carried out last."""
    runtime.provision(identity(A), 1)
    with watching(runtime) as seen:
        known_to_keda(api)
        redis_client.rpush(f"queue:{A}", '{"id": 1}')
        woken = seen.until(lambda each: each.ready)
        assert woken.generation == 1
        redis_client.delete(f"queue:{A}")
        down = seen.until(lambda each: not each.running)
    assert (down.generation, down.failure) == (1, "")


def test_a_session_that_is_up_stays_up_beyond_the_cooldown(
    runtime: KubernetesRuntime, api: ApiServer, looks: Looks
) -> None:
    """The marker holds it; KEDA's own idea of idleness is not ours."""
    runtime.provision(identity(A), 1)
    known_to_keda(api)
    with watching(runtime) as seen:
        runtime.start(A, 2)
        seen.until(lambda each: each.ready)
        looks.pass_by(A, 2 * COOLDOWN)
        assert replicas(api) == 1


def test_racing_keda_ends_in_the_state_asked_for(
    runtime: KubernetesRuntime, api: ApiServer, looks: Looks, pods: Pods
) -> None:
    """Wake and sleep at any moment of its polling, right after a look or between two, with no pod more than was
    asked for; and what was put to sleep last stays asleep for as long as KEDA may think about it."""
    each = CYCLES // len(RACERS)

    def race(uuid: str) -> None:
        choice = sampling.dice(uuid)
        for cycle in range(each):
            looks.pass_by(uuid, choice.randrange(3))
            runtime.start(uuid, 2 + 2 * cycle)
            pods.until_ready(uuid)
            looks.pass_by(uuid, choice.randrange(3))
            stop(runtime, uuid, 3 + 2 * cycle)
            assert replicas(api, uuid) == 0
        looks.pass_by(uuid, 2 * COOLDOWN)
        assert replicas(api, uuid) == 0

    for uuid in RACERS:
        runtime.provision(identity(uuid), 1)
    for uuid in RACERS:
        known_to_keda(api, uuid)
    with ThreadPoolExecutor(len(RACERS)) as racers:
        list(racers.map(race, RACERS))
    assert {uuid: len(pods.names[uuid]) for uuid in RACERS} == dict.fromkeys(RACERS, each)
