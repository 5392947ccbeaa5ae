"""What answers say in words is so: of prompts, of sleeps, and of keys that came in the wrong place."""

from __future__ import annotations

import time

import pytest
from flask import Flask

from app.core.composition import Core
from app.core.sessions.model import Status
from tests.unit.api.helpers import ADMIN_KEY, AppMaker, Client, check_problem, move, new_session

CONFIGURED = {"llm_base_url": "http://127.0.0.1:1/v1", "secret_key": "k" * 32}
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    limits = {f"rate_limit_{name}": "10000/minute" for name in ("default", "create", "chat")}
    return make_app(**CONFIGURED, **limits)


def told(client: Client, uuid: str, message_id: str) -> str:
    """What the caller of a prompt is told that is not answered yet."""
    answer = client.post(f"/session/{uuid}/chat", json={"message": "do it", "id": message_id}, headers=ASYNC)
    assert (answer.status_code, answer.json["status"]) == (202, "queued")
    return str(answer.json["message"])


def test_a_pod_wakes_up_only_where_one_does(client: Client, core: Core) -> None:
    uuid = new_session(client)
    assert told(client, uuid, "m1") == "Pod is waking up, message queued"
    move(core, uuid, Status.ACTIVE)
    assert told(client, uuid, "m2") == "Message queued for the agent"
    core.inbox.delivered(uuid, "m2", time.time())
    assert told(client, uuid, "m2") == "The agent has the message and has not answered yet"
    move(core, uuid, Status.SLEEPING)
    assert told(client, uuid, "m3") == "Pod is waking up, message queued"


def test_a_sleep_is_queued_only_until_it_is_done(client: Client, core: Core) -> None:
    uuid = new_session(client)
    move(core, uuid, Status.ACTIVE)
    assert client.post(f"/session/{uuid}/sleep").json["message"] == "Pod queued for sleep"
    core.store.change(uuid, time.time(), settle=True)
    for headers in ({}, {"Prefer": "wait=5"}):
        done = client.post(f"/session/{uuid}/sleep", headers=headers)
        assert (done.json["status"], done.json["message"]) == ("sleeping", "Pod is asleep")


def test_a_key_that_came_as_a_token_is_told_where_it_belongs(app: Flask, client: Client) -> None:
    uuid = new_session(client)
    for shown in (f"Bearer {ADMIN_KEY}", "Bearer wrong-key", f"Basic {ADMIN_KEY}", ADMIN_KEY):
        problem = check_problem(
            app.test_client().get(f"/session/{uuid}", headers={"Authorization": shown}), 401, "unauthorized"
        )
        assert "X-API-Key" in str(problem["detail"])
        assert ADMIN_KEY not in str(problem)
    expired = {"Authorization": "Bearer eyJh.eyJh.c2ln"}
    problem = check_problem(app.test_client().get(f"/session/{uuid}", headers=expired), 401, "unauthorized")
    assert "expired" in str(problem["detail"]) and "X-API-Key" not in str(problem["detail"])
