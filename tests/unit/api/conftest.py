"""The API over a real Redis, without workers: tests move a session by changing its record."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
import redis
from flask import Flask
from flask_smorest import Blueprint

from app import main
from app.api.openapi import Api
from app.core.composition import Core
from app.core.sessions.model import Status
from app.main import create_app
from app.settings import Settings
from tests.unit.api.helpers import ADMIN_KEY, KEYS, AppMaker, Client, core_of, keyed, move, new_session
from tests.unit.api.visitors import Visitor

DOCUMENTS: list[dict[str, Any]] = []
"""The OpenAPI document of the first app of this process."""


@pytest.fixture(autouse=True)
def documented_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All apps have the same OpenAPI document, and putting it together takes most of the time to make one."""
    if DOCUMENTS:
        monkeypatch.setattr(Blueprint, "register_views_in_doc", lambda *_, **__: None)
        monkeypatch.setattr(Api, "_register_responses", lambda _: None)
        monkeypatch.setattr(main, "build_document", lambda _: DOCUMENTS[0])
    else:

        def kept(api: Api, build: Callable[[Api], dict[str, Any]] = main.build_document) -> dict[str, Any]:
            DOCUMENTS.append(build(api))
            return DOCUMENTS[0]

        monkeypatch.setattr(main, "build_document", kept)


@pytest.fixture
def make_app(settings: Settings, redis_client: redis.Redis) -> AppMaker:
    """Makes an app over the empty Redis; keyword arguments change its settings."""

    def make(**changes: object) -> Flask:
        base = dataclasses.replace(settings, api_key=ADMIN_KEY, api_keys=json.dumps(KEYS), wait_default=0.3)
        return create_app(dataclasses.replace(base, **changes))  # type: ignore[arg-type]

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
