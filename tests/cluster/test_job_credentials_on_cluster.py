"""Jobs of a real cluster with short-lived credentials, at an S3 server that enforces what those allow: whatever they do
they do from their pods, and the store's owner is known to the manager alone."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
import redis

from app.core.storage.archive_keys import new_key
from app.core.storage.credential import Credential
from scripts.cluster import layout
from tests.cluster.keda import let_in
from tests.cluster.manager import PATIENCE, Manager
from tests.contract.cluster import own_namespace
from tests.integration import minio


@pytest.fixture
def manager(
    redis_server: str, redis_client: redis.Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Manager]:
    """One whose backups and restore points lie in that store."""
    folder = tmp_path_factory.mktemp("manager")
    store = minio.running(tmp_path_factory.mktemp("store"), layout.NODE_IP)
    with store as url, own_namespace() as namespace:
        let_in(namespace)
        manager = Manager(
            namespace,
            redis_server,
            folder,
            BACKUP_ROLE=minio.ROLE,
            ARCHIVE_KEY=new_key(),
            RESTORE_POINT_INTERVAL="86400",
            **minio.settings(url),
        )
        with manager.web(), manager.workers():
            yield manager


@contextmanager
def credentials_given(manager: Manager) -> Iterator[list[Credential]]:
    """The credentials in the Secrets that are made meanwhile."""
    seen: list[Credential] = []
    _, version = manager.cluster.list("secrets", "")
    following = manager.cluster.watch("secrets", "", version, 3_600)

    def follow() -> None:
        for event in following:
            held = event["object"].get("data", {}) if event["type"] == "ADDED" else {}
            if "credential" in held:
                seen.append(Credential.from_text(base64.b64decode(held["credential"]).decode()))

    thread = Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        following.close()
        thread.join(PATIENCE)
        following.release()


def test_jobs_do_all_their_work_with_what_is_theirs(manager: Manager) -> None:
    """A restore point, a backup, a restore of both, each by a Job that was given a session token and no more."""
    with credentials_given(manager) as given:
        [uuid] = manager.awake(1)
        manager.save(uuid)
        manager.back_up(uuid)
        manager.wait_backups([uuid])
        [backup] = manager.done("GET", f"/session/{uuid}/backups")["backups"]
        again = manager.restore(backup["name"])
        manager.wait_status([again], "active", 1)
        assert manager.holds(again, uuid)

        manager.lose(uuid)
        manager.wait_restored(uuid, "active", 1)
        assert manager.holds(uuid)

        manager.delete(uuid)
        manager.wait_status([uuid], "terminated", 0)
    manager.gone([again])

    assert len(given) >= 4, "a point, a backup, two restores"
    for each in given:
        assert each.variables["AWS_SESSION_TOKEN"]
        assert minio.PASSWORD not in each.to_text()
