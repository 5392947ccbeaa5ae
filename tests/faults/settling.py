"""The quiet after the trouble: what becomes of every session, what is found, and how that is told."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import redis
import requests

from tests.faults import chronicle
from tests.faults.chronicle import Outcome
from tests.faults.contents import Contents
from tests.faults.counting import PATTERN
from tests.faults.judging import Finding, Judge
from tests.faults.looking import Events, Snapshot, snapshot
from tests.faults.places import wait_back
from tests.faults.scene import Scene
from tests.faults.worked import Worked
from tests.model_server import last_prompt

LOOKS, PAUSE = 4, 0.4
"""Looks in a row that find nothing, and s between two, before the quiet is cut short."""

STORY = 20.0
"""s before a round from which the story of a session is told."""


@dataclass(frozen=True)
class Settled:
    """What was found in a round; after how many seconds of quiet all was well, and what was the last that wasn't."""

    findings: Sequence[Finding]
    seconds: float
    last: str


class Settling:
    """Lets a scene settle, again and again. What was found once is not found again."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene, self.folder = scene, folder
        self.events = Events(scene.place.redis, lambda: list(scene.subjects))
        self.judge = Judge(scene, self.events)
        self.contents = Contents(scene)
        self.worked = Worked(scene)
        self.events.start()
        self._known: set[Finding] = set()
        self._good_at, self._last = 0.0, ""

    def close(self) -> None:
        self.events.over.set()
        self.events.join()

    def settle(self, name: str, began: float, *, full: bool = False) -> Settled:
        """What is wrong after the round `name`, which began then; with `full` the quiet is never cut short."""
        wait_back(self.scene.place)
        quiet_since = time.monotonic()
        found = self._noted(self._quiet(full=full), self._past())
        settled = self._good_at - quiet_since, self._last
        # Only what has begun by itself can be told from what a new call began.
        found += self._noted(self._quiet(woken=self._wake_all()), self._past())
        found += self._noted(self.contents.judge(self._seen(), time.time()))
        found += self._noted(self.worked.judge(self._seen()))
        self._end_judged()
        if found:
            self._tell(name, found, began)
        return Settled(found, *settled)

    def _noted(self, *found: Iterable[Finding]) -> list[Finding]:
        """What of this was not found before. Nothing more is expected of the sessions it is about."""
        fresh = [each for each in dict.fromkeys(chain(*found)) if each not in self._known]
        self._known.update(fresh)
        for uuid in {each.uuid for each in fresh if each.uuid}:
            self.judge.spoil(uuid)
            path = f"/session/{uuid}?backup=false"
            self.scene.place.call("DELETE", path, None, {"Prefer": "respond-async"}, 20)
        return fresh

    def _quiet(self, *, full: bool = False, woken: Collection[str] = ()) -> list[Finding]:
        """What is not as it must be when everybody has been quiet for the place's patience, or before,
        when nothing is wrong. What a sweep wanted of a session meanwhile has as much time, once."""
        patience = self.scene.place.patience
        began = time.monotonic()
        good, self._last, fresh = 0, "", False
        while True:
            try:
                seen = self._seen()
                fresh = any(time.time() - record.requested_at < patience for record in seen.records.values())
                found = [each for each in self.judge.look(seen, woken) if each not in self._known]
            except (redis.RedisError, requests.RequestException) as error:
                found = [Finding("can't look", "", f"{type(error).__name__}: {error}")]
            good = 0 if found else good + 1
            self._last = f"{found[0].kind} {found[0].uuid}" if found else self._last
            if good <= 1:
                self._good_at = time.monotonic()
            quiet = time.monotonic() - began
            if quiet > (2 * patience if fresh and found else patience) or (good >= LOOKS and not full):
                return found
            time.sleep(PAUSE)

    def _seen(self) -> Snapshot:
        with self.scene.place.redis() as client:
            return snapshot(client, self.scene.place.prefix)

    def _past(self) -> list[Finding]:
        self.events.read()
        for received in self.scene.place.model.forget():
            if match := PATTERN.fullmatch(last_prompt(received.body)):
                self.judge.asked.setdefault(match[1], []).append(received.at)
        return list(self.judge.past(self._seen()))

    def _wake_all(self) -> list[str]:
        """Wake every living session, by calls that must be accepted; those sessions."""
        seen = self._seen()
        living = [each for each in self.scene.judged() if each.uuid in seen.everyone]
        for subject in living:
            deed = self.scene.chronicle.begin("wake", "judge", subject.uuid)
            path = f"/session/{subject.uuid}/wake"
            answer = self.scene.place.call("POST", path, None, {"Prefer": "respond-async"}, 20)
            subject.deeds.append(deed)
            self.scene.chronicle.end(deed, Outcome.ACCEPTED if answer.ok else Outcome.REFUSED, answer.text)
        return [subject.uuid for subject in living]

    def _end_judged(self) -> None:
        seen = self._seen()
        for subject in self.scene.judged():
            if subject.uuid in seen.by_status["terminated"]:
                subject.over = True
                self.scene.leave(subject)

    def _tell(self, name: str, found: Sequence[Finding], began: float) -> None:
        path = self.folder / f"deeds {name}.jsonl"
        self.scene.chronicle.write(path)
        print(f"{name}: {len(found)} found; all deeds are in {path}")
        for each in found:
            print(f"  {each.kind}: {each.uuid} {each.text}")
        for uuid in dict.fromkeys(each.uuid for each in found if each.uuid):
            print(f"  the story of {uuid}:\n{self._story(uuid, began - STORY)}", flush=True)

    def _story(self, uuid: str, since: float) -> str:
        """Its calls, events and log lines, and all faults, in the order of their times."""
        lines = self.scene.chronicle.lines(uuid)
        events = [event for event in self.events.of(uuid) if event.type != "token"]
        lines += [(event.at, f"event {event.type} {dict(event.data)}"[:300]) for event in events]
        lines += self.scene.place.lines(uuid, since)
        return chronicle.told(lines, since)


@contextmanager
def settling(scene: Scene, folder: Path) -> Iterator[Settling]:
    """One for this scene, for the block."""
    running = Settling(scene, folder)
    try:
        yield running
    finally:
        running.close()
