"""Which token a workspace's agent has, held against every runtime: that of the epoch it was told, and no other."""

from __future__ import annotations

from functools import partial

from app.core.access.agent_credentials import AgentCredentials
from tests.contract.runtimes import (
    SECRET_KEY,
    A,
    AgentHarness,
    Harness,
    identity,
    status_of_agent,
    stop,
    wait_for_agent,
    watching,
)
from tests.waiting import wait_for
from workers.runtime.base import Runtime


def epoch(runtime: Runtime) -> int:
    """That of the token it was given last, as the runtime sees it."""
    seen = runtime.observe(A)
    assert seen is not None
    assert [each.epoch for each in runtime.observe_all()] == [seen.epoch]
    return seen.epoch


def lets_in(agents: AgentHarness, number: int) -> bool:
    """Whether the agent knows what the manager shows in this epoch."""
    secret = AgentCredentials([SECRET_KEY]).agent_secrets(A, number)[0]
    return status_of_agent(agents.agent_address(A), secret) == 200


def test_the_epoch_of_the_last_token_is_known_without_redis(harness: Harness) -> None:
    """What a lost record gets it back from: up, asleep, and after a start that was told none."""
    runtime = harness.runtime
    runtime.provision(identity(A), 1)
    assert epoch(runtime) == 0
    runtime.start(A, 1, 3)
    assert epoch(harness.again()) == 3
    runtime.renew(A, 4)
    assert epoch(harness.again()) == 4
    stop(runtime, A, 2)
    assert epoch(harness.again()) == 4
    runtime.renew(A, 5)
    assert epoch(harness.again()) == 5
    harness.again().start(A, 3)
    assert epoch(runtime) == 5


def test_a_start_that_finds_it_running_takes_over_a_newer_epoch(harness: Harness) -> None:
    """And leaves what is right as it is."""
    harness.runtime.provision(identity(A), 1)
    harness.runtime.start(A, 1, 3)
    assert harness.again().start(A, 2, 3) is True
    assert epoch(harness.runtime) == 3
    assert harness.again().start(A, 3, 4) is True
    assert epoch(harness.runtime) == 4


def test_nothing_is_renewed_where_there_is_no_workspace(harness: Harness) -> None:
    """Nor is anything made."""
    harness.runtime.renew(A, 3)
    assert harness.runtime.observe(A) is None


def test_an_agent_that_runs_has_its_new_token_within_seconds(agents: AgentHarness) -> None:
    """The process stays the same; what was good before is good no more."""
    agents.runtime.provision(identity(A), 1)
    agents.runtime.start(A, 1, 3)
    wait_for_agent(agents, A, 3)
    life = agents.agent_life(A)
    agents.again().renew(A, 4)
    wait_for_agent(agents, A, 4)
    assert not lets_in(agents, 3)
    assert agents.agent_life(A) == life


def test_an_agent_that_died_comes_back_with_the_token_it_had(agents: AgentHarness) -> None:
    """Nobody who knows the epoch takes part in that."""
    agents.runtime.provision(identity(A), 1)
    agents.runtime.start(A, 1, 3)
    wait_for_agent(agents, A, 3)
    agents.runtime.renew(A, 4)
    wait_for_agent(agents, A, 4)
    with watching(agents.again()):
        before = agents.agent_life(A)
        agents.crash_agent(A)
        wait_for(partial(_lives_again, agents, before), "another life of the agent")
        wait_for_agent(agents, A, 4)


def test_the_next_start_has_the_token_that_was_left_for_it(agents: AgentHarness) -> None:
    """Also where whoever starts it knows none."""
    agents.runtime.provision(identity(A), 1)
    agents.runtime.start(A, 1, 3)
    wait_for_agent(agents, A, 3)
    stop(agents.runtime, A, 2)
    agents.runtime.renew(A, 4)
    agents.again().start(A, 3)
    wait_for_agent(agents, A, 4)
    assert not lets_in(agents, 3)


def _lives_again(agents: AgentHarness, before: object) -> bool:
    return agents.agent_life(A) != before
