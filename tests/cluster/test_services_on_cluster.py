"""Services in workspaces of the product on a cluster; the suite is tests/suites/services.py."""

from __future__ import annotations

import pytest

from tests.suites.services import Services

pytestmark = pytest.mark.timeout(900)


class TestServicesOnCluster(Services):
    """The whole product."""
