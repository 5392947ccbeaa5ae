"""A fuzzer of the whole service: random calls and faults on few sessions, and after each round what must be so.

    python -m tests.faults.fuzz --seconds 3600 --seed 1 --runtime local
    scripts/cluster/cluster exec env API_URL=… API_KEY=… PYTHONPATH=$PWD \
        python -m tests.faults.fuzz --seconds 600 --runtime cluster

A round is some seconds of several impatient clients and of one kind of trouble (`Mood`), then quiet, in which every
session becomes what it was last asked to be; then all are woken, and everything is compared: files, backups,
conversations, what the model was asked. All that is random comes from the seed and the round's number, as far as
threads allow. What is found is printed with the story of its session, and all deeds are written to a file.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path

from tests.faults.acting import Actor
from tests.faults.places import Place, local_place
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


def play_for(place: Place, folder: Path, seed: int, options: argparse.Namespace) -> Counter[str]:
    """Round after round until the time is over; how much was found, by kind."""
    found: Counter[str] = Counter()
    until, rounds = time.monotonic() + options.seconds, 0
    scene = Scene(place, SLOTS)
    with settling(scene, folder) as quiet:
        fuzzer = Fuzz(quiet, seed, options.without.split(","))
        while time.monotonic() < until and rounds < options.rounds:
            began = time.monotonic()
            settled = fuzzer.play(options.first + rounds, Mood(options.mood) if options.mood else None)
            found.update(each.kind for each in settled.findings)
            said = f"{len(settled.findings)} found, well after {settled.seconds:.1f} s ({settled.last})"
            print(f"round {options.first + rounds}: {said}, {time.monotonic() - began:.0f} s in all", flush=True)
            rounds += 1
    deeds = Counter(deed.what for deed in scene.chronicle.deeds())
    print(f"{rounds} rounds of seed {seed}; sessions: {len(scene.subjects)}; deeds: {dict(deeds.most_common())}")
    print(f"found: {dict(found.most_common())}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the whole service.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, help="a random one, printed, without it")
    parser.add_argument("--runtime", choices=["local", "cluster"], default="local")
    parser.add_argument("--mood", choices=[str(mood) for mood in Mood], help="only this kind of trouble")
    parser.add_argument("--without", default="", help="calls to leave out, as sleep,chat; or idle")
    parser.add_argument("--first", type=int, default=0, help="the number of the first round, to see that one again")
    parser.add_argument("--rounds", type=int, default=sys.maxsize)
    parser.add_argument("--folder", type=Path, help="for everything; a temporary one without it")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}, in {folder}", flush=True)
    if options.runtime == "cluster":
        # It needs what is only there behind `scripts/cluster/cluster exec`.
        from tests.faults.cluster_place import cluster_place

        chosen: AbstractContextManager[Place] = cluster_place(folder)
    else:
        chosen = local_place(folder, os.environ["CODE_SERVER"])
    with chosen as place:
        return bool(play_for(place, folder, seed, options))


if __name__ == "__main__":
    sys.exit(main())
