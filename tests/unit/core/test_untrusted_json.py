"""What somebody else's JSON may cost: it is measured before it is read."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.access.agent_credentials import AgentCredentials
from app.core.agents.agent import Agent
from app.core.agents.requests import SMALL_RESPONSE
from app.core.byte_budget import ByteBudget
from app.core.errors import AgentUnavailable
from app.core.limit_errors import NoRoom
from app.core.prompts.agent_client import CHAT_RESPONSE, PAGE_RESPONSE, AgentClient
from app.core.untrusted_json import TooManyValues, count_values, parse, without_lone_surrogates
from app.process.settings import Settings
from tests.fake_agent import FakeAgent
from tests.unit.api.conftest import make_app  # noqa: F401
from tests.unit.api.helpers import ADMIN_KEY, AppMaker, check_problem, keyed
from tests.unit.gateway.conftest import make_gateway, model  # noqa: F401
from tests.unit.gateway.helpers import GatewayMaker, Workspace

SECRETS = AgentCredentials(["k" * 32])
MIB = 1_048_576
WHOLE = 64 * MIB
"""The largest body that the gateway takes, and more than an agent may answer."""


def hostile(size: int) -> bytes:
    """`[{},{},…]`, which takes 24 times as much once it is read."""
    return b"[" + b"{}," * ((size - 4) // 3) + b"{}]"


@contextmanager
def at_most(count: int) -> Iterator[None]:
    """The block never holds more than so many bytes of Python's."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < count, f"{peak / MIB:.0f} MiB"


def values_in(document: object) -> int:
    """Objects, lists, texts, names of members, and all other values."""
    if isinstance(document, dict):
        return 1 + sum(1 + values_in(each) for each in document.values())
    if isinstance(document, list):
        return 1 + sum(map(values_in, document))
    return 1


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.text('"\\{[,:'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('a"\\{,'), inner),
    max_leaves=30,
)


@given(documents, st.integers(1, 40), st.booleans())
@pytest.mark.slow
def test_no_document_has_more_values_than_are_counted(document: object, most: int, escaped: bool) -> None:
    """Whatever stands in its texts: it is read if it has few enough, and refused if it has too many."""
    data = json.dumps(document, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    counted = count_values(data, most)
    assert counted >= min(values_in(document), most + 1)
    if counted <= most:
        assert parse(data, most) == document
    else:
        with pytest.raises(TooManyValues):
            parse(data, most)


def test_half_characters_are_replaced_wherever_they_stand() -> None:
    """In texts and names, however deep; pairs of them are characters."""
    deep = "[" * 400 + '"\\udc00"' + "]" * 400
    given = parse(
        b'{"a\\ud800": ["\\ud83d\\ude00", "b\\ud800c", 1, null], "d": {"e": "f", "\\udfff": "\xed\xa0\x80"}}', 100
    )
    told = without_lone_surrogates(given)
    assert told == {"a?": ["\U0001f600", "b?c", 1, None], "d": {"e": "f", "?": "?"}}
    assert "?" in json.dumps(without_lone_surrogates(parse(deep.encode(), 1_000)))
    assert without_lone_surrogates("\ud800") == "?"


def test_what_stands_in_texts_is_no_value() -> None:
    """Source code in a conversation is full of braces, commas and quotes."""
    code = 'print({"a": [1, 2]}, "\\\\", "\\"")' * 1_000
    assert count_values(json.dumps([{"role": "user", "content": code}]).encode(), 10) <= 10


@pytest.mark.parametrize(
    "data", [b"", b"{", b'"', b'"\\', b'["\\"', b"\xff", b'{"a":}', "[]".encode("utf-16"), b"9" * 5_000]
)
def test_what_is_no_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse(data, 100)


def test_what_is_nested_too_deep_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="deep"):
        parse(b"[" * 100_000 + b"]" * 100_000, 10**6)


@pytest.mark.parametrize(
    ("begin", "repeated", "end"),
    [
        (b"[", b"{},", b"{}]"),
        (b"[", b'"",', b'""]'),
        (b'["', b'\\",', b""),
        (b"[", b"1,", b"1]"),
        (b"", b'"', b""),
        (b"", b"\\", b""),
        (b"", b"[", b""),
        (b"", b'{"a":', b""),
    ],
    ids=["objects", "texts", "escapes", "numbers", "quotes", "backslashes", "depth", "members"],
)
@pytest.mark.slow
def test_a_hostile_document_is_refused_in_little_more_than_its_own_size(
    begin: bytes, repeated: bytes, end: bytes
) -> None:
    data = begin + repeated * (WHOLE // len(repeated)) + end
    with at_most(2 * WHOLE + MIB), suppress(ValueError):
        parse(data, 250_000)
        raise AssertionError("it was read")


@pytest.mark.parametrize(
    ("ask", "held"),
    [
        (lambda client, agent: client.unsaved_work(agent), SMALL_RESPONSE),
        (lambda client, agent: client.chat(agent, "m", "hi"), CHAT_RESPONSE),
        (lambda client, agent: client.history(agent, 0, 10), PAGE_RESPONSE),
        (lambda client, agent: client.checkpoint(agent), SMALL_RESPONSE),
    ],
)
@pytest.mark.slow
def test_a_hostile_answer_of_an_agent_takes_little_memory(
    agent: FakeAgent, ask: Callable[[AgentClient, Agent], None], held: int
) -> None:
    """As much as that answer may have; what is at risk is said in a few kilobytes."""
    agent.raw_answer = hostile(WHOLE)
    budget = ByteBudget(2 * WHOLE)
    client, at = AgentClient(SECRETS, 60.0, budget), Agent.at_address("aaaa0001", agent.address, Settings())
    with at_most(held + held // 4 + 4 * MIB), pytest.raises(AgentUnavailable):
        ask(client, at)
    assert budget.left == 2 * WHOLE


def test_answers_of_many_agents_take_no_more_than_the_budget(agent: FakeAgent) -> None:
    """The one that would be too much is refused, and nothing of it stays taken."""
    agent.raw_answer = b'{"messages": [], "total": 0, "x": "' + b"x" * MIB + b'"}'
    budget = ByteBudget(MIB)
    client, at = AgentClient(SECRETS, 60.0, budget), Agent.at_address("aaaa0001", agent.address, Settings())
    with pytest.raises(AgentUnavailable, match="BODY_BUDGET_BYTES"):
        client.history(at, 0, 10)
    assert budget.left == MIB


@pytest.mark.parametrize(
    ("method", "path", "size", "status", "error"),
    [
        ("PUT", "/agent/v1/checkpoint", WHOLE, 422, "json_too_complex"),
        ("POST", "/agent/v1/history", 8 * MIB, 422, "json_too_complex"),
        ("POST", "/agent/v1/events", 4 * MIB, 422, "json_too_complex"),
        ("POST", "/llm/v1/chat/completions", 8 * MIB, 422, "json_too_complex"),
        ("POST", "/llm/v1/chat/completions", WHOLE, 413, "payload_too_large"),
        ("POST", "/agent/v1/hello", WHOLE, 413, "payload_too_large"),
        ("POST", "/agent/v1/activity", WHOLE, 413, "payload_too_large"),
    ],
)
@pytest.mark.slow
def test_a_hostile_request_to_the_gateway_takes_little_memory(
    make_gateway: GatewayMaker,  # noqa: F811
    method: str,
    path: str,
    size: int,
    status: int,
    error: str,
) -> None:
    workspace = Workspace(make_gateway())
    data = hostile(size)
    before = workspace.core.budget.left
    # The test's own client has it once more.
    with at_most(5 * size // 2 + 4 * MIB):
        answer = workspace.call(method, path, data=data, content_type="application/json")
    assert (answer.status_code, answer.json["error"]) == (status, error)
    assert workspace.core.budget.left == before


def test_a_gateway_with_no_room_says_so_and_has_room_again_afterwards(make_gateway: GatewayMaker) -> None:  # noqa: F811
    """Requests of the model draw on it as all others do."""
    workspace = Workspace(make_gateway(body_budget_bytes=110_000))
    prompt = {"messages": [{"role": "user", "content": "x" * 99_000}]}
    budget = workspace.core.budget
    with budget.account() as others:
        others.take(50_000)
        answer = workspace.call("POST", "/llm/v1/chat/completions", json=prompt)
        assert (answer.status_code, answer.json["error"]) == (503, "busy")
        assert int(answer.headers["Retry-After"]) > 0
    assert workspace.call("POST", "/llm/v1/chat/completions", json=prompt).status_code == 200
    assert budget.left == 110_000


def test_a_hostile_request_to_the_api_is_refused_unread(make_app: AppMaker) -> None:  # noqa: F811
    client = keyed(make_app(), ADMIN_KEY)
    data = hostile(WHOLE)
    with at_most(2 * WHOLE):
        answer = client.post("/session/create", data=data, content_type="application/json")
    check_problem(answer, 413, "payload_too_large")


def test_a_prompt_may_be_as_long_as_prompts_may(make_app: AppMaker) -> None:  # noqa: F811
    """In JSON that takes six bytes for each of its own; a document of as many values may not."""
    client = keyed(make_app(llm_base_url="http://model", secret_key="k" * 32, wait_default=0.0), ADMIN_KEY)
    uuid = client.post("/session/create", json={"user_id": "ada"}).get_json()["uuid"]
    longest = json.dumps({"message": "\x07" * 100_000}).encode()
    path = f"/session/{uuid}/chat"
    assert client.post(path, data=longest, content_type="application/json").status_code == 202
    answer = client.post(path, data=hostile(600_000), content_type="application/json")
    check_problem(answer, 422, "json_too_complex")


def test_a_budget_takes_back_what_was_taken_however_a_block_ends() -> None:
    budget = ByteBudget(10)
    with suppress(NoRoom), budget.account() as account:
        account.take(7)
        assert budget.left == 3
        account.take(4)
    assert budget.left == 10
