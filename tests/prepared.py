"""Builds and fetches what tests use, before they run: no test should wait for a compiler or for the network.

    python -m tests.prepared

All of it is kept in the cache folder; what is there already is not built again.
"""

from __future__ import annotations

import sys

import pytest

from scripts.cluster import programs
from scripts.cluster.errors import ClusterError
from tests import axe
from tests.manifests import renderer


def main() -> None:
    """Raises CalledProcessError where something can't be built; without Go the tests that need it are skipped."""
    axe.installed()
    try:
        renderer()
        programs.minio()
    except (pytest.skip.Exception, ClusterError) as error:
        print(f"tests that need Go will be skipped: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
