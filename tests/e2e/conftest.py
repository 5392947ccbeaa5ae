"""One running service for the end-to-end tests, and a real browser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.browser import browser
from tests.conversation import Host, chat
from tests.dashboard_browser import page
from tests.looks import context, look
from tests.model_server import ModelServer
from tests.service import Service

__all__ = ["browser", "chat", "context", "look", "page"]


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    """A model, which a module's service may be told of by its `settings`; a module may want another."""
    with ModelServer(api_key="the-key-of-the-model") as running:
        yield running


@pytest.fixture(scope="module")
def service_settings() -> Mapping[str, str]:
    """What a module's service is given; a module may want others."""
    return {}


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, code_server: str, service_settings: Mapping[str, str]
) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("service"), code_server, **service_settings)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def host(service: Service) -> Host:
    return service
