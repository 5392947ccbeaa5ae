"""The index of backups says what there is, newest first, and what may go."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.core.backups.index import Backup, BackupIndex, identity_fields
from app.core.backups.store import backup_name
from app.core.errors import ArchiveError, BackupNotFound, BackupRetired, InvalidRequest, StateUnavailable
from app.core.sessions.model import Identity

NOW = 1_763_625_600.0
DAY = 86_400.0


def a_backup(uuid: str = "aaaa0000", user_id: str = "ann", at: float = NOW, **values: Any) -> Backup:
    origin = Identity(uuid=uuid, user_id=user_id, created_at=NOW - DAY, size="large", labels={"team": "x"})
    whole: dict[str, Any] = {
        "name": backup_name(uuid, at),
        "uuid": uuid,
        "user_id": user_id,
        "created_at": at,
        "size": 100,
        "files": 3,
        "content_bytes": 300,
        "sha256": "0" * 64,
        "verified": True,
        "origin": origin,
        "changed": ("log", "caf\\xe9"),
    }
    return Backup(**{**whole, **values})


@pytest.fixture
def index(redis_client: redis.Redis) -> BackupIndex:
    return BackupIndex(redis_client)


def listed(index: BackupIndex, **query: Any) -> tuple[int, list[Backup], str | None]:
    page = index.page(**query)
    return page.total, page.items, page.next_cursor


def test_adding_and_deleting_may_be_repeated(index: BackupIndex, redis_client: redis.Redis) -> None:
    """A task delivered twice changes nothing, and a deleted backup leaves no key behind."""
    for _ in range(2):
        index.add(a_backup())
    assert index.count() == 1
    for _ in range(2):
        index.delete(a_backup().name)
    assert index.count() == 0 and redis_client.keys() == []


def test_a_retired_backup_is_out_until_it_is_forgotten(index: BackupIndex, redis_client: redis.Redis) -> None:
    """Its files are being deleted: neither a sweep nor a second backup of that name may bring it back."""
    index.add(a_backup())
    assert index.retire(a_backup().name, NOW) and index.retire(a_backup().name, NOW)
    assert (index.count(), index.unknown([a_backup().name]), index.retired()) == (0, [], {a_backup().name: NOW})
    assert listed(index, user_id="ann") == listed(index, uuid="aaaa0000") == (0, [], None)
    with pytest.raises(BackupRetired):
        index.add(a_backup())
    index.files_deleted(a_backup().name)
    assert index.retire(a_backup().name, NOW) is False
    assert redis_client.keys() == []
    index.add(a_backup())
    assert index.count() == 1


def test_a_delete_completes_one_that_lost_its_record(index: BackupIndex, redis_client: redis.Redis) -> None:
    """And meanwhile lists pass over a name without a record."""
    index.add(a_backup())
    redis_client.delete(f"backup:{a_backup().name}")
    assert listed(index)[1] == []
    index.delete(a_backup().name)
    assert index.count() == 0


@pytest.mark.parametrize("name", [a_backup().name, "nonsense", ""])
def test_what_is_not_there_is_not_found(index: BackupIndex, name: str) -> None:
    with pytest.raises(BackupNotFound):
        index.get(name)


def test_lists_are_newest_first_and_can_be_narrowed(index: BackupIndex) -> None:
    """By user, by session, by both, by the beginning of the user's name."""
    first = a_backup("aaaa0000", "ann", NOW)
    second = a_backup("bbbb0000", "bob", NOW + 1)
    third = a_backup("cccc0000", "ann", NOW + 2)
    for backup in (second, third, first):
        index.add(backup)
    assert listed(index) == (3, [third, second, first], None)
    assert listed(index, user_id="ann") == (2, [third, first], None)
    assert listed(index, uuid="bbbb0000") == (1, [second], None)
    assert listed(index, uuid="bbbb0000", user_id="ann") == (0, [], None)
    assert listed(index, uuid="bbbb0000", user_id="bob") == (1, [second], None)
    assert listed(index, user_prefix="a") == (2, [third, first], None)
    assert listed(index, user_prefix="a", user_id="bob") == (0, [], None)
    assert listed(index, user_prefix="b", uuid="aaaa0000") == (0, [], None)
    assert listed(index, user_id="nobody") == (0, [], None)


@pytest.mark.parametrize("narrowed", [{}, {"user_id": "ann"}, {"user_prefix": "a"}])
def test_pages_hold_each_backup_once_while_others_come_and_go(index: BackupIndex, narrowed: dict[str, str]) -> None:
    """Also those of the same moment, and also when the last of a page is deleted."""
    backups = [a_backup(f"{n:08d}", at=NOW + n // 4) for n in range(11)]
    for backup in backups:
        index.add(backup)
    total, page, cursor = listed(index, limit=3, **narrowed)
    assert total == 11
    found = [backup.name for backup in page]
    index.add(a_backup("zzzzzzzz", at=NOW + 100))
    index.delete(found[-1])
    while cursor:
        total, page, cursor = listed(index, limit=3, cursor=cursor, **narrowed)
        assert 1 <= len(page) <= 3
        found += [backup.name for backup in page]
    newest_first = sorted(backups, key=lambda backup: (backup.created_at, backup.name), reverse=True)
    assert found == [backup.name for backup in newest_first]


@pytest.mark.parametrize("cursor", ["x", "%%%", "bmFuIGFwcA==", "MSBhcHA=", "é", "MS4wIGFwcC1hYWFhMDAwMC0="])
def test_a_cursor_of_somebody_else_is_refused(index: BackupIndex, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        listed(index, cursor=cursor)


def test_the_oldest_and_the_newest_can_be_asked_for(index: BackupIndex) -> None:
    """`older_than` excludes the moment itself."""
    backups = [a_backup(at=NOW + n) for n in range(4)]
    for backup in backups:
        index.add(backup)
    assert list(index.older_than(NOW + 2)) == backups[:2]
    assert index.newest_of("aaaa0000") == backups[3]
    assert index.newest_of("aaaa0000", NOW + 2) == backups[1]
    assert index.newest_of("bbbb0000") is None


def test_names_that_are_not_indexed_are_told(index: BackupIndex) -> None:
    index.add(a_backup(at=NOW))
    other = a_backup(at=NOW + 1).name
    assert index.unknown([a_backup(at=NOW).name, other]) == [other]
    assert index.unknown([]) == []


def test_a_redis_that_is_down_is_said_to_be(index: BackupIndex) -> None:
    """Every method; an empty list would be a lie."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        client = redis.Redis(port=free.getsockname()[1], decode_responses=True, retry=Retry(NoBackoff(), 0))
        down = BackupIndex(client)
        for call in (
            lambda: down.add(a_backup()),
            lambda: down.get(a_backup().name),
            lambda: down.page(),
            lambda: down.page(user_prefix="a"),
            lambda: down.delete(a_backup().name),
            lambda: down.retire(a_backup().name, NOW),
            lambda: down.files_deleted(a_backup().name),
            lambda: down.retired(),
            lambda: down.older_than(NOW),
            lambda: down.newest_of("aaaa0000"),
            lambda: down.count(),
        ):
            with pytest.raises(StateUnavailable) as caught:
                call()
            assert "127.0.0.1" not in str(caught.value)


def test_a_wrong_type_in_redis_is_no_outage(index: BackupIndex, redis_client: redis.Redis) -> None:
    """A bug must not look like something that passes by itself."""
    redis_client.set("backups", "text")
    with pytest.raises(redis.ResponseError):
        index.count()


# The truth behind the index


def a_sidecar(backup: Backup) -> dict[str, Any]:
    return {**vars(backup), "origin": None, "identity": identity_fields(backup.origin), "later": "field"}


@pytest.mark.parametrize("complete", [True, False])
def test_a_backup_comes_back_as_it_was_added_and_tells_what_it_lacks(index: BackupIndex, complete: bool) -> None:
    """Every field, to the fraction of a second. By its sidecar, in which a later release may have added fields, and in
    the index, where a complete one takes no room for it."""
    unreadable = () if complete else ("closed", "caf\\xe9")
    backup = a_backup(at=NOW + 0.123, complete=complete, unreadable=unreadable)
    index.add(backup)
    assert index.get(backup.name) == backup
    assert ("complete" in backup.to_hash(), "unreadable" in backup.to_hash()) == (not complete, not complete)
    assert Backup.from_sidecar(a_sidecar(backup)) == backup


@pytest.mark.parametrize("wrong", [{"size": "many"}, {"identity": 7}, {"identity": {}}, {"created_at": None}])
def test_an_incomplete_sidecar_is_an_error_of_ours(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArchiveError):
        Backup.from_sidecar({**a_sidecar(a_backup()), **wrong})
