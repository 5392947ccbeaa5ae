"""The hostile tenant's tour of the service on one machine: what `python -m tests.faults tour` plays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.places import local_place
from tests.faults.touring import ON_MACHINE, Tour, Visit, each_of, surroundings, touring


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory, code_server: str) -> Iterator[Tour]:
    folder = tmp_path_factory.mktemp("tour")
    with (
        surroundings(folder) as around,
        local_place(folder, code_server, **around.settings) as place,
        touring(place, around) as made,
    ):
        yield made


@each_of(ON_MACHINE)
def test_the_door_is_closed(tour: Tour, visit: Visit) -> None:
    visit(tour)
