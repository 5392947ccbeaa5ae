"""What the manager makes of agents: hostile answers end by themselves, hostile addresses are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.core.access.agent_credentials import AgentCredentials
from app.core.agents.agent import Agent
from app.core.agents.requests import SMALL_RESPONSE
from app.core.byte_budget import ByteBudget
from app.core.errors import AgentNotReady, AgentRefused, AgentUnavailable, InvalidRequest
from app.core.prompts.agent_client import CHAT_RESPONSE, AgentClient, CheckpointIncomplete
from app.process.settings import Settings, SettingsError
from tests.fake_agent import CHUNKED, NO_RESPONSES, FakeAgent
from tests.ports import free_port
from tests.waiting import PATIENCE

UUID = "aaaa0001"
SECRETS = AgentCredentials(["k" * 32])
LOCAL = Settings()
CLUSTER = Settings(runtime="kubernetes")

IN_THE_KERNEL = 4_194_304
"""Bytes that a sender may be rid of though nobody reads them: the buffers of both ends of a connection."""


def client(secrets: AgentCredentials = SECRETS, timeout: float = 5.0) -> AgentClient:
    return AgentClient(secrets, timeout, ByteBudget(10**8))


def at(agent: FakeAgent) -> Agent:
    return Agent.at_address(UUID, agent.address, LOCAL)


NO_LOCAL_AGENT = [
    *("http://10.1.2.3:1111", "http://localhost:1111", "http://127.0.0.1", "https://127.0.0.1:1111", ""),
    *("http://127.0.0.1:1111/admin", "http://127.0.0.1:1111?x=1", "http://127.0.0.1:99999", "http://[::1"),
    *("http://user@127.0.0.1:1111", "http://@127.0.0.1:1111", "http://:password@127.0.0.1:1111"),
    *("http://[::1%lo]:1111", "http://[::1%x y]:1111"),
]
NO_AGENT_IN_A_CLUSTER = [
    *("http://127.0.0.1:1111", "http://169.254.169.254:1111", "http://0.0.0.0:1111", "http://224.0.0.1:1111"),
    *("http://[::ffff:169.254.169.254]:1111", "http://[::ffff:127.0.0.1]:1111", "http://8.8.8.8:1111"),
    *("http://[2001:4860:4860::8888]:1111", "http://10.1.2.3:6379", "http://redis:1111"),
    *("http://[fd00::1%eth0]:1111", f"http://[fd00::1%{'a' * 70}]:1111"),
]


@pytest.mark.parametrize(
    ("address", "settings"),
    [*((each, LOCAL) for each in NO_LOCAL_AGENT), *((each, CLUSTER) for each in NO_AGENT_IN_A_CLUSTER)],
)
def test_an_address_where_no_workspace_can_be_is_refused(address: str, settings: Settings) -> None:
    """A workspace must not have the manager ask inside the cluster on its behalf."""
    with pytest.raises(InvalidRequest):
        Agent.at_address(UUID, address, settings)


@pytest.mark.parametrize(
    ("settings", "reported", "kept"),
    [
        (LOCAL, "http://127.0.0.1:1", "http://127.0.0.1:1"),
        (LOCAL, "http://127.0.0.1:65535/", "http://127.0.0.1:65535"),
        (LOCAL, "http://[::1]:4711", "http://[::1]:4711"),
        (LOCAL, "http://[0:0:0:0:0:0:0:1]:01111/", "http://[::1]:1111"),
        (LOCAL, "HTTP://127.0.0.1:1111?", "http://127.0.0.1:1111"),
        (LOCAL, "http://127.0.0.1:1111#", "http://127.0.0.1:1111"),
        (LOCAL, "\thttp://127.0.0.1:1\n111", "http://127.0.0.1:1111"),
        (CLUSTER, "http://10.1.2.3:1111", "http://10.1.2.3:1111"),
        (CLUSTER, "http://[fd00::7]:1111", "http://[fd00::7]:1111"),
        (CLUSTER, "http://100.64.1.2:1111", "http://100.64.1.2:1111"),
    ],
)
def test_of_an_address_only_the_ip_address_and_the_port_are_kept(settings: Settings, reported: str, kept: str) -> None:
    """A local agent is on loopback, one in a cluster at its pod's address and port."""
    assert Agent.at_address(UUID, reported, settings).address == kept


@pytest.mark.parametrize("misbehaves", [{"trickle": True, "raw_answer": b" " * 10**6}, {"hang": True}])
@pytest.mark.slow
def test_an_agent_that_never_comes_to_an_end_is_left(agent: FakeAgent, misbehaves: dict[str, Any]) -> None:
    """A byte now and then keeps a socket's own timeout from ever striking."""
    vars(agent).update(misbehaves)
    with pytest.raises(AgentUnavailable):
        client(timeout=0.3).chat(at(agent), "m", "hi")


def test_where_nobody_listens_someone_may_in_a_moment() -> None:
    with pytest.raises(AgentNotReady):
        client().chat(Agent.at_address(UUID, f"http://127.0.0.1:{free_port()}", LOCAL), "m", "hi")


NO_ANSWERS = [b" ", b"{", b"[]", b"\xff", b"x" * (CHAT_RESPONSE + 1), b"[" * 10_000]


@pytest.mark.parametrize(
    ("how", "said"),
    [*(("raw_answer", each) for each in NO_ANSWERS), *(("raw_response", each) for each in NO_RESPONSES)],
)
def test_what_is_no_answer_or_no_http_is_unavailable(agent: FakeAgent, how: str, said: bytes) -> None:
    setattr(agent, how, said)
    with pytest.raises(AgentUnavailable):
        client().chat(at(agent), "m", "hi")


@pytest.mark.parametrize(
    ("begin", "endless"),
    [
        (CHUNKED + b"-1\r\n", b"x" * 65_536),
        (CHUNKED + b"-5\r\n", b"x" * 65_536),
        (CHUNKED + b"F" * 5_000 + b"\r\n", b"x" * 65_536),
        (CHUNKED, b"1\r\nx\r\n" * 10_000),
        (CHUNKED, b"100;" + b"a" * 60_000 + b"\r\n" + b"x" * 256 + b"\r\n"),
        (CHUNKED + b"1;", b"a" * 65_536),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"a: b\r\n" * 10_000),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"a" * 65_536),
        (b"HTTP/1.1 200 OK\r\n", b"a: " + b"b" * 60_000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\na: ", b"b" * 65_536),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000),
        (b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65_536),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1" + b"0" * 30 + b"\r\n\r\n", b" " * 65_536),
    ],
)
def test_an_endless_response_is_cut_off_by_its_bytes(agent: FakeAgent, begin: bytes, endless: bytes) -> None:
    """Whatever its framing says, and long before its time is over."""
    agent.raw_response, agent.endless = begin, endless
    with pytest.raises(AgentUnavailable):
        client().cancel(at(agent), "user")
    assert agent.cut_off.wait(PATIENCE)
    assert agent.sent < SMALL_RESPONSE + IN_THE_KERNEL


def test_a_response_in_chunks_is_read(agent: FakeAgent) -> None:
    agent.raw_response = CHUNKED + b'5;a=b\r\n{"sta\r\n6\r\ntus":1\r\n1\r\n}\r\n0\r\na: b\r\n\r\n'
    assert client().chat(at(agent), "m", "hi") == {"status": 1}


@pytest.mark.parametrize("answer", [b'{"messages": 1}', b'{"messages": [1]}', b"{}"])
def test_a_history_that_is_none_is_unavailable(agent: FakeAgent, answer: bytes) -> None:
    agent.raw_answer = answer
    with pytest.raises(AgentUnavailable):
        client().history(at(agent), 0, 10)


@pytest.mark.parametrize("answer", [b"{}", b'{"saved": false}', b'{"saved": "all of it"}', b'{"history": []}'])
def test_a_conversation_is_stored_if_the_agent_says_so(agent: FakeAgent, answer: bytes) -> None:
    client().checkpoint(at(agent))
    agent.raw_answer = answer
    with pytest.raises(CheckpointIncomplete):
        client().checkpoint(at(agent))


@pytest.mark.parametrize("status", [404, 500])
def test_an_agent_that_cannot_be_told_to_go_on_is_in_trouble(agent: FakeAgent, status: int) -> None:
    agent.statuses = [status]
    with pytest.raises(AgentUnavailable):
        client().resume(at(agent), 8)


@pytest.mark.parametrize(
    ("statuses", "error"),
    [([302], AgentUnavailable), ([413], AgentRefused), ([500], AgentUnavailable), ([401, 401], AgentUnavailable)],
    ids=["a redirect, which is not followed", "a refused prompt", "in trouble", "lets nobody in"],
)
def test_a_refusal_is_an_error_that_names_no_address_and_no_token(
    agent: FakeAgent, statuses: list[int], error: type[Exception]
) -> None:
    agent.statuses = list(statuses)
    with pytest.raises(error) as raised:
        client().chat(at(agent), "m", "a prompt")
    assert [path for _, path, _ in agent.requests] == ["/chat"] * len(statuses)
    for secret in ("127.0.0.1", *SECRETS.agent_secrets(UUID, 0), "a prompt"):
        assert secret not in str(raised.value)


ROTATED = AgentCredentials(["n" * 32, "k" * 32])


@pytest.mark.parametrize(
    ("secrets", "epoch", "statuses", "shown"),
    [(SECRETS, 0, [], [0]), (ROTATED, 0, [401], [0, 1]), (SECRETS, 3, [401, 401], [0, 1, 0])],
    ids=["one", "from before a rotation of the key", "reads its new secret between two requests"],
)
def test_an_agent_is_shown_each_secret_it_may_have_and_none_that_it_would_show_the_gateway(
    agent: FakeAgent, secrets: AgentCredentials, epoch: int, statuses: list[int], shown: list[int]
) -> None:
    """Another session's agent may have got the address. Its own was given what the old key says; or it refused the new
    secret, which it did not have yet, and then the old one."""
    agent.statuses = list(statuses)
    client(secrets).chat(replace(at(agent), epoch=epoch), "m", "hi")
    may_have = secrets.agent_secrets(UUID, epoch)
    assert agent.tokens == [f"Bearer {may_have[each]}" for each in shown]
    assert [secrets.owner_of(each) for each in may_have] == [None] * len(set(shown))
    assert agent.accepted == ["m"]


def test_without_a_key_no_agent_is_spoken_to(agent: FakeAgent) -> None:
    with pytest.raises(SettingsError):
        client(AgentCredentials([])).chat(at(agent), "m", "hi")
    assert agent.requests == []


def test_an_agent_is_told_of_which_stop_it_is_and_that_it_was_broken_off(agent: FakeAgent) -> None:
    client().cancel(at(agent), "sleep", 7)
    client().cancel(at(agent), "user")
    client().resume(at(agent), 8)
    said = [("/cancel", {"reason": "sleep", "generation": 7}), ("/cancel", {"reason": "user"})]
    assert [(path, body) for _, path, body in agent.requests] == [*said, ("/resume", {"generation": 8})]
