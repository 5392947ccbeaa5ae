"""Pages of sessions: by index, by labels and by search."""

from __future__ import annotations

import pytest
import redis

from app.core.errors import InvalidRequest
from app.core.redis import keys
from app.core.redis.paging import Page
from app.core.sessions import listing
from app.core.sessions.listing import Filter, SessionList
from app.core.sessions.model import Record, Status, Tier
from app.core.sessions.store import SessionStore
from tests.unit.core.conftest import a_record

EVERYTHING = Filter()


def add(client: redis.Redis, number: int, **values: object) -> str:
    """A session that is newer the greater its number; its uuid."""
    return SessionStore(client).create(a_record(number, **values), quota=None)


def page(client: redis.Redis, wanted: Filter = EVERYTHING, limit: int = 10, cursor: str | None = None) -> Page[Record]:
    return SessionList(client, SessionStore(client)).page(wanted, limit=limit, cursor=cursor)


def uuids(client: redis.Redis, wanted: Filter, limit: int = 100) -> list[str]:
    """All sessions of all pages."""
    found, cursor = [], None
    while True:
        seen = page(client, wanted, limit, cursor)
        found += [record.uuid for record in seen.items]
        if not (cursor := seen.next_cursor):
            return found


def test_pages_are_newest_first_whole_and_stable_under_inserts(redis_client: redis.Redis) -> None:
    """Nothing repeats and nothing is hidden when sessions are created while one pages; equal times too."""
    for number in range(25):
        add(redis_client, number, created_at=1_000.0 + number // 5)
    first = page(redis_client)
    add(redis_client, 99, created_at=2_000.0)
    second = page(redis_client, cursor=first.next_cursor)
    third = page(redis_client, cursor=second.next_cursor)
    seen = [record.uuid for each in (first, second, third) for record in each.items]
    assert seen == [f"{number:08d}" for number in reversed(range(25))]
    assert third.next_cursor is None
    assert first.total == 25


@pytest.mark.parametrize("wanted", [EVERYTHING, Filter(search="ada"), Filter(user_id="ada", status=Status.CREATED)])
@pytest.mark.parametrize("cursor", ["x", "!!!", "W10", "bnVsbA", "WyJhIiwgMV0", "é"])
def test_a_foreign_cursor_is_invalid(redis_client: redis.Redis, wanted: Filter, cursor: str) -> None:
    add(redis_client, 1)
    with pytest.raises(InvalidRequest):
        page(redis_client, wanted, 10, cursor)


def test_a_row_is_its_record_without_a_malformed_note_of_use(redis_client: redis.Redis) -> None:
    """The gateway writes that hash; a compromised one may write anything."""
    shown = {"last_activity": 7.0, "ttl": 60.0, "labels": {"course": "a"}, "reason_code": "no_capacity", "waiting": 1}
    uuid = add(redis_client, 1, reason="no room", **shown)
    redis_client.hset(keys.USE.format(uuid=uuid), mapping={"last_activity": "2000.5", "waiting": "3"})
    [row] = page(redis_client).items
    assert row == SessionStore(redis_client).get(uuid)
    assert (row.last_activity, row.waiting, row.archives_at) == (2000.5, 3, 2060.5)
    redis_client.hset(keys.USE.format(uuid=uuid), "last_activity", "never")
    assert page(redis_client).items[0].last_activity == 7.0


def test_a_user_in_a_state_has_pages_and_a_total(redis_client: redis.Redis) -> None:
    for number in range(5):
        add(redis_client, number, status=Status.ACTIVE)
    add(redis_client, 10)
    add(redis_client, 11, status=Status.ACTIVE, user_id="bob")
    wanted = Filter(user_id="ada", status=Status.ACTIVE)
    assert uuids(redis_client, wanted, limit=2) == [f"{number:08d}" for number in (4, 3, 2, 1, 0)]
    assert page(redis_client, wanted, 2).total == 5


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Filter(labels=[("course", "a")]), [4, 2, 0]),
        (Filter(labels=[("course", "a"), ("team", "Øst 4")]), [4]),
        (Filter(labels=[("course", "a"), ("course", "b")]), []),
        (Filter(search="ØST"), [5, 4, 3, 2, 1, 0]),
        (Filter(search="øst 4"), [4]),
        (Filter(search="course"), []),
        (Filter(search="00003"), [3]),
        (Filter(search="BO"), [5, 4, 3]),
        (Filter(search="bo", labels=[("course", "b")], status=Status.CREATED), [5, 3]),
        (Filter(search="øst", user_id="ada"), [2, 1, 0]),
        (Filter(search="øst 1", user_id="ada", status=Status.CREATED), [1]),
        (Filter(search="øst 1", user_id="ada", status=Status.ACTIVE), []),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_labels_and_search_narrow_every_index(
    redis_client: redis.Redis, wanted: Filter, numbers: list[int], limit: int
) -> None:
    """A search finds parts of uuids, user ids and values of labels, but no names of labels, in any case."""
    for number in range(6):
        labels = {"course": "ab"[number % 2], "team": f"Øst {number}"}
        add(redis_client, number, user_id="ada" if number < 3 else "Bob", labels=labels)
    assert uuids(redis_client, wanted, limit) == [f"{number:08d}" for number in numbers]


@pytest.mark.parametrize(
    ("wanted", "numbers", "total"),
    [
        (Filter(tier=Tier.ARCHIVED), [5, 4, 2, 0], 4),
        (Filter(tier=Tier.ARCHIVED, user_id="ada"), [2, 0], 2),
        (Filter(tier=Tier.ARCHIVED, user_id="ada", status=Status.SLEEPING), [0], 2),
        (Filter(tier=Tier.ARCHIVED, status=Status.WAKING), [5, 2], 4),
        (Filter(tier=Tier.ARCHIVED, search="bo"), [5, 4], 4),
        (Filter(tier=Tier.ARCHIVED, status=Status.TERMINATED), [], 4),
        (Filter(tier=Tier.HOT), [3, 1], 6),
        (Filter(tier=Tier.HOT, user_id="ada", status=Status.SLEEPING), [1], 2),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_a_tier_narrows_every_index(
    redis_client: redis.Redis, wanted: Filter, numbers: list[int], total: int, limit: int
) -> None:
    """Newest first by their creation, whenever they were archived."""
    store = SessionStore(redis_client)
    for number in range(6):
        uuid = add(redis_client, number, user_id="ada" if number < 3 else "bob", status=Status.SLEEPING)
        if number % 2 == 0:
            store.change(uuid, 2_000.0, archived_at=3_000.0 - number)
        if number == 2:
            store.change(uuid, 2_000.0, to=Status.WAKING)
    store.change(f"{5:08d}", 2_000.0, to=Status.WAKING, archived_at=2_500.0)
    assert uuids(redis_client, wanted, limit) == [f"{number:08d}" for number in numbers]
    assert page(redis_client, wanted, limit).total == total


def test_a_search_compares_so_many_and_goes_on_with_the_next_page(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SCANNED", 4)
    monkeypatch.setattr("app.core.redis.paging.CHUNK", 3)
    for number in range(10):
        add(redis_client, number, user_id="ada" if number else "zoe")
    wanted, cursor, pages = Filter(search="zoe"), None, []
    for _ in range(3):
        seen = page(redis_client, wanted, 5, cursor)
        assert seen.total == 10
        pages.append([record.uuid for record in seen.items])
        cursor = seen.next_cursor
    assert (pages, cursor) == ([[], [], ["00000000"]], None)


def test_a_session_that_is_in_an_index_only_is_left_out(redis_client: redis.Redis) -> None:
    redis_client.delete(keys.SESSION.format(uuid=add(redis_client, 1)))
    assert uuids(redis_client, EVERYTHING) == uuids(redis_client, Filter(search="0")) == []
