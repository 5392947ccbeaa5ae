"""What comes back from a real cluster after Redis was lost: every session, and whose it is."""

from __future__ import annotations

from pathlib import Path

import redis

from app.core.sessions.model import Status
from app.settings import Settings
from tests.contract.cluster import own_namespace, settings_for
from tests.contract.runtimes import identity, watching
from tests.world import World
from workers.lifecycle import Lifecycle
from workers.observer import Observer
from workers.runtime.kubernetes.driver import KubernetesRuntime
from workers.sweeps import ADOPTION_GRACE, Sweeps

USERS = {"aaaa0001": "ada@example.com", "bbbb0002": "bob+tag@example.com", "cccc0003": "c" * 128}


def test_every_session_and_its_user_come_back(settings: Settings, redis_client: redis.Redis, tmp_path: Path) -> None:
    """From labels and annotations; one that ran is woken, which adopts its pod, under a newer intent than any
    of before."""
    with own_namespace() as namespace:
        runtime = KubernetesRuntime(settings_for(settings, namespace), redis_client)
        for uuid, user in USERS.items():
            runtime.provision(identity(uuid, user), 4)
        with watching(runtime) as seen:
            runtime.start("aaaa0001", 7)
            pod = seen.until(lambda each: each.ready).pod_name
            redis_client.flushall()
            world = World(redis_client, tmp_path)
            world.lifecycle = Lifecycle(world.core, runtime, world.clock)
            world.sweeps = Sweeps(world.core, runtime, world.lifecycle, world.clock)
            observed = {each.identity.uuid: each for each in runtime.observe_all()}
            world.now = max(each.created_at for each in observed.values()) + ADOPTION_GRACE
            world.sweeps.reconcile()
            world.work()
            adopted = seen.until(lambda each: each.ready and each.generation == 8)
            Observer(world.core, runtime, world.clock).apply(adopted)
        records = {uuid: world.get(uuid) for uuid in USERS}
        assert {uuid: record.user_id for uuid, record in records.items()} == USERS
        assert [record.status for record in records.values()] == [Status.ACTIVE, Status.SLEEPING, Status.SLEEPING]
        assert (adopted.pod_name, records["aaaa0001"].labels) == (pod, {"team": "core"})
        for uuid in USERS:
            runtime.remove(uuid, 9)
        assert list(runtime.observe_all()) == []
