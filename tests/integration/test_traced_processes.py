"""One trace through real processes: gunicorn under gevent, the broker, a Celery worker, a call of the API server."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis
import requests
from opentelemetry.trace import SpanKind

from tests.integration.serving import KEY, running_web, started
from tests.otlp import Collector
from tests.unit.fake_api import serving
from tests.waiting import PATIENCE

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
USER = "canary-user"


def call(url: str, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
    answer = requests.request(method, url + path, json=body, headers={"X-API-Key": KEY, **headers}, timeout=PATIENCE)
    assert answer.ok, answer.text
    return answer


def test_a_call_of_the_api_is_one_trace_down_to_the_cluster(
    tmp_path: Path, redis_server: str, redis_client: redis.Redis
) -> None:
    """Its first span is within the caller's. No attribute has a name, a user or a key."""
    command = [sys.executable, "-m", "celery", "-A", "tests.integration.traced", "worker"]
    command += ["-Q", "wake", "-c", "1", "--without-gossip", "--without-mingle"]
    with serving() as api, Collector() as collector:
        shared = {"DATA_DIR": str(tmp_path), "REDIS_URL": redis_server, "FAKE_API": api.url, **collector.environment}
        own = {"PROCESS_NAME": "worker"}
        web = running_web(tmp_path, redis_server, PROCESS_NAME="web", **collector.environment)
        with web as url, started(command, shared | own, tmp_path / "worker.log"):
            made = call(url, "POST", "/session/create", {"user_id": USER}, traceparent=f"00-{TRACE}-{CALLER}-01")
            uuid = made.json()["uuid"]
            asked = collector.wait_for("GET deployments", TRACE)
            first = collector.wait_for("POST /session/create", TRACE)
            collector.wait_for("sessions.provision", TRACE)
            collector.wait_for("send wake", TRACE)
    assert collector.path(asked) == ["POST /session/create", "send wake", "sessions.provision", "GET deployments"]
    assert (first.parent, first.service, first.kind - 1) == (CALLER, "web", SpanKind.SERVER.value)
    assert (asked.service, asked.kind - 1) == ("worker", SpanKind.CLIENT.value)
    assert asked.attributes == {"http.request.method": "GET", "http.response.status_code": 404}
    assert first.attributes["http.response.status_code"] == 201
    assert redis_client.hget(f"session:{uuid}", "traceparent"), "a sweep that sends the intent again continues it"
    sent = b"".join(collector.bodies)
    assert not any(text.encode() in sent for text in (USER, KEY, f"user-{uuid}"))


def test_a_collector_that_hangs_holds_up_no_request(
    tmp_path: Path, redis_server: str, redis_client: redis.Redis
) -> None:
    """The exporter waits for ten minutes, in a greenlet of its own; each request is answered long before."""
    with Collector(hangs=True) as collector:
        slow = {**collector.environment, "OTEL_EXPORTER_OTLP_TIMEOUT": "600"}
        with running_web(tmp_path, redis_server, WEB_WORKERS="1", **slow) as url:
            uuid = call(url, "POST", "/session/create", {"user_id": "ada"}).json()["uuid"]
            while not collector.bodies:
                call(url, "GET", f"/session/{uuid}")
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: call(url, "GET", f"/session/{uuid}"), range(100)))
            assert {each.status_code for each in answers} == {200}
            assert len(collector.bodies) == 1, "it still waits for its first answer"
