"""A bounded sample of what `python -m tests.faults --runtime cluster` plays for as long as one wants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import sampling
from tests.faults import racing
from tests.faults.cluster_place import ClusterPlace, cluster_place
from tests.faults.fuzz import SLOTS, Fuzz
from tests.faults.places import Place
from tests.faults.scene import Scene
from tests.faults.settling import settling
from tests.faults.troubling import Mood

TRIALS = 3

pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]


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
    assert racing.run(place, TRIALS, sampling.dice("races")) == []


def test_random_calls_and_faults_lose_nothing_and_leave_nothing(place: Place, tmp_path: Path) -> None:
    """What must be so is in tests/faults/judging.py and contents.py."""
    with settling(Scene(place, SLOTS), tmp_path) as quiet:
        [seed] = sampling.seeds(1, "fuzz")
        findings = Fuzz(quiet, seed).play(0, Mood.KILLS).findings
        assert not findings, findings
        accepted = [deed for deed in quiet.scene.chronicle.deeds() if deed.accepted and not deed.fault]
        assert len(accepted) > 10, "hardly anything was done"
