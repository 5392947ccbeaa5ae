"""Many calls and kills in random order: in the end every session is as it was last asked to be."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from tests import sampling
from tests.faults.calls import ask, wait_status
from tests.service import Service
from tests.waiting import wait_for

PARTS = [
    "worker",
    "sweeper",
    "backup-worker",
    "delivery-worker",
    "gateway",
    "web",
    "beat",
    "observer",
    "traefik",
    "redis",
]
STEPS = 120
SESSIONS = 6
"""As many at once as two cores start without the test being about load."""


class Life:
    """What was asked for so far: the state each session should reach, and a file it must keep."""

    def __init__(self, service: Service, chance: random.Random) -> None:
        self.service = service
        self.chance = chance
        self.wanted: dict[str, str] = {}
        self.files: dict[str, bytes] = {}

    def step(self) -> None:
        """One thing at random; a call that the session's state forbids (409) asks for nothing."""
        living = [uuid for uuid, state in self.wanted.items() if state != "terminated"]
        if not living or (len(living) < SESSIONS and self.chance.random() < 0.2):
            answer = ask(self.service, "POST", "/session/create", {"user_id": "ada"})
            self.wanted[answer["uuid"]] = "active"
            return
        uuid = self.chance.choice(living)
        choices = [
            (self.sleep, 5),
            (self.wake, 5),
            (self.delete, 1),
            (self.back_up, 1),
            (self.write, 2),
            (self.kill, 3),
        ]
        act = self.chance.choices([call for call, _ in choices], [weight for _, weight in choices])[0]
        act(uuid)

    def sleep(self, uuid: str) -> None:
        self._call(uuid, "POST", f"/session/{uuid}/sleep", "sleeping")

    def wake(self, uuid: str) -> None:
        self._call(uuid, "POST", f"/session/{uuid}/wake", "active")

    def delete(self, uuid: str) -> None:
        self._call(uuid, "DELETE", f"/session/{uuid}", "terminated")

    def back_up(self, uuid: str) -> None:
        ask(self.service, "POST", f"/session/{uuid}/backup")

    def write(self, uuid: str) -> None:
        """As a program of the workspace does: before one runs, nobody has files in it."""
        if uuid not in self.files and self.service.processes(WORKSPACE_UUID=uuid):
            self.files[uuid] = os.urandom(10_000)
            (self.service.files(uuid) / "kept").write_bytes(self.files[uuid])

    def kill(self, _: str) -> None:
        self.service.kill(self.chance.choice(PARTS))

    def _call(self, uuid: str, method: str, path: str, state: str) -> None:
        answer: dict[str, Any] = ask(self.service, method, path)
        if answer["status"] != 409:
            self.wanted[uuid] = state


@pytest.mark.parametrize("seed", sampling.seeds(sampling.times(2, 1), "chaos"))
def test_every_session_ends_as_it_was_last_asked_to_be(service: Service, seed: int) -> None:
    """With the processes it should have, the file it was given, and a backup once it is gone."""
    life = Life(service, random.Random(seed))
    for _ in range(STEPS):
        life.step()
    for uuid, state in life.wanted.items():
        wait_status(service, uuid, state, 1 if state == "active" else 0)
        up = state == "active"
        # One that was never ready has no replicas from the beginning: its processes may still be ending.
        wait_for(lambda up=up, uuid=uuid: bool(service.processes(WORKSPACE_UUID=uuid)) == up, f"{uuid} to be {state}")  # type: ignore[misc]
        if uuid in life.files and state == "terminated":
            assert ask(service, "GET", f"/session/{uuid}/backups")["total"] >= 1
        elif uuid in life.files:
            assert (service.files(uuid) / "kept").read_bytes() == life.files[uuid]
    assert service.redis().llen("dead_letters") == 0
