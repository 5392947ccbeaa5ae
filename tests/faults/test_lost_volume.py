"""The folder of a workspace is deleted behind an awake, a sleeping and a waking session: each comes back by itself, as
its newest restore point has it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.storage.archive_keys import new_key
from tests import sampling
from tests.conversation import Conversation, conversation
from tests.faults.conftest import impatient_service
from tests.model_server import ModelServer
from tests.service import Service
from tests.suites.prompts import PromptsBehindALostVolume
from tests.unit.workers.restore_points.conftest import flip
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SAVED = "as it was saved\n"


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str, model: ModelServer) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("lost")
    often = {"ARCHIVE_KEY": new_key(), "RECONCILE_INTERVAL": "2"}
    with impatient_service(folder, code_server, **model.settings, **often) as running:
        yield running


def with_point(service: Service) -> Any:
    """An active session with a file in a restore point, and one that came later."""
    session = service.create()
    uuid = session["uuid"]
    files = service.files(uuid)
    (files / "notes").mkdir()
    (files / "notes" / "a.txt").write_text(SAVED)
    service.save(uuid)
    (files / "later.txt").write_text("not saved yet")
    return session


def wait_restored(service: Service, uuid: str, status: str) -> None:
    def restored() -> bool:
        session = service.status(uuid)["session"]
        return session["files_of"] is not None and (session["status"], session["restore_from"]) == (status, None)

    wait_for(restored, f"{uuid} to be {status} again", lambda: str(service.status(uuid)))
    assert (service.files(uuid) / "notes" / "a.txt").read_text() == SAVED
    assert not (service.files(uuid) / "later.txt").exists()
    kinds = [each["type"] for each in service.done("GET", f"/session/{uuid}/events/past?limit=100")["events"]]
    assert {"files_lost", "files_restored"} <= set(kinds)


def test_behind_an_awake_session(service: Service) -> None:
    """No process goes on without its files, and the workspace answers again."""
    session = with_point(service)
    uuid = session["uuid"]
    before = {each.pid for each in service.processes(WORKSPACE_UUID=uuid)}
    service.lose_volume(uuid)
    wait_restored(service, uuid, "active")
    assert not before & {each.pid for each in service.processes(WORKSPACE_UUID=uuid)}
    assert service.workspace(session).status_code in (200, 302)


def test_behind_a_sleeping_session(service: Service) -> None:
    """It sleeps on."""
    uuid = with_point(service)["uuid"]
    (service.files(uuid) / "later.txt").unlink()
    service.done("POST", f"/session/{uuid}/sleep", headers={"Prefer": "wait=60"})
    service.wait_status(uuid, "sleeping", replicas=0)
    service.lose_volume(uuid)
    wait_restored(service, uuid, "sleeping")
    assert service.status(uuid)["replicas"] == 0


def test_behind_the_only_session(tmp_path_factory: pytest.TempPathFactory, code_server: str) -> None:
    """While the disk of all is away, nothing is restored, though somebody else works on the one below it. When it is
    back, the one volume that is lost is."""
    often = {"ARCHIVE_KEY": new_key(), "RECONCILE_INTERVAL": "1"}
    with impatient_service(tmp_path_factory.mktemp("only"), code_server, **often) as service:
        uuid = with_point(service)["uuid"]
        (service.files(uuid) / "later.txt").unlink()
        service.done("POST", f"/session/{uuid}/sleep", headers={"Prefer": "wait=60"})
        service.wait_status(uuid, "sleeping", replicas=0)
        wait_for(lambda: service.redis().get("workspaces:place"), "the place to be known")

        disk = service.data_dir / "workspaces"
        away = disk.rename(disk.with_name("unmounted"))
        disk.mkdir(mode=0o700)
        service.create("another")
        reconciled(service)
        assert not service.files(uuid).exists()
        assert service.status(uuid)["session"]["files_of"] is None

        shutil.rmtree(disk)
        away.rename(disk)
        service.lose_volume(uuid)
        wait_restored(service, uuid, "sleeping")


def reconciled(service: Service) -> None:
    """Wait for two whole reconciles."""
    log = service.data_dir / "log" / "run.log"

    def warned() -> int:
        return log.read_text().count("The disk or namespace of the workspaces is not the one that it was")

    before = warned()
    wait_for(lambda: warned() >= before + 2, "two reconciles")


def test_behind_a_waking_session(service: Service) -> None:
    uuid = with_point(service)["uuid"]
    (service.files(uuid) / "later.txt").unlink()
    service.done("POST", f"/session/{uuid}/sleep", headers={"Prefer": "wait=60"})
    service.wait_status(uuid, "sleeping", replicas=0)
    service.lose_volume(uuid)
    service.done("POST", f"/session/{uuid}/wake", headers={"Prefer": "respond-async"})
    wait_restored(service, uuid, "active")


@pytest.mark.timeout(1_200)
def test_at_any_moment_of_a_wake(service: Service) -> None:
    """Also when the wake has just ended."""
    dice = sampling.dice("lost while waking")
    uuid = with_point(service)["uuid"]
    (service.files(uuid) / "later.txt").unlink()
    asleep(service, uuid)
    begun = time.monotonic()
    service.done("POST", f"/session/{uuid}/wake", headers={"Prefer": "wait=60"})
    service.wait_status(uuid, "active")
    took = time.monotonic() - begun
    for _ in range(sampling.times(20, 3)):
        asleep(service, uuid)
        before = newest_restore(service, uuid)
        waking = service.done("POST", f"/session/{uuid}/wake", headers={"Prefer": "respond-async"})
        assert waking["status"] == "waking"
        time.sleep(dice.uniform(0, took))  # The moment is what is tried, not a wait for something.
        lose_at_once(service, uuid)
        wait_for_another(service, uuid, before)
        wait_restored(service, uuid, "active")


def asleep(service: Service, uuid: str) -> None:
    service.done("POST", f"/session/{uuid}/sleep", headers={"Prefer": "wait=60"})
    service.wait_status(uuid, "sleeping", replicas=0)


def newest_restore(service: Service, uuid: str) -> dict[str, Any]:
    """The newest event of files that were restored, {} for none."""
    past = service.done("GET", f"/session/{uuid}/events/past?limit=1&type=files_restored")["events"]
    return dict(past[0]) if past else {}


def wait_for_another(service: Service, uuid: str, before: dict[str, Any]) -> dict[str, Any]:
    """What the event says of a restore after that one."""

    def told() -> dict[str, Any] | None:
        event = newest_restore(service, uuid)
        return event if event not in ({}, before) else None

    event = wait_for(told, "the files to come back", lambda: str(service.status(uuid)))
    return dict(event["data"])


def lose_at_once(service: Service, uuid: str) -> None:
    """There is no moment in which new files take the place of some that are still being deleted."""
    lost = (service.data_dir / "workspaces" / uuid).rename(service.data_dir / f"lost-{uuid}")
    shutil.rmtree(lost, ignore_errors=True)


def test_with_a_newest_point_that_is_damaged(service: Service) -> None:
    """The session gets the files of the point before it and says so. The next point is in a fresh repository, whole."""
    uuid = service.create()["uuid"]
    files, store = service.files(uuid), service.data_dir / "backups" / uuid
    (files / "which").write_text("the older point's")
    older = service.save(uuid)
    shared = set(packs(store))
    (files / "which").write_text("the newer point's")
    (files / "large").write_bytes(sampling.dice("damaged point").randbytes(2_000_000))
    newer = service.save(uuid)
    for pack in set(packs(store)) - shared:
        flip(pack)

    service.lose_volume(uuid)
    told = wait_for_another(service, uuid, {})
    session = service.wait_status(uuid, "active")["session"]
    assert (files / "which").read_text() == "the older point's"
    assert not (files / "large").exists()
    by_id = {each["id"]: each for each in points(service, uuid)}
    assert (by_id[older]["broken"], by_id[newer]["broken"]) == (False, True)
    files_of = by_id[older]["created_at"]
    assert told == {"restore_from": f"point-{uuid}-{older}", "files_of": files_of, "fell_back": True}
    assert session["files_of"] == files_of
    assert session["restore_point"]["id"] != newer

    wait_for(lambda: len(points(service, uuid)) > 2, "the next point", lambda: str(points(service, uuid)))
    assert packs(store, 2), "the next point is not in a fresh repository"
    fresh = points(service, uuid)[0]["id"]
    before = newest_restore(service, uuid)
    service.lose_volume(uuid)
    told = wait_for_another(service, uuid, before)
    assert (told["restore_from"], told["fell_back"]) == (f"point-{uuid}-{fresh}", False)
    service.wait_status(uuid, "active")
    assert (files / "which").read_text() == "the older point's"


def points(service: Service, uuid: str) -> list[dict[str, Any]]:
    return list(service.done("GET", f"/session/{uuid}/restore-points")["restore_points"])


def packs(store: Path, repository: int = 1) -> list[Path]:
    """The files with the data of the points in a repository."""
    return list(store.glob(f"repository-{repository}/data/*/*"))


@pytest.fixture
def chat(service: Service) -> Iterator[Conversation]:
    with conversation(service) as made:
        yield made


class TestPromptsBehindALostVolumeLocally(PromptsBehindALostVolume):
    """The suite of tests/suites/prompts.py."""


def test_many_sleeps_of_an_unchanged_workspace_store_one_point(service: Service) -> None:
    uuid = with_point(service)["uuid"]

    def points() -> int:
        return int(service.done("GET", f"/session/{uuid}/restore-points")["total"])

    def sleep() -> None:
        service.done("POST", f"/session/{uuid}/sleep", headers={"Prefer": "wait=60"})
        service.wait_status(uuid, "sleeping", replicas=0)
        quiet = service.redis()
        wait_for(lambda: quiet.zscore("points:requested", uuid) is None, "no point to be pending")

    sleep()
    # Asked for a moment after the sleep is done.
    wait_for(lambda: points() == 2, "the point of what came after the first")
    for _ in range(5):
        service.done("POST", f"/session/{uuid}/wake", headers={"Prefer": "wait=60"})
        service.wait_status(uuid, "active")
        sleep()
    assert points() == 2
