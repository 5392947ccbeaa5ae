"""The calls on the recovery of sessions: who may use them, and what they tell."""

from __future__ import annotations

import json

import pytest
from flask import Flask

from app.core.redis import task_queue
from app.core.storage.archive_keys import new_key
from tests.unit.api.helpers import ADMIN_KEY, KEYS, SERVICE_KEY, AppMaker, Client, check_problem, core_of, digest, keyed

NONE = {
    "status": "none",
    "dry_run": None,
    "requested_at": None,
    "ended_at": None,
    "found": None,
    "recovered": 0,
    "damaged": None,
    "error": None,
}

READ_KEY = "the-key-that-only-reads"


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    keys = json.dumps([*KEYS, {"name": "reads", "sha256": digest(READ_KEY), "role": "read"}])
    return make_app(archive_key=new_key(), api_keys=keys)


@pytest.fixture
def client(app: Flask) -> Client:
    return keyed(app, ADMIN_KEY)


def queued(app: Flask) -> int:
    """How often the look at the store waits in its queue."""
    return len(core_of(app).redis.lrange(task_queue.BACKUP_QUEUE, 0, -1))


def test_a_recovery_is_asked_for_and_shown_to_its_end(app: Flask, client: Client) -> None:
    core = core_of(app)
    assert client.get("/recovery").json == NONE
    answer = client.post("/recovery")
    assert answer.status_code == 202
    asked = {"status": "running", "dry_run": False, "requested_at": answer.json["requested_at"]}
    assert answer.json == client.get("/recovery").json == NONE | asked
    assert queued(app) == 1
    core.recoveries.note_recovered()
    core.recoveries.note_failed("The store is away.")
    assert client.get("/recovery").json == NONE | asked | {"recovered": 1, "error": "The store is away."}
    recovery = core.recoveries.waiting()
    assert recovery is not None
    core.recoveries.end(recovery, 1_700_000_000.0, found=3, damaged=2)
    done = {"status": "done", "ended_at": "2023-11-14T22:13:20.000Z", "found": 3, "recovered": 1, "damaged": 2}
    assert client.get("/recovery").json == NONE | asked | done
    again = client.post("/recovery", json={"dry_run": True}).json
    assert (again["status"], again["dry_run"], again["recovered"]) == ("running", True, 0)


def test_a_key_that_only_reads_sees_it_and_starts_none(app: Flask) -> None:
    reads = keyed(app, READ_KEY)
    assert reads.get("/recovery").json == NONE
    check_problem(reads.post("/recovery"), 403, "forbidden")
    service = keyed(app, SERVICE_KEY)
    for answer in (service.get("/recovery"), service.post("/recovery")):
        check_problem(answer, 403, "forbidden")
    assert queued(app) == 0


def test_without_an_archive_key_there_is_nothing_to_recover(make_app: AppMaker) -> None:
    check_problem(keyed(make_app(), ADMIN_KEY).post("/recovery"), 409, "restore_points_off")
