"""Full volumes, on the test cluster's class whose volumes hold what is claimed and no more: nothing is lost, and the
user is told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from scripts.cluster.provisioner import LIMITED
from tests.cluster.manager import PATIENCE, Manager
from tests.cluster.node import volume
from tests.contract.cluster import TIMEOUT, own_namespace
from tests.waiting import wait_for
from workers.runtime.kubernetes.api_server import ApiServer


@pytest.fixture
def backups() -> Iterator[tuple[str, Path]]:
    """A namespace whose claim for backups has little room, and the folder where that is on this machine."""
    with own_namespace(LIMITED, "6Mi") as namespace:
        cluster = ApiServer(namespace, TIMEOUT)

        def bound() -> dict[str, Any] | None:
            claim = cluster.get("persistentvolumeclaims", "backups")
            return claim if claim and "volumeName" in claim["spec"] else None

        yield namespace, volume(wait_for(bound, "the volume"))


def ended(manager: Manager, uuid: str) -> Any:
    """What a DELETE answers once it is over: 202 says that it goes on."""

    def answered() -> list[Any]:
        answer = manager.call("DELETE", f"/session/{uuid}", wait=30)
        return [] if answer.status_code == 202 else [answer]

    return wait_for(answered, "the end of the deletion", seconds=PATIENCE)[0]


def test_a_full_backup_volume_fails_the_backup_keeps_everything_and_says_so(
    backups: tuple[str, Path], redis_server: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """Once there is room, a second DELETE is all it takes."""
    namespace, folder = backups
    manager = Manager(namespace, redis_server, tmp_path, SCALER="direct")
    with manager.web(), manager.workers():
        uuid = manager.create()
        manager.wait_status([uuid], "active", 1)
        manager.write(uuid)
        manager.back_up(uuid)
        manager.wait_backups([uuid])
        (older,) = manager.done("GET", f"/session/{uuid}/backups")["backups"]

        manager.inside(uuid, "head -c 12000000 /dev/urandom > /app/large; sha256sum /app/large > /app/sum")
        refused = ended(manager, uuid)
        assert (refused.status_code, refused.json()["error"]) == (409, "teardown_failed"), refused.text
        assert "full" in refused.json()["detail"]
        assert "full" in manager.reason(uuid)

        assert manager.objects(uuid, "jobs") == []
        assert manager.objects(uuid, "persistentvolumeclaims") != []
        left = sorted(path.name for path in folder.rglob("*") if "app-" in path.name)
        assert left == [older["name"], older["name"] + ".json"]
        assert hashlib.sha256((folder / uuid / older["name"]).read_bytes()).hexdigest() == older["sha256"]
        manager.wake(uuid)
        manager.wait_status([uuid], "active", 1)
        assert manager.holds(uuid)
        manager.inside(uuid, "sha256sum --check --quiet /app/sum && rm /app/large")

        manager.delete(uuid)
        manager.wait_status([uuid], "terminated", 0)
        assert manager.done("GET", f"/session/{uuid}/backups")["total"] == 2
        assert manager.objects(uuid) == []


def test_a_session_whose_own_volume_is_full_wakes_and_is_backed_up(
    redis_server: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """An editor that can't write still shows what is there, so that its user can make room."""
    with own_namespace() as namespace:
        manager = Manager(namespace, redis_server, tmp_path, STORAGE_CLASS=LIMITED, VOLUME_SIZE="24Mi", SCALER="direct")
        with manager.web(), manager.workers():
            uuid = manager.create()
            manager.wait_status([uuid], "active", 1)
            manager.write(uuid)
            manager.inside(uuid, "cat /dev/zero > /app/rest 2>/dev/null; ! echo more > /app/more 2>/dev/null")
            manager.sleep(uuid)
            manager.wait_status([uuid], "sleeping", 0)
            manager.wake(uuid)
            manager.wait_status([uuid], "active", 1)
            assert manager.holds(uuid)
            manager.delete(uuid)
            manager.wait_status([uuid], "terminated", 0)
            assert manager.done("GET", f"/session/{uuid}/backups")["total"] == 1
