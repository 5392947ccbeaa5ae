"""The hostile tenant's tour of a real cluster: what `python -m tests.faults --runtime cluster tour` plays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts.cluster import layout
from tests.faults.cluster_place import cluster_place
from tests.faults.touring import ON_CLUSTER, Tour, Visit, each_of, surroundings, touring

# All processes are replaced before the first test and after the last.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tour]:
    folder = tmp_path_factory.mktemp("tour")
    with (
        surroundings(folder, layout.NODE_IP) as around,
        cluster_place(folder, **around.settings) as place,
        touring(place, around) as made,
    ):
        yield made


@each_of(ON_CLUSTER)
def test_the_door_is_closed(tour: Tour, visit: Visit) -> None:
    visit(tour)
