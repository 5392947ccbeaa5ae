"""The gateway over a real Redis and a model server, in the test's process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import redis
from flask import Flask

from app.gateway.main import create_app
from app.process.settings import Settings
from tests.model_server import ModelServer
from tests.unit.gateway.helpers import API_KEY, SECRET_KEY, GatewayMaker, Workspace, in_a_test


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer(api_key=API_KEY) as server:
        yield server


@pytest.fixture
def make_gateway(settings: Settings, redis_client: redis.Redis, model: ModelServer) -> GatewayMaker:
    """Makes a gateway over the empty Redis and the model server; keyword arguments change its settings."""

    def make(**changes: object) -> Flask:
        base = dataclasses.replace(
            settings,
            secret_key=SECRET_KEY,
            llm_base_url=model.url,
            llm_api_key=API_KEY,
            llm_model="forced-model",
            llm_timeout=20.0,
        )
        return in_a_test(create_app(dataclasses.replace(base, **changes)))  # type: ignore[arg-type]

    return make


@pytest.fixture
def app(make_gateway: GatewayMaker) -> Flask:
    return make_gateway()


@pytest.fixture
def workspace(app: Flask) -> Workspace:
    """An active session's workspace."""
    return Workspace(app)
