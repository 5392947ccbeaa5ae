"""The calls on the service itself, its description, and event streams."""

from __future__ import annotations

import configparser
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from app.api.blueprint import rules_of
from app.api.event_streams import follow, follow_message, revoked
from app.api.openapi import VERSION
from app.core.access.tokens import AccessToken, Kind
from app.core.composition import Core
from app.core.redis.dead_letters import DeadLetter
from app.core.redis.events import REVOKED, SessionEvent
from app.core.redis.heartbeats import Policies
from app.core.redis.task_queue import QUEUES
from app.core.sessions.model import Status
from tests.conftest import ROOT
from tests.unit.api.helpers import (
    ADMIN_KEY,
    BOUND_KEY,
    SERVICE_KEY,
    AppMaker,
    Client,
    check_problem,
    core_of,
    keyed,
    move,
    new_session,
)


def alive(core: Core, workers: int = 1) -> None:
    now = time.time()
    core.heartbeats.observer_alive(now)
    for number in range(workers):
        core.heartbeats.worker_alive(f"worker{number}", now)


def test_health_is_good_when_all_parts_are_there(client: Client, core: Core) -> None:
    alive(core, workers=2)
    answer = client.get("/health")
    body = answer.json
    assert answer.status_code == 200
    assert {name: body[name] for name in ("status", "version", "redis", "kubernetes", "workers", "runtime")} == {
        "status": "healthy",
        "version": VERSION,
        "redis": "connected",
        "kubernetes": "connected",
        "workers": 2,
        "runtime": "local",
    }
    assert 0 <= body["observer_age_seconds"] < 10


def test_health_is_bad_while_the_observer_is_silent(client: Client, core: Core) -> None:
    core.heartbeats.worker_alive("worker", time.time())
    core.heartbeats.observer_alive(time.time() - 60)
    answer = client.get("/health")
    assert answer.status_code == 503
    assert (answer.json["status"], answer.json["kubernetes"]) == ("unhealthy", "disconnected")


def test_health_is_bad_without_workers(client: Client, core: Core) -> None:
    alive(core, workers=0)
    assert client.get("/health").status_code == 503


@pytest.mark.parametrize("found", list(Policies))
def test_health_warns_of_a_cluster_that_enforces_no_policies(make_app: AppMaker, found: Policies) -> None:
    """Which takes nothing from its status: the service works."""
    app = make_app(runtime="kubernetes", workspace_image="workspace:1")
    core = core_of(app)
    alive(core)
    if found is not Policies.UNKNOWN:
        core.heartbeats.note_policies(found)
    answer = keyed(app, ADMIN_KEY).get("/health")
    assert (answer.status_code, answer.json["status"], answer.json["network_policies"]) == (200, "healthy", found)
    assert ["NetworkPolicies" in each for each in answer.json["warnings"]] == [True] * (found == "not_enforced")


def test_strangers_learn_no_more_of_the_service_than_whether_it_works(make_app: AppMaker) -> None:
    """Neither how near to full Redis is, nor that workspaces reach one another. Nor do keys that are bound to users."""
    app = make_app(runtime="kubernetes", workspace_image="workspace:1")
    core = core_of(app)
    alive(core)
    core.heartbeats.note_policies(Policies.NOT_ENFORCED)
    told = keyed(app, SERVICE_KEY).get("/health").json
    assert None not in (told["redis_memory"], told["network_policies"]) and told["warnings"]
    for stranger in (app.test_client(), keyed(app, "no-key-of-ours"), keyed(app, BOUND_KEY)):
        body: Any = stranger.get("/health").json
        assert (body["status"], body["workers"]) == ("healthy", 1)
        assert (body["redis_memory"], body["network_policies"], body["warnings"]) == (None, None, [])


def test_nobody_says_that_policies_are_enforced_while_the_observer_sees_nothing(make_app: AppMaker) -> None:
    """The API server may be away, which is what was tried."""
    app = make_app(runtime="kubernetes", workspace_image="workspace:1")
    core_of(app).heartbeats.note_policies(Policies.ENFORCED)
    assert keyed(app, ADMIN_KEY).get("/health").json["network_policies"] == "unknown"


def test_one_machine_has_no_policies(client: Client, core: Core) -> None:
    alive(core)
    core.heartbeats.note_policies(Policies.NOT_ENFORCED)
    body = client.get("/health").json
    assert (body["network_policies"], body["warnings"]) == (None, [])


def test_probes_are_plain(client: Client) -> None:
    for path in ("/livez", "/readyz"):
        answer = client.get(path)
        assert (answer.status_code, answer.mimetype, answer.text) == (200, "text/plain", "ok\n")


def test_metrics_count_sessions_by_state(client: Client, core: Core) -> None:
    alive(core)
    uuid = new_session(client)
    new_session(client)
    move(core, uuid, Status.ACTIVE)
    core.dead_letters.add(DeadLetter(task="x"))
    body = client.get("/metrics").json
    assert (body["total_sessions"], body["active_sessions"], body["created_sessions"]) == (2, 1, 1)
    assert {f"{status}_sessions" for status in Status} <= body.keys()
    assert (body["dead_letters"], body["workers"]) == (1, 1)
    assert body["queue_backlog"].keys() == set(QUEUES)
    assert body["timestamp"].endswith("Z")
    assert body["observer_age_seconds"] >= 0


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_metrics_speak_prometheus_when_asked_to(client: Client, core: Core, accept: str) -> None:
    move(core, new_session(client), Status.ACTIVE)
    core.counters.count("wakes")
    core.counters.started("wake", {"enqueued": 10, "ready": 1200})
    answer = client.get("/metrics", headers={"Accept": accept})
    assert answer.mimetype == accept.partition(";")[0]
    samples = {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples[("sessions", ("active",))] == 1
    assert samples[("sessions_wakes_total", ())] == 1
    assert samples[("sessions_start_seconds_sum", ("wake", "ready"))] == 1.2
    buckets = [samples[("sessions_start_seconds_bucket", ("wake", le, "ready"))] for le in ("1.0", "1.5", "+Inf")]
    assert buckets == [0, 1, 1]


@pytest.mark.parametrize(
    ("answer", "up"),
    [
        ({"status": 200}, 1.0),
        ({"status": 404}, 1.0),
        ({"status": 429}, 1.0),
        ({"status": 401}, 0.0),
        ({"status": 503}, 0.0),
        ({"error": "ConnectTimeout"}, 0.0),
    ],
)
def test_metrics_say_whether_the_models_api_answers(
    client: Client, core: Core, answer: dict[str, Any], up: float
) -> None:
    """That a provider has no list of models is an answer, and so is a limit: the next request may be within it."""
    core.model_answers.note(time.time(), **answer)
    text = client.get("/metrics", headers={"Accept": "text/plain"}).text
    assert f"sessions_model_up {up}" in text.splitlines()


def test_metrics_say_nothing_of_a_model_that_nobody_asked(client: Client, core: Core) -> None:
    for age in (None, 600):
        if age:
            core.model_answers.note(time.time() - age, error="ConnectTimeout")
        assert "sessions_model_up" not in client.get("/metrics", headers={"Accept": "text/plain"}).text


def test_the_document_describes_every_route(app: Flask, client: Client) -> None:
    document = client.get("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item} - {
        (path, "PARAMETERS") for path in document["paths"]
    }
    routes = {
        (rule.rule.replace("<session:", "<").replace("<", "{").replace(">", "}"), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }
    assert described == routes


def test_the_document_is_complete(app: Flask, client: Client) -> None:
    document = client.get("/openapi.json").json
    operations = [op for item in document["paths"].values() for name, op in item.items() if name != "parameters"]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    public = [operation for operation in operations if operation.get("security") == []]
    assert len(public) == sum(rules_of(app, endpoint).anonymous for endpoint in app.view_functions)
    for operation in operations:
        assert operation["summary"]
        assert "429" in operation["responses"]
        assert operation in public or "401" in operation["responses"]
    for response in document["components"]["responses"].values():
        assert list(response["content"]) == ["application/problem+json"]
    assert document["components"]["securitySchemes"]["ApiKey"]["name"] == "X-API-Key"
    text = json.dumps(document)
    for name in [part.split('"')[0] for part in text.split('"$ref": "#/')[1:]]:
        section, kind, item = name.split("/")
        assert item in document[section][kind]


def test_the_documents_version_is_the_packages() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["version"] == VERSION


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_the_root_leads_to_the_docs(app: Flask, accept: str) -> None:
    answer = app.test_client().get("/", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["Location"], answer.text) == (302, "/docs", "")


def test_the_root_of_a_workspaces_host_is_not_the_docs(client: Client) -> None:
    check_problem(client.get("/", headers={"Host": "vs-code-aaaa0001.localhost"}), 404, "not_found")


def test_the_root_leads_to_the_docs_without_redis(make_app: AppMaker) -> None:
    app = make_app(redis_url="redis://127.0.0.1:1/0")
    assert app.test_client().get("/").status_code == 302


def test_the_docs_page_loads_nothing_from_elsewhere(client: Client) -> None:
    page = client.get("/docs")
    assert "http" not in page.text.replace("<!doctype html>", "")
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy and "default-src 'none'" in policy
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "docs.js", "favicon-32x32.png"):
        assert f"/docs/assets/{name}" in page.text
        asset = client.get(f"/docs/assets/{name}")
        assert asset.status_code == 200 and len(asset.data) > 50
    check_problem(client.get("/docs/assets/__init__.py"), 404, "not_found")


def read(lines: Iterator[bytes], count: int) -> list[dict[str, str]]:
    """The next `count` events of a stream, comments left out."""
    events: list[dict[str, str]] = []
    while len(events) < count:
        text = next(lines).decode()
        pairs = [line.split(": ", 1) for line in text.strip().split("\n") if not line.startswith(":")]
        if pairs:
            events.append(dict(pairs))
    return events


def test_a_stream_begins_with_the_state_and_ends_with_the_session(client: Client, core: Core) -> None:
    uuid = new_session(client)
    answer = client.get(f"/session/{uuid}/events")
    assert answer.mimetype == "text/event-stream"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert answer.headers["Cache-Control"] == "no-store"
    lines = iter(answer.response)
    [first] = read(lines, 1)
    assert (first["event"], json.loads(first["data"])["status"]) == ("state", "created")
    move(core, uuid, Status.ACTIVE)
    move(core, uuid, Status.TERMINATING)
    move(core, uuid, Status.TERMINATED)
    rest = read(lines, 3)
    assert [json.loads(event["data"])["status"] for event in rest] == ["active", "terminating", "terminated"]
    assert list(lines) == []


def test_a_stream_resumes_after_the_event_it_is_given(client: Client, core: Core) -> None:
    uuid = new_session(client)
    move(core, uuid, Status.ACTIVE)
    seen = core.events.last_id(uuid)
    move(core, uuid, Status.TERMINATING)
    move(core, uuid, Status.TERMINATED)
    text = client.get(f"/session/{uuid}/events", headers={"Last-Event-ID": seen}).text
    assert [line for line in text.split("\n") if line.startswith("data")] == [
        'data: {"status": "terminating", "reason": null, "reason_code": null}',
        'data: {"status": "terminated", "reason": null, "reason_code": null}',
    ]


def test_a_stream_of_a_terminated_session_ends(client: Client, core: Core) -> None:
    uuid = new_session(client)
    move(core, uuid, Status.TERMINATING)
    move(core, uuid, Status.TERMINATED)
    assert '"terminated"' in client.get(f"/session/{uuid}/events").text
    last = core.events.last_id(uuid)
    assert client.get(f"/session/{uuid}/events", headers={"Last-Event-ID": last}).text == ""


@pytest.mark.parametrize("last", ["", "x", "1-", "99999999999999999999", "1-99999999999999999999", "1\u0661"])
def test_a_last_event_id_of_elsewhere_is_400(client: Client, last: str) -> None:
    uuid = new_session(client)
    answer = client.get(f"/session/{uuid}/events", headers={"Last-Event-ID": last.encode().decode("latin-1")})
    check_problem(answer, 400, "invalid_request")


def test_streams_are_bounded_and_free_their_place(make_app: Callable[..., Flask]) -> None:
    client = keyed(make_app(max_streams=1), ADMIN_KEY)
    uuid = new_session(client)
    first = client.get(f"/session/{uuid}/events")
    refused = client.get(f"/session/{uuid}/events")
    check_problem(refused, 503, "too_many_streams")
    assert refused.headers["Retry-After"]
    first.close()
    again = client.get(f"/session/{uuid}/events")
    assert again.status_code == 200
    again.close()


def test_an_event_revokes_the_tokens_of_earlier_access_epochs() -> None:
    event = SessionEvent("1-0", REVOKED, {"access_epoch": 2})
    tokens = [None, *(AccessToken(Kind.TOKEN, "aaaa0001", epoch, 0.0, 1.0) for epoch in (1, 2))]
    assert [revoked(token, event) for token in tokens] == [False, True, False]


@pytest.mark.parametrize("chat", [False, True])
def test_a_stream_ends_with_the_pass_that_opened_it(client: Client, core: Core, chat: bool) -> None:
    """One opened with a key goes on, and so does one whose pass was made since."""
    uuid = new_session(client)
    old, new = (AccessToken(Kind.TOKEN, uuid, epoch, time.time(), time.time() + 60) for epoch in (0, 1))
    start = core.events.last_id(uuid)
    message = core.inbox.take(uuid, "hello", "m1", now=time.time()).prompt if chat else None
    core.sessions.revoke(uuid)
    record = core.store.get(uuid)

    def lines(held: AccessToken | None) -> Iterator[str]:
        if message:
            return follow_message(core, uuid, message, start, held=held, heartbeat=0.0)
        return follow(core, record, start, announce=False, held=held, heartbeat=0.0)

    assert not any(line.startswith(":") for line in lines(old))
    for held in (None, new):
        going_on = lines(held)
        assert any(line.startswith(":") for line in islice(going_on, 10))


def test_a_quiet_stream_shows_that_it_lives_and_ends_when_the_session_vanishes(client: Client, core: Core) -> None:
    uuid = new_session(client)
    record = core.store.get(uuid)
    lines = follow(core, record, core.events.last_id(uuid), announce=False, heartbeat=0.0)
    assert next(lines).startswith(":")
    core.redis.delete(f"session:{uuid}")
    assert all(line.startswith(":") for line in lines)
