"""`kubectl delete` of each object of a session, awake and asleep, with the whole service running: it is as asked in the
end, and its files are lost to nobody who is not told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.cluster.keda import let_in
from tests.cluster.manager import PATIENCE, Manager, together
from tests.contract.cluster import own_namespace
from tests.contract.runtimes import SECRET_KEY
from tests.waiting import wait_for
from workers.runtime.kubernetes import names

KINDS = ("deployments", "services", "ingresses", "secrets", "scaledobjects")
"""What a wake makes again. Pods are made again by the cluster, and the volume by nobody."""

CLAIMS = "persistentvolumeclaims"


@pytest.fixture(scope="module")
def manager(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    with own_namespace() as namespace:
        let_in(namespace)
        # With a key a session has a Secret, its agent's.
        folder = tmp_path_factory.mktemp("manager")
        manager = Manager(namespace, redis_server, folder, SECRET_KEY=SECRET_KEY)
        with manager.web(), manager.workers():
            yield manager


def name_of(kind: str, uuid: str) -> str:
    return names.scaler(uuid) if kind == "scaledobjects" else names.workspace(uuid)


def test_a_wake_makes_again_whatever_was_deleted_of_a_sleeping_session(manager: Manager) -> None:
    sessions = dict(zip(KINDS, manager.awake(len(KINDS)), strict=True))
    together(manager.sleep, sessions.values())
    manager.wait_status(sessions.values(), "sleeping", 0)
    for kind, uuid in sessions.items():
        manager.cluster.delete(kind, name_of(kind, uuid))
    together(manager.wake, sessions.values())
    manager.wait_status(sessions.values(), "active", 1)
    for kind, uuid in sessions.items():
        assert manager.cluster.get(kind, name_of(kind, uuid)) is not None
        assert manager.holds(uuid)
    manager.gone(list(sessions.values()))


def test_a_session_that_should_be_up_is_brought_up_again(manager: Manager) -> None:
    """Without a wake, where its Deployment or its pod was deleted; never with two pods at the volume."""
    deployment, pod = manager.awake(2)
    before = {uuid: manager.pod(uuid) for uuid in (deployment, pod)}
    manager.cluster.delete("deployments", names.workspace(deployment))
    manager.cluster.delete("pods", before[pod])
    for uuid, old in before.items():
        wait_for(lambda: manager.pod(uuid) not in ("", old), "another pod", seconds=PATIENCE)  # noqa: B023
    manager.wait_status(before, "active", 1)
    assert all(together(manager.holds, before))
    manager.gone(list(before))


def test_a_volume_deleted_under_a_workspace_is_told_and_saved_by_deleting_the_session(manager: Manager) -> None:
    """The claim lasts as long as the pod: nothing but the deletion ends that, and takes a backup before it does."""
    (uuid,) = manager.awake(1)
    manager.cluster.delete(CLAIMS, names.workspace(uuid))
    wait_for(lambda: "is being deleted by someone else" in manager.reason(uuid), "the reason", seconds=PATIENCE)
    assert manager.call("POST", f"/session/{uuid}/sleep").status_code == 409
    manager.wake(uuid)
    wait_for(lambda: "is being deleted by someone else" in manager.reason(uuid), "the reason", seconds=PATIENCE)
    assert manager.holds(uuid)
    manager.delete(uuid)
    manager.wait_status([uuid], "terminated", 0)
    assert manager.objects(uuid) == []
    restored = manager.restore(manager.session(uuid)["session"]["backup"])
    manager.wait_status([restored], "active", 1)
    assert manager.holds(restored, whose=uuid)
    manager.gone([restored])


def test_a_session_whose_volume_was_deleted_gets_its_newest_backup_and_sleeps_on(manager: Manager) -> None:
    """Asleep nothing holds the volume: it is gone at once. This manager has no ARCHIVE_KEY, so no restore points."""
    uuid, other = manager.awake(2)
    manager.back_up(uuid)
    manager.wait_backups([uuid])
    manager.sleep(uuid)
    manager.wait_status([uuid], "sleeping", 0)
    manager.cluster.delete(CLAIMS, names.workspace(uuid))
    wait_for(lambda: manager.session(uuid)["session"]["files_of"], "the files of the backup", seconds=PATIENCE)
    manager.wait_status([uuid], "sleeping", 0)
    manager.wake(uuid)
    manager.wait_status([uuid], "active", 1)
    assert manager.holds(uuid)
    manager.gone([uuid, other])
