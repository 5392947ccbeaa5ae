"""The modules a call passes from its route to its first change of the cluster, as docs/architecture.md counts them."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

from app.core.composition import Core
from app.core.redis.task_queue import TaskQueue
from app.core.sessions.model import Status
from app.main import create_app
from app.settings import Settings
from tests.conftest import ROOT
from tests.unit import fake_api
from workers import tasks
from workers.lifecycle import Lifecycle
from workers.runtime.kubernetes import driver, scheduling
from workers.runtime.kubernetes.api_server import ApiServer
from workers.runtime.kubernetes.driver import KubernetesRuntime

MOST = 8
KEY = "an-admin-key-of-the-tests"


def modules(frame: FrameType | None) -> Iterator[str]:
    """The modules of `app` and `workers` on the stack, the innermost first."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ("app", "workers"):
            yield str(path.relative_to(ROOT))
        frame = frame.f_back


def once(passed: list[str]) -> list[str]:
    """Without what follows itself."""
    return [each for number, each in enumerate(passed) if number == 0 or passed[number - 1] != each]


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """`request`: from the route to the queue; `work`: from the task to the first change of the cluster."""
    seen: dict[str, list[str]] = {}

    def send(self: TaskQueue, task: str, *args: str | int, request_id: str = "") -> None:
        passed = once(list(modules(sys._getframe())))[::-1]
        route = next(number for number, each in enumerate(passed) if each == "app/api/sessions.py")
        seen["request"] = [*passed[route:], "app/core/redis/task_queue.py"]

    ask = ApiServer._request

    def request(self: ApiServer, method: str, *args: Any, **options: Any) -> Any:
        if method != "GET" and "request" in seen and "work" not in seen:
            passed = [each for each in modules(sys._getframe()) if not each.endswith("/api_server.py")]
            seen["work"] = once(passed[::-1])
        return ask(self, method, *args, **options)

    monkeypatch.setattr(TaskQueue, "send", send)
    monkeypatch.setattr(ApiServer, "_request", request)
    monkeypatch.setattr(scheduling, "LIMIT", 0.0)
    return seen


def rooms(passed: list[str]) -> list[str]:
    """The folders of a path, in order."""
    return once([str(Path(each).parent) for each in passed])


@pytest.mark.slow
@pytest.mark.parametrize("call", ["create", "wake", "sleep", "delete"])
def test_a_call_passes_few_modules_and_no_room_twice(
    call: str,
    settings: Settings,
    redis_client: redis.Redis,
    paths: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Up to the module that asks the API server's client."""
    settings = dataclasses.replace(
        settings, runtime="kubernetes", workspace_image="w:1", ingress_forward_auth='{"a": "b"}', api_key=KEY
    )
    with fake_api.serving() as api:
        runtime = KubernetesRuntime(settings, redis_client, api.cluster())
        core = Core(settings, client=redis_client)
        monkeypatch.setattr(tasks, "context", lambda: SimpleNamespace(lifecycle=Lifecycle(core, runtime)))
        client: FlaskClient = create_app(settings).test_client()
        headers = {"X-API-Key": KEY, "Prefer": "respond-async"}

        def work(uuid: str) -> None:
            record = core.store.get(uuid)
            task = {"created": tasks.provision, "sleeping": tasks.sleep, "waking": tasks.wake}
            task.get(record.status, tasks.teardown).run(uuid, record.generation)

        uuid = json.loads(client.post("/session/create", json={"user_id": "ada"}, headers=headers).data)["uuid"]
        paths.pop("work", None)
        work(uuid)
        if call != "create":
            core.store.change(uuid, 0.0, to=Status.ACTIVE, settle=True)
        if call == "wake":
            client.post(f"/session/{uuid}/sleep", headers=headers)
            work(uuid)
        if call != "create":
            paths.clear()
            method, path = ("DELETE", "?backup=false") if call == "delete" else ("POST", f"/{call}")
            assert client.open(f"/session/{uuid}{path}", method=method, headers=headers).status_code < 300
            if call == "delete":
                monkeypatch.setattr(driver, "GOING_LIMIT", 0.0)  # the fake's objects don't go by themselves
            work(uuid)

    passed = [*paths["request"], *paths["work"]]
    assert len(passed) == len(set(passed)) <= MOST, passed
    visited = rooms(passed)
    assert len(visited) == len(set(visited)), visited
