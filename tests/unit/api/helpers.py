"""Keys, clients and small steps that the tests of the API share."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from app.api.current import EXTENSION
from app.core.backups.index import Backup
from app.core.composition import Core
from app.core.restore_points.index import RestorePoint
from app.core.sessions.model import Identity, Record, Status
from tests.waiting import wait_for

ADMIN_KEY = "the-key-of-an-admin"
SERVICE_KEY = "service-key"
BOUND_KEY = "bound-key"
OWN_LIMITS_KEY = "own-limits-key"

Client = Any
"""Flask's test client. Typed, it would make each look into an answer's JSON say that there is some."""

AppMaker = Callable[..., Flask]


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def key_entry(name: str, key: str, role: str = "service", **more: Any) -> dict[str, Any]:
    """A key as API_KEYS has it."""
    return {"name": name, "sha256": digest(key), "role": role, **more}


KEYS = [
    key_entry("backend", SERVICE_KEY),
    key_entry("course", BOUND_KEY, user_prefix="course-"),
    key_entry("web", OWN_LIMITS_KEY, limits={"create": "5/minute"}),
]

ASYNC = {"Prefer": "respond-async"}
LONG_WAIT = {"Prefer": "wait=30"}
ONCE = {"Idempotency-Key": "once"}

NO_REDIS = "redis://127.0.0.1:1/0"
"""Where none answers."""


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def keyed(app: Flask, key: str) -> Client:
    """A client that sends `key`."""
    client = app.test_client()
    client.environ_base["HTTP_X_API_KEY"] = key
    return client


def core_of(app: Flask) -> Core:
    core = app.extensions[EXTENSION]
    assert isinstance(core, Core)
    return core


def create(client: Client, headers: Mapping[str, str] | None = None, **body: Any) -> Any:
    """The answer to a creation, by default for ada."""
    return client.post("/session/create", json={"user_id": "ada", **body}, headers=headers or {})


def new_session(client: Client, user_id: str = "ada", **fields: Any) -> str:
    """The uuid of a session just created."""
    answer = create(client, user_id=user_id, **fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json["uuid"])


def written(rule: str) -> str:
    """The path of a route, with something for each name in it that has to be of a form; not for a session or a
    backup."""
    return rule.replace("<message_id>", "m1").replace("<port:port>", "3000")


def move(core: Core, uuid: str, to: Status, **changes: object) -> Record:
    """Do what a worker or the observer would: move the session and settle its intent."""
    return core.store.change(uuid, time.time(), to=to, settle=True, **changes).record


def terminate(core: Core, uuid: str) -> None:
    move(core, uuid, Status.TERMINATING)
    move(core, uuid, Status.TERMINATED)


def meanwhile(once: Callable[[], object], change: Callable[[], object]) -> None:
    """Do `change` while the request that follows waits: `once` it has recorded what was asked for."""

    def later() -> None:
        wait_for(once, "what the request records")
        change()

    threading.Thread(target=later).start()


def changes(core: Core, uuid: str) -> Callable[[], bool]:
    """Whether the session's record is another than now."""
    now = core.store.get(uuid)
    return lambda: core.store.get(uuid) != now


def add_backup(
    core: Core, uuid: str = "k3v9x0qa", user_id: str = "ada", content: bytes = b"PK-zip", **values: Any
) -> Backup:
    """A backup in the store and in the index."""
    number = core.backups.count()
    name = f"app-{uuid}-20261120-{number:06d}.zip"
    origin = Identity(uuid=uuid, user_id=user_id, created_at=1.0)
    backup = Backup(
        name=name,
        uuid=uuid,
        user_id=user_id,
        created_at=1_700_000_000.0 + number,
        size=len(content),
        files=1,
        content_bytes=3,
        sha256=hashlib.sha256(content).hexdigest(),
        verified=True,
        origin=origin,
        **values,
    )
    with core.backup_store.writing(name) as part:
        part.write(content)
        part.commit({"name": name})
    core.backups.add(backup)
    return backup


POINT = "p000000000000001"


def put_point(core: Core, uuid: str, **values: Any) -> RestorePoint:
    """A restore point of a minute ago in the index, by default `POINT`."""
    made: dict[str, Any] = {"id": POINT, "trigger": "sleep", "files": 2, "size": 30, "stored": 4}
    point = RestorePoint(uuid=uuid, **({"created_at": time.time() - 60} | made | values))
    core.restore_points.put(uuid, [point])
    return point


def alive(core: Core, workers: int = 1) -> None:
    """The observer and some workers were heard of just now."""
    core.heartbeats.observer_alive(time.time())
    for number in range(workers):
        core.heartbeats.worker_alive(f"worker{number}", time.time())


TEXT = {"Accept": "text/plain"}
"""How Prometheus asks for metrics."""


def samples(text: str) -> Mapping[tuple[str, ...], float]:
    """Metrics by their names and the values of their labels."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def check_problem(answer: object, status: int, code: str) -> dict[str, object]:
    """The answer's body, after checking that it is the problem document expected."""
    assert answer.status_code == status, answer.text  # type: ignore[attr-defined]
    assert answer.content_type == "application/problem+json"  # type: ignore[attr-defined]
    body = answer.json  # type: ignore[attr-defined]
    assert body["error"] == code, body
    assert body["status"] == status
    assert {"type", "title", "detail", "instance", "request_id"} <= body.keys()
    assert body["request_id"] == answer.headers["X-Request-Id"]  # type: ignore[attr-defined]
    return dict(body)
