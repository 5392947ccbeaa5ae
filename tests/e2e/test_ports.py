"""Ports of workspaces of one machine, behind Traefik (the suite is tests/suites/ports.py)."""

from __future__ import annotations

from tests.e2e.behind_traefik import place, service_settings
from tests.suites.ports import Ports, app, context, session, strangers

__all__ = ["app", "context", "place", "service_settings", "session", "strangers"]


class TestPortsLocally(Ports):
    """The whole service, as scripts/run starts it."""
