"""Keys, clients and small steps that the tests of the API share."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from typing import Any

from flask import Flask

from app.api.current import EXTENSION
from app.core.backups.index import Backup
from app.core.composition import Core
from app.core.sessions.model import Identity, Record, Status
from app.main import create_forward_auth
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


KEYS = [
    {"name": "backend", "sha256": digest(SERVICE_KEY), "role": "service"},
    {"name": "course", "sha256": digest(BOUND_KEY), "role": "service", "user_prefix": "course-"},
    {"name": "web", "sha256": digest(OWN_LIMITS_KEY), "role": "service", "limits": {"create": "5/minute"}},
]


def keyed(app: Flask, key: str) -> Client:
    """A client that sends `key`."""
    client = app.test_client()
    client.environ_base["HTTP_X_API_KEY"] = key
    return client


def core_of(app: Flask) -> Core:
    core = app.extensions[EXTENSION]
    assert isinstance(core, Core)
    return core


def forward_auth_of(app: Flask) -> Flask:
    """What the ingress asks, over the same Redis."""
    return create_forward_auth(core_of(app).settings)


def new_session(client: Client, user_id: str = "ada", **fields: object) -> str:
    """The uuid of a session just created."""
    answer = client.post("/session/create", json={"user_id": user_id, **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json["uuid"])


def move(core: Core, uuid: str, to: Status, **changes: object) -> Record:
    """Do what a worker or the observer would: move the session and settle its intent."""
    return core.store.change(uuid, time.time(), to=to, settle=True, **changes).record


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
