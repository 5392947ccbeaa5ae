"""Files in workspaces of the product on a cluster; the suite is tests/suites/files.py."""

from __future__ import annotations

import pytest

from tests.suites.files import Files

pytestmark = pytest.mark.timeout(900)


class TestFilesOnCluster(Files):
    """The whole product."""
