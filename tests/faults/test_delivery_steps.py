"""A delivery worker that dies after each single step of a delivery, and a worker that does while it cuts a stored
conversation."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.agent.text import moment
from app.core.composition import Core
from app.core.prompts.history_store import Checkpoint
from app.core.service import NewSession
from app.core.sessions.model import Status
from app.process.settings import Settings
from tests.conftest import ROOT
from tests.fake_agent import FakeAgent, fake_agent
from tests.fakes import FakeRuntime
from tests.faults.delivering import CUT_AT
from tests.integration.serving import OwnRedis
from tests.waiting import wait_for
from workers.lifecycle.intents import Lifecycle
from workers.sweeps import Sweeps

PROMPTS = ["m1", "m2", "m3"]
MOST_STEPS = 200
SECRET = "the-secret-key-of-the-delivery-tests"


class Place:
    """One session for each death, an agent, and the process that lets deliveries die."""

    def __init__(self, core: Core, agent: FakeAgent, process: subprocess.Popen[str]) -> None:
        self.core, self.agent, self.process = core, agent, process
        runtime = FakeRuntime()
        self.sweeps = Sweeps(core, runtime, Lifecycle(core, runtime))

    def session(self) -> str:
        """A session that is up, its agent known, with nothing sent to the delivery worker of it."""
        uuid = self.core.sessions.create(NewSession(user_id="ada")).uuid
        self.core.store.change(uuid, time.time(), to=Status.ACTIVE, settle=True)
        assert self.core.inbox.agent_here(uuid, self.agent.address, "pod", "boot", time.time())
        return uuid

    def attempt(self, task: str, uuid: str, limit: int) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{task} {uuid} {limit}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def deliver_until(self, uuid: str, done: Callable[[], bool]) -> None:
        """What the sweeps and a delivery worker do, until it is done."""

        def tried() -> bool:
            self.sweeps.stale()
            self.core.delivery.deliver(uuid)
            return done()

        wait_for(tried, f"the prompts of {uuid}", lambda: str(self.core.store.get(uuid)))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        server = stack.enter_context(OwnRedis(tmp_path))
        agent = stack.enter_context(fake_agent())
        settings = {"DATA_DIR": str(tmp_path / "data"), "REDIS_URL": server.url, "SECRET_KEY": SECRET}
        settings |= {"LEASE_TTL": "0.3", "STALE_AFTER": "0.2", "MAX_SESSIONS_PER_USER": "1000"}
        command = [sys.executable, "-m", "tests.faults.delivering"]
        process = stack.enter_context(
            subprocess.Popen(
                command, cwd=ROOT, env=os.environ | settings, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        )
        stack.callback(process.kill)
        own = Settings(
            data_dir=tmp_path / "data",
            redis_url=server.url,
            secret_key=SECRET,
            lease_ttl=0.3,
            stale_after=0.2,
            max_sessions_per_user=1000,
        )
        yield Place(Core(own), agent, process)


def test_a_delivery_worker_may_die_after_any_step_and_every_prompt_is_delivered_once_and_in_order(place: Place) -> None:
    """Whatever it had done by then, the next delivery worker does the rest."""
    deaths: list[str] = []
    unnoted: list[str] = []
    for _ in range(MOST_STEPS):
        uuid = place.session()
        ids = [f"{uuid}.{name}" for name in PROMPTS]
        for message_id in ids:
            place.core.inbox.take(uuid, f"text of {message_id}", message_id, now=time.time())
        outcome = place.attempt("deliver", uuid, len(deaths) + 1)
        whole = place.core.store.get(uuid).waiting == 0
        place.deliver_until(uuid, lambda uuid=uuid: place.core.store.get(uuid).waiting == 0)  # type: ignore[misc]
        accepted = [each for each in place.agent.accepted if each.startswith(uuid)]
        assert accepted == ids, f"after {outcome}"
        states = [place.core.inbox.get(uuid, each).state for each in ids]
        assert states == ["delivered"] * len(ids), f"after {outcome}"
        if outcome == "passed":
            if whole:
                break
            continue  # It lost its lease, of 0.3 s, in a slow moment.
        assert outcome.startswith("killed "), outcome
        deaths.append(outcome)
        if outcome == "killed agent /chat":
            unnoted.append(ids[len(unnoted)])
    else:
        raise AssertionError(f"no delivery came to its end: {deaths[-5:]}")
    assert len(unnoted) == len(PROMPTS)
    assert len(deaths) > 4 * len(PROMPTS), deaths
    # And those whose deliverer lost its lease.
    assert set(unnoted) <= set(place.agent.repeated), "those whose deliverer died before it could note it"
    assert len(place.agent.repeated) < len(deaths) / 2, place.agent.repeated


def test_a_worker_may_die_after_any_step_of_a_cut_and_a_whole_conversation_is_kept(place: Place) -> None:
    """The archive has the conversation as it was or as it is to be, and a cut taken again completes it."""
    old = [{"id": "m0", "role": "user", "content": "old", "at": moment(CUT_AT - 1)}]
    new = [*old, {"id": "m1", "role": "user", "content": "new", "at": moment(CUT_AT + 1)}]
    deaths = []
    for limit in range(1, MOST_STEPS):
        uuid = place.session()
        place.core.history_store.write(uuid, Checkpoint(new))
        outcome = place.attempt("cut", uuid, limit)
        kept = place.core.history_store.read(uuid)
        assert kept is not None
        assert kept.history in (old, new), f"after {outcome}"
        assert place.attempt("cut", uuid, MOST_STEPS) == "passed"
        kept = place.core.history_store.read(uuid)
        assert kept is not None
        assert kept.history == old, f"after {outcome}"
        if outcome == "passed":
            break
        deaths.append(outcome.removeprefix("killed "))
    assert [each for each in deaths if not each.startswith("redis")] == [
        "archive chunk", "archive context.json", "archive index.json", "archive metadata.json",
    ]  # fmt: skip
