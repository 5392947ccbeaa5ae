"""Ports of workspaces behind nginx (the suite is tests/suites/ports.py)."""

from __future__ import annotations

from tests.e2e.behind_nginx import browser, front, nginx_program, place, service_settings
from tests.suites.ports import Ports, app, context, session, strangers

__all__ = ["app", "browser", "context", "front", "nginx_program", "place", "service_settings", "session", "strangers"]


class TestPortsOfNginx(Ports):
    """The whole service, as scripts/run starts it, with nginx in front of its workspaces."""
