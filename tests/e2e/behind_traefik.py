"""A service on one machine behind its own Traefik, as the place of tests/suites/browser_access.py and
tests/suites/ports.py, its addresses of one site. A module of tests imports its fixtures."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.e2e.on_this_machine import on_this_machine
from tests.service import Service
from tests.suites.browser_access import Place


@pytest.fixture(scope="module")
def service_settings() -> Mapping[str, str]:
    return {"WORKSPACE_DOMAIN": "ws.localhost"}


@pytest.fixture(scope="module")
def place(service: Service) -> Place:
    return on_this_machine(service, agents_host="api.ws.localhost")
