"""A running service whose parts are there to be killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service import Service


@contextmanager
def impatient_service(folder: Path, code_server: str, **settings: str) -> Iterator[Service]:
    """A killed worker's lease and message are waited for: here for less time than by default, so that the tests take
    less too. At the end nothing of the service may be left."""
    short = {"LEASE_TTL": "3", "STALE_AFTER": "2", "MAX_SESSIONS_PER_USER": "1000"}
    running = Service(folder, code_server, **short, **settings)
    running.start()
    try:
        yield running
    finally:
        running.stop()
    assert running.processes() == [], "an orphan process was left"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str) -> Iterator[Service]:
    with impatient_service(tmp_path_factory.mktemp("service"), code_server) as running:
        yield running
