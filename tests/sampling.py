"""How much of a long fault test one run does: a random sample, or all of it where FULL_TESTS=1.

A run prints its SAMPLE_SEED, which draws the same sample again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

FULL = os.environ.get("FULL_TESTS") == "1"

SEED = os.environ.setdefault("SAMPLE_SEED", str(random.SystemRandom().randrange(10**6)))
"""Kept in the environment: pytest's other processes must draw the same."""


def described() -> str:
    """What a run says about its samples."""
    return f"samples: {'all of each' if FULL else 'a part of each'}, drawn by SAMPLE_SEED={SEED}"


def times(full: int, sample: int) -> int:
    """How often to do what a full run does `full` times."""
    return full if FULL else sample


def some(points: Iterable[T], most: int, name: str) -> list[T]:
    """At most so many of the points, in their order; a full run has them all. `name` says what they are for."""
    every = list(points)
    if FULL or len(every) <= most:
        return every
    return [every[at] for at in sorted(dice(name).sample(range(len(every)), most))]


def dice(name: str) -> random.Random:
    """Random numbers of this run, for one purpose."""
    return random.Random(f"{SEED} {name}")


def seeds(count: int, name: str) -> list[int]:
    """So many seeds of this run, for a test that takes a number."""
    return dice(name).sample(range(10**6), count)
