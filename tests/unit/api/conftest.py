"""The API over a real Redis, without workers: tests move a session by changing its record."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask

from app.api.openapi import Api
from app.core.access.keyring import CATEGORIES
from app.core.composition import Core
from app.core.sessions.model import Status
from app.main import create_app
from app.process.settings import Settings
from tests.documented import CheckedClient
from tests.unit.api.helpers import (
    ADMIN_KEY,
    BOUND_KEY,
    KEYS,
    SERVICE_KEY,
    AppMaker,
    Client,
    bearer,
    core_of,
    keyed,
    move,
    new_session,
)
from tests.unit.api.real_agent import Workspace
from tests.unit.api.visitors import Visitor, forward_auth_client, link
from tests.world import SECRET_KEY

DOCUMENTS: list[str] = []
"""The OpenAPI document of the first app of this process."""

ROOM = {f"rate_limit_{name}": "10000/minute" for name in CATEGORIES}
"""Rates that no test reaches by accident."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "settings(**changes): settings of the fixture `app`; a test's go before a module's"
    )


@pytest.fixture(autouse=True)
def documented_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All apps have the same OpenAPI document, and putting it together takes longer than all else of an app."""

    def once(api: Api, write: Callable[[Api], str] = Api.document_text) -> str:
        if not DOCUMENTS:
            DOCUMENTS.append(write(api))
        return DOCUMENTS[0]

    monkeypatch.setattr(Api, "document_text", once)


@pytest.fixture
def make_app(settings: Settings, redis_client: redis.Redis) -> AppMaker:
    """Makes an app over the empty Redis, without the dashboard; keyword arguments change its settings."""

    def make(**changes: object) -> Flask:
        keys = json.dumps(KEYS)
        base = dataclasses.replace(settings, api_key=ADMIN_KEY, api_keys=keys, wait_default=0.3, dashboard_url="off")
        app = create_app(dataclasses.replace(base, **(ROOM | changes)))  # type: ignore[arg-type]
        app.test_client_class = CheckedClient
        return app

    return make


@pytest.fixture
def app(make_app: AppMaker, request: pytest.FixtureRequest) -> Flask:
    """With a secret and a model, and the settings of the test's marks."""
    changes: dict[str, Any] = {"secret_key": SECRET_KEY, "llm_base_url": "http://127.0.0.1:1/v1"}
    for mark in reversed([*request.node.iter_markers("settings")]):
        changes |= mark.kwargs
    return make_app(**changes)


@pytest.fixture
def client(app: Flask) -> Client:
    """A client with the admin key."""
    return keyed(app, ADMIN_KEY)


@pytest.fixture
def service(app: Flask) -> Client:
    """A client with a service's key."""
    return keyed(app, SERVICE_KEY)


@pytest.fixture
def bound(app: Flask) -> Client:
    """A client whose key is for users of `course-` alone."""
    return keyed(app, BOUND_KEY)


@pytest.fixture
def stranger(app: Flask) -> Client:
    """A client without a key."""
    return app.test_client()


@pytest.fixture
def holder(app: Flask, client: Client, uuid: str) -> Client:
    """A client with a session token instead of a key."""
    made = client.post(f"/session/{uuid}/token").json
    assert made.keys() == {"uuid", "token", "expires_at"}
    holder: Client = app.test_client()
    holder.environ_base["HTTP_AUTHORIZATION"] = bearer(made["token"])["Authorization"]
    return holder


@pytest.fixture
def core(app: Flask) -> Core:
    return core_of(app)


@pytest.fixture
def uuid(client: Client, core: Core) -> str:
    """An active session."""
    made = new_session(client)
    move(core, made, Status.ACTIVE)
    return made


@pytest.fixture
def visitor(app: Flask, uuid: str) -> Visitor:
    """One that never was here."""
    return Visitor(app, uuid)


@pytest.fixture
def entered(client: Client, uuid: str, visitor: Visitor) -> Visitor:
    """One that has followed a link."""
    visitor.navigate(link(client, uuid))
    return visitor


@pytest.fixture
def forward_auth(app: Flask) -> Client:
    """What the ingress asks; each request says all that it brings."""
    return forward_auth_client(app)


@pytest.fixture
def workspace(core: Core, uuid: str, tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(core, uuid, tmp_path)
    workspace.start()
    yield workspace
    workspace.stop()
