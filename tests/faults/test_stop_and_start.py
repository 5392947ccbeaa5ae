"""The whole service is stopped and started at a random moment of create, wake, restore, turn, backup, sleep and delete:
a bounded sample of `python -m tests.faults stops`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import sampling
from tests.faults.places import local_place
from tests.faults.stopping import run

STOPS = sampling.times(4, 2)

pytestmark = pytest.mark.timeout(800)


def test_after_a_start_every_session_becomes_what_it_was_last_asked_to_be(tmp_path: Path, code_server: str) -> None:
    """Within 30 s, and prompts go on by themselves; by SIGTERM and by SIGKILL in turn."""
    with local_place(tmp_path, code_server) as place:
        assert run(place, STOPS, sampling.dice("stops"), tmp_path) == []
