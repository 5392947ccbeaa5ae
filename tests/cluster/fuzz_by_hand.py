"""A bounded sample of the fuzzer on a cluster, by hand: CI does not collect it. `python -m tests.faults.fuzz --runtime
cluster` plays as long as one wants."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.cluster_place import cluster_place
from tests.faults.fuzz import SLOTS, Fuzz
from tests.faults.scene import Scene
from tests.faults.settling import settling
from tests.faults.troubling import Mood

pytestmark = pytest.mark.timeout(900)

SEED = int(os.environ.get("FUZZ_SEED", "11"))


def test_random_calls_and_faults_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    """What must be so is in tests/faults/judging.py and contents.py."""
    with cluster_place(tmp_path) as place, settling(Scene(place, SLOTS), tmp_path) as quiet:
        assert Fuzz(quiet, SEED).play(0, Mood.KILLS).findings == []
