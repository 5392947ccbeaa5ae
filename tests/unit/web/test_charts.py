"""Shapes of charts."""

from __future__ import annotations

import pytest

from app.web.charts import POINTS, Series, bars, dots, stacked, thin, weighted_median


def series(*values: float | None, name: str = "a") -> Series:
    return Series(name, "ok", values)


def test_areas_stand_on_one_another() -> None:
    chart = stacked([series(1.0, 1.0), series(3.0, 1.0, name="b")])
    assert chart.top == 5
    assert [shape.path for shape in chart.shapes] == [
        "M0.0 128.0L600.0 128.0L600.0 160.0L0.0 160.0Z",
        "M0.0 32.0L600.0 96.0L600.0 128.0L0.0 128.0Z",
    ]


def test_a_gap_has_no_dot_and_no_bar() -> None:
    assert dots([series(None, 10.0, None)]).shapes[0].path == "M300.0 0.0h0"
    assert bars([series(None, 10.0)]).shapes[0].path == "M450.0 160V0.0"


def test_nothing_is_drawn_of_nothing() -> None:
    for draw in (stacked, dots, bars):
        chart = draw([series()])
        assert (chart.top, chart.shapes[0].path) == (1.0, "")


def test_many_values_become_means_of_neighbours() -> None:
    assert thin([1.0, 3.0, None, 5.0, None, None], most=3) == [2.0, 5.0, None]
    assert len(thin([1.0] * 1_440)) == POINTS


@pytest.mark.parametrize(("value", "top"), [(0.0, 1), (0.3, 0.5), (1.0, 1), (2.4, 2.5), (7.0, 10), (301.0, 500)])
def test_the_top_is_a_round_number(value: float, top: float) -> None:
    assert dots([series(value)]).top == pytest.approx(top)


def test_the_median_counts_by_weight() -> None:
    assert weighted_median([100.0, 900.0, None], [1, 5, 9]) == 900.0
    assert weighted_median([None], [1]) is None
    assert weighted_median([], []) is None
