"""Random faults: parts and workspaces that die, processes that hang, the whole service stopped and started."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from enum import StrEnum

from tests.faults.chronicle import TROUBLE, Outcome
from tests.faults.places import SETTINGS
from tests.faults.scene import Scene

FREEZE = float(SETTINGS["LEASE_TTL"]) + 2.0
"""s a process hangs: longer than its leases last."""


class Mood(StrEnum):
    """What goes wrong in a round."""

    CALM = "calm"
    KILLS = "kills"
    WORKSPACES = "workspaces"
    FREEZES = "freezes"
    STOPS = "stops"
    ALL = "all"


class Trouble(threading.Thread):
    """Puts in faults until `over`."""

    def __init__(self, scene: Scene, chance: random.Random, over: threading.Event, mood: Mood) -> None:
        super().__init__(name=TROUBLE, daemon=True)
        self.scene, self.chance, self.over, self.mood = scene, chance, over, mood
        self.error: BaseException | None = None

    def run(self) -> None:
        acts: dict[Mood, list[tuple[Callable[[], None], int]]] = {
            Mood.CALM: [],
            Mood.KILLS: [(self.kill, 1)],
            Mood.WORKSPACES: [(self.end_agent, 3), (self.kill_editor, 1)],
            Mood.FREEZES: [(self.freeze, 2), (self.freeze_all, 1)],
            Mood.STOPS: [(self.stop, 3), (self.die, 2), (self.die_with_workspaces, 1)],
            Mood.ALL: [
                (self.kill, 12), (self.end_agent, 4), (self.kill_editor, 2), (self.freeze, 3), (self.freeze_all, 1),
                (self.stop, 2), (self.die, 1), (self.die_with_workspaces, 1),
            ],
        }  # fmt: skip
        chosen = acts[self.mood]
        try:
            while chosen and not self.over.wait(self.chance.uniform(0.1, 3.0)):
                self.chance.choices([act for act, _ in chosen], [weight for _, weight in chosen])[0]()
        except BaseException as error:  # noqa: BLE001 - it is raised by whoever waits for this thread
            self.error = error

    def kill(self) -> None:
        part = self.chance.choice(self.scene.place.parts)
        self._do(f"kill {part}", lambda: self.scene.place.kill(part, self.chance))

    def end_agent(self) -> None:
        if uuid := self._someone():
            number = self.chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
            self._do("end agent", lambda: self.scene.place.end_agent(uuid, number), uuid)

    def kill_editor(self) -> None:
        if uuid := self._someone():
            self._do("kill editor", lambda: self.scene.place.kill_editor(uuid), uuid)

    def freeze(self) -> None:
        part = self.chance.choice(self.scene.place.parts)
        self._do(f"freeze {part}", lambda: self.scene.place.freeze(part, FREEZE))

    def freeze_all(self) -> None:
        self._do("freeze all", lambda: self.scene.place.freeze("", FREEZE))

    def stop(self) -> None:
        self._end("stop", self.scene.place.stop)

    def die(self) -> None:
        self._end("die", lambda: self.scene.place.die(workspaces=False))

    def die_with_workspaces(self) -> None:
        self._end("die with workspaces", lambda: self.scene.place.die(workspaces=True))

    def _someone(self) -> str:
        subject = self.scene.at(self.chance.randrange(self.scene.slots))
        return subject.uuid if subject else ""

    def _do(self, what: str, act: Callable[[], bool], uuid: str = "") -> None:
        deed = self.scene.chronicle.begin(what, TROUBLE, uuid)
        self.scene.chronicle.end(deed, Outcome.ACCEPTED if act() else Outcome.REFUSED)

    def _end(self, what: str, act: Callable[[], None]) -> None:
        """End the whole service, and start it again after a while."""
        deed = self.scene.chronicle.begin(what, TROUBLE)
        act()
        self.scene.chronicle.end(deed, Outcome.ACCEPTED)
        self.over.wait(self.chance.choice([0.0, 0.5, 2.0]))
        deed = self.scene.chronicle.begin("start", TROUBLE)
        self.scene.place.start()
        self.scene.chronicle.end(deed, Outcome.ACCEPTED)
