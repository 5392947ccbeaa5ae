"""A key for Prometheus, and what it is shown."""

from __future__ import annotations

import json
import time

import pytest
from flask import Flask

from app.api.blueprint import rules_of
from app.api.instruments import INSTRUMENTS
from app.core.composition import Core
from app.core.redis import task_queue
from app.core.redis.dead_letters import DeadLetter
from app.core.sessions.model import Status
from tests.unit.api.helpers import (
    ADMIN_KEY,
    BOUND_KEY,
    KEYS,
    NO_REDIS,
    SERVICE_KEY,
    TEXT,
    AppMaker,
    Client,
    bearer,
    check_problem,
    key_entry,
    keyed,
    move,
    new_session,
    samples,
    written,
)
from tests.unit.api.visitors import Visitor, link

METRICS_KEY = "key-of-prometheus"

pytestmark = pytest.mark.settings(api_keys=json.dumps([*KEYS, key_entry("prometheus", METRICS_KEY, "metrics")]))


@pytest.mark.parametrize("role", ["admin", "read", "service"])
def test_a_key_that_is_bound_to_users_is_shown_nothing_of_the_whole_service(make_app: AppMaker, role: str) -> None:
    entry = key_entry("course", BOUND_KEY, role, user_prefix="course-")
    bound = keyed(make_app(api_keys=json.dumps([entry])), BOUND_KEY)
    check_problem(bound.get("/metrics", headers=TEXT), 403, "forbidden")


def test_a_key_of_this_role_has_no_users_whatever_it_is_bound_to(make_app: AppMaker) -> None:
    entry = key_entry("course", BOUND_KEY, "metrics", user_prefix="course-")
    bound = keyed(make_app(api_keys=json.dumps([entry])), BOUND_KEY)
    assert bound.get("/metrics", headers=TEXT).status_code == 200


@pytest.mark.parametrize("shown", [bearer(METRICS_KEY), {"X-API-Key": METRICS_KEY}], ids=["bearer", "header"])
def test_it_opens_metrics_and_nothing_else(app: Flask, client: Client, shown: dict[str, str]) -> None:
    """Every route there is."""
    uuid = new_session(client)
    prometheus: Client = app.test_client()
    assert prometheus.get("/metrics", headers=shown | TEXT).status_code == 200
    assert prometheus.get("/metrics", headers=shown).json["total_sessions"] == 1
    opened = set()
    for rule in app.url_map.iter_rules():
        path = written(rule.rule).replace("<session:uuid>", uuid).replace("<name>", "x")
        for method in (rule.methods or set()) & {"GET", "POST", "DELETE"}:
            answer = prometheus.open(path, method=method, headers=shown, json={} if method == "POST" else None)
            answer.close()
            if answer.status_code != 403:
                opened.add(rule.endpoint)
    assert opened == {"system.metrics"} | {each for each in app.view_functions if rules_of(app, each).anonymous}


def test_other_keys_are_no_bearers(stranger: Client) -> None:
    """What a page's script may send must not be a key that acts."""
    for key in (ADMIN_KEY, SERVICE_KEY, "wrong"):
        check_problem(stranger.get("/metrics", headers=bearer(key)), 401, "unauthorized")


@pytest.mark.parametrize("headers", [{"X_API_Key": METRICS_KEY}, bearer(METRICS_KEY)], ids=["header", "bearer"])
def test_it_opens_no_agent(core: Core, visitor: Visitor, uuid: str, headers: dict[str, str]) -> None:
    """At the ingress, where keys open agents too."""
    answer = visitor.visit(f"/chat/{uuid}/health", host=core.settings.agents_host(), **headers)
    check_problem(answer, 401, "unauthorized")


def test_requests_are_counted(client: Client, uuid: str) -> None:
    for _ in range(2):
        client.get(f"/session/{uuid}")
    client.get("/nowhere")
    found = samples(client.get("/metrics", headers=TEXT).text)
    assert found["http_requests_total", "sessions.get", "GET", "web", "200"] == 2
    assert found["http_requests_total", "none", "GET", "web", "404"] == 1
    assert found["http_request_seconds_count", "sessions.get", "GET", "web"] == 2
    assert uuid not in str(found)


def test_streams_and_waits_are_shown_while_they_last(app: Flask, client: Client, uuid: str) -> None:
    registry = app.extensions[INSTRUMENTS].registry

    def open_now(name: str) -> float | None:
        return registry.get_sample_value(name, {"process": "web"})

    stream = client.get(f"/session/{uuid}/events", buffered=False)
    assert (open_now("http_streams_open"), open_now("http_waits_open")) == (1, 0)
    stream.close()
    assert open_now("http_streams_open") == 0
    found = samples(client.get("/metrics", headers=TEXT).text)
    assert ("http_request_seconds_count", "sessions.events", "GET", "web") not in found


def test_what_all_processes_count_in_redis_is_shown(client: Client, core: Core) -> None:
    core.counters.acted("sleep", {"stopped": 700, "total": 1_200})
    core.counters.action_failed("wake")
    assert client.get("/metrics").json["counters"] == {}, "in JSON they are not"
    core.counters.count("sessions_failed")
    core.dead_letters.add(DeadLetter(task="x"))
    found = samples(client.get("/metrics", headers=TEXT).text)
    assert found["sessions_action_seconds_bucket", "sleep", "1.0", "stopped"] == 1
    assert found["sessions_action_seconds_bucket", "sleep", "1.0", "total"] == 0
    assert found["sessions_action_seconds_sum", "sleep", "total"] == 1.2
    assert found["sessions_action_failures_total", "wake"] == 1
    assert found["sessions_action_failures_total", "restore"] == 0
    assert found["sessions_dead_letters_kept",] == found["sessions_dead_letters_total",] == 1
    assert found["sessions_failed_total",] == 1
    assert found["sessions_sleeps_total",] == 0


def test_the_age_of_the_oldest_task_is_known_from_the_last_look(core: Core) -> None:
    """Web may not read the messages, so the sweep notes it."""
    queues, now = task_queue.QUEUES, time.time()
    for queue, since in (("wake", now - 30), ("wake", now - 5), ("deliver", now - 7)):
        core.redis.lpush(queue, json.dumps({"headers": {task_queue.ENQUEUED_AT: since}}))
    core.counters.look_at_queues(queues, now)
    core.redis.delete("deliver")
    core.redis.lpush("backup", "no message of ours")
    assert core.counters.oldest(queues, now + 2) == {
        "wake": pytest.approx(32, abs=0.1),
        "backup": 2.0,
        **dict.fromkeys(("deliver", "lifecycle", "sweep"), 0.0),
    }


def test_a_message_says_when_it_was_enqueued(core: Core) -> None:
    before = time.time()
    core.tasks.send(task_queue.SWEEP_IDLE)
    message = core.redis.lrange("sweep", -1, -1)[0]
    assert before - 0.01 <= task_queue.enqueued_at(message, 0.0) <= time.time()


def decided(visitor: Visitor) -> dict[str, float | None]:
    registry = visitor.client.application.extensions[INSTRUMENTS].registry
    return {
        name: registry.get_sample_value("forward_auth_decisions_total", {"decision": name})
        for name in ("let_in", "login", "refused", "error")
    }


def test_forward_auth_counts_its_decisions(client: Client, visitor: Visitor, uuid: str) -> None:
    visitor.visit()
    visitor.navigate(link(client, uuid))
    visitor.navigate()
    visitor.client.get("/auth/verify")
    assert decided(visitor) == {"let_in": 1, "login": 1, "refused": 2, "error": 0}


@pytest.mark.settings(redis_url=NO_REDIS)
def test_a_decision_without_redis_is_an_error(app: Flask) -> None:
    visitor = Visitor(app, "abcd1234")
    assert visitor.visit().status_code == 503
    assert decided(visitor)["error"] == 1


def test_a_public_port_of_a_sleeping_workspace_is_no_error(core: Core, uuid: str, visitor: Visitor) -> None:
    core.openings.open(uuid, 3000, int(time.time()) + 600)
    move(core, uuid, Status.SLEEPING)
    assert visitor.visit(host=f"3000--vs-code-{uuid}.localhost").status_code == 503
    assert decided(visitor) == {"let_in": 0, "login": 0, "refused": 1, "error": 0}
