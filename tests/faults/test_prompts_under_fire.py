"""Prompts while the parts they pass through are killed: none is lost, none runs twice, and their order is kept."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from tests.faults.calls import ask, wait_status
from tests.faults.conftest import impatient_service
from tests.faults.counting import counting
from tests.model_server import ModelServer, last_prompt
from tests.service import Service
from tests.waiting import wait_for
from workers.runtime.local.storage import WorkspaceStorage

PROMPTS = 200
SESSIONS = 4
ROUNDS = 2
"""Each begins with all sessions asleep."""

PARTS = ["worker", "sweeper", "agent", "delivery-worker", "gateway", "redis", "web", "agent told to end", "observer"]
AGENTS = {"agent": signal.SIGKILL, "agent told to end": signal.SIGTERM}
BETWEEN = 6
"""Prompts sent from one death to the next."""


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer(rules=[counting]) as running:
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str, model: ModelServer) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with impatient_service(folder, code_server, **model.settings) as running:
        yield running


class Senders:
    """What was sent to each session so far, and who is to die next."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.sent: dict[str, list[str]] = {service.create("ada")["uuid"]: [] for _ in range(SESSIONS)}
        self.folders = WorkspaceStorage(service.data_dir)
        self.deaths = 0

    def send(self, number: int) -> None:
        uuid = list(self.sent)[number % SESSIONS]
        answer = ask(self.service, "POST", f"/session/{uuid}/chat", {"message": f"count {number}", "id": f"m{number}"})
        assert answer["message_id"] == f"m{number}", answer
        self.sent[uuid].append(str(number))

    def kill_next(self) -> None:
        """End one by its signal, SIGKILL but for agents that are told to, once something more has been counted: so all
        that is ended is at work."""
        part = PARTS[self.deaths % len(PARTS)]
        self.deaths += 1
        if part in AGENTS:
            self.end_agent(list(self.sent)[self.deaths % SESSIONS], AGENTS[part])
        else:
            self.service.kill(part)

    def end_agent(self, uuid: str, number: int) -> None:
        def ended() -> bool:
            running = self.folders.read_running(uuid)
            with suppress(ProcessLookupError):
                if running and running.agent_pid:
                    os.kill(running.agent_pid, number)
                    return True
            return False

        wait_for(ended, f"the agent of {uuid} to be there")

    def counted(self, uuid: str) -> list[str]:
        file = self.service.files(uuid) / "counted"
        return file.read_text().split() if file.exists() else []

    def total(self) -> int:
        return sum(len(self.counted(uuid)) for uuid in self.sent)

    def moved_on(self, count: int) -> bool:
        """Whether more than `count` were counted, or all that were sent: a fast machine leaves nothing to wait for."""
        return self.total() > count or count == sum(map(len, self.sent.values()))

    def wait_all_done(self) -> None:
        for uuid, sent in self.sent.items():
            for number in sent:
                message = wait_for(
                    partial(self._end, uuid, number),
                    f"prompt {number} of {uuid}",
                    partial(self._shown, uuid),
                    seconds=120,
                )
                assert message["state"] == "processed", message

    def _shown(self, uuid: str) -> str:
        return f"{self.counted(uuid)[-3:]} {self.service.call('GET', f'/session/{uuid}').text}"

    def _end(self, uuid: str, number: str) -> Any:
        message = ask(self.service, "GET", f"/session/{uuid}/messages/m{number}")
        return message if message["state"] in ("processed", "failed") else None


def test_a_workspace_that_runs_takes_prompts_after_redis_lost_everything(service: Service) -> None:
    """Its agent did not call again: the observer tells where it is. The conversation is in the workspace."""
    uuid = service.create("ada")["uuid"]
    service.prompt(uuid, "count 1", "m1")
    before = service.conversation(uuid)
    service.redis().flushall()
    wait_status(service, uuid, "active", 1)
    service.prompt(uuid, "count 2", "m2")
    assert service.ended(uuid, "m2")["state"] == "processed"
    assert (service.files(uuid) / "counted").read_text() == "1\n2\n"
    assert service.conversation(uuid)[: len(before)] == before
    service.done("DELETE", f"/session/{uuid}?backup=false")


def test_200_prompts_under_fire_are_each_worked_on_once_and_in_order(service: Service, model: ModelServer) -> None:
    """Workers, agents, the gateway, the web and Redis die by SIGKILL in turn while prompts come and go."""
    senders = Senders(service)
    numbers = iter(range(PROMPTS))
    for _ in range(ROUNDS):
        for uuid in senders.sent:
            service.done("POST", f"/session/{uuid}/scale-down")
        for count in range(PROMPTS // ROUNDS):
            senders.send(next(numbers))
            if count % BETWEEN == BETWEEN - 1:
                senders.kill_next()
                # The next dies when this one's work goes on, and has gone some way.
                wait_for(partial(senders.moved_on, senders.total()), "another prompt to be counted", seconds=120)
        senders.wait_all_done()
        for uuid in senders.sent:
            service.wait_status(uuid, "active")
    for uuid, sent in senders.sent.items():
        assert senders.counted(uuid) == sent
        said = service.conversation(uuid)
        assert [each["content"] for each in said if each["role"] == "user"] == [f"count {number}" for number in sent]
        answers = [each["outcome"]["response"]["text"] for each in said if "outcome" in each]
        assert answers == [f"{number} is counted" for number in sent]
    asked = {last_prompt(request.body) for request in model.requests}
    assert asked == {f"count {number}" for number in range(PROMPTS)}
    assert senders.deaths >= 2 * len(PARTS)
    assert service.redis().llen("dead_letters") == 0
    for uuid in senders.sent:
        service.done("DELETE", f"/session/{uuid}?backup=false")
