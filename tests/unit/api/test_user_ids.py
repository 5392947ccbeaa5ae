"""User ids as identity providers make them: what the service keeps by user, and tells of one, is that user's own."""

from __future__ import annotations

import csv
import io
import json
import time

import pytest
from flask import Flask

from app.core.composition import Core
from app.core.sessions.change import Intervals
from app.core.sessions.model import USER_ID_PATTERN, Status
from tests.unit.api.helpers import Client, add_backup, create, key_entry, keyed, move, new_session

MONTH = time.strftime("%Y-%m", time.gmtime())
PROVIDERS = ["auth0|a:b", "google-oauth2|107691503500061507151", "urn:users:ada", "a|b"]
CLOSE = ["a", f"a:{MONTH}", f"a:{MONTH}:sessions", "a:open", "a:sessions", "auth0|a"]
"""Such as end as the names of keys in Redis do."""


TENANT = key_entry("tenant", "tenant-key", "admin", user_prefix="auth0|a:")

pytestmark = pytest.mark.settings(api_keys=json.dumps([TENANT]))


def run_an_hour(core: Core, uuid: str) -> None:
    now = time.time()
    core.store.change(uuid, now, ledger=Intervals(runs_from=now - 3_600))
    core.store.change(uuid, now, ledger=Intervals(ran_until=now))


@pytest.fixture
def sessions(client: Client, core: Core) -> dict[str, str]:
    """By user id, a session that ran for an hour and has a backup."""
    made = {}
    for user_id in (*PROVIDERS, *CLOSE):
        uuid = made[user_id] = new_session(client, user_id)
        move(core, uuid, Status.ACTIVE)
        run_an_hour(core, uuid)
        add_backup(core, uuid, user_id)
    return made


def test_every_list_of_a_user_is_theirs(client: Client, sessions: dict[str, str]) -> None:
    for user_id, uuid in sessions.items():
        assert USER_ID_PATTERN.fullmatch(user_id)
        for path, rows in (("/sessions", "sessions"), ("/backups", "backups"), ("/costs", "rows")):
            answer = client.get(path, query_string={"user_id": user_id}).json
            assert [(row["uuid"], row["user_id"]) for row in answer[rows]] == [(uuid, user_id)], path
        assert client.get(f"/session/{uuid}").json["session"]["user_id"] == user_id
        (entry,) = client.get("/audit", query_string={"uuid": uuid}).json["entries"]
        assert (entry["action"], entry["user_id"]) == ("create", user_id)


def test_csv_has_the_ids_as_they_are(client: Client, sessions: dict[str, str]) -> None:
    answer = client.get("/costs", headers={"Accept": "text/csv"})
    found = {row["user_id"]: row["uuid"] for row in csv.DictReader(io.StringIO(answer.text))}
    assert found == sessions
    groups = client.get("/costs?group_by=user").json["rows"]
    assert {row["user_id"]: row["sessions"] for row in groups} == dict.fromkeys(sessions, 1)


def test_the_feed_is_chosen_by_such_an_id(client: Client) -> None:
    answer = client.get("/events", query_string={"user_id": "auth0|a:b"})
    try:
        new_session(client, "auth0|a")
        new_session(client, "auth0|a:b")
        events = (line for part in answer.response for line in part.decode().splitlines())
        told = next(json.loads(line.removeprefix("data: ")) for line in events if '"user_id"' in line)
    finally:
        answer.close()
    assert told["user_id"] == "auth0|a:b"


def test_a_key_is_bound_to_a_prefix_with_them(app: Flask, sessions: dict[str, str]) -> None:
    bound = keyed(app, "tenant-key")
    assert bound.get(f"/session/{sessions['auth0|a:b']}").status_code == 200
    assert bound.get(f"/session/{sessions['auth0|a']}").status_code == 404
    assert bound.post("/session/create", json={"user_id": "auth0|ab"}).status_code == 403


@pytest.mark.settings(budget_per_user=0.000001)
def test_a_budget_counts_what_is_the_users_own(client: Client, core: Core) -> None:
    """The user `a` has spent it all, and those whose ids go on like the names of its totals have not."""
    run_an_hour(core, new_session(client, "a"))
    statuses = {user_id: create(client, user_id=user_id).status_code for user_id in CLOSE}
    assert statuses == dict.fromkeys(CLOSE, 201) | {"a": 403}
