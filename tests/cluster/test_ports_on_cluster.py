"""Ports of workspaces of the product on a cluster, through its ingress (the suite is tests/suites/ports.py)."""

from __future__ import annotations

import pytest

from tests.cluster.on_cluster import place
from tests.suites.ports import Ports, app, context, session, strangers

__all__ = ["app", "context", "place", "session", "strangers"]

pytestmark = pytest.mark.timeout(900)


class TestPortsOnCluster(Ports):
    """The whole product."""
