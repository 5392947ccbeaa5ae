"""The calls on restore points."""

from __future__ import annotations

import threading
import time

import pytest
from flask import Flask

from app.core.composition import Core
from app.core.redis import keys
from app.core.restore_points.index import RestorePoint
from app.core.sessions.model import Status, iso
from app.core.storage.archive_keys import new_key
from tests.unit.api.helpers import (
    ADMIN_KEY,
    BOUND_KEY,
    AppMaker,
    Client,
    check_problem,
    core_of,
    keyed,
    move,
    new_session,
)
from tests.waiting import wait_for


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return make_app(archive_key=new_key(), rate_limit_default="10000/minute", rate_limit_create="10000/minute")


@pytest.fixture
def uuid(client: Client, core: Core) -> str:
    made = new_session(client)
    move(core, made, Status.ACTIVE, provisioned=True)
    return made


def point(uuid: str, number: int) -> RestorePoint:
    return RestorePoint(
        id=f"p{number:015d}",
        uuid=uuid,
        created_at=1_763_625_600.0 + number,
        trigger="sleep",
        files=2,
        size=30,
        stored=4,
    )


def test_the_list_is_newest_first_and_paged(client: Client, core: Core, uuid: str) -> None:
    core.restore_points.put(uuid, [point(uuid, number) for number in range(3)])
    first = client.get(f"/session/{uuid}/restore-points?limit=2").json
    assert [each["id"][-1] for each in first["restore_points"]] == ["2", "1"]
    assert first["total"] == 3
    rest = client.get(f"/session/{uuid}/restore-points?cursor={first['next_cursor']}").json
    assert [each["id"][-1] for each in rest["restore_points"]] == ["0"]
    assert rest["next_cursor"] is None
    assert rest["restore_points"][0] == {
        "id": "p000000000000000",
        "created_at": "2025-11-20T08:00:00.000Z",
        "trigger": "sleep",
        "files": 2,
        "size": 30,
        "stored": 4,
        "unreadable": 0,
        "message_id": None,
        "verified_at": None,
        "proven_at": None,
        "broken": False,
        "restore_from": f"point-{uuid}-p000000000000000",
    }


def test_a_request_is_queued(client: Client, core: Core, uuid: str) -> None:
    answer = client.post(f"/session/{uuid}/restore-points")
    assert (answer.status_code, answer.json["status"]) == (202, "queued")
    assert core.store.pending(keys.POINT_REQUESTS, uuid)
    assert core.store.get(uuid).point_trigger == "api"


@pytest.mark.parametrize("earlier", ["", "The store was away."])
def test_a_caller_may_wait_for_it(client: Client, core: Core, uuid: str, earlier: str) -> None:
    """However the attempt before ended."""
    core.store.change(uuid, time.time(), point_error=earlier)

    def make() -> None:
        wait_for(lambda: core.store.pending(keys.POINT_REQUESTS, uuid), "the request", interval=0.01)
        core.store.change(
            uuid,
            time.time(),
            point="p",
            point_at=time.time(),
            point_error="",
            event=("restore_point", {"status": "done"}),
        )

    worker = threading.Thread(target=make)
    worker.start()
    answer = client.post(f"/session/{uuid}/restore-points", headers={"Prefer": "wait=60"})
    worker.join()
    assert (answer.status_code, answer.json["status"]) == (200, "done")


def test_a_caller_that_waits_is_told_why_it_fails(client: Client, core: Core, uuid: str) -> None:
    def fail() -> None:
        wait_for(lambda: core.store.pending(keys.POINT_REQUESTS, uuid), "the request", interval=0.01)
        event = ("restore_point", {"status": "failed", "reason": "The store is away."})
        core.store.change(uuid, time.time(), point_error="The store is away.", event=event)

    worker = threading.Thread(target=fail)
    worker.start()
    answer = client.post(f"/session/{uuid}/restore-points", headers={"Prefer": "wait=60"})
    worker.join()
    assert (answer.status_code, answer.json["status"], answer.json["message"]) == (202, "queued", "The store is away.")


def test_without_an_archive_key_it_is_refused(make_app: AppMaker) -> None:
    client = keyed(app := make_app(), ADMIN_KEY)
    uuid = new_session(client)
    move(core_of(app), uuid, Status.ACTIVE, provisioned=True)
    check_problem(client.post(f"/session/{uuid}/restore-points"), 409, "restore_points_off")
    assert client.get(f"/session/{uuid}/restore-points").json["restore_points"] == []


@pytest.mark.parametrize("status", [Status.TERMINATING, Status.TERMINATED])
def test_a_session_that_is_being_deleted_gets_none(client: Client, core: Core, uuid: str, status: Status) -> None:
    move(core, uuid, Status.TERMINATING)
    if status is Status.TERMINATED:
        move(core, uuid, status)
    check_problem(client.post(f"/session/{uuid}/restore-points"), 409, "illegal_state")


def test_somebody_elses_are_not_found(app: Flask, uuid: str) -> None:
    client = keyed(app, BOUND_KEY)
    for call in (client.get, client.post):
        check_problem(call(f"/session/{uuid}/restore-points"), 404, "session_not_found")


def test_the_status_tells_how_safe_the_files_are(client: Client, core: Core, uuid: str) -> None:
    assert client.get(f"/session/{uuid}").json["session"]["restore_point"] == {
        "id": None,
        "saved_at": None,
        "error": None,
    }
    now = 1_763_625_600.0
    core.store.change(uuid, now, point="p1", point_at=now, point_error="The store is away.", files_of=now - 60)
    told = client.get(f"/session/{uuid}").json["session"]
    assert told["restore_point"] == {"id": "p1", "saved_at": iso(now), "error": "The store is away."}
    assert told["files_of"] == iso(now - 60)


def test_a_new_session_may_start_from_a_point(client: Client, core: Core, uuid: str) -> None:
    core.restore_points.put(uuid, [point(uuid, 1)])
    reference = f"point-{uuid}-{point(uuid, 1).id}"
    answer = client.post("/session/create", json={"user_id": "ada", "restore_from": reference})
    assert answer.status_code == 201
    assert core.store.get(answer.json["uuid"]).restore_from == reference
    unknown = f"point-{uuid}-p999999999999999"
    check_problem(
        client.post("/session/create", json={"user_id": "ada", "restore_from": unknown}), 404, "backup_not_found"
    )


def test_a_point_of_somebody_else_is_no_start(app: Flask, core: Core, uuid: str) -> None:
    core.restore_points.put(uuid, [point(uuid, 1)])
    wanted = {"user_id": "course-ada", "restore_from": f"point-{uuid}-{point(uuid, 1).id}"}
    check_problem(keyed(app, BOUND_KEY).post("/session/create", json=wanted), 404, "backup_not_found")
    gone = {"user_id": "course-ada", "restore_from": "point-zzzzzzzz-p000000000000001"}
    check_problem(keyed(app, BOUND_KEY).post("/session/create", json=gone), 404, "backup_not_found")
