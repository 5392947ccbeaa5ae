"""schemathesis against the running service: no 5xx, nothing that the OpenAPI document doesn't say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import schemathesis

from app.core.redis.connections import connect
from app.core.redis.heartbeats import Heartbeats
from tests.conftest import ROOT
from tests.integration.serving import KEY, OwnRedis, running_web

HEADERS = {"X-API-Key": KEY}
EXAMPLES = "8"
"""Random requests for each operation and mode, besides the boundary values of every parameter."""

LIMIT = 900
"""s for all of them, which take a minute."""

AN_HOUR = 3600.0

STREAMS = ("/session/{uuid}/events", "/session/{uuid}/changes", "/events")
"""A stream stays open; tests of their own read those."""

FORWARD_AUTH = "^/auth/"
"""For the ingress alone: what is no visit is 400, and a page for "not now" is 503, however well it was asked for."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service, waiting for nothing long; its observer and a worker have reported, though there are none."""
    folder = tmp_path_factory.mktemp("service")
    short = {"WAIT_DEFAULT": "0.05", "WAIT_MAX": "0.1", "MAX_SESSIONS_PER_USER": "100000"}
    short |= {"LLM_BASE_URL": "http://127.0.0.1:1/v1", "SECRET_KEY": "k" * 32}
    with OwnRedis(folder) as server, running_web(folder, server.url, **short) as address:
        heartbeats = Heartbeats(connect(server.url, 5.0))
        heartbeats.observer_alive(time.time() + AN_HOUR)
        heartbeats.worker_alive("worker", time.time() + AN_HOUR)
        yield address


@pytest.mark.timeout(LIMIT + 60)
def test_the_service_keeps_to_its_document(url: str, tmp_path: Path) -> None:
    """Schemathesis' checks hold (status codes, content types, schemas, headers, methods that
    don't exist, keys that are missing), and every error is a problem document."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
        *(
            "--header",
            f"X-API-Key:{KEY}",
            *(part for path in STREAMS for part in ("--exclude-path", path)),
            "--exclude-path-regex",
            FORWARD_AUTH,
        ),
        *("--max-examples", EXAMPLES, "--request-timeout", "60", "--workers", "1"),
        *("--generation-deterministic", "--continue-on-failure", "--no-color"),
        # By contract a deleted session can be asked about: while it goes, and for a day after.
        # The hooks have one of their own in the place of the other.
        *("--exclude-checks", "use_after_free,not_a_server_error"),
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.integration.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | hooks, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stdout[-15_000:] + done.stderr[-3_000:]


def test_real_sessions_pass_through_every_call(url: str) -> None:
    """The generated names meet no session; these calls do, and each answer is held against the document."""
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    made = requests.post(f"{url}/session/create", json={"user_id": "ada"}, headers=HEADERS, timeout=60)
    uuid = made.json()["uuid"]
    calls = [
        ("GET", "/session/{uuid}"),
        ("GET", "/session/{uuid}/status"),
        ("GET", "/session/{uuid}/backups"),
        ("GET", "/session/{uuid}/messages"),
        ("GET", "/session/{uuid}/activity"),
        ("POST", "/session/{uuid}/wake"),
        ("POST", "/session/{uuid}/sleep"),
        ("POST", "/session/{uuid}/scale-up"),
        ("POST", "/session/{uuid}/scale-down"),
        ("POST", "/session/{uuid}/backup"),
        ("POST", "/session/{uuid}/open"),
        ("DELETE", "/session/{uuid}/ports/{port}"),
        ("POST", "/session/{uuid}/token"),
        ("POST", "/session/{uuid}/revoke"),
        ("DELETE", "/session/{uuid}"),
        ("DELETE", "/session/{uuid}"),
        ("GET", "/session/{uuid}"),
    ]
    document["/session/create"]["POST"].validate_response(made)
    path = "/session/{uuid}/chat"
    for body in ({"message": "hi", "id": "m1"}, {"message": "hi", "id": "m1"}, {"message": "ho", "id": "m1"}):
        answer = requests.post(url + path.format(uuid=uuid), json=body, headers=HEADERS, timeout=60)
        document[path]["POST"].validate_response(answer)
    path = "/session/{uuid}/keepalive"
    for wanted in ({"seconds": 60}, {"seconds": 1e9}, {"hours": "Mon-Fri 08:00-18:00"}, {}):
        answer = requests.post(url + path.format(uuid=uuid), json=wanted, headers=HEADERS, timeout=60)
        document[path]["POST"].validate_response(answer)
    path = "/session/{uuid}/messages/{message_id}"
    for name in ("m1", "nobody"):
        answer = requests.get(url + path.format(uuid=uuid, message_id=name), headers=HEADERS, timeout=60)
        document[path]["GET"].validate_response(answer)
    for method, path in calls:
        answer = requests.request(method, url + path.format(uuid=uuid, port=3000), headers=HEADERS, timeout=60)
        document[path][method].validate_response(answer)
        assert answer.status_code < 500
    for path in (
        "/sessions",
        "/backups",
        "/audit",
        "/dead-letters",
        "/processes",
        "/diagnosis",
        "/settings",
        "/keys",
        "/overview/history",
        "/metrics",
        "/health",
        "/livez",
        "/readyz",
        "/openapi.json",
        "/docs",
    ):
        document[path]["GET"].validate_response(requests.get(url + path, headers=HEADERS, timeout=60))
