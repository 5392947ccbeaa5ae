"""A fuzzer of the whole service: random calls and faults on few sessions, and after each round what must be so.

A round is some seconds of several impatient clients and of one kind of trouble (`Mood`), then quiet, in which every
session becomes what it was last asked to be; then all are woken, and everything is compared: files, backups,
conversations, what the model was asked, what calls did inside the workspaces. All that is random comes from the seed
and the round's number, as far as threads allow. What is found is printed with the story of its session, and all deeds
are written to a file.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from tests.faults.acting import Actor
from tests.faults.places import Place
from tests.faults.scene import Scene
from tests.faults.settling import Settled, Settling, settling
from tests.faults.troubling import Mood, Trouble

CLIENTS = 3
SLOTS = 5
PLAY = (5.0, 14.0)
"""s of a round in which something is done."""

LONG_QUIET = 0.1
"""The share of rounds whose quiet is never cut short."""


class Fuzz:
    """Plays on a scene, round after round. `without` are calls to leave out, or `idle`."""

    def __init__(self, settling: Settling, seed: int, without: Collection[str] = ()) -> None:
        self.settling, self.scene = settling, settling.scene
        self.seed, self.without = seed, without

    def play(self, number: int, mood: Mood | None = None) -> Settled:
        """One round, with any kind of trouble or the one given."""
        chance = random.Random(f"{self.seed} {number}")
        chosen = chance.choice(list(Mood))
        mood = mood or chosen
        began = time.time()
        self._trouble(chance, mood, chance.uniform(*PLAY), number)
        full = chance.random() < LONG_QUIET
        return self.settling.settle(f"seed {self.seed} round {number} ({mood})", began, full=full)

    def _trouble(self, chance: random.Random, mood: Mood, seconds: float, number: int) -> None:
        over = threading.Event()
        names = [f"client {n}" for n in range(CLIENTS)]
        chances = [random.Random(f"{self.seed} {number} {name}") for name in names]
        crowd = chance.choice([None, chance.randrange(SLOTS)])
        without = self.without
        actors = [Actor(self.scene, name, own, over, without, crowd) for name, own in zip(names, chances, strict=True)]
        trouble = Trouble(self.scene, random.Random(chance.random()), over, mood)
        for thread in (*actors, trouble):
            thread.start()
        over.wait(seconds)
        over.set()
        for thread in (trouble, *actors):
            thread.join()
        if trouble.error is not None:
            raise trouble.error


def run(
    place: Place,
    folder: Path,
    seed: int,
    seconds: float,
    *,
    first: int = 0,
    most: float = math.inf,
    mood: Mood | None = None,
    without: Collection[str] = (),
) -> Counter[str]:
    """Round after round from number `first` on, until the time is over or there were `most`; how much was found, by
    kind."""
    found: Counter[str] = Counter()
    until, rounds = time.monotonic() + seconds, 0
    scene = Scene(place, SLOTS)
    with settling(scene, folder) as quiet:
        fuzzer = Fuzz(quiet, seed, without)
        while time.monotonic() < until and rounds < most:
            began = time.monotonic()
            settled = fuzzer.play(first + rounds, mood)
            found.update(each.kind for each in settled.findings)
            said = f"{len(settled.findings)} found, well after {settled.seconds:.1f} s ({settled.last})"
            print(f"round {first + rounds}: {said}, {time.monotonic() - began:.0f} s in all", flush=True)
            rounds += 1
    deeds = Counter(deed.what for deed in scene.chronicle.deeds())
    print(f"{rounds} rounds of seed {seed}; sessions: {len(scene.subjects)}; deeds: {dict(deeds.most_common())}")
    print(f"found: {dict(found.most_common())}")
    return found
