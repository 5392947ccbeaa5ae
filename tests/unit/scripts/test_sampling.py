"""Which part of a long test a run does."""

from __future__ import annotations

import pytest

from tests import sampling

POINTS = range(1, 31)


@pytest.fixture(autouse=True)
def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "FULL", False)


def drawn(monkeypatch: pytest.MonkeyPatch, seed: int) -> list[int]:
    monkeypatch.setattr(sampling, "SEED", str(seed))
    return sampling.some(POINTS, 5, "points")


def test_a_sample_is_drawn_again_by_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    first = drawn(monkeypatch, 1)
    assert len(first) == 5 and first == sorted(first) and set(first) <= set(POINTS)
    assert drawn(monkeypatch, 2) != first
    assert drawn(monkeypatch, 1) == first


def test_runs_reach_every_point(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {point for seed in range(100) for point in drawn(monkeypatch, seed)} == set(POINTS)


def test_each_purpose_draws_for_itself() -> None:
    assert sampling.dice("a").random() != sampling.dice("b").random()
    assert sampling.seeds(2, "a") != sampling.seeds(2, "b")


def test_a_full_run_does_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (sampling.times(50, 15), sampling.some("abc", 3, "letters")) == (15, ["a", "b", "c"])
    monkeypatch.setattr(sampling, "FULL", True)
    assert (sampling.times(50, 15), sampling.some(POINTS, 5, "points")) == (50, list(POINTS))
