"""The whole service is stopped and started at a random moment of create, wake, restore, turn, backup, sleep and delete.

    STOPS=60 python -m pytest -s tests/faults/test_stop_and_start.py

by hand; by default a few.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.faults.places import local_place
from tests.faults.stopping import run

STOPS = int(os.environ.get("STOPS", "4"))
SEED = int(os.environ.get("SEED", "1"))

pytestmark = pytest.mark.timeout(300 + 120 * STOPS)


def test_after_a_start_every_session_becomes_what_it_was_last_asked_to_be(tmp_path: Path, code_server: str) -> None:
    """Within 30 s, and prompts go on by themselves; by SIGTERM and by SIGKILL in turn."""
    with local_place(tmp_path, code_server) as place:
        assert run(place, STOPS, random.Random(SEED), tmp_path) == []
