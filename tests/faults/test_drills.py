"""A running service proves its restore points by itself, also while its drills are killed. It finds bits that were
flipped in the store and what was deleted by hand, and puts a whole point in the place of the broken one."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.core.redis import keys
from app.core.storage.archive_keys import new_key
from tests import sampling
from tests.faults.conftest import impatient_service
from tests.service import Service
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CYCLE = 20
"""s; a session is due after 15."""

PATIENCE = 120.0
"""s: a drill waits for other tests' processes, too."""

STATES = ("awake", "asleep", "archived")

LONGEST = 4.0
"""s that the drills of three sessions take, about."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str) -> Iterator[Service]:
    settings = {"ARCHIVE_KEY": new_key(), "DRILL_CYCLE": str(CYCLE), "RECONCILE_INTERVAL": "2"}
    with impatient_service(tmp_path_factory.mktemp("drills"), code_server, **settings) as running:
        yield running


@dataclass(frozen=True)
class Session:
    """A session in one of `STATES` with two points, of which `newest` alone has the content `later`."""

    service: Service
    uuid: str
    state: str
    first: bytes
    later: bytes
    older: str
    newest: str
    stored: frozenset[Path]
    """What the store had of it before the newest point."""

    @property
    def store(self) -> Path:
        return stored_of(self.service, self.uuid)

    def now(self) -> Any:
        return self.service.status(self.uuid)["session"]

    def points(self) -> list[dict[str, Any]]:
        """Its restore points, newest first."""
        return list(self.service.done("GET", f"/session/{self.uuid}/restore-points")["restore_points"])

    def last_proven(self) -> str:
        return str(self.now()["last_proven"] or "")

    def failures(self) -> list[Any]:
        events = self.service.done("GET", f"/session/{self.uuid}/events/past?type=drill_failed")["events"]
        return [each["data"] for each in events]

    def newest_files(self, pattern: str) -> list[Path]:
        """What the newest point added to the store."""
        return [each for each in self.store.glob(pattern) if each not in self.stored]

    def told(self) -> str:
        return f"{self.state} {self.now()} {self.points()} {self.failures()}"


def stored_of(service: Service, uuid: str) -> Path:
    return service.data_dir / "backups" / uuid


def made(service: Service, state: str, size: int = 100_000) -> Session:
    """A new one."""
    first, later = os.urandom(size), os.urandom(size)
    uuid = service.create("ada", ttl=2 if state == "archived" else 0)["uuid"]
    (service.files(uuid) / "work").write_bytes(first)
    older = service.save(uuid)
    stored = frozenset(stored_of(service, uuid).rglob("*"))
    (service.files(uuid) / "work").write_bytes(later)
    service.save(uuid)
    if state != "awake":
        service.done("POST", f"/session/{uuid}/sleep", headers={"Prefer": "wait=60"})
    if state == "archived":
        wait_for(lambda: is_archived(service, uuid), "it to be archived", lambda: str(service.status(uuid)), PATIENCE)
    newest = service.done("GET", f"/session/{uuid}/restore-points")["restore_points"][0]["id"]
    return Session(service, uuid, state, first, later, older, newest, stored)


def is_archived(service: Service, uuid: str) -> bool:
    gone = not (service.data_dir / "workspaces" / uuid).exists()
    return gone and bool(service.status(uuid)["session"]["tier"] == "archived")


def wait_until(session: Session, reached: Callable[[Session], bool], what: str) -> None:
    wait_for(lambda: reached(session), f"{what}, of one that is {session.state}", session.told, PATIENCE)


def wait_proven(session: Session, since: str = "") -> None:
    wait_until(session, lambda each: each.last_proven() > since, "a proof")


def wait_no_scratch(service: Service) -> None:
    wait_for(lambda: not list((service.data_dir / "drills").iterdir()), "scratch places to be removed")


def end(service: Service, *sessions: Session) -> None:
    for each in sessions:
        service.done("DELETE", f"/session/{each.uuid}?backup=false", headers={"Prefer": "respond-async"})


def flip_bits(session: Session) -> None:
    """In the content of its newest point."""
    pack = max(session.newest_files("repository-1/data/*/*"), key=lambda each: each.stat().st_size)
    pack.chmod(0o600)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)


def delete_packs(session: Session) -> None:
    for pack in session.newest_files("repository-1/data/*/*"):
        if pack.is_file():
            pack.unlink()


def delete_snapshots(session: Session) -> None:
    for snapshot in session.newest_files("repository-1/snapshots/*"):
        snapshot.unlink()


def delete_sidecar(session: Session) -> None:
    (session.store / "points" / f"{session.newest}.json").unlink()


def replaced(session: Session) -> bool:
    """Whether a whole point that is proven took the broken one's place: a new one, or of an archived session the older
    one."""
    found = session.now()
    newest = found["restore_point"]["id"]
    whole = [each for each in session.points() if each["id"] == newest and each["proven_at"] and not each["broken"]]
    if session.state == "archived":
        return bool(whole) and found["restore_from"].endswith(session.older) and newest == session.older
    return bool(whole) and newest not in (session.older, session.newest)


def test_points_are_proven_by_themselves_and_what_is_damaged_by_hand_is_found_and_replaced(service: Service) -> None:
    """Within the cycle: bits that were flipped, a pack, a snapshot, and a sidecar that were deleted."""
    harms: list[Callable[[Session], None]] = [flip_bits, delete_packs, delete_snapshots, delete_sidecar]
    cases = [(harm, made(service, state)) for harm in harms for state in STATES]
    for _, session in cases:
        wait_proven(session)
        proven = {each["id"]: each["proven_at"] for each in session.points()}
        assert proven[session.newest], session.told()
    before = {session.uuid: session.last_proven() for _, session in cases}
    for harm, session in cases:
        harm(session)
    begun = time.monotonic()
    for harm, session in cases:
        wait_until(session, lambda each: bool(each.failures()), f"found: {harm.__name__}")
    print(f"found after {time.monotonic() - begun:.1f} s of a cycle of {CYCLE} s")
    for harm, session in cases:
        wait_until(session, replaced, f"replaced: {harm.__name__}")
        assert session.failures()[-1]["restore_point"] == session.newest, session.told()
        assert session.last_proven() > before[session.uuid]
        files_as_they_should_be(service, session)
    wait_no_scratch(service)
    end(service, *(session for _, session in cases))


def files_as_they_should_be(service: Service, session: Session) -> None:
    """A broken point changes neither state nor files; an archived session comes back as its older point has it."""
    state = session.now()["status"]
    assert state == ("active" if session.state == "awake" else "sleeping")
    if session.state == "archived":
        service.done("POST", f"/session/{session.uuid}/wake", headers={"Prefer": "wait=60"})
        service.wait_status(session.uuid, "active")
        assert session.now()["files_of"], "nothing says of when the files are"
    else:
        assert list(session.store.glob("repository-2/data/*/*")), "the new point is not in a fresh repository"
    content = (service.files(session.uuid) / "work").read_bytes()
    assert content == (session.first if session.state == "archived" else session.later)


@pytest.mark.timeout(2_400)
def test_drills_whose_worker_is_killed_at_any_moment_break_no_point(service: Service) -> None:
    """Each session is proven afterwards, and no scratch place is left."""
    sessions = [made(service, state, 20_000_000) for state in STATES]
    for number in range(sampling.times(20, 1)):
        one_round(service, sessions, sampling.dice(f"killed drill {number}"))
    end(service, *sessions)


def one_round(service: Service, sessions: list[Session], dice: random.Random) -> None:
    before = {each.uuid: each.last_proven() for each in sessions}
    with service.redis() as client:
        client.zadd(keys.DRILLS, dict.fromkeys(before, time.time() - CYCLE))
    time.sleep(dice.uniform(0.0, LONGEST))  # The moment is what is tried, not a wait for something.
    service.kill("backup-worker")
    for each in sessions:
        wait_proven(each, before[each.uuid])
        assert each.failures() == []
        assert not any(point["broken"] for point in each.points()), each.told()
    wait_no_scratch(service)
