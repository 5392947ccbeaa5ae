"""What the manager makes of agents: hostile answers end by themselves, hostile addresses are refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.core.access.agent_credentials import AgentCredentials
from app.core.byte_budget import ByteBudget
from app.core.errors import AgentNotReady, AgentRefused, AgentUnavailable, InvalidRequest
from app.core.prompts.agent_client import CHAT_RESPONSE, SMALL_RESPONSE, Agent, AgentClient, CheckpointIncomplete
from app.process.settings import Settings, SettingsError
from tests.fake_agent import CHUNKED, NO_RESPONSES, FakeAgent, fake_agent
from tests.ports import free_port
from tests.waiting import PATIENCE

UUID = "aaaa0001"
SECRETS = AgentCredentials(["k" * 32])
LOCAL = Settings()
CLUSTER = Settings(runtime="kubernetes")

IN_THE_KERNEL = 4_194_304
"""Bytes that a sender may be rid of though nobody reads them: the buffers of both ends of a connection."""


@pytest.fixture
def fake() -> Iterator[FakeAgent]:
    with fake_agent() as made:
        yield made


@pytest.fixture
def client() -> AgentClient:
    return AgentClient(SECRETS, timeout=5.0, budget=ByteBudget(10**8))


def at(fake: FakeAgent) -> Agent:
    return Agent.at_address(UUID, fake.address, LOCAL)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://127.0.0.1:65535/", "http://[::1]:4711"])
def test_a_local_agent_is_on_loopback(address: str) -> None:
    assert Agent.at_address(UUID, address, LOCAL).address == address.rstrip("/")


@pytest.mark.parametrize("address", ["http://10.1.2.3:1111", "http://[fd00::7]:1111", "http://100.64.1.2:1111"])
def test_an_agent_in_a_cluster_is_on_its_pods_address_and_port(address: str) -> None:
    assert Agent.at_address(UUID, address, CLUSTER).address == address


@pytest.mark.parametrize(
    ("address", "settings"),
    [
        ("http://10.1.2.3:1111", LOCAL),
        ("http://localhost:1111", LOCAL),
        ("http://127.0.0.1", LOCAL),
        ("https://127.0.0.1:1111", LOCAL),
        ("http://127.0.0.1:1111/admin", LOCAL),
        ("http://127.0.0.1:1111?x=1", LOCAL),
        ("http://user@127.0.0.1:1111", LOCAL),
        ("http://@127.0.0.1:1111", LOCAL),
        ("http://:password@127.0.0.1:1111", LOCAL),
        ("http://[::1%lo]:1111", LOCAL),
        ("http://[::1%x y]:1111", LOCAL),
        ("http://127.0.0.1:99999", LOCAL),
        ("http://[::1", LOCAL),
        ("", LOCAL),
        ("http://127.0.0.1:1111", CLUSTER),
        ("http://169.254.169.254:1111", CLUSTER),
        ("http://0.0.0.0:1111", CLUSTER),
        ("http://224.0.0.1:1111", CLUSTER),
        ("http://[::ffff:169.254.169.254]:1111", CLUSTER),
        ("http://[::ffff:127.0.0.1]:1111", CLUSTER),
        ("http://8.8.8.8:1111", CLUSTER),
        ("http://[2001:4860:4860::8888]:1111", CLUSTER),
        ("http://10.1.2.3:6379", CLUSTER),
        ("http://redis:1111", CLUSTER),
        ("http://[fd00::1%eth0]:1111", CLUSTER),
        (f"http://[fd00::1%{'a' * 70}]:1111", CLUSTER),
    ],
)
def test_an_address_where_no_workspace_can_be_is_refused(address: str, settings: Settings) -> None:
    """A workspace must not have the manager ask inside the cluster on its behalf."""
    with pytest.raises(InvalidRequest):
        Agent.at_address(UUID, address, settings)


@pytest.mark.parametrize(
    ("reported", "kept"),
    [
        ("http://[0:0:0:0:0:0:0:1]:01111/", "http://[::1]:1111"),
        ("HTTP://127.0.0.1:1111?", "http://127.0.0.1:1111"),
        ("http://127.0.0.1:1111#", "http://127.0.0.1:1111"),
        ("\thttp://127.0.0.1:1\n111", "http://127.0.0.1:1111"),
    ],
)
def test_of_an_address_only_the_ip_address_and_the_port_are_kept(reported: str, kept: str) -> None:
    assert Agent.at_address(UUID, reported, LOCAL).address == kept


@pytest.mark.slow
def test_an_answer_that_never_ends_is_cut_off(fake: FakeAgent) -> None:
    """A byte now and then keeps a socket's own timeout from ever striking."""
    fake.trickle = True
    fake.raw_answer = b" " * 10**6
    with pytest.raises(AgentUnavailable):
        AgentClient(SECRETS, timeout=0.3, budget=ByteBudget(10**8)).chat(at(fake), "m", "hi")


@pytest.mark.slow
def test_an_agent_that_hangs_is_left(fake: FakeAgent) -> None:
    fake.hang = True
    with pytest.raises(AgentUnavailable):
        AgentClient(SECRETS, timeout=0.3, budget=ByteBudget(10**8)).chat(at(fake), "m", "hi")


def test_where_nobody_listens_someone_may_in_a_moment(client: AgentClient) -> None:
    with pytest.raises(AgentNotReady):
        client.chat(Agent.at_address(UUID, f"http://127.0.0.1:{free_port()}", LOCAL), "m", "hi")


@pytest.mark.parametrize("answer", [b"", b"{", b"[]", b"\xff", b"x" * (CHAT_RESPONSE + 1), b"[" * 10_000])
def test_an_answer_that_is_none_is_unavailable(fake: FakeAgent, client: AgentClient, answer: bytes) -> None:
    fake.raw_answer = answer or b" "
    with pytest.raises(AgentUnavailable):
        client.chat(at(fake), "m", "hi")


@pytest.mark.parametrize("response", NO_RESPONSES)
def test_a_response_that_is_no_http_is_unavailable(fake: FakeAgent, client: AgentClient, response: bytes) -> None:
    fake.raw_response = response
    with pytest.raises(AgentUnavailable):
        client.chat(at(fake), "m", "hi")


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
def test_an_endless_response_is_cut_off_by_its_bytes(
    fake: FakeAgent, client: AgentClient, begin: bytes, endless: bytes
) -> None:
    """Whatever its framing says, and long before its time is over."""
    fake.raw_response, fake.endless = begin, endless
    with pytest.raises(AgentUnavailable):
        client.cancel(at(fake), "user")
    assert fake.cut_off.wait(PATIENCE)
    assert fake.sent < SMALL_RESPONSE + IN_THE_KERNEL


def test_a_response_in_chunks_is_read(fake: FakeAgent, client: AgentClient) -> None:
    fake.raw_response = CHUNKED + b'5;a=b\r\n{"sta\r\n6\r\ntus":1\r\n1\r\n}\r\n0\r\na: b\r\n\r\n'
    assert client.chat(at(fake), "m", "hi") == {"status": 1}


@pytest.mark.parametrize("answer", [b'{"messages": 1}', b'{"messages": [1]}', b"{}"])
def test_a_history_that_is_none_is_unavailable(fake: FakeAgent, client: AgentClient, answer: bytes) -> None:
    fake.raw_answer = answer
    with pytest.raises(AgentUnavailable):
        client.history(at(fake), 0, 10)


@pytest.mark.parametrize("answer", [b"{}", b'{"saved": false}', b'{"saved": "all of it"}', b'{"history": []}'])
def test_a_conversation_is_stored_if_the_agent_says_so(fake: FakeAgent, client: AgentClient, answer: bytes) -> None:
    client.checkpoint(at(fake))
    fake.raw_answer = answer
    with pytest.raises(CheckpointIncomplete):
        client.checkpoint(at(fake))


@pytest.mark.parametrize("status", [404, 500])
def test_an_agent_that_cannot_be_told_to_go_on_is_in_trouble(fake: FakeAgent, client: AgentClient, status: int) -> None:
    fake.statuses = [status]
    with pytest.raises(AgentUnavailable):
        client.resume(at(fake), 8)


def test_half_a_character_in_an_answer_is_a_question_mark(fake: FakeAgent, client: AgentClient) -> None:
    """The reason of a failed prompt goes on to Redis, which can't have one."""
    fake.raw_answer = b'{"status": "failed", "reason": "a\\ud800"}'
    said = client.chat(Agent.at_address(UUID, fake.address, LOCAL), "m", "hi")
    assert said == {"status": "failed", "reason": "a?"}


def test_a_redirect_is_not_followed(fake: FakeAgent, client: AgentClient) -> None:
    fake.statuses = [302]
    with pytest.raises(AgentUnavailable):
        client.chat(at(fake), "m", "hi")
    assert [path for _, path, _ in fake.requests] == ["/chat"]


def test_a_refused_message_is_told_apart_from_an_agent_in_trouble(fake: FakeAgent, client: AgentClient) -> None:
    fake.statuses = [413]
    with pytest.raises(AgentRefused):
        client.chat(at(fake), "m", "hi")


def test_errors_name_no_address_and_no_token(fake: FakeAgent, client: AgentClient) -> None:
    fake.statuses = [500]
    with pytest.raises(AgentUnavailable) as raised:
        client.chat(at(fake), "m", "a prompt")
    for secret in ("127.0.0.1", *SECRETS.agent_secrets(UUID, 0), "a prompt"):
        assert secret not in str(raised.value)


def test_an_agent_is_never_shown_what_it_would_show_the_gateway(fake: FakeAgent, client: AgentClient) -> None:
    """Another session's agent may have got the address."""
    client.chat(at(fake), "m", "hi")
    assert fake.tokens == [f"Bearer {SECRETS.agent_secrets(UUID, 0)[0]}"]
    assert SECRETS.owner_of(fake.tokens[0].removeprefix("Bearer ")) is None


def test_an_agent_from_before_a_rotation_of_the_key_is_reached(fake: FakeAgent) -> None:
    """It was given what the old key says."""
    rotated = AgentCredentials(["n" * 32, "k" * 32])
    fake.statuses = [401]
    AgentClient(rotated, timeout=5.0, budget=ByteBudget(10**8)).chat(at(fake), "m", "hi")
    assert fake.tokens == [f"Bearer {secret}" for secret in rotated.agent_secrets(UUID, 0)]
    assert fake.accepted == ["m"]


def test_an_agent_that_reads_its_new_secret_between_two_requests_is_reached(
    fake: FakeAgent, client: AgentClient
) -> None:
    """It refused the new one, which it did not have yet, and then the old one."""
    fake.statuses = [401, 401]
    client.chat(replace(at(fake), epoch=3), "m", "hi")
    new, old = SECRETS.agent_secrets(UUID, 3)
    assert fake.tokens == [f"Bearer {secret}" for secret in (new, old, new)]


def test_an_agent_that_lets_nobody_in_is_unavailable(fake: FakeAgent, client: AgentClient) -> None:
    fake.statuses = [401, 401]
    with pytest.raises(AgentUnavailable):
        client.chat(at(fake), "m", "hi")
    assert len(fake.requests) == 2


def test_without_a_key_no_agent_is_spoken_to(fake: FakeAgent) -> None:
    with pytest.raises(SettingsError):
        AgentClient(AgentCredentials([]), 1.0, ByteBudget(100)).chat(at(fake), "m", "hi")
    assert fake.requests == []


def test_an_agent_is_told_of_which_stop_it_is_and_that_it_was_broken_off(fake: FakeAgent, client: AgentClient) -> None:
    client.cancel(at(fake), "sleep", 7)
    client.cancel(at(fake), "user")
    client.resume(at(fake), 8)
    said = [("/cancel", {"reason": "sleep", "generation": 7}), ("/cancel", {"reason": "user"})]
    assert [(path, body) for _, path, body in fake.requests] == [*said, ("/resume", {"generation": 8})]
