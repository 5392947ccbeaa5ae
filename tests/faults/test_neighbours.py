"""A hostile session beside quiet ones: a bounded sample of `python -m tests.faults neighbours`, which measures too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.neighbours import SETTINGS, compare
from tests.faults.places import local_place

QUIET = 5

pytestmark = pytest.mark.timeout(400)


def test_a_hostile_session_costs_its_neighbours_no_error_and_us_no_process(tmp_path: Path, code_server: str) -> None:
    with local_place(tmp_path, code_server, **SETTINGS) as place:
        seen = compare(place, rounds=1, quiet=QUIET)
    assert seen.wrong() == []
    assert len(seen.beside.woken) == QUIET
