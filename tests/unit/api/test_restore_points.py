"""The calls on restore points."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from app.core.composition import Core
from app.core.redis import keys
from app.core.restore_points.names import reference
from app.core.sessions.model import Status, iso
from app.core.storage.archive_keys import new_key
from tests.unit.api.helpers import (
    Client,
    check_problem,
    create,
    meanwhile,
    move,
    new_session,
    put_point,
    terminate,
)

WHY = "The store is away."

pytestmark = pytest.mark.settings(archive_key=new_key())


@pytest.fixture
def uuid(client: Client, core: Core) -> str:
    made = new_session(client)
    move(core, made, Status.ACTIVE, provisioned=True)
    return made


def made(client: Client, uuid: str, **headers: str) -> Any:
    return client.post(f"/session/{uuid}/restore-points", headers=headers)


def test_the_list_is_newest_first_and_paged(client: Client, core: Core, uuid: str) -> None:
    for number in range(3):
        put_point(core, uuid, id=f"p{number:015d}", created_at=1_763_625_600.0 + number)
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
    answer = made(client, uuid)
    assert (answer.status_code, answer.json["status"]) == (202, "queued")
    assert core.store.pending(keys.POINT_REQUESTS, uuid)
    assert core.store.get(uuid).point_trigger == "api"


def ended_meanwhile(core: Core, uuid: str, event: dict[str, str], change: Callable[[], dict[str, Any]]) -> None:
    """The point that the request which follows asks for is made, or is not."""
    meanwhile(
        lambda: core.store.pending(keys.POINT_REQUESTS, uuid),
        lambda: core.store.change(uuid, time.time(), event=("restore_point", event), **change()),
    )


@pytest.mark.parametrize("earlier", ["", WHY])
def test_a_caller_may_wait_for_it(client: Client, core: Core, uuid: str, earlier: str) -> None:
    """However the attempt before ended."""
    core.store.change(uuid, time.time(), point_error=earlier)
    ended_meanwhile(core, uuid, {"status": "done"}, lambda: {"point": "p", "point_at": time.time(), "point_error": ""})
    answer = made(client, uuid, Prefer="wait=60")
    assert (answer.status_code, answer.json["status"]) == (200, "done")


def test_a_caller_that_waits_is_told_why_it_fails(client: Client, core: Core, uuid: str) -> None:
    ended_meanwhile(core, uuid, {"status": "failed", "reason": WHY}, lambda: {"point_error": WHY})
    answer = made(client, uuid, Prefer="wait=60")
    assert (answer.status_code, answer.json["status"], answer.json["message"]) == (202, "queued", WHY)


@pytest.mark.settings(archive_key="")
def test_without_an_archive_key_it_is_refused(client: Client, uuid: str) -> None:
    check_problem(made(client, uuid), 409, "restore_points_off")
    assert client.get(f"/session/{uuid}/restore-points").json["restore_points"] == []


@pytest.mark.parametrize("end", [lambda core, uuid: move(core, uuid, Status.TERMINATING), terminate])
def test_a_session_that_is_being_deleted_gets_none(client: Client, core: Core, uuid: str, end: Any) -> None:
    end(core, uuid)
    check_problem(made(client, uuid), 409, "illegal_state")


def test_the_status_tells_how_safe_the_files_are(client: Client, core: Core, uuid: str) -> None:
    session = client.get(f"/session/{uuid}").json["session"]
    assert session["restore_point"] == {"id": None, "saved_at": None, "error": None}
    now = 1_763_625_600.0
    core.store.change(uuid, now, point="p1", point_at=now, point_error=WHY, files_of=now - 60)
    session = client.get(f"/session/{uuid}").json["session"]
    assert session["restore_point"] == {"id": "p1", "saved_at": iso(now), "error": WHY}
    assert session["files_of"] == iso(now - 60)


def test_a_new_session_may_start_from_a_point_that_its_caller_may_see(
    client: Client, bound: Client, core: Core, uuid: str
) -> None:
    own = reference(uuid, put_point(core, uuid).id)
    answer = create(client, restore_from=own)
    assert answer.status_code == 201
    assert core.store.get(answer.json["uuid"]).restore_from == own
    check_problem(create(client, restore_from=f"point-{uuid}-p999999999999999"), 404, "backup_not_found")
    for foreign in (own, "point-zzzzzzzz-p000000000000001"):
        check_problem(create(bound, user_id="course-ada", restore_from=foreign), 404, "backup_not_found")
