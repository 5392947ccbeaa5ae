"""The product of docs/example beside a service on this machine (the suite is tests/suites/example.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests import example
from tests.model_server import ModelServer
from tests.ports import free_port
from tests.service import KEY, Service
from tests.suites.example import Example


@pytest.fixture(scope="module")
def port() -> int:
    """Where the product listens."""
    return free_port()


@pytest.fixture(scope="module")
def service_settings(port: int, model: ModelServer) -> Mapping[str, str]:
    return model.settings | example.settings_with(port)


@pytest.fixture(scope="module")
def product(service: Service, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with example.running(port, service.url, KEY, tmp_path_factory.mktemp("product") / "log") as url:
        yield url


class TestExampleLocally(Example):
    """The whole service, as scripts/run starts it."""
