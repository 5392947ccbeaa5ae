"""The audit itself, over a real Redis: what is kept, for how long, in how many bytes, and how it is read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis

from app.core.access.audit import BYTES, DISTINCT_ENTRIES, SEVERAL, WINDOW, Act, Audit, Entry
from app.core.errors import InvalidRequest
from app.core.redis import keys
from app.core.redis.memory import BALLAST_SHARE, RESERVE
from app.process.logs import logging_config
from app.process.settings import Settings
from tests.fakes import raising
from tests.world import World
from workers.runtime.base import Snapshot

# The bytes that Redis takes are measured.
pytestmark = pytest.mark.real_redis

ACT = Act(
    action="wake",
    by="backend",
    role="service",
    uuid="k3v9x0qa",
    user_id="ada@example.com",
    address="203.0.113.7",
    status=200,
    request_id="0123456789abcdef0123456789abcdef",
)
REFUSAL = replace(ACT, action="read", by="anonymous", role="anonymous", user_id="", status=401, reason="unauthorized")


@pytest.fixture
def audit(redis_client: redis.Redis) -> Audit:
    return Audit(redis_client)


def read(audit: Audit, limit: int = 100, **wanted: str) -> list[Entry]:
    """All entries, page by page. Bounded, so that a cursor that goes in circles shows."""
    entries, cursor = [], None
    for _ in range(10_000):
        page = audit.page(limit=limit, cursor=cursor, **wanted)
        entries += page.entries
        cursor = page.next_cursor
        if cursor is None:
            return entries
    raise AssertionError("the pages never ended")


def note_acts(audit: Audit, *numbers: int) -> None:
    """Acts of one key on so many sessions."""
    for number in numbers:
        audit.note(replace(ACT, uuid=f"{number:08d}"))


def note_refusals(audit: Audit, *numbers: int) -> None:
    """Refusals of a caller each, from a network each."""
    for number in numbers:
        audit.note(replace(REFUSAL, address=f"2001:db8:0:{number:x}::1"), repeatable=True)


def put(client: redis.Redis, stream: str, *ids: str) -> None:
    """Entries with the time that their ids say."""
    for each in ids:
        client.xadd(stream, {name: str(value) for name, value in vars(ACT).items()}, id=each)


def test_an_entry_is_read_as_it_was_written(audit: Audit) -> None:
    before = time.time()
    audit.note(ACT)
    [entry] = read(audit)
    assert (entry.act, entry.count) == (ACT, 1)
    assert before - 1 <= entry.at <= time.time() + 1
    audit.note(replace(ACT, status=0, uuid="", request_id=""))
    assert [each.act.status for each in read(audit)] == [0, 200], "newest first"


def test_the_same_refusal_within_a_minute_is_one_entry_that_counts(audit: Audit, redis_client: redis.Redis) -> None:
    for _ in range(30):
        audit.note(REFUSAL, repeatable=True)
    [entry] = read(audit)
    assert (entry.act, entry.count) == (REFUSAL, 30)
    windows = redis_client.keys("audit:window:*")
    assert windows and all(0 < redis_client.ttl(name) <= WINDOW for name in windows)
    redis_client.delete(*windows)
    audit.note(REFUSAL, repeatable=True)
    assert [each.count for each in read(audit)] == [1, 30]


def test_callers_and_what_they_are_refused_are_told_apart(audit: Audit) -> None:
    others = ({"address": "203.0.113.8"}, {"by": "session:k3v9x0qa"}, {"status": 429}, {"uuid": "zzzzzzzz"})
    for each in ({}, *others):
        audit.note(replace(REFUSAL, **each), repeatable=True)
    assert [entry.count for entry in read(audit)] == [1] * (1 + len(others))


def test_of_one_who_tries_everything_so_much_is_told_apart_and_the_rest_counted(audit: Audit) -> None:
    for number in range(DISTINCT_ENTRIES + 15):
        audit.note(replace(REFUSAL, uuid=f"{number:08d}"), repeatable=True)
    several, *apart = read(audit)
    assert [entry.act.uuid for entry in apart] == [f"{number:08d}" for number in reversed(range(DISTINCT_ENTRIES))]
    told = (several.act.action, several.act.uuid, several.act.address, several.count)
    assert told == (SEVERAL, "", REFUSAL.address, 15)
    audit.note(replace(REFUSAL, uuid="00000003"), repeatable=True)
    assert sum(entry.count for entry in read(audit)) == DISTINCT_ENTRIES + 16, "one that has its own counts there"


def test_who_can_choose_an_address_counts_once_and_the_first_is_shown(audit: Audit) -> None:
    """With each of them another one, a tenant could fill the stream; whoever has a /64 has all of its addresses."""
    for number in range(50):
        tenant = replace(ACT, by="session:k3v9x0qa", role="session", address=f"2001:db8:{number:x}::1")
        audit.note(tenant, repeatable=True)
        audit.note(replace(REFUSAL, address=f"2001:db8::{number:x}"), repeatable=True)
    audit.note(replace(REFUSAL, address="2001:db8:0:1::"), repeatable=True)
    assert [(entry.act.by, entry.act.address, entry.count) for entry in read(audit)] == [
        ("anonymous", "2001:db8:0:1::", 1),
        ("anonymous", "2001:db8::0", 50),
        ("session:k3v9x0qa", "2001:db8:0::1", 50),
    ]


@pytest.mark.slow
def test_a_flood_of_refusals_takes_its_own_bytes_and_no_act(redis_client: redis.Redis) -> None:
    """As one from very many addresses."""
    audit = Audit(redis_client, 400_000)
    note_acts(audit, *range(20))
    note_refusals(audit, *range(3_000))
    kept = read(audit, by="backend")
    assert [entry.act.uuid for entry in kept] == [f"{number:08d}" for number in reversed(range(20))]
    taken = sum(int(redis_client.memory_usage(name) or 0) for name in (keys.AUDIT_REPEATED, keys.AUDIT_COUNTS))
    assert taken <= 100_000
    newest = f"2001:db8:0:{2_999:x}::1"
    assert read(audit, by="anonymous")[0].act.address == newest, "of refusals the oldest go"


@pytest.mark.slow
def test_acts_have_a_bound_in_bytes_of_which_the_oldest_go(redis_client: redis.Redis) -> None:
    audit = Audit(redis_client, 200_000)
    note_acts(audit, *range(3_000))
    kept = [int(entry.act.uuid) for entry in read(audit)]
    assert int(redis_client.memory_usage(keys.AUDIT, samples=0) or 0) <= 150_000
    assert kept == list(range(2_999, 2_999 - len(kept), -1))
    assert len(kept) > 500


@pytest.mark.slow
def test_a_smaller_bound_is_kept_to_little_by_little(redis_client: redis.Redis) -> None:
    """Nobody waits for thousands of entries to go."""
    audit = Audit(redis_client, 4_000_000)
    note_acts(audit, *range(3_000))
    smaller = Audit(redis_client, 40_000)
    lengths = [int(redis_client.xlen(keys.AUDIT))]
    for _ in range(200):
        smaller.note(ACT)
        lengths.append(int(redis_client.xlen(keys.AUDIT)))
    assert max(before - after for before, after in zip(lengths, lengths[1:], strict=False)) <= 2_000
    assert int(redis_client.memory_usage(keys.AUDIT, samples=0) or 0) <= 30_000


@pytest.mark.slow
def test_what_is_counted_goes_with_its_entry(redis_client: redis.Redis) -> None:
    audit = Audit(redis_client, 100_000)
    for _ in range(2):
        audit.note(REFUSAL, repeatable=True)
    assert redis_client.hlen(keys.AUDIT_COUNTS) == 1
    note_refusals(audit, *range(1_000))
    assert redis_client.hlen(keys.AUDIT_COUNTS) == 0
    audit.note(REFUSAL, repeatable=True)
    assert read(audit, uuid=REFUSAL.uuid)[0].act.address == REFUSAL.address, "its window had an entry that is gone"


@pytest.mark.slow
def test_the_default_bound_holds_what_the_docs_say(redis_client: redis.Redis) -> None:
    """24 MiB of acts of 130 bytes or so: 180,000."""
    audit = Audit(redis_client)
    note_acts(audit, *range(5_000))
    each = int(redis_client.memory_usage(keys.AUDIT, samples=0) or 0) / 5_000
    assert BYTES * 0.75 / each > 150_000
    assert Settings().audit_bytes == BYTES


def test_pages_miss_and_repeat_nothing_while_entries_come(audit: Audit) -> None:
    for number in range(50):
        note_acts(audit, number)
        note_refusals(audit, number)
    there = {entry.id for entry in read(audit)}
    seen: list[Entry] = []
    cursor = None
    for _ in range(100):
        page = audit.page(limit=7, cursor=cursor)
        assert len(page.entries) <= 7
        seen += page.entries
        audit.note(ACT)
        audit.note(replace(REFUSAL, address=f"198.51.100.{len(seen)}"), repeatable=True)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len(seen) == len({entry.id for entry in seen}) == 100
    assert {entry.id for entry in seen} == there
    assert [entry.at for entry in seen] == sorted((entry.at for entry in seen), reverse=True)


def test_entries_of_the_same_moment_in_both_streams_are_two(audit: Audit, redis_client: redis.Redis) -> None:
    for stream in (keys.AUDIT, keys.AUDIT_REPEATED):
        put(redis_client, stream, "1000-0", "1000-1")
    expected = ["1000-1r", "1000-1", "1000-0r", "1000-0"]
    for limit in (1, 2, 3, 4, 5):
        assert [entry.id for entry in read(audit, limit=limit)] == expected


def test_a_page_ends_after_so_many_that_were_looked_at(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is seldom is found all the same, page by page."""
    monkeypatch.setattr("app.core.access.audit.ENTRIES_PER_SCAN", 10)
    monkeypatch.setattr("app.core.access.audit.SCANS_PER_PAGE", 2)
    for number in range(100):
        audit.note(replace(ACT, uuid="zzzzzzzz" if number in (3, 60) else "k3v9x0qa"))
        audit.note(replace(REFUSAL, address=f"198.51.100.{number}"), repeatable=True)
    first = audit.page(limit=5, uuid="zzzzzzzz")
    assert (first.entries, first.next_cursor is None) == ([], False)
    assert [entry.act.uuid for entry in read(audit, limit=5, uuid="zzzzzzzz")] == ["zzzzzzzz"] * 2
    assert len(read(audit, limit=5, by="anonymous")) == 100
    assert len(read(audit, limit=5)) == 200


def test_what_is_found_at_once_waits_for_what_is_newer_and_found_late(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One stream is looked through in a moment, the other in many pages: the order is that of both."""
    for number in range(3):
        audit.note(replace(REFUSAL, uuid="zzzzzzzz", address=f"198.51.100.{number}"), repeatable=True)
    audit.note(replace(ACT, uuid="zzzzzzzz"))
    for _ in range(70):
        audit.note(ACT)
    at_once = read(audit, uuid="zzzzzzzz")
    assert len(at_once) == 4
    monkeypatch.setattr("app.core.access.audit.ENTRIES_PER_SCAN", 10)
    monkeypatch.setattr("app.core.access.audit.SCANS_PER_PAGE", 2)
    assert read(audit, limit=2, uuid="zzzzzzzz") == at_once


@pytest.mark.parametrize("cursor", ["x", "1", "1-", "-1-1", "1-1x", "99999999999999999999-0", "1-99999999999999999999"])
def test_what_is_no_cursor_is_refused(audit: Audit, cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        audit.page(cursor=cursor)


@pytest.mark.parametrize("cursor", ["0-0", "0-0r", "0-1", "18446744073709551615-18446744073709551615"])
def test_a_cursor_at_either_end_is_one(audit: Audit, cursor: str) -> None:
    audit.note(ACT)
    assert len(audit.page(cursor=cursor).entries) == (1 if cursor.startswith("18") else 0)


def test_entries_older_than_that_are_forgotten(audit: Audit, redis_client: redis.Redis) -> None:
    now = time.time()
    for stream in (keys.AUDIT, keys.AUDIT_REPEATED):
        put(redis_client, stream, *(f"{round((now - age) * 1000)}-0" for age in (100, 51, 49)))
    redis_client.hset(keys.AUDIT_COUNTS, f"{round((now - 100) * 1000)}-0", 5)
    assert audit.delete_before(now - 50) == 4
    assert [round(now - entry.at) for entry in read(audit)] == [49, 49]
    assert redis_client.hlen(keys.AUDIT_COUNTS) == 0
    assert audit.delete_before(-5.0) == 0


def test_while_redis_is_full_the_newest_take_the_place_of_the_oldest(audit: Audit, redis_client: redis.Redis) -> None:
    note_acts(audit, *range(50))
    note_refusals(audit, *range(50))
    redis_client.config_set("maxmemory", int(redis_client.info("memory")["used_memory"]) // 2)
    try:
        with pytest.raises(redis.OutOfMemoryError):
            redis_client.set("filler", "x")
        for number in range(50, 60):
            note_acts(audit, number)
            note_refusals(audit, number)
    finally:
        redis_client.config_set("maxmemory", 0)
    assert [int(entry.act.uuid) for entry in read(audit, by="backend")] == list(range(59, 9, -1))
    refused = [int(entry.act.address.split(":")[3], 16) for entry in read(audit, by="anonymous")]
    assert refused == list(range(59, 9, -1))


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    names = [*vars(ACT), "kept"]
    return [
        {"level": record.levelname} | {name: vars(record)[name] for name in names}
        for record in caplog.records
        if record.name == "app.audit"
    ]


@pytest.mark.parametrize(
    "error", [redis.ConnectionError("gone"), redis.exceptions.NoPermissionError("no"), redis.OutOfMemoryError("full")]
)
@pytest.mark.parametrize("repeatable", [False, True])
def test_what_redis_does_not_take_is_in_the_log_with_all_its_content(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, repeatable: bool
) -> None:
    for name in ("_add", "_count"):
        monkeypatch.setattr(audit, name, raising(error))
    with caplog.at_level(logging.INFO, logger="app.audit"):
        audit.note(ACT, repeatable=repeatable)
    content = {name: str(value) for name, value in vars(ACT).items()}
    assert lines(caplog) == [{"level": "WARNING", "kept": False} | content]


def test_each_act_has_a_line_and_of_the_same_refusal_the_first(audit: Audit, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="app.audit"):
        for _ in range(3):
            audit.note(ACT)
            audit.note(REFUSAL, repeatable=True)
            audit.note(replace(ACT, action="prompt", by="session:k3v9x0qa", role="session"), repeatable=True)
    assert [line["action"] for line in lines(caplog)] == ["wake", "read", "prompt", *["wake", "prompt"] * 2]
    assert all(line["kept"] for line in lines(caplog))


def test_the_lines_are_there_however_little_else_is_logged() -> None:
    assert logging_config("ERROR")["loggers"]["app.audit"]["level"] == "INFO"


def test_a_text_without_end_is_cut(audit: Audit) -> None:
    audit.note(replace(ACT, by="n" * 5_000, reason="\ud800"))
    [entry] = read(audit)
    assert (entry.act.by, entry.act.reason) == ("n" * 200, "?")


# What the service does by itself


def test_an_idle_session_that_is_put_to_sleep_says_why(world: World) -> None:
    uuid = world.active()
    world.pass_time(2_000)
    world.sweeps.idle()
    [entry] = read(world.core.audit, by="system")
    assert (entry.act.action, entry.act.uuid, entry.act.user_id) == ("sleep", uuid, "ada")
    assert entry.act.reason.startswith("unused for ")


def test_a_session_that_expired_says_why_it_is_deleted(make_world: Callable[..., World]) -> None:
    world = make_world(archive_retention=1.0)
    uuid = world.asleep(ttl=1_000.0)
    world.pass_time(2_000)
    world.sweeps.expired()
    [entry] = read(world.core.audit, by="system")
    assert (entry.act.action, entry.act.uuid, entry.act.reason) == ("delete", uuid, "unused for longer than 1000 s")


def test_a_session_that_is_brought_up_again_says_why_and_counts(world: World) -> None:
    """As often as its tenant ends what runs it."""
    uuid = world.active()
    for _ in range(3):
        world.observer.apply(Snapshot((), unwished=True))
        world.work()
        world.runtime.become_ready(uuid)
        world.look(uuid)
    [entry] = read(world.core.audit, by="system")
    assert (entry.act.action, entry.act.uuid, entry.count) == ("bring_back", uuid, 3)


def test_the_audit_is_forgotten_by_the_time_that_counts(world: World, redis_client: redis.Redis) -> None:
    """Not by a clock that jumped, or while the service was off."""
    put(redis_client, keys.AUDIT, f"{round(world.now * 1000)}-0")
    world.sweeps.retention()
    world.now += 10 * world.settings.audit_retention
    world.sweeps.retention()
    assert len(read(world.core.audit)) == 1
    world.pass_time(world.settings.audit_retention + 1)
    world.sweeps.retention()
    assert read(world.core.audit) == []


def test_the_bytes_are_a_part_of_redis_that_leaves_room_for_sessions() -> None:
    settings = Settings()
    assert settings.audit_bytes < settings.redis_max_bytes * (RESERVE + BALLAST_SHARE) / 2
