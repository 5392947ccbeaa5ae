"""One running service for the end-to-end tests, and a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import browser
from tests.service import Service

__all__ = ["browser"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("service"), code_server)
    running.start()
    try:
        yield running
    finally:
        running.stop()
