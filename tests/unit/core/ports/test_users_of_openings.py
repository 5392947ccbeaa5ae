"""Who opens a port, and who has the ingress lead there, may do so in Redis as the users of a cluster."""

from __future__ import annotations

from app.core.ports.openings import Openings
from app.core.redis import keys
from app.core.sessions.store import SessionStore
from tests.redis_users import Guarded
from tests.unit.core.conftest import a_record
from tests.world import FakeTasks

NOW = 1_763_625_600.0


def openings(guarded: Guarded, user: str) -> tuple[Openings, SessionStore]:
    store = SessionStore(guarded.client(user))
    return Openings(store, FakeTasks(), 16, 30.0, lambda: NOW), store  # type: ignore[arg-type]


def test_no_process_is_refused_what_it_does_for_opened_ports(guarded: Guarded) -> None:
    """Callers and visitors open and close; sweeps find what is overdue; workers finish it, and ask at a start."""
    _, store = openings(guarded, "web")
    record = a_record(1)
    store.create(record, quota=None)
    uuid = record.uuid
    for user in ("web", "forward-auth"):
        opened, _ = openings(guarded, user)
        opened.open(uuid, 3000)
        opened.open(uuid, 5173)
        opened.close(uuid, 3000)
    for user in ("worker", "backup-worker", "sweeper"):
        opened, store = openings(guarded, user)
        opened.lead(uuid)
        (record,) = store.due(keys.OPENINGS, NOW + 31)
        store.defer(keys.OPENINGS, uuid, NOW + 60)
        opened.led(record)
        assert not store.pending(keys.OPENINGS, uuid)
    assert guarded.refused() == []
