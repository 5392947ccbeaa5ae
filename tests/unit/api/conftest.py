"""The API over a real Redis, without workers: tests move a session by changing its record."""

from __future__ import annotations

import dataclasses
import json

import pytest
import redis
from flask import Flask

from app.main import create_app
from app.sessions.core import Core
from app.settings import Settings
from tests.unit.api.helpers import ADMIN_KEY, KEYS, AppMaker, Client, core_of, keyed


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
