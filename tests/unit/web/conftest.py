"""The dashboard over the API's application and the tests' Redis."""

from __future__ import annotations

import dataclasses
import json

import pytest
import redis
from flask import Flask

from app.core.composition import Core
from app.main import create_app
from app.process.settings import Settings
from tests.dashboard import ORIGIN, Visitor
from tests.unit.api.helpers import ADMIN_KEY, core_of, digest

READING_KEY = "the-key-of-an-onlooker"


@pytest.fixture
def app(settings: Settings, redis_client: redis.Redis) -> Flask:
    keys = json.dumps([{"name": "onlooker", "sha256": digest(READING_KEY), "role": "read"}])
    return create_app(dataclasses.replace(settings, api_key=ADMIN_KEY, api_keys=keys, dashboard_url=ORIGIN))


@pytest.fixture
def core(app: Flask) -> Core:
    return core_of(app)


@pytest.fixture
def stranger(app: Flask) -> Visitor:
    """A browser that is not signed in."""
    return Visitor(app)


@pytest.fixture
def visitor(app: Flask) -> Visitor:
    """A browser that is signed in as an admin."""
    signed_in = Visitor(app)
    signed_in.sign_in()
    return signed_in


@pytest.fixture
def onlooker(app: Flask) -> Visitor:
    """A browser that is signed in with a key that changes nothing."""
    signed_in = Visitor(app)
    signed_in.sign_in(READING_KEY)
    return signed_in
