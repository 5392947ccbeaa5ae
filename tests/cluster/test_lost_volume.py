"""The claim and its volume are deleted behind an awake, a sleeping and a waking session: each comes back by itself, as
its newest restore point has it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from app.core.storage.archive_keys import new_key
from tests import sampling
from tests.cluster.keda import let_in
from tests.cluster.manager import PATIENCE, Manager, store_of, together
from tests.cluster.node import volumes
from tests.contract.cluster import own_namespace
from tests.waiting import wait_for
from workers.runtime.kubernetes import names

pytestmark = pytest.mark.timeout(1_500)

KILLS = sampling.times(20, 2)

LOOKED_AT = 3 * 86_400.0
"""s since all data was read, after which the next point does so again."""

LONGEST = 3.0
"""s after its pod was seen in which a Job is killed."""


@pytest.fixture(scope="module")
def manager(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    folder = tmp_path_factory.mktemp("manager")
    with own_namespace(folder=store_of(folder)) as namespace:
        let_in(namespace)
        # Restore points are made when they are asked for, and after sleeps with changes.
        more = {"ARCHIVE_KEY": new_key(), "RESTORE_POINT_INTERVAL": "86400", "VOLUME_LOST_AFTER": "30"}
        manager = Manager(namespace, redis_server, folder, **more)
        with manager.web(), manager.workers():
            yield manager


def asleep(manager: Manager, *uuids: str) -> None:
    """They sleep, and no Job works on them any more."""
    together(manager.sleep, uuids)
    manager.wait_status(uuids, "sleeping", 0)
    wait_for(lambda: not any(map(manager.saving, uuids)), "the restore points", seconds=PATIENCE)


def test_behind_an_awake_a_sleeping_and_a_waking_session(manager: Manager) -> None:
    """Each has the files of its point, and none that came later; asleep it sleeps on."""
    awake, sleeping, waking = uuids = manager.awake(3)
    together(manager.save, uuids)
    asleep(manager, sleeping, waking)
    manager.inside(awake, "echo later > /app/later")
    pod = manager.pod(awake)

    for uuid in (awake, sleeping, waking):
        manager.lose(uuid)
    manager.wake(waking)
    manager.wait_restored(awake, "active", 1)
    manager.wait_restored(sleeping, "sleeping", 0)
    manager.wait_restored(waking, "active", 1)

    assert manager.pod(awake) != pod
    assert manager.inside(awake, "ls /app").split() == ["kept"]
    manager.wake(sleeping)
    manager.wait_status([sleeping], "active", 1)
    assert all(together(manager.holds, uuids))
    manager.gone(uuids)


def test_a_claim_deleted_under_a_workspace_costs_nothing(manager: Manager) -> None:
    """The claim lasts as long as the pod: what came after the last point is saved before the workspace stops."""
    (uuid,) = manager.awake(1)
    manager.save(uuid)
    manager.inside(uuid, "echo later > /app/later")
    manager.cluster.delete("persistentvolumeclaims", names.workspace(uuid))
    manager.wait_restored(uuid, "active", 1)
    assert sorted(manager.inside(uuid, "ls /app").split()) == ["kept", "later"]
    manager.gone([uuid])


def test_a_volume_out_of_reach_is_replaced_and_kept(manager: Manager) -> None:
    """It can't be mounted, as its folder on the node is away. Later it is there again, with a newer file."""
    (uuid,) = manager.awake(1)
    manager.save(uuid)
    asleep(manager, uuid)
    folder = volumes() / manager.volume(uuid)
    away = folder.with_name(f"{folder.name}.away")
    folder.rename(away)
    try:
        (away / "newer").write_text("later than the point")
        manager.wake(uuid)
        manager.wait_restored(uuid, "active", 1)
        assert manager.holds(uuid)
    finally:
        away.rename(folder)
    kept = f"app={names.KEPT},{names.UUID_LABEL}={uuid}"
    assert manager.kubectl("get", "pvc", "-l", kept, "-o", "name").split() == [
        f"persistentvolumeclaim/{names.workspace(uuid)}"
    ]
    assert (folder / "newer").exists()
    manager.delete_unsaved(uuid)
    manager.wait_status([uuid], "terminated", 0)
    assert manager.objects(uuid) == [f"persistentvolumeclaims/{names.workspace(uuid)}"]
    manager.kubectl("delete", "pvc", "-l", kept)


def test_jobs_that_are_killed_while_they_make_a_point_lose_nothing(manager: Manager) -> None:
    """Each is made in the end, and whatever is listed can be restored. Every second one prunes, and reads all data."""
    (uuid,) = manager.awake(1)
    dice = sampling.dice("killed points")
    for number in range(2 * KILLS):
        if number % 2:
            long_ago = time.time() - LOOKED_AT
            manager.store.change(uuid, time.time(), point_checked_at=long_ago)
        manager.inside(uuid, f"echo {number} > /app/number; head -c 20M /dev/urandom > /app/large")
        manager.done("POST", f"/session/{uuid}/restore-points")
        manager.kill_its_job(uuid, dice.uniform(0, LONGEST))
        wait_for(lambda: not manager.saving(uuid), "the point", lambda: manager.show([uuid]), PATIENCE)
        assert manager.store.get(uuid).point
        assert number % 2 == 0 or manager.store.get(uuid).point_checked_at > long_ago
    listed = manager.done("GET", f"/session/{uuid}/restore-points")["restore_points"]
    assert listed and not any(each["broken"] for each in listed)
    for each in (listed[0], dice.choice(listed)):
        body = {"user_id": "ada@example.com", "restore_from": each["restore_from"]}
        copy = str(manager.done("POST", "/session/create", body)["uuid"])
        manager.wait_status([copy], "active", 1)
        assert manager.holds(copy, whose=uuid)
        found = int(manager.inside(copy, "cat /app/number"))
        assert found == 2 * KILLS - 1 if each is listed[0] else found < 2 * KILLS
        manager.gone([copy])
    manager.gone([uuid])


def test_jobs_that_are_killed_while_they_restore_lose_nothing(manager: Manager) -> None:
    uuids = manager.awake(KILLS)
    together(lambda uuid: manager.inside(uuid, "head -c 20M /dev/urandom > /app/large"), uuids)
    together(manager.save, uuids)
    asleep(manager, *uuids)
    dice = sampling.dice("killed restores")
    for uuid in uuids:
        manager.lose(uuid)
        manager.kill_its_job(uuid, dice.uniform(0, LONGEST))
        manager.wait_restored(uuid, "sleeping", 0)
    together(manager.wake, uuids)
    manager.wait_status(uuids, "active", 1)
    assert all(together(manager.holds, uuids))
    manager.gone(uuids)
