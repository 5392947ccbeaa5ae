"""The record's form in Redis, the transition table, and the two decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sessions.model import (
    CODECS,
    TRANSITIONS,
    UUID_PATTERN,
    Record,
    Status,
    expiry_verdict,
    idle_verdict,
    iso,
    new_uuid,
    sources,
)

ACTIVE = Record(
    uuid="abcd1234",
    user_id="ada",
    created_at=1_000.0,
    status=Status.ACTIVE,
    idle_timeout=60.0,
    ttl=600.0,
    last_activity=1_000.0,
)

records = st.builds(
    Record,
    uuid=st.from_regex(UUID_PATTERN, fullmatch=True),
    user_id=st.text(min_size=1),
    created_at=st.integers(0, 2**40).map(lambda ms: ms / 1000),
    last_activity=st.integers(0, 2**40).map(lambda ms: ms / 1000),
    idle_timeout=st.integers(0, 10**6).map(float),
    status=st.sampled_from(Status),
    reason=st.text(),
    labels=st.dictionaries(st.text(), st.text()),
    generation=st.integers(0, 2**31),
    provisioned=st.booleans(),
    delete_backup=st.booleans(),
    phases=st.dictionaries(st.sampled_from(["enqueued", "volume", "started", "ready"]), st.integers(0, 10**6)),
)


@given(records)
def test_a_record_survives_its_hash(record: Record) -> None:
    """What is written to Redis reads back the same, whatever the fields hold."""
    assert Record.from_hash(record.to_hash()) == record


def test_a_hash_with_unknown_fields_is_read() -> None:
    """An older release can read what a newer one wrote."""
    assert Record.from_hash(ACTIVE.to_hash() | {"colour": "green"}) == ACTIVE


def test_every_field_of_a_record_has_a_codec() -> None:
    assert set(CODECS) == set(Record.__dataclass_fields__) - {"phases"}


def test_defaults_are_not_stored() -> None:
    """A sleeping session costs little: what says nothing is left out."""
    assert "reason" not in ACTIVE.to_hash()
    assert "pod_name" not in ACTIVE.to_hash()


def test_the_table_knows_every_state_and_ends_in_terminated() -> None:
    assert set(TRANSITIONS) == set(Status)
    assert TRANSITIONS[Status.TERMINATED] == frozenset()
    assert sources(Status.TERMINATED) == {Status.TERMINATING}
    assert sources(Status.CREATED) == frozenset()


def test_only_wake_and_delete_lead_a_caller_out_of_failed() -> None:
    """`failed` → `active` is the watcher's alone: the cause went away."""
    assert TRANSITIONS[Status.FAILED] == {Status.WAKING, Status.TERMINATING, Status.ACTIVE}


def test_uuids_are_8_of_the_alphabet_and_differ() -> None:
    made = {new_uuid() for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(UUID_PATTERN.fullmatch(uuid) for uuid in made)


@pytest.mark.parametrize(
    ("now", "due", "next_check"),
    [
        (1_000.0, False, 1_060.0),
        (1_059.999, False, 1_060.0),
        (1_060.0, True, 1_060.0),
        (9_999.0, True, 1_060.0),
        (500.0, False, 1_060.0),
    ],
    ids=["just used", "a moment before", "at the deadline", "long after", "the clock jumped back"],
)
def test_a_session_is_idle_once_its_timeout_passed(now: float, due: bool, next_check: float) -> None:
    verdict = idle_verdict(ACTIVE, now)
    assert (verdict.due, verdict.next_check) == (due, next_check)
    assert verdict.why


def test_a_session_without_idle_timeout_never_sleeps_by_itself() -> None:
    assert idle_verdict(replace(ACTIVE, idle_timeout=0.0), 1e9).due is False
    assert idle_verdict(replace(ACTIVE, idle_timeout=0.0), 1e9).next_check == 0.0


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.ACTIVE])
def test_only_an_active_session_is_idle(status: Status) -> None:
    assert idle_verdict(replace(ACTIVE, status=status), 1e9).due is False


def test_a_session_expires_ttl_after_its_last_use() -> None:
    assert expiry_verdict(ACTIVE, 1_599.0).due is False
    assert expiry_verdict(ACTIVE, 1_600.0).due is True
    assert expiry_verdict(replace(ACTIVE, last_activity=1_500.0), 1_600.0).next_check == 2_100.0


def test_a_sleeping_or_failed_session_expires_too() -> None:
    for status in (Status.SLEEPING, Status.FAILED):
        assert expiry_verdict(replace(ACTIVE, status=status), 1_600.0).due is True


def test_a_teardown_under_way_is_looked_at_again_later_and_a_finished_one_never() -> None:
    """If the teardown of an expired session fails, it is tried again."""
    under_way = expiry_verdict(replace(ACTIVE, status=Status.TERMINATING), 2_000.0)
    assert under_way.due is False
    assert under_way.next_check > 2_000.0
    assert expiry_verdict(replace(ACTIVE, status=Status.TERMINATED), 2_000.0).next_check == 0.0


def test_a_session_with_no_ttl_never_expires() -> None:
    assert expiry_verdict(replace(ACTIVE, ttl=0.0), 1e12).due is False


def test_times_are_iso_with_z() -> None:
    assert iso(1_763_625_600.5) == "2025-11-20T08:00:00.500Z"
    assert iso(0.0) is None
