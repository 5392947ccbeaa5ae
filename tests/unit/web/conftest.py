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
from tests.unit.api.helpers import ADMIN_KEY, KEYS, AppMaker, core_of, digest
from tests.world import SECRET_KEY

READING_KEY = "the-key-of-an-onlooker"
ONLOOKER = {"name": "onlooker", "sha256": digest(READING_KEY), "role": "read"}
HTMX = {"HX-Request": "true"}
"""What a part of a page is asked for with."""


def signed_in(app: Flask, key: str = ADMIN_KEY) -> Visitor:
    """A browser that is signed in with this key."""
    visitor = Visitor(app)
    visitor.sign_in(key)
    return visitor


def page(visitor: Visitor, path: str, **headers: str) -> str:
    """The text of a page that is there."""
    answer = visitor.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.text)


@pytest.fixture
def make_app(settings: Settings, redis_client: redis.Redis) -> AppMaker:
    """Makes an app with a dashboard over the empty Redis; keyword arguments change its settings."""

    def make(**changes: object) -> Flask:
        keys = json.dumps([*KEYS, ONLOOKER])
        base = dataclasses.replace(
            settings, api_key=ADMIN_KEY, api_keys=keys, wait_default=0.3, secret_key=SECRET_KEY, dashboard_url=ORIGIN
        )
        return create_app(dataclasses.replace(base, **changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return make_app()


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
    return signed_in(app)


@pytest.fixture
def onlooker(app: Flask) -> Visitor:
    """A browser that is signed in with a key that changes nothing."""
    return signed_in(app, READING_KEY)
