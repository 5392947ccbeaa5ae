"""Everything is stopped and started while sessions are on their way: one trial of it, on any runtime."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from tests.faults import counting
from tests.faults.acting import Actor
from tests.faults.caller import ASYNC
from tests.faults.chronicle import TROUBLE, Outcome
from tests.faults.places import Place
from tests.faults.scene import Prompt, Scene, Subject, Written
from tests.faults.settling import Settled, Settling, settling
from tests.waiting import wait_for

LATEST = 2.5
"""s from the calls to the stop at most: a start takes one, a turn and a restore a little more."""

FILES = 2_000
"""In the workspace that is backed up and restored, so that both take their time."""

MOMENT = 0.3
"""s for a call's way to a worker; half of the stops come within."""

READY = 2
"""Times a place's patience until a session is there."""


class Stops:
    """Trials on a scene. Each has a session that is created, one that wakes, one restored, one in a turn with a prompt
    behind it, one backed up, one put to sleep, and one deleted, all at once."""

    def __init__(self, settling: Settling, chance: random.Random) -> None:
        self.settling, self.scene, self.chance = settling, settling.scene, chance
        self.actor = Actor(self.scene, "client", chance, threading.Event())
        self.backup = ""

    def trial(self, number: int, *, kill: bool) -> Settled:
        """Stop everything at a random moment (SIGKILL with `kill`), start it again; what is wrong after that."""
        waking, working, backed_up, sleeping, going = (self._new() for _ in range(5))
        for subject in (waking, working, backed_up, sleeping, going):
            self._wait(subject, "active")
        self._call(waking, "sleep")
        self._wait(waking, "sleeping")
        many = {f"f{n}": self.chance.randbytes(100) for n in range(FILES)}
        self._write(backed_up, many)
        self._write(going, {"f": b"kept"})
        if not self.backup:
            self._call(backed_up, "backup")
            self.backup = self._newest(backed_up)
        began = time.time()
        calls: list[Callable[[], object]] = [
            lambda: self._call(waking, "wake"),
            lambda: self._call(sleeping, "sleep"),
            lambda: self._call(backed_up, "backup"),
            lambda: self.actor.caller.do(going, "delete", "DELETE", f"/session/{going.uuid}", None, ASYNC),
            lambda: self._prompts(working),
            self._new,
            lambda: self._new(self.backup),
        ]
        self.chance.shuffle(calls)
        for call in calls:
            call()
        time.sleep(self.chance.uniform(0, self.chance.choice([MOMENT, LATEST])))
        self._stop(kill=kill)
        settled = self.settling.settle(f"stop {number} ({'SIGKILL' if kill else 'SIGTERM'})", began)
        self._clear()
        return settled

    def _stop(self, *, kill: bool) -> None:
        place = self.scene.place
        for what, act in (
            ("die" if kill else "stop", (lambda: place.die(workspaces=False)) if kill else place.stop),
            ("start", place.start),
        ):
            deed = self.scene.chronicle.begin(what, TROUBLE)
            act()
            self.scene.chronicle.end(deed, Outcome.ACCEPTED)

    def _new(self, backup: str = "") -> Subject:
        mark = self.scene.mark()
        body = {"user_id": mark} | ({"restore_from": backup} if backup else {})
        what = "restore" if backup else "create"
        deed, answer = self.actor.caller.do(None, what, "POST", "/session/create", body, ASYNC, about=backup)
        assert deed.accepted and answer is not None, deed
        self.scene.makings[mark].append(deed)
        deed.uuid = str(answer.json()["uuid"])
        subject = Subject(deed.uuid, mark, origin=backup, deeds=self.scene.makings[mark])
        self.scene.subjects[subject.uuid] = subject
        return subject

    def _call(self, subject: Subject, what: str) -> None:
        self.actor.caller.do(subject, what, "POST", f"/session/{subject.uuid}/{what}", None, ASYNC)

    def _prompts(self, subject: Subject) -> None:
        """A turn that lasts, and a prompt behind it."""
        for milliseconds in (1_000, 0):
            name = f"{subject.uuid}.{self.scene.number()}"
            prompt = subject.prompts[name] = Prompt(name, counting.prompt(name, milliseconds))
            self.actor.bring(subject, prompt, "chat", ASYNC)

    def _write(self, subject: Subject, files: dict[str, bytes]) -> None:
        deed = self.scene.chronicle.begin("write", "client", subject.uuid)
        assert self.scene.place.write(subject.uuid, files)
        self.scene.chronicle.end(deed, Outcome.ACCEPTED)
        subject.written.append(Written.of(files, deed))

    def _wait(self, subject: Subject, status: str) -> None:
        def reached() -> bool:
            seen = self._look(f"/session/{subject.uuid}")
            return bool(seen and seen["session"]["status"] == status and seen["replicas"] == (status == "active"))

        wait_for(reached, f"{subject.uuid} to be {status}", seconds=READY * self.scene.place.patience)

    def _newest(self, subject: Subject) -> str:
        def newest() -> str:
            seen = self._look(f"/session/{subject.uuid}/backups")
            return str(seen["backups"][0]["name"]) if seen and seen["backups"] else ""

        return str(wait_for(newest, "the backup", seconds=READY * self.scene.place.patience))

    def _look(self, path: str) -> Any:
        """What the service shows there, None while it can't: others may have it busy."""
        try:
            answer = self.scene.place.call("GET", path, None, {}, 20)
        except requests.RequestException:
            return None
        return answer.json() if answer.ok else None

    def _clear(self) -> None:
        """Let nothing of this trial be there in the next."""
        for subject in self.scene.judged():
            path = f"/session/{subject.uuid}?backup=false"
            self.actor.caller.do(subject, "delete unsaved", "DELETE", path, None, {"Prefer": "wait=30"}, timeout=60)


def run(place: Place, trials: int, chance: random.Random, folder: Path) -> list[str]:
    """Stop and start so often; what went wrong."""
    wrong, took = [], []
    with settling(Scene(place, 0), folder) as quiet:
        stops = Stops(quiet, chance)
        for number in range(trials):
            settled = stops.trial(number, kill=bool(number % 2))
            took.append(settled.seconds)
            wrong += [f"stop {number}: {each.kind} {each.uuid} {each.text}" for each in settled.findings]
            said = f"{len(settled.findings)} found, well after {settled.seconds:.1f} s ({settled.last})"
            print(f"stop {number}: {said}", flush=True)
    print(f"\n{trials} stops: {len(wrong)} found; well at the latest after {max(took):.1f} s", flush=True)
    return wrong
