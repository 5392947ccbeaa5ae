"""An agent with all that is around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model_server import ModelServer
from tests.unit.agent.fake_gateway import FakeGateway
from tests.unit.agent.process import AgentProcess


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def gateway(model: ModelServer) -> Iterator[FakeGateway]:
    with FakeGateway(model.url) as server:
        yield server


@pytest.fixture
def agent(gateway: FakeGateway, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that isn't started yet."""
    process = AgentProcess(gateway, tmp_path)
    yield process
    process.close()
