"""The API over a real Redis, without workers: tests move a session by changing its record."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest
import redis
from flask import Flask

from app.api.openapi import Api
from app.core.composition import Core
from app.core.sessions.model import Status
from app.main import create_app
from app.process.settings import Settings
from tests.documented import CheckedClient
from tests.unit.api.helpers import ADMIN_KEY, KEYS, AppMaker, Client, core_of, keyed, move, new_session
from tests.unit.api.visitors import Visitor

DOCUMENTS: list[str] = []
"""The OpenAPI document of the first app of this process."""


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
        app = create_app(dataclasses.replace(base, **changes))  # type: ignore[arg-type]
        app.test_client_class = CheckedClient
        return app

    return make


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return make_app(rate_limit_default="10000/minute", rate_limit_create="10000/minute")


@pytest.fixture
def client(app: Flask) -> Client:
    """A client with the admin key."""
    return keyed(app, ADMIN_KEY)


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
