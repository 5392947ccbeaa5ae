"""Ports of workspaces of one machine, behind Traefik (the suite is tests/suites/ports.py)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.e2e.on_this_machine import on_this_machine
from tests.service import Service
from tests.suites.browser_access import Place
from tests.suites.ports import Ports, app, context, session, strangers

__all__ = ["app", "context", "session", "strangers"]


@pytest.fixture(scope="module")
def service_settings() -> Mapping[str, str]:
    """A domain of their own, so that all addresses are of one site."""
    return {"WORKSPACE_DOMAIN": "ws.localhost"}


@pytest.fixture(scope="module")
def place(service: Service) -> Place:
    return on_this_machine(service, agents_host="api.ws.localhost")


class TestPortsLocally(Ports):
    """The whole service, as scripts/run starts it."""
