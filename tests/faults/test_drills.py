"""A running service proves its restore points by itself, finds bits that were flipped in the store, and puts a whole
point in the place of the broken one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.storage.archive_keys import new_key
from tests.faults.conftest import impatient_service
from tests.service import Service
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CYCLE = 20
"""s; a session is due after 15."""

PATIENCE = 120.0
"""s: a drill waits for other tests' processes, too."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str) -> Iterator[Service]:
    settings = {"ARCHIVE_KEY": new_key(), "DRILL_CYCLE": str(CYCLE), "RECONCILE_INTERVAL": "2", "SWEEP_INTERVAL": "0.5"}
    with impatient_service(tmp_path_factory.mktemp("drills"), code_server, **settings) as running:
        yield running


def points(service: Service, uuid: str) -> list[dict[str, Any]]:
    """The session's restore points, newest first."""
    return list(service.done("GET", f"/session/{uuid}/restore-points")["restore_points"])


def last_proven(service: Service, uuid: str) -> str:
    return service.status(uuid)["session"]["last_proven"] or ""


def flip_bits(pack: Path) -> None:
    pack.chmod(0o600)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)


def test_points_are_proven_by_themselves_and_a_broken_one_is_found_and_replaced(service: Service) -> None:
    """Of a session that is awake, and of one that sleeps."""
    awake, asleep = (service.create(user)["uuid"] for user in ("ada", "bob"))
    for each in (awake, asleep):
        (service.files(each) / "work").write_bytes(b"the user's work\n" * 10_000)
        service.save(each)
    service.done("POST", f"/session/{asleep}/sleep", headers={"Prefer": "wait=60"})
    wait_for(lambda: last_proven(service, awake), "the proof of the one that is awake", seconds=PATIENCE)
    wait_for(lambda: last_proven(service, asleep), "the proof of the one that sleeps", seconds=PATIENCE)
    (whole,) = points(service, asleep)[:1]
    assert whole["proven_at"] == last_proven(service, asleep)

    store = service.data_dir / "backups" / asleep
    flip_bits(max(store.glob("repository-1/data/*/*"), key=lambda each: each.stat().st_size))
    before = last_proven(service, asleep)
    begun = time.monotonic()

    def found() -> bool:
        return any(each["broken"] for each in points(service, asleep))

    wait_for(found, "the drill to find it", seconds=PATIENCE)
    print(f"found after {time.monotonic() - begun:.1f} s of a cycle of {CYCLE} s")

    def replaced() -> bool:
        newest = points(service, asleep)[0]
        return not newest["broken"] and bool(newest["proven_at"])

    wait_for(replaced, "a whole point that is proven", lambda: str(points(service, asleep)), PATIENCE)
    assert last_proven(service, asleep) > before
    assert list(store.glob("repository-2/data/*/*")), "the new point is not in a fresh repository"
    session = service.status(asleep)["session"]
    assert session["status"] == "sleeping", "a broken point changes the session"
    wait_for(lambda: not list((service.data_dir / "drills").iterdir()), "scratch places to be removed")
