"""SIGKILL, at a part of the service, at any moment of an archiving, a wake from the archive, a rollback, an undo and a
fork: each ends as asked, and the files and the conversation are those of the same moment."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests

from app.core.redis import keys
from app.core.sessions.store import SessionStore
from app.core.storage.archive_keys import new_key
from tests import sampling
from tests.faults.calls import ask, wait_status
from tests.faults.conftest import impatient_service
from tests.faults.counting import counting
from tests.model_server import ModelServer
from tests.service import Service
from tests.waiting import wait_for
from workers.runtime.local.storage import WorkspaceStorage

PARTS = ["worker", "worker", "backup-worker", "sweeper", "gateway", "web"]
"""Most steps are the worker's."""

AGENT = "agent"
UNDOING = ["web", "backup-worker", "gateway", "worker", AGENT, AGENT]
"""What an undo in the running workspace needs; most steps are the agent's."""

LONGEST = 3.0
"""s that each of these takes, about."""

LONGEST_UNDO = 1.2
"""s that an undo takes, about; most of it is the restore point."""

PATIENCE = 120.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str) -> Iterator[Service]:
    with ModelServer(rules=[counting]) as model:
        settings = model.settings | {"ARCHIVE_KEY": new_key()}
        folder = tmp_path_factory.mktemp("service")
        with impatient_service(folder, code_server, RESTORE_POINT_KEEP='{"last": 20}', **settings) as running:
            yield running


class Session:
    """A session whose prompts count up in a file, so that it says which of them it has seen."""

    def __init__(self, service: Service, uuid: str) -> None:
        self.service = service
        self.uuid = uuid

    def count(self, number: int) -> None:
        self.service.prompt(self.uuid, f"count {number}", f"m{number}")
        assert self.service.ended(self.uuid, f"m{number}")["state"] == "processed"

    def ask(self, what: str, body: Any = None) -> Any:
        return ask(self.service, "POST", f"/session/{self.uuid}/{what}", body)

    def undo(self, number: int) -> Any:
        """Undo this prompt, by a call that is repeated as long as it fails; what the session says of it."""

        def answered() -> Any:
            body = {"message_id": f"m{number}"}
            with suppress(requests.RequestException):
                wait = {"Prefer": "wait=20"}
                answer = self.service.call("POST", f"/session/{self.uuid}/rollback", body, headers=wait, timeout=60)
                # 409: the agent is still at it for the call before.
                assert answer.ok or answer.status_code in (409, 502, 503, 504), answer.text
                return answer.json() if answer.status_code == 200 else None
            return None

        return wait_for(answered, "the undo", seconds=PATIENCE)["session"]["rolled_back"]

    def kill_agent(self) -> None:
        """Kill the workspace's agent, which is started again by itself."""
        running = WorkspaceStorage(self.service.data_dir).read_running(self.uuid)
        if running and running.agent_pid:
            with suppress(ProcessLookupError):
                os.kill(running.agent_pid, signal.SIGKILL)

    def agrees(self, *numbers: int) -> None:
        """Files and conversation are those after these prompts."""
        counted = (self.service.files(self.uuid) / "counted").read_text()
        assert counted == "".join(f"{number}\n" for number in numbers)
        wanted = [f"m{number}" for number in numbers]
        wait_for(lambda: self._prompts() == wanted, "the conversation", lambda: str(self._prompts()), PATIENCE)

    def _prompts(self) -> list[str]:
        messages = ask(self.service, "GET", f"/session/{self.uuid}/messages?limit=1000")["messages"]
        return [each["id"] for each in messages if each["role"] == "user"]


@pytest.mark.timeout(2_400)
def test_each_ends_as_asked_whenever_a_part_is_killed(service: Service) -> None:
    for number in range(sampling.times(20, 1)):
        one_round(service, sampling.dice(f"going back {number}"))


def one_round(service: Service, dice: random.Random) -> None:
    """Each of them once, with a kill in it."""

    def killed() -> None:
        time.sleep(dice.uniform(0.0, LONGEST))  # The moment is what is tried, not a wait for something.
        service.kill(dice.choice(PARTS))

    session = Session(service, service.create("ada")["uuid"])
    uuid = session.uuid
    session.count(1)
    point = service.save(uuid)
    session.count(2)

    session.ask("rollback", {"restore_point": point})
    killed()
    rolled_back = wait_for(lambda: told(service, uuid), "the rollback", seconds=PATIENCE)
    assert rolled_back["restored"] == "restore_point", rolled_back
    wait_status(service, uuid, "active", 1)
    session.agrees(1)

    fork = Session(service, session.ask("fork", {"restore_point": point})["uuid"])
    killed()
    wait_status(service, fork.uuid, "active", 1)
    fork.agrees(1)

    session.count(3)
    session.ask("sleep")
    wait_status(service, uuid, "sleeping", 0)
    unused(service, uuid)
    killed()
    wait_for(lambda: is_archived(service, uuid), "the session to be archived", seconds=PATIENCE)

    session.ask("wake")
    killed()
    wait_status(service, uuid, "active", 1)
    session.agrees(1, 3)
    for each in (uuid, fork.uuid):
        ask(service, "DELETE", f"/session/{each}?backup=false")
        wait_status(service, each, "terminated", 0)


@pytest.mark.timeout(2_400)
def test_a_message_is_undone_whenever_a_part_or_the_agent_is_killed(service: Service) -> None:
    for number in range(sampling.times(20, 1)):
        one_undo(service, sampling.dice(f"undo {number}"))


def one_undo(service: Service, dice: random.Random) -> None:
    """Undone with a kill in it, and then back to the state before, by the restore point that the session names."""
    session = Session(service, service.create("ada")["uuid"])
    for number in (1, 2, 3):
        session.count(number)
    moment, part = dice.uniform(0.0, LONGEST_UNDO), dice.choice(UNDOING)

    def kill() -> None:
        session.kill_agent() if part == AGENT else service.kill(part)

    killer = threading.Timer(moment, kill)
    killer.start()
    undone = session.undo(2)
    killer.join()
    assert undone["restored"] == "checkpoint", undone
    wait_status(service, session.uuid, "active", 1)
    session.agrees(1)
    session.count(4)
    session.agrees(1, 4)

    session.ask("rollback", {"restore_point": undone["saved"]})
    wait_for(lambda: restored(service, session.uuid, undone["saved"]), "the state before", seconds=PATIENCE)
    wait_status(service, session.uuid, "active", 1)
    session.agrees(1, 2, 3)
    ask(service, "DELETE", f"/session/{session.uuid}?backup=false")
    wait_status(service, session.uuid, "terminated", 0)


def restored(service: Service, uuid: str, point: str) -> bool:
    """Whether this restore point was restored."""
    return bool((told(service, uuid) or {}).get("restore_point") == point)


def told(service: Service, uuid: str) -> Any:
    """What the session says of a rollback that is over."""
    session = ask(service, "GET", f"/session/{uuid}")["session"]
    return session["rolled_back"] if session["rolled_back"] and "at" in session["rolled_back"] else None


def unused(service: Service, uuid: str) -> None:
    """Nobody has used it for its `ttl`."""
    with service.redis() as client:
        client.hset(keys.SESSION.format(uuid=uuid), "ttl", "1")
        client.zadd(keys.EXPIRY, {uuid: 0})


def is_archived(service: Service, uuid: str) -> bool:
    with service.redis() as client:
        archived = bool(SessionStore(client).get(uuid).archived_at)
    return archived and not (service.data_dir / "workspaces" / uuid).exists()
