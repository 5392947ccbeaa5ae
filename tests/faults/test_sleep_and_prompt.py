"""A sleep and a prompt 0 to 50 ms apart: the prompt is worked on once, whichever came first. A bounded sample of
`python -m tests.faults races`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import sampling
from tests.faults.places import local_place
from tests.faults.racing import run

TRIALS = sampling.times(10, 5)

pytestmark = pytest.mark.timeout(1200)


def test_a_prompt_beside_a_sleep_is_worked_on_once(tmp_path: Path, code_server: str) -> None:
    """One that came after the sleep is answered; one that was running when it came may say that it was put to sleep."""
    with local_place(tmp_path, code_server) as place:
        assert run(place, TRIALS, sampling.dice("races")) == []
