"""The calls on the service itself, and its description."""

from __future__ import annotations

import configparser
import json
import re
import time
from typing import Any

import pytest
from flask import Flask

from app.api.blueprint import rules_of
from app.api.openapi import VERSION
from app.core.composition import Core
from app.core.redis.dead_letters import DeadLetter
from app.core.redis.heartbeats import Policies
from app.core.redis.task_queue import QUEUES
from app.core.sessions.model import Status
from tests.conftest import ROOT
from tests.unit.api.helpers import TEXT, Client, alive, check_problem, keyed, new_session, samples

IN_CLUSTER = pytest.mark.settings(runtime="kubernetes", workspace_image="workspace:1")


def test_health_is_good_when_all_parts_are_there(client: Client, core: Core) -> None:
    alive(core, workers=2)
    core.heartbeats.note_policies(Policies.NOT_ENFORCED)
    answer = client.get("/health")
    assert answer.status_code == 200
    expected = {
        "status": "healthy",
        "version": VERSION,
        "redis": "connected",
        "kubernetes": "connected",
        "workers": 2,
        "runtime": "local",
        # One machine has none.
        "network_policies": None,
        "warnings": [],
    }
    assert {name: answer.json[name] for name in expected} == expected
    assert 0 <= answer.json["observer_age_seconds"] < 10


@pytest.mark.parametrize(("workers", "silent", "cluster"), [(1, 60, "disconnected"), (0, 0, "connected")])
def test_health_is_bad_without_workers_and_while_the_observer_is_silent(
    client: Client, core: Core, workers: int, silent: float, cluster: str
) -> None:
    alive(core, workers)
    core.heartbeats.observer_alive(time.time() - silent)
    answer = client.get("/health")
    assert answer.status_code == 503
    assert (answer.json["status"], answer.json["kubernetes"]) == ("unhealthy", cluster)


@IN_CLUSTER
@pytest.mark.parametrize("found", list(Policies))
def test_health_warns_of_a_cluster_that_enforces_no_policies(client: Client, core: Core, found: Policies) -> None:
    """Which takes nothing from its status: the service works."""
    alive(core)
    if found is not Policies.UNKNOWN:
        core.heartbeats.note_policies(found)
    answer = client.get("/health")
    assert (answer.status_code, answer.json["status"], answer.json["network_policies"]) == (200, "healthy", found)
    assert ["NetworkPolicies" in each for each in answer.json["warnings"]] == [True] * (found == "not_enforced")


@IN_CLUSTER
def test_strangers_learn_no_more_of_the_service_than_whether_it_works(
    app: Flask, stranger: Client, service: Client, bound: Client, core: Core
) -> None:
    """Neither how near to full Redis is, nor that workspaces reach one another. Nor do keys that are bound to users."""
    alive(core)
    core.heartbeats.note_policies(Policies.NOT_ENFORCED)
    told = service.get("/health").json
    assert None not in (told["redis_memory"], told["network_policies"]) and told["warnings"]
    for each in (stranger, keyed(app, "no-key-of-ours"), bound):
        body: Any = each.get("/health").json
        assert (body["status"], body["workers"]) == ("healthy", 1)
        assert (body["redis_memory"], body["network_policies"], body["warnings"]) == (None, None, [])


@IN_CLUSTER
def test_nobody_says_that_policies_are_enforced_while_the_observer_sees_nothing(client: Client, core: Core) -> None:
    """The API server may be away, which is what was tried."""
    core.heartbeats.note_policies(Policies.ENFORCED)
    assert client.get("/health").json["network_policies"] == "unknown"


def test_probes_are_plain(client: Client) -> None:
    for path in ("/livez", "/readyz"):
        answer = client.get(path)
        assert (answer.status_code, answer.mimetype, answer.text) == (200, "text/plain", "ok\n")


def test_metrics_count_sessions_by_state(client: Client, core: Core, uuid: str) -> None:
    alive(core)
    new_session(client)
    core.dead_letters.add(DeadLetter(task="x"))
    body = client.get("/metrics").json
    assert (body["total_sessions"], body["active_sessions"], body["created_sessions"]) == (2, 1, 1)
    assert {f"{status}_sessions" for status in Status} <= body.keys()
    assert (body["dead_letters"], body["workers"]) == (1, 1)
    assert body["queue_backlog"].keys() == set(QUEUES)
    assert body["timestamp"].endswith("Z")
    assert body["observer_age_seconds"] >= 0


@pytest.mark.usefixtures("uuid")
@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_metrics_speak_prometheus_when_asked_to(client: Client, core: Core, accept: str) -> None:
    core.counters.count("wakes")
    core.counters.started("wake", {"enqueued": 10, "ready": 1200})
    answer = client.get("/metrics", headers={"Accept": accept})
    assert answer.mimetype == accept.partition(";")[0]
    found = samples(answer.text)
    assert found["sessions", "active"] == 1
    assert found["sessions_wakes_total",] == 1
    assert found["sessions_start_seconds_sum", "wake", "ready"] == 1.2
    buckets = [found["sessions_start_seconds_bucket", "wake", le, "ready"] for le in ("1.0", "1.5", "+Inf")]
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
    assert f"sessions_model_up {up}" in client.get("/metrics", headers=TEXT).text.splitlines()


def test_metrics_say_nothing_of_a_model_that_nobody_asked(client: Client, core: Core) -> None:
    assert "sessions_model_up" not in client.get("/metrics", headers=TEXT).text
    core.model_answers.note(time.time() - 600, error="ConnectTimeout")
    assert "sessions_model_up" not in client.get("/metrics", headers=TEXT).text


def test_the_document_is_complete(app: Flask, client: Client) -> None:
    """It has every route, and of each what may come of it."""
    document = client.get("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    described = {
        (path, method.upper()): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }
    assert described.keys() == {
        (re.sub("<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }
    operations = described.values()
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    public = [operation for operation in operations if operation.get("security") == []]
    assert len(public) == sum(rules_of(app, endpoint).anonymous for endpoint in app.view_functions)
    for operation in operations:
        assert operation["summary"]
        assert "429" in operation["responses"]
        assert operation in public or "401" in operation["responses"]
    for response in document["components"]["responses"].values():
        assert list(response["content"]) == ["application/problem+json"]
    assert document["components"]["securitySchemes"]["ApiKey"]["name"] == "X-API-Key"
    assert document["components"]["securitySchemes"]["MetricsKey"] == {"type": "http", "scheme": "bearer"}
    assert {"MetricsKey": []} in document["paths"]["/metrics"]["get"]["security"]
    for name in [part.split('"')[0] for part in json.dumps(document).split('"$ref": "#/')[1:]]:
        section, kind, item = name.split("/")
        assert item in document[section][kind]


def test_the_documents_version_is_the_packages() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["version"] == VERSION


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_the_root_leads_to_the_docs(stranger: Client, accept: str) -> None:
    answer = stranger.get("/", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["Location"], answer.text) == (302, "/docs", "")
    check_problem(stranger.get("/", headers={"Host": "vs-code-aaaa0001.localhost"}), 404, "not_found")


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
