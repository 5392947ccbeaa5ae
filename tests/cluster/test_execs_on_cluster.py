"""Commands in workspaces of the product on a cluster; the suite is tests/suites/execs.py."""

from __future__ import annotations

import pytest

from tests.suites.execs import Execs

pytestmark = pytest.mark.timeout(900)


class TestExecsOnCluster(Execs):
    """The whole product."""
