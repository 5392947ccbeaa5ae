"""An agent whose token ended while it ran: it loses nothing, and goes on with the one that its file has then."""

from __future__ import annotations

from tests.model_server import ModelServer
from tests.unit.agent.fake_gateway import FakeGateway
from tests.unit.agent.process import AgentProcess

RENEWED = "abcd1234.2.another-secret-of-this-session"


def test_a_prompt_that_meets_an_ended_token_is_answered_once_the_file_has_another(
    agent: AgentProcess, gateway: FakeGateway, model: ModelServer
) -> None:
    """Nothing fails meanwhile, and what was to be told is told then, once."""
    agent.start()
    assert agent.chat("m1", "remember 7")[0] == 200
    gateway.outcome("m1")
    gateway.renew(RENEWED)
    before = len(model.requests)
    assert agent.prompt("m2", "remember 8")[0] == 202
    gateway.wait(lambda: gateway.refused >= 3)
    assert (gateway.terminal("m2"), len(model.requests)) == ([], before)
    agent.give(RENEWED)
    assert gateway.outcome("m2")["data"]["response"]["text"] == "8 noted"
    assert len(gateway.terminal("m2")) == 1
    assert [each["content"] for each in agent.history() if each["role"] == "user"] == ["remember 7", "remember 8"]


def test_a_report_that_meets_an_ended_token_is_made_again(
    agent: AgentProcess, gateway: FakeGateway, model: ModelServer
) -> None:
    """The answer is there already; only the manager does not know."""
    agent.start()
    gateway.failures["/agent/v1/events"].extend([503] * 3)
    assert agent.chat("m1", "remember 7")[0] == 200
    gateway.renew(RENEWED)
    gateway.wait(lambda: gateway.refused >= 1)
    agent.give(RENEWED)
    assert gateway.outcome("m1")["type"] == "processed"
    assert len(gateway.terminal("m1")) == 1


def test_an_agent_that_begins_with_an_ended_token_calls_home_once_it_has_a_good_one(
    agent: AgentProcess, gateway: FakeGateway
) -> None:
    """As one that KEDA started while its Secret was still that of before."""
    first = gateway.token
    gateway.renew(RENEWED)
    agent.give(first)
    agent.begin()
    gateway.wait(lambda: gateway.refused >= 3)
    assert gateway.hellos == []
    agent.give(RENEWED)
    gateway.wait(lambda: len(gateway.hellos) == 1)
