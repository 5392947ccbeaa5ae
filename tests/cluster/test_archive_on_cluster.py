"""The archive, going back and drills on a cluster: an unused session leaves no object, and comes back as it was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from app.core.sessions.model import iso
from app.core.storage.archive_keys import new_key
from tests import sampling
from tests.cluster.keda import let_in
from tests.cluster.manager import PATIENCE, Manager, store_of, together
from tests.contract.cluster import own_namespace
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(900)

KILLS = sampling.times(20, 1)

LONGEST = 3.0
"""s after its pod was seen in which a drill's Job is killed."""

CYCLE = 40.0
"""s in which each restore point is proven."""

GIVES_WAY = 15.0
"""s after which a drill under way has seen that its session was deleted, and its Job is gone."""


@pytest.fixture(scope="module")
def manager(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    folder = tmp_path_factory.mktemp("manager")
    with own_namespace(folder=store_of(folder)) as namespace:
        let_in(namespace)
        more = {"ARCHIVE_KEY": new_key(), "RESTORE_POINT_INTERVAL": "86400", "DRILL_CYCLE": str(CYCLE)}
        manager = Manager(namespace, redis_server, folder, **more)
        with manager.web(), manager.workers():
            yield manager


def made(manager: Manager, **wanted: Any) -> str:
    """A session that is up, with a file in it."""
    uuid = str(manager.done("POST", "/session/create", {"user_id": "ada@example.com", **wanted})["uuid"])
    manager.wait_status([uuid], "active", 1)
    manager.write(uuid)
    return uuid


def session_of(manager: Manager, uuid: str) -> Any:
    return manager.session(uuid)["session"]


def wait_archived(manager: Manager, uuid: str) -> None:
    """Until it is in the archive, and nothing of it in the cluster."""

    def gone() -> bool:
        return session_of(manager, uuid)["tier"] == "archived" and manager.objects(uuid) == []

    wait_for(gone, "the session to be archived", lambda: manager.show([uuid]), PATIENCE)
    assert session_of(manager, uuid)["status"] == "sleeping"


def test_an_unused_session_leaves_the_cluster_and_comes_back(manager: Manager) -> None:
    """Also after Redis was lost; with its labels, and again as often as nobody uses it."""
    uuid = made(manager, ttl=2, labels={"course": "python-101"})
    manager.sleep(uuid)
    wait_archived(manager, uuid)
    manager.wake(uuid)
    manager.wait_status([uuid], "active", 1)
    assert manager.holds(uuid)
    assert session_of(manager, uuid)["tier"] == "hot"

    manager.inside(uuid, "echo more > /app/more")
    manager.sleep(uuid)
    wait_archived(manager, uuid)
    manager.redis.flushall()
    wait_for(lambda: manager.call("GET", f"/session/{uuid}").ok, "the session to be back", seconds=PATIENCE)
    back = session_of(manager, uuid)
    assert (back["tier"], back["status"], back["labels"]) == ("archived", "sleeping", {"course": "python-101"})
    manager.wake(uuid)
    manager.wait_status([uuid], "active", 1)
    assert manager.holds(uuid) and manager.inside(uuid, "cat /app/more") == "more\n"
    manager.gone([uuid], within=GIVES_WAY)


def test_files_that_cannot_be_read_keep_their_volume(manager: Manager) -> None:
    """The Job is the workspace's user, and may not read them either. Nor does a rollback remove them."""
    uuid = made(manager, ttl=2)
    manager.save(uuid)
    [whole] = manager.points(uuid)
    manager.inside(uuid, "echo secret > /app/closed; chmod 000 /app/closed")
    answer = manager.call("POST", f"/session/{uuid}/rollback", {"restore_point": whole}, wait=60)
    assert (answer.status_code, answer.json()["error"]) == (409, "rollback_failed")
    manager.wait_status([uuid], "active", 1)

    manager.sleep(uuid)
    told = "backup_incomplete"
    wait_for(lambda: session_of(manager, uuid)["reason_code"] == told, "why", lambda: manager.show([uuid]), PATIENCE)
    manager.wake(uuid)
    manager.wait_status([uuid], "active", 1)
    manager.inside(uuid, "chmod 600 /app/closed")
    manager.sleep(uuid)
    manager.wait_status([uuid], "sleeping", 0)
    manager.unused(uuid)
    wait_archived(manager, uuid)
    manager.wake(uuid)
    manager.wait_status([uuid], "active", 1)
    assert manager.inside(uuid, "cat /app/closed") == "secret\n"
    manager.gone([uuid], within=GIVES_WAY)


def test_a_session_goes_back_and_is_forked(manager: Manager) -> None:
    """In place, after a restore point of now, to which it goes back, too; another user's fork has the same files."""
    uuid = made(manager)
    manager.save(uuid)
    [first] = manager.done("GET", f"/session/{uuid}/restore-points")["restore_points"]
    manager.inside(uuid, "rm /app/kept; echo later > /app/later")
    done = manager.done("POST", f"/session/{uuid}/rollback", {"restore_point": first["id"]}, wait=90)
    rolled_back = done["session"]["rolled_back"]
    manager.wait_status([uuid], "active", 1)
    assert manager.holds(uuid) and manager.inside(uuid, "ls /app").split() == ["kept"]

    fork = manager.done("POST", f"/session/{uuid}/fork", {"user_id": "ben", "restore_point": rolled_back["saved"]})
    manager.wait_status([fork["uuid"]], "active", 1)
    assert manager.inside(fork["uuid"], "ls /app").split() == ["later"]
    manager.gone([uuid, fork["uuid"]], within=GIVES_WAY)


def test_restore_points_are_proven_by_themselves(manager: Manager) -> None:
    """Of a session that is up, of one that sleeps and of one in the archive; the drill leaves nothing."""
    up, asleep, archived = made(manager), made(manager), made(manager, ttl=2)
    manager.save(up)
    for each in (asleep, archived):
        manager.sleep(each)
    manager.wait_status([asleep], "sleeping", 0)
    wait_archived(manager, archived)
    begun = str(iso(time.time()))

    def proven() -> bool:
        return all((session_of(manager, each)["last_proven"] or "") > begun for each in (up, asleep, archived))

    wait_for(proven, "the drills", lambda: manager.show([up, asleep, archived]), PATIENCE)
    assert manager.holds(up)
    manager.gone([up, asleep, archived], within=GIVES_WAY)


def test_drills_whose_jobs_are_killed_are_made_again(manager: Manager) -> None:
    """No point is taken for a broken one, and each is proven in the end."""
    uuids = manager.awake(KILLS)
    together(lambda uuid: manager.inside(uuid, "head -c 20M /dev/urandom > /app/large"), uuids)
    together(manager.save, uuids)
    dice = sampling.dice("killed drills")
    after = {uuid: dice.uniform(0, LONGEST) for uuid in uuids}
    together(lambda uuid: manager.kill_its_job(uuid, after[uuid]), uuids)
    begun = str(iso(time.time()))

    def proven() -> bool:
        return all((session_of(manager, each)["last_proven"] or "") > begun for each in uuids)

    wait_for(proven, "the drills", lambda: manager.show(uuids), PATIENCE)
    for uuid in uuids:
        points = manager.done("GET", f"/session/{uuid}/restore-points")["restore_points"]
        assert [each["broken"] for each in points] == [False]
    manager.gone(uuids, within=GIVES_WAY)
