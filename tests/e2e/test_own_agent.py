"""An agent of the product's own on one machine (the suite is tests/suites/own_agent.py)."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.model_server import ModelServer
from tests.service import Service
from tests.suites.own_agent import AGENT, OwnAgent, Place


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str, model: ModelServer) -> Iterator[Service]:
    """One whose workspaces have that agent."""
    program = {"AGENT_PROGRAM": f"{sys.executable} -I {AGENT}"}
    running = Service(tmp_path_factory.mktemp("service"), code_server, **model.settings, WAKE_GRACE="0", **program)
    running.start()
    try:
        yield running
    finally:
        running.stop()
    assert running.processes() == []


@pytest.fixture(scope="module")
def place(service: Service) -> Place:
    def running(uuid: str) -> list[object]:
        return [*service.processes(str(AGENT), WORKSPACE_UUID=uuid)]

    def left(uuid: str) -> list[object]:
        """Of the agent, wherever: none else runs here."""
        return [*service.processes(str(AGENT)), *service.processes(WORKSPACE_UUID=uuid)]

    return Place(running, left)


class TestOwnAgentLocally(OwnAgent):
    """The whole service, as scripts/run starts it."""
