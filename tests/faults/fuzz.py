"""A fuzzer of the whole service: random calls and faults on few sessions, and after each round what must be so.

    python -m tests.faults.fuzz --seconds 3600 --seed 1 --runtime local

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
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
import requests

from tests.faults import chronicle
from tests.faults.acting import Actor
from tests.faults.chronicle import Outcome
from tests.faults.contents import Contents
from tests.faults.counting import PATTERN
from tests.faults.judging import Finding, Judge
from tests.faults.looking import Events, Snapshot, snapshot
from tests.faults.places import Place, local_place, wait_back
from tests.faults.scene import Scene
from tests.faults.troubling import Mood, Trouble
from tests.model_server import last_prompt

CLIENTS = 3
SLOTS = 5
PLAY = (4.0, 10.0)
"""s of a round in which something is done."""

QUIET = 30.0
"""s after which everything must be as it was last asked to be."""

LOOKS, PAUSE = 4, 0.4
"""Looks in a row that find nothing, and s between two, before the quiet is cut short."""

LONG_QUIET = 0.1
"""The share of rounds in which it isn't."""

STORY = 20.0
"""s before a round from which the story of a session is told."""


@dataclass(frozen=True)
class Round:
    """What one round was, and what it found."""

    number: int
    mood: Mood
    findings: Sequence[Finding]


class Fuzz:
    """Plays on a place, round after round."""

    def __init__(self, place: Place, seed: int, folder: Path, without: Collection[str] = ()) -> None:
        self.place, self.seed, self.folder, self.without = place, seed, folder, without
        self.scene = Scene(place, SLOTS)
        self.events = Events(place.redis, lambda: list(self.scene.subjects))
        self.judge = Judge(self.scene, self.events)
        self.contents = Contents(self.scene)
        self.events.start()
        self._known: set[Finding] = set()

    def close(self) -> None:
        self.events.over.set()
        self.events.join()

    def play(self, number: int, mood: Mood | None = None) -> Round:
        """One round."""
        chance = random.Random(f"{self.seed} {number}")
        chosen = chance.choice(list(Mood))
        mood = mood or chosen
        began = time.time()
        self._trouble(chance, mood, chance.uniform(*PLAY), number)
        wait_back(self.place)
        found = self._quiet(full=chance.random() < LONG_QUIET)
        found += self._past()
        self._spoil(found)
        # Only what has begun by itself can be told from what a new call began.
        awake = self._quiet(woken=self._wake_all()) + self._past()
        found += awake
        self._spoil(awake)
        contents = self._contents()
        found += contents
        self._spoil(contents)
        self._end_judged()
        fresh = [each for each in dict.fromkeys(found) if each not in self._known]
        self._known.update(fresh)
        if fresh:
            self._tell(number, mood, fresh, began)
        return Round(number, mood, fresh)

    def _trouble(self, chance: random.Random, mood: Mood, seconds: float, number: int) -> None:
        over = threading.Event()
        names = [f"client {n}" for n in range(CLIENTS)]
        actors = [
            Actor(self.scene, name, random.Random(f"{self.seed} {number} {name}"), over, self.without) for name in names
        ]
        trouble = Trouble(self.scene, random.Random(chance.random()), over, mood)
        for thread in (*actors, trouble):
            thread.start()
        over.wait(seconds)
        over.set()
        for thread in (trouble, *actors):
            thread.join()
        if trouble.error is not None:
            raise trouble.error

    def _quiet(self, *, full: bool = False, woken: Collection[str] = ()) -> list[Finding]:
        """What is not as it must be when everybody has been quiet for `QUIET`, or before, when nothing is wrong."""
        deadline = time.monotonic() + QUIET
        good = 0
        while True:
            try:
                found = list(self.judge.look(self._seen(), woken))
            except (redis.RedisError, requests.RequestException) as error:
                found = [Finding("can't look", "", f"{type(error).__name__}: {error}")]
            good = 0 if found else good + 1
            if time.monotonic() > deadline or (good >= LOOKS and not full):
                return found
            time.sleep(PAUSE)

    def _seen(self) -> Snapshot:
        with self.place.redis() as client:
            return snapshot(client)

    def _past(self) -> list[Finding]:
        self.events.read()
        for received in self.place.model.forget():
            if match := PATTERN.fullmatch(last_prompt(received.body)):
                self.judge.asked.setdefault(match[1], []).append(received.at)
        return list(self.judge.past(self._seen()))

    def _contents(self) -> list[Finding]:
        return list(self.contents.judge(self._seen(), time.time()))

    def _wake_all(self) -> list[str]:
        """Wake every living session, by calls that must be accepted; those sessions."""
        seen = self._seen()
        living = [each for each in self.scene.judged() if each.uuid in seen.everyone]
        for subject in living:
            deed = self.scene.chronicle.begin("wake", "judge", subject.uuid)
            answer = self.place.call("POST", f"/session/{subject.uuid}/wake", None, {"Prefer": "respond-async"}, 20)
            subject.deeds.append(deed)
            self.scene.chronicle.end(deed, Outcome.ACCEPTED if answer.ok else Outcome.REFUSED, answer.text)
        return [subject.uuid for subject in living]

    def _spoil(self, found: Sequence[Finding]) -> None:
        """Let what was found once not be found again and again."""
        for uuid in {each.uuid for each in found if each.uuid}:
            self.judge.spoil(uuid)
            self.place.call("DELETE", f"/session/{uuid}?backup=false", None, {"Prefer": "respond-async"}, 20)

    def _end_judged(self) -> None:
        seen = self._seen()
        for subject in self.scene.judged():
            if subject.uuid in seen.by_status["terminated"]:
                subject.over = True
                self.scene.leave(subject)

    def _tell(self, number: int, mood: Mood, found: Sequence[Finding], began: float) -> None:
        path = self.folder / f"deeds-{self.seed}-{number}.jsonl"
        self.scene.chronicle.write(path)
        print(f"seed {self.seed}, round {number} ({mood}): {len(found)} found; all deeds are in {path}")
        for each in found:
            print(f"  {each.kind}: {each.uuid} {each.text}")
        for uuid in dict.fromkeys(each.uuid for each in found if each.uuid):
            print(f"  the story of {uuid}:\n{self._story(uuid, began - STORY)}", flush=True)

    def _story(self, uuid: str, since: float) -> str:
        """Its calls, events and log lines, and all faults, in the order of their times."""
        lines = self.scene.chronicle.lines(uuid)
        lines += [
            (event.at, f"event {event.type} {dict(event.data)}"[:300])
            for event in self.events.of(uuid)
            if event.type != "token"
        ]
        lines += self.place.lines(uuid, since)
        return chronicle.told(lines, since)


@contextmanager
def fuzz(place: Place, seed: int, folder: Path, without: Collection[str] = ()) -> Iterator[Fuzz]:
    """A fuzzer of this place, for the block."""
    running = Fuzz(place, seed, folder, without)
    try:
        yield running
    finally:
        running.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the whole service.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None, help="a random one, printed, without it")
    parser.add_argument("--runtime", choices=["local"], default="local")
    parser.add_argument("--mood", choices=[str(mood) for mood in Mood], help="only this kind of trouble")
    parser.add_argument("--without", default="", help="calls to leave out, as sleep,chat")
    parser.add_argument("--first", type=int, default=0, help="the number of the first round, to see that one again")
    parser.add_argument("--rounds", type=int, default=sys.maxsize)
    parser.add_argument("--folder", type=Path, help="for everything; a temporary one without it")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}, in {folder}", flush=True)
    found: Counter[str] = Counter()
    until, rounds = time.monotonic() + options.seconds, 0
    with (
        local_place(folder, os.environ["CODE_SERVER"]) as place,
        fuzz(place, seed, folder, options.without.split(",")) as fuzzer,
    ):
        while time.monotonic() < until and rounds < options.rounds:
            began = time.monotonic()
            played = fuzzer.play(options.first + rounds, Mood(options.mood) if options.mood else None)
            rounds += 1
            found.update(each.kind for each in played.findings)
            took = time.monotonic() - began
            print(f"round {played.number} ({played.mood}): {len(played.findings)} found in {took:.0f} s", flush=True)
        deeds = Counter(deed.what.split()[0] for deed in fuzzer.scene.chronicle.deeds())
    print(f"{rounds} rounds of seed {seed}; deeds: {dict(deeds.most_common())}; found: {dict(found.most_common())}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
