"""Prompts through real processes that are killed: a delivery worker, Redis, and the agent's connections."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil
import pytest

from app.core.composition import Core
from app.core.errors import StateUnavailable
from app.core.service import NewSession
from app.core.sessions.model import Status
from app.process.settings import Settings
from scripts.lib import procfile
from tests.conftest import ROOT
from tests.fake_agent import FakeAgent, fake_agent
from tests.fakes import FakeRuntime
from tests.integration.serving import OwnRedis
from tests.waiting import wait_for
from workers.lifecycle.intents import Lifecycle
from workers.sweeps import Sweeps

PROMPTS = 200
COMMAND = procfile.commands((ROOT / "Procfile").read_text())["delivery-worker"]
SHORT = {"LEASE_TTL": "1", "STALE_AFTER": "0.5"}


class DeliveryWorker:
    """A delivery worker that can be killed and started again. Started as the Procfile does it: a worker that loses its
    Redis in the wrong moment ends, by an error of its library's, and has to be started anew."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self._environ = os.environ | SHORT
        self._environ |= {"REDIS_URL": settings.redis_url, "DATA_DIR": str(settings.data_dir), "PYTHONPATH": str(ROOT)}
        self._environ |= {"SECRET_KEY": settings.secret_key, "PROCESS_NAME": "delivery-worker"}
        self._folder = settings.data_dir
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.supervised", str(self._folder), *COMMAND]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=self._environ, stdout=output, stderr=output, start_new_session=True
            )

    def kill(self) -> None:
        """End it and its children at once."""
        if self._process is not None:
            supervisor = psutil.Process(self._process.pid)
            # The supervisor first: it would start another.
            supervisor.suspend()
            for process in (*supervisor.children(recursive=True), supervisor):
                process.kill()
            self._process.wait()


class Service:
    """What is there between a client and the agent, one session of it, and its sweeps."""

    def __init__(self, core: Core, server: OwnRedis, delivery_worker: DeliveryWorker, agent: FakeAgent) -> None:
        runtime = FakeRuntime()
        self.core, self.server, self.delivery_worker, self.agent = core, server, delivery_worker, agent
        self.sweeps = Sweeps(core, runtime, Lifecycle(core, runtime))
        self.uuid = core.sessions.create(NewSession(user_id="ada")).uuid
        core.store.change(self.uuid, time.time(), to=Status.ACTIVE, settle=True)
        assert core.inbox.agent_here(self.uuid, agent.address, "pod", "boot", time.time())

    def send(self, message_id: str) -> None:
        """Send a prompt, as often as it takes until it is acknowledged."""

        def acknowledged() -> bool:
            try:
                self.core.sessions.prompt(self.uuid, f"text of {message_id}", message_id)
            except StateUnavailable:
                return False
            return True

        wait_for(acknowledged, f"{message_id} to be taken")

    def more_than(self, count: int) -> bool:
        """Whether the agent has more prompts than that."""
        return len(self.agent.accepted) > count

    def settle(self, done: Callable[[], bool], what: str) -> None:
        """Let the sweeps run until it is done."""

        def swept() -> bool:
            self.sweeps.stale()
            return done()

        wait_for(swept, what, lambda: f"{self.agent.accepted[-5:]}, {self.core.store.get(self.uuid)}")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with ExitStack() as stack:
        server = stack.enter_context(OwnRedis(tmp_path))
        agent = stack.enter_context(fake_agent())
        settings = Settings(
            data_dir=tmp_path / "data",
            redis_url=server.url,
            lease_ttl=1.0,
            stale_after=0.5,
            inbox_limit=PROMPTS,
            secret_key="k" * 32,
        )
        delivery_worker = DeliveryWorker(settings, tmp_path / "delivery-worker.log")
        stack.callback(delivery_worker.kill)
        delivery_worker.start()
        yield Service(Core(settings), server, delivery_worker, agent)


def test_200_prompts_with_kills_all_along_are_delivered_once_and_in_order(service: Service) -> None:
    """The delivery worker and Redis die by SIGKILL while prompts come and go, and the agent's answers get lost."""

    def kill_delivery_worker() -> None:
        service.delivery_worker.kill()
        service.delivery_worker.start()

    def kill_redis() -> None:
        service.server.kill()
        service.server.start()

    def lose_an_answer() -> None:
        service.agent.die_after_taking += 1

    troubles = [kill_delivery_worker, lose_an_answer, kill_redis, lose_an_answer]
    ids = [f"m{number}" for number in range(PROMPTS)]
    for number, message_id in enumerate(ids):
        service.send(message_id)
        if number % 20 == 10:
            # Something is on its way by now, or it would be idle processes that die.
            service.settle(partial(service.more_than, len(service.agent.accepted)), "a delivery")
            troubles[number // 20 % len(troubles)]()
    service.settle(lambda: service.core.store.get(service.uuid).waiting == 0, "all to be delivered")
    assert service.agent.accepted == ids
    assert service.agent.repeated, "some were delivered again, and dropped by the agent"


def test_an_agent_that_hangs_keeps_no_other_session_waiting(service: Service) -> None:
    """One process of the delivery worker's waits for it; the others go on."""
    service.agent.hang = True
    service.send("stuck")
    wait_for(service.agent.hung.is_set, "the agent to hang")
    with fake_agent() as other:
        uuid = service.core.sessions.create(NewSession(user_id="bob")).uuid
        service.core.store.change(uuid, time.time(), to=Status.ACTIVE, settle=True)
        assert service.core.inbox.agent_here(uuid, other.address, "pod", "boot", time.time())
        service.core.sessions.prompt(uuid, "hello", "m")
        wait_for(lambda: other.accepted == ["m"], "the other session's prompt to be delivered")
    assert service.core.store.get(service.uuid).waiting == 1
