"""A bounded sample of the fuzzer; `python -m tests.faults fuzz` plays for as long as one wants."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from app.core.redis import keys
from tests import sampling
from tests.faults.fuzz import SLOTS, Fuzz
from tests.faults.places import Place, local_place
from tests.faults.scene import Scene
from tests.faults.settling import settling
from tests.faults.troubling import Mood
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(900)

[SEED] = sampling.seeds(1, "fuzz")
MOODS = sampling.some([Mood.CALM, Mood.KILLS, Mood.STOPS, Mood.ALL], 2, "moods")

DRILLS = 3
"""That a run sees at least."""


def test_random_calls_and_faults_lose_nothing_and_leave_nothing(tmp_path: Path, code_server: str) -> None:
    """What must be so is in tests/faults/judging.py and contents.py."""
    with local_place(tmp_path, code_server) as place, settling(Scene(place, SLOTS), tmp_path) as quiet:
        fuzzer = Fuzz(quiet, SEED)
        for number, mood in enumerate(MOODS):
            findings = fuzzer.play(number, mood).findings
            assert not findings, findings
        accepted = [deed for deed in quiet.scene.chronicle.deeds() if deed.accepted and not deed.fault]
        assert len(accepted) > 10 * len(MOODS), "hardly anything was done"
        wait_for(lambda: drilled(place) >= DRILLS, "drills", lambda: str(drilled(place)), seconds=place.patience)
        assert not quiet.settle("drills", time.time()).findings


def drilled(place: Place) -> int:
    """How many drills have proven a restore point."""
    with place.redis() as client:
        return int(client.hget(keys.COUNTERS, "drills_proven") or 0)
