"""A deletion that leaves nothing: `DELETE /session/{uuid}?erase=true`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.core.access.audit import Act
from app.core.backups.index import Backup
from app.core.backups.store import backup_name
from app.core.errors import BackupInUse, BackupNotFound, RetryableError
from app.core.prompts.history_store import Checkpoint
from app.core.redis import keys, task_queue
from app.core.restore_points.index import RestorePoint
from app.core.service import NewSession
from app.core.sessions.model import Status
from tests.world import World
from workers.archive import write_backup

USER = "ada.lovelace@example.com"
CANARY = "the-canary-in-the-prompt"
LABEL = "ada-lovelace"
TOTALS = keys.USER_COSTS.format(user_id=USER)


def back_up(world: World, uuid: str) -> str:
    """A backup in the store and the index, with a conversation."""
    place = world.settings.data_dir / "volume"
    (place / "app").mkdir(parents=True, exist_ok=True)
    (place / ".session").mkdir(exist_ok=True)
    (place / ".session" / "history.json").write_text(json.dumps([{"id": "m", "role": "user", "content": CANARY}]))
    world.now += 1
    name = backup_name(uuid, world.now)
    write_backup(place / "app", world.core.backup_store, name, world.get(uuid).identity, world.now)
    world.core.backups.add(Backup.from_sidecar(world.core.backup_store.sidecar(name)))
    return name


def used(world: World) -> str:
    """A session that has left something everywhere."""
    uuid = world.active(USER, labels={"student": LABEL})
    world.sessions.prompt(uuid, CANARY, "m1")
    world.core.audit.note(Act(action="create", by="key", role="service", uuid=uuid, user_id=USER))
    world.core.audit.note(Act(action="wake", by="key", role="service", uuid=uuid, user_id=USER), repeatable=True)
    world.core.history_store.write(uuid, Checkpoint([{"id": CANARY}]))
    back_up(world, uuid)
    root = Path(world.core.backup_store.files.root)
    (root / uuid / "points").mkdir(parents=True, exist_ok=True)
    (root / uuid / "points" / "p1.json").write_text("point")
    (root / uuid / f".app-{uuid}-20260101-000000.zip.part-0123456789abcdef").write_text("part")
    point = RestorePoint(id="p1", uuid=uuid, created_at=world.now, trigger="sleep", files=1, size=1, stored=1)
    world.core.restore_points.put(uuid, [point])
    world.now += 3600
    return uuid


def erase(world: World, uuid: str) -> list[str]:
    world.sessions.erase(uuid)
    return world.work()


def left_in_stores(world: World, uuid: str) -> list[str]:
    roots = (world.core.backup_store.files.root, world.core.history_store._files.root)
    return [str(path) for root in map(Path, roots) if root.exists() for path in root.rglob(f"*{uuid}*")]


def left_in_redis(world: World, text: str) -> set[str]:
    """The keys whose name or content has this text."""
    redis = world.core.redis
    read: dict[str, Callable[[str], Any]] = {
        "string": redis.get,
        "hash": redis.hgetall,
        "list": lambda name: redis.lrange(name, 0, -1),
        "set": redis.smembers,
        "zset": lambda name: redis.zrange(name, 0, -1),
        "stream": redis.xrange,
    }
    return {name for name in redis.scan_iter() if text in name or text in str(read[redis.type(name)](name))}


def test_nothing_is_left_of_a_session(world: World) -> None:
    """And all is left of another one of the same user."""
    uuid, other = used(world), world.active(USER)
    world.core.audit.note(Act(action="create", by="key", role="service", uuid=other, user_id=USER))
    done = erase(world, uuid)
    assert task_queue.ERASE in done and task_queue.BACKUP not in done
    assert left_in_stores(world, uuid) == []
    assert left_in_redis(world, CANARY) == set()
    record = world.get(uuid)
    assert (record.status, record.user_id, dict(record.labels)) == (Status.TERMINATED, f"erased-{uuid}", {})
    assert not world.core.erasures.pending(uuid)
    entries = world.core.audit.page(uuid=uuid).entries
    assert len(entries) == 2 and {entry.act.user_id for entry in entries} == {f"erased-{uuid}"}
    payer = world.core.ledger.payer(uuid)
    assert payer is not None and (payer.user_id, payer.labels) == (f"erased-{uuid}", {})
    assert world.get(other).status is Status.ACTIVE
    assert {entry.act.user_id for entry in world.core.audit.page(uuid=other).entries} == {USER}


def test_no_key_names_the_user_but_their_totals(world: World) -> None:
    """By which budgets count: an erased session has cost what it has."""
    uuid = used(world)
    erase(world, uuid)
    world.core.redis.delete(*world.core.redis.keys("created:*"))  # kept for a minute
    # What budgets count by, which names no session.
    totals = {name for name in world.core.redis.scan_iter(f"{TOTALS}*") if not name.endswith(":sessions")}
    assert left_in_redis(world, USER) == totals != set()
    assert left_in_redis(world, LABEL) == set()
    (total,) = world.core.ledger.running_totals([TOTALS], world.now)
    assert total["c:standard"] >= 3600 * 1000


def test_what_is_left_of_a_terminated_session_is_erased_also_without_its_record(world: World) -> None:
    """And again, which changes nothing."""
    uuid, forgotten = used(world), used(world)
    for each in (uuid, forgotten):
        world.delete(each, backup=False)
        assert left_in_stores(world, each)
    world.core.redis.delete(keys.SESSION.format(uuid=forgotten))
    for _ in range(2):
        erase(world, uuid)
        assert left_in_stores(world, uuid) == []
        assert world.sessions.wait_for_erasure(uuid, 0.0)[1]
    erase(world, forgotten)
    assert left_in_stores(world, forgotten) == [] and left_in_redis(world, CANARY) == set()
    assert world.sessions.wait_for_erasure(forgotten, 0.0) == (None, True)


def test_a_workspace_whose_record_was_lost_is_not_erased(world: World) -> None:
    """It gets its record back first, and is then a session that nobody deleted."""
    uuid = used(world)
    world.core.redis.delete(keys.SESSION.format(uuid=uuid))
    world.sessions.erase(uuid)
    world.tasks.sent.clear()
    with pytest.raises(RetryableError, match="record was lost"):
        world.erasing.erase(uuid)
    world.now += 3600
    world.sweeps.reconcile()
    world.erasing.erase(uuid)
    assert not world.core.erasures.pending(uuid)
    assert world.core.backups.newest_of(uuid) is not None


def test_a_restore_into_another_session_forbids_it_until_its_end(world: World) -> None:
    uuid = used(world)
    [name] = [each.name for each in world.core.backups.page(uuid=uuid).items]
    world.runtime.backups[name] = {"file": b"x"}
    world.tasks.sent.clear()
    other = world.sessions.restore(name, "ben").uuid
    with pytest.raises(BackupInUse, match=name):
        world.sessions.erase(uuid)
    assert world.get(uuid).status is Status.ACTIVE
    world.work()
    erase(world, uuid)
    assert left_in_stores(world, uuid) == []
    assert world.get(other).user_id == "ben"


@pytest.mark.parametrize("terminated", [False, True])
def test_nothing_is_restored_from_a_session_that_is_being_erased(world: World, terminated: bool) -> None:
    """From the call on, before its worker has begun."""
    uuid = used(world)
    [name] = [each.name for each in world.core.backups.page(uuid=uuid).items]
    if terminated:
        world.delete(uuid, backup=False)
    world.sessions.erase(uuid)
    with pytest.raises(BackupNotFound):
        world.sessions.restore(name, "ben")


def test_a_deletion_under_way_becomes_an_erasure_and_stays_one(world: World) -> None:
    uuid = used(world)
    world.sessions.delete(uuid)
    world.sessions.erase(uuid)
    for backup in (True, False):
        assert world.sessions.delete(uuid, backup=backup).delete_erase
    world.work()
    assert left_in_stores(world, uuid) == []


def test_a_session_whose_erasure_failed_can_be_used_again(world: World) -> None:
    """It can be restored from, and its next deletion is one like any other."""
    uuid = used(world)
    world.sessions.erase(uuid)
    world.core.store.change(uuid, world.now, to=Status.FAILED, settle=True)
    [name] = [each.name for each in world.core.backups.page(uuid=uuid).items]
    assert world.sessions.create(NewSession(user_id="ben", restore_from=name)).restore_from == name
    assert not world.sessions.delete(uuid).delete_erase


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("backups", "retire"),
        ("backups", "files_deleted"),
        ("history_store", "delete"),
        ("feed", "forget"),
        ("audit", "pseudonymise"),
        ("erasures", "finish"),
    ],
)
def test_a_worker_killed_anywhere_is_made_up_for(
    world: World, owner: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep sends it again."""
    uuid = used(world)
    world.sessions.erase(uuid)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(getattr(world.core, owner), name, killed)
        world.work()
    assert world.core.erasures.pending(uuid)
    assert task_queue.ERASE in world.catch_up()
    assert left_in_stores(world, uuid) == [] and left_in_redis(world, CANARY) == set()
    assert world.get(uuid).user_id == f"erased-{uuid}"


@pytest.mark.slow
def test_entries_of_the_audit_keep_their_ids_and_counts(world: World) -> None:
    """A repeated act is still counted with its entry."""
    audit, act = world.core.audit, Act(action="open", by="key", role="service", uuid="aaaa0001", user_id=USER)
    for number in range(600):
        audit.note(replace(act, uuid="bbbb0002" if number % 2 else "aaaa0001", request_id=str(number)))
    for _ in range(3):
        audit.note(act, repeatable=True)
    before = audit.page(limit=1000).entries
    audit.pseudonymise("aaaa0001", "erased-aaaa0001")
    after = audit.page(limit=1000).entries
    assert [(entry.id, entry.count, entry.act.request_id) for entry in after] == [
        (entry.id, entry.count, entry.act.request_id) for entry in before
    ]
    assert {(entry.act.uuid, entry.act.user_id) for entry in after} == {
        ("aaaa0001", "erased-aaaa0001"),
        ("bbbb0002", USER),
    }
    audit.note(act, repeatable=True)
    assert [entry.count for entry in audit.page(limit=1000).entries if entry.count > 1] == [4]
