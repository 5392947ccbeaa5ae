"""On a cluster: a sleep beside a prompt, a stop of the whole manager while sessions are on their way, and the fuzzer.

    TRIALS=50 STOPS=6 ROUNDS=20 python -m pytest -s tests/cluster/fuzz_by_hand.py

by hand, behind `scripts/cluster/cluster exec`; CI does not collect it. By default a few.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import racing, stopping
from tests.faults.cluster_place import ClusterPlace, cluster_place
from tests.faults.fuzz import SLOTS, Fuzz
from tests.faults.places import Place
from tests.faults.scene import Scene
from tests.faults.settling import settling
from tests.faults.troubling import Mood

TRIALS = int(os.environ.get("TRIALS", "2"))
STOPS = int(os.environ.get("STOPS", "1"))
ROUNDS = int(os.environ.get("ROUNDS", "1"))
SEED = int(os.environ.get("SEED", "1"))

pytestmark = pytest.mark.timeout(600 + 120 * TRIALS + 300 * (STOPS + ROUNDS))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterPlace]:
    with cluster_place(tmp_path_factory.mktemp("cluster")) as place:
        yield place


@pytest.fixture
def place(running: ClusterPlace) -> Place:
    """With no session of the tests before."""
    running.renew()
    return running


def test_a_prompt_beside_a_sleep_is_worked_on_once(place: Place) -> None:
    """One that came after the sleep is answered; one that was running when it came may say that it was put to sleep."""
    assert racing.run(place, TRIALS, random.Random(SEED)) == []


def test_after_a_start_every_session_becomes_what_it_was_last_asked_to_be(place: Place, tmp_path: Path) -> None:
    """Prompts go on by themselves; by SIGTERM and by SIGKILL in turn."""
    assert stopping.run(place, STOPS, random.Random(SEED), tmp_path) == []


def test_random_calls_and_faults_lose_nothing_and_leave_nothing(place: Place, tmp_path: Path) -> None:
    """What must be so is in tests/faults/judging.py and contents.py."""
    with settling(Scene(place, SLOTS), tmp_path) as quiet:
        fuzzer = Fuzz(quiet, SEED)
        assert [fuzzer.play(number, None if number else Mood.KILLS).findings for number in range(ROUNDS)] == [
            []
        ] * ROUNDS
