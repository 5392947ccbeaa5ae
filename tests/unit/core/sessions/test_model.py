"""The record's form in Redis, and the transition table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.protocol import SERVICE_NAME, ServiceState
from app.core.sessions.model import (
    CODECS,
    GONE,
    TRANSITIONS,
    UUID_PATTERN,
    Record,
    Signal,
    Status,
    iso,
    new_uuid,
    sources,
)
from app.core.sessions.opened_ports import OpenedPort
from app.core.sessions.reported_services import ReportedService
from app.core.signal_kinds import SIGNALS
from tests.unit.core.conftest import a_record

ACTIVE = a_record(status=Status.ACTIVE, idle_timeout=60.0, ttl=600.0, last_activity=1_000.0)

times = st.integers(0, 2**40).map(lambda ms: ms / 1000)
signals = st.builds(Signal, times, times, st.from_regex("([a-z0-9]+( [a-z]+)?)?", fullmatch=True))
services = st.builds(
    ReportedService,
    name=st.from_regex(SERVICE_NAME, fullmatch=True),
    port=st.none() | st.integers(1, 65_535),
    state=st.sampled_from(ServiceState),
)
opened_ports = st.builds(
    OpenedPort, port=st.integers(1, 65_535), opened_at=st.integers(0, 2**40), public_until=st.integers(0, 2**40)
)
records = st.builds(
    Record,
    uuid=st.from_regex(UUID_PATTERN, fullmatch=True),
    user_id=st.text(min_size=1),
    created_at=times,
    last_activity=times,
    idle_timeout=st.integers(0, 10**6).map(float),
    status=st.sampled_from(Status),
    reason=st.text(),
    labels=st.dictionaries(st.text(), st.text()),
    generation=st.integers(0, 2**31),
    provisioned=st.booleans(),
    delete_backup=st.booleans(),
    phases=st.dictionaries(st.sampled_from(["enqueued", "volume", "started", "ready"]), st.integers(0, 10**6)),
    unsaved_work=st.dictionaries(st.text(), st.integers()),
    services=st.lists(services).map(tuple),
    opened_ports=st.lists(opened_ports).map(tuple),
    unarchived=st.dictionaries(st.text(), st.integers()),
    signals=st.dictionaries(st.sampled_from(list(SIGNALS)), signals),
)


@given(records)
@pytest.mark.slow
def test_a_record_survives_its_hash(record: Record) -> None:
    """What is written to Redis reads back the same, whatever the fields hold."""
    assert Record.from_hash(record.to_hash()) == record


def test_a_hash_leaves_defaults_out_and_is_read_with_unknown_fields() -> None:
    """A sleeping session costs little, and an older release can read what a newer one wrote."""
    assert not {"reason", "pod_name"} & set(ACTIVE.to_hash())
    assert Record.from_hash(ACTIVE.to_hash() | {"colour": "green"}) == ACTIVE


def test_every_field_of_a_record_has_a_codec() -> None:
    assert set(CODECS) == set(Record.__dataclass_fields__) - {"phases", "signals"}


def test_the_table_knows_every_state_and_ends_in_terminated() -> None:
    """Of a failed session `active` is the observer's alone: the cause went away."""
    assert set(TRANSITIONS) == set(Status)
    assert TRANSITIONS[Status.TERMINATED] == frozenset()
    assert sources(Status.TERMINATED) == {Status.TERMINATING}
    assert sources(Status.CREATED) == frozenset()
    assert TRANSITIONS[Status.FAILED] == {Status.WAKING, Status.TERMINATING, Status.ACTIVE}
    assert all(Status.WAKING not in TRANSITIONS[status] for status in GONE)


def test_uuids_are_8_of_the_alphabet_and_differ() -> None:
    made = {new_uuid() for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(UUID_PATTERN.fullmatch(uuid) for uuid in made)


def test_times_are_iso_with_z() -> None:
    assert iso(1_763_625_600.5) == "2025-11-20T08:00:00.500Z"
    assert iso(0.0) is None
