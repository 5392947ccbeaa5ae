"""The phases of a session's start, as a bar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

NAMES = {
    "enqueued": "queue",
    "scheduled": "machine",
    "volume": "volume",
    "image": "image",
    "started": "process",
    "ready": "editor",
}
"""What each phase waited for."""

WIDTH = 100.0


@dataclass(frozen=True)
class Step:
    """A phase in the bar: how long it took (ms), where it begins and how wide it is, of `WIDTH`."""

    name: str
    label: str
    ms: int
    x: float
    width: float


def steps_of(phases: Mapping[str, int]) -> list[Step]:
    """The phases in order, from their ends in ms since the request; at least as wide as can be seen."""
    ends = sorted(phases.items(), key=lambda phase: phase[1])
    total = max((end for _, end in ends), default=0) or 1
    taken = [(name, end - begun) for (_, begun), (name, end) in pairwise([("", 0), *ends])]
    widths = [max(1.0, WIDTH * ms / total) for _, ms in taken]
    scale = WIDTH / sum(widths) if widths else 1.0
    steps, x = [], 0.0
    for (name, ms), width in zip(taken, widths, strict=True):
        steps.append(Step(name, NAMES.get(name, name), ms, round(x * scale, 2), round(width * scale, 2)))
        x += width
    return steps
