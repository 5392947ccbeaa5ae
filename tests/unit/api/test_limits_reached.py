"""Each limit of the service, reached: the refusal says whose it is, which setting it has, and when to try again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from flask import Flask

from app.agent.protocol import FILE_PIECE
from app.api.tenant_limits import EXTENSION, Kind
from app.core.access.keyring import Principal, read_keyring
from app.core.limit_errors import LimitReached, ServerLimitReached, TooManyAtOnce
from app.core.prompts.token_usage import Tokens, TokenUsage
from app.core.sessions.model import Status
from tests.dashboard import ORIGIN, Visitor
from tests.fake_agent import FakeAgent, fake_agent
from tests.unit.api.helpers import (
    ADMIN_KEY,
    KEYS,
    OWN_LIMITS_KEY,
    AppMaker,
    Client,
    bearer,
    core_of,
    create,
    key_entry,
    keyed,
    move,
    new_session,
)
from tests.unit.gateway.conftest import make_gateway, model  # noqa: F401
from tests.unit.gateway.helpers import GatewayMaker, Workspace
from tests.world import SECRET_KEY

BATCH_KEY = "batch-key"
BATCH = key_entry("batch", BATCH_KEY, max_concurrent=1, budget=1.0)


class Service:
    """What a case needs to reach its limit. What goes on meanwhile ends with the test."""

    def __init__(self, make_app: AppMaker, make_gateway: GatewayMaker, going_on: ExitStack) -> None:  # noqa: F811
        self._make_app = make_app
        self._make_gateway = make_gateway
        self._going_on = going_on

    def app(self, **settings: Any) -> Flask:
        return self._make_app(api_keys=json.dumps([*KEYS, BATCH]), secret_key=SECRET_KEY, **settings)

    def client(self, key: str = ADMIN_KEY, **settings: Any) -> Client:
        return keyed(self.app(**settings), key)

    def workspace(self, **settings: Any) -> Workspace:
        return Workspace(self._make_gateway(**settings))

    def hold(self, client: Client, kind: Kind, key: str, uuid: str) -> None:
        """A call of this kind goes on."""
        app = client.application
        by: Principal | None = read_keyring(core_of(app).settings).find(key)
        assert by is not None
        self._going_on.enter_context(app.extensions[EXTENSION].hold(kind, by, "ada", uuid))

    def pass_a_file(self, client: Client) -> None:
        """A long file of ada's passes."""
        self._going_on.enter_context(client.application.extensions[EXTENSION].hold_transfer("ada"))

    def agent(self) -> FakeAgent:
        """An agent of a workspace's."""
        return self._going_on.enter_context(fake_agent())

    def open(self, answer: Any) -> None:
        """This answer goes on."""
        assert answer.status_code == 200
        self._going_on.callback(answer.close)


@pytest.fixture
def service(make_app: AppMaker, make_gateway: GatewayMaker) -> Iterator[Service]:  # noqa: F811
    with ExitStack() as going_on:
        yield Service(make_app, make_gateway, going_on)


def last(client: Client, method: str, path: str, count: int, **more: Any) -> Any:
    """The answer to the last of some requests, each from another address."""
    for number in range(count):
        answer = client.open(path, method=method, environ_base={"REMOTE_ADDR": f"10.0.0.{number}"}, **more)
    return answer


def rate_of_address(service: Service) -> Any:
    client = service.app(rate_limit_default="1/minute").test_client()
    client.get("/sessions")
    return client.get("/sessions")


def rate_of_key(service: Service) -> Any:
    return last(service.client(rate_limit_wake="1/minute"), "POST", "/session/zzzzzzzz/wake", 2)


def rate_of_a_keys_own(service: Service) -> Any:
    return last(service.client(OWN_LIMITS_KEY), "POST", "/session/create", 6, json={"user_id": "ada"})


def rate_of_session_token(service: Service) -> Any:
    client = service.client(rate_limit_wake="1/minute")
    uuid = new_session(client)
    token = bearer(client.post(f"/session/{uuid}/token").json["token"])
    return last(client.application.test_client(), "POST", f"/session/{uuid}/wake", 2, headers=token)


def rate_of_sign_ins(service: Service) -> Any:
    app = service.app(rate_limit_default="1/minute", dashboard_url=ORIGIN)
    Visitor(app).post("/sign-in", {"key": "wrong"})
    return Visitor(app).post("/sign-in", {"key": "wrong"})


def waits_of_session(service: Service) -> Any:
    client = service.client(max_concurrent_per_session=1)
    uuid = new_session(client)
    service.hold(client, Kind.WAIT, ADMIN_KEY, uuid)
    return client.post(f"/session/{uuid}/sleep", headers={"Prefer": "wait=1"})


def streams_of_user(service: Service) -> Any:
    client = service.client(max_concurrent_per_user=1)
    service.open(client.get(f"/session/{new_session(client)}/events", buffered=False))
    return client.get(f"/session/{new_session(client)}/events")


def agent_calls_of_key(service: Service) -> Any:
    client = service.client(BATCH_KEY)
    uuid = new_session(client)
    service.hold(client, Kind.AGENT, BATCH_KEY, uuid)
    return client.get(f"/session/{uuid}/messages")


def streams_of_server(service: Service) -> Any:
    client = service.client(max_streams=1)
    uuid = new_session(client)
    service.open(client.get(f"/session/{uuid}/events", buffered=False))
    return client.get(f"/session/{uuid}/events")


def calls_at_the_gateway(service: Service) -> Any:
    workspace = service.workspace(gateway_calls_per_session=1)
    service.open(workspace.call("GET", "/llm/v1/models", buffered=False))
    return workspace.call("GET", "/llm/v1/models")


def bytes_at_the_gateway(service: Service) -> Any:
    return service.workspace(body_budget_bytes=10).ask()


def refused_by_agent(service: Service, call: str, body: Any, **settings: Any) -> Any:
    """The answer to a call of which the workspace's agent says that it is one too many."""
    client = service.client(**settings)
    uuid, agent = new_session(client), service.agent()
    core = core_of(client.application)
    move(core, uuid, Status.ACTIVE)
    core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    agent.raw_response = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
    return client.post(f"/session/{uuid}/{call}", json=body)


def running_commands(service: Service) -> Any:
    return refused_by_agent(service, "exec", {"command": "true"}, execs_at_once=1)


def services(service: Service) -> Any:
    return refused_by_agent(service, "services", {"name": "web", "command": "true"}, services_per_session=1)


def public_ports(service: Service) -> Any:
    client = service.client(ports_per_session=1)
    uuid, agent = new_session(client), service.agent()
    core = core_of(client.application)
    move(core, uuid, Status.ACTIVE)
    core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    core.openings.open(uuid, 3_000, int(time.time()) + 60)
    return client.post(f"/session/{uuid}/ports/4000/open")


def long_files(service: Service) -> Any:
    client = service.client(files_at_once=1)
    service.pass_a_file(client)
    return client.put(f"/session/{new_session(client)}/files/a", data=bytes(FILE_PIECE + 1))


def rate_of_session(service: Service) -> Any:
    client = service.client(rate_limit_work="1/minute")
    return last(client, "GET", f"/session/{new_session(client)}/exec?wake=false", 2)


def tokens_of_a_day(service: Service) -> Any:
    workspace = service.workspace(llm_tokens_per_day=100)
    workspace.parts.token_usage.add(workspace.uuid, workspace.record().user_id, Tokens(100), time.time())
    return workspace.ask()


def prompts(service: Service, **settings: Any) -> Any:
    """The answer to the third prompt of 1,000 bytes that waits."""
    client = service.client(llm_base_url="http://127.0.0.1:9/v1", wait_default=0.0, **settings)
    uuid = new_session(client)
    move(core_of(client.application), uuid, Status.ACTIVE)
    return last(client, "POST", f"/session/{uuid}/chat", 3, json={"message": "x" * 1_000})


def sessions_of_user(service: Service) -> Any:
    client = service.client(max_sessions_per_user=1)
    new_session(client)
    return create(client)


def spent(service: Service, key: str = ADMIN_KEY, **settings: Any) -> Any:
    """The answer to a creation, after a session of the same user and key has used two dollars of tokens."""
    client = service.client(key, prices='{"million_tokens": {"*": [1, 1]}}', **settings)
    uuid = new_session(client)
    TokenUsage(core_of(client.application).redis).add(uuid, "ada", Tokens(2_000_000), time.time())
    return create(client)


Reach = Callable[[Service], Any]
CASES: list[tuple[Reach, int, str, str, str, str]] = [
    (rate_of_address, 429, "rate_limited", "address", "1", "RATE_LIMIT_DEFAULT"),
    (rate_of_key, 429, "rate_limited", "key api_key", "1", "RATE_LIMIT_WAKE"),
    (rate_of_a_keys_own, 429, "rate_limited", "key web", "5", "the key's `limits` in API_KEYS"),
    (rate_of_session, 429, "rate_limited", "session", "1", "RATE_LIMIT_WORK"),
    (rate_of_session_token, 429, "rate_limited", "session token", "1", "RATE_LIMIT_WAKE"),
    (waits_of_session, 429, "too_many_waits", "session", "1", "MAX_CONCURRENT_PER_SESSION"),
    (streams_of_user, 429, "too_many_streams", "user ada", "1", "MAX_CONCURRENT_PER_USER"),
    (agent_calls_of_key, 429, "too_many_agent_calls", "key batch", "1", "the key's `max_concurrent` in API_KEYS"),
    (streams_of_server, 503, "too_many_streams", "server", "1", "MAX_STREAMS"),
    (long_files, 429, "too_many_transfers", "user ada", "1", "FILES_AT_ONCE"),
    (running_commands, 429, "too_many_execs", "session", "1", "EXECS_AT_ONCE"),
    (services, 409, "too_many_services", "session", "1", "SERVICES_PER_SESSION"),
    (public_ports, 409, "too_many_ports", "session", "1", "PORTS_PER_SESSION"),
    (calls_at_the_gateway, 429, "too_many_calls", "session", "1", "GATEWAY_CALLS_PER_SESSION"),
    (bytes_at_the_gateway, 503, "busy", "server", "10", "BODY_BUDGET_BYTES"),
    (tokens_of_a_day, 429, "llm_budget_exceeded", "user", "100", "LLM_TOKENS_PER_DAY"),
    (partial(prompts, inbox_limit=2), 429, "inbox_full", "session", "2", "INBOX_LIMIT"),
    (partial(prompts, session_prompt_bytes=2_000), 429, "inbox_full", "session", "2000", "SESSION_PROMPT_BYTES"),
    (partial(prompts, user_prompt_bytes=2_000), 429, "user_inbox_full", "user", "2000", "USER_PROMPT_BYTES"),
    (sessions_of_user, 409, "quota_exceeded", "user ada", "1", "MAX_SESSIONS_PER_USER"),
    (partial(spent, budget_per_user=1.0), 403, "budget_exceeded", "user", "$1.00", "BUDGET_PER_USER"),
    (
        partial(spent, key=BATCH_KEY),
        403,
        "budget_exceeded",
        "key that created",
        "$1.00",
        "the key's `budget` in API_KEYS",
    ),
]
"""How a limit is reached; status and code of the refusal; whose limit, how much, and which setting its text names."""


TIME_DOES_NOT_HELP = (403, 409)


def kinds_below(kind: type[LimitReached]) -> Iterator[type[LimitReached]]:
    for each in kind.__subclasses__():
        yield each
        yield from kinds_below(each)


@pytest.mark.parametrize(
    ("reach", "status", "code", "whose", "most", "setting"), CASES, ids=[f"{case[3]}, {case[-1]}" for case in CASES]
)
def test_a_refusal_says_whose_limit_it_is_which_setting_and_when_to_try_again(
    service: Service, reach: Reach, status: int, code: str, whose: str, most: str, setting: str
) -> None:
    answer = reach(service)
    assert (answer.status_code, answer.json["error"]) == (status, code)
    check_sentence(answer.json["detail"], whose, most, setting)
    if status in TIME_DOES_NOT_HELP:
        assert "Retry-After" not in answer.headers
    else:
        assert int(answer.headers["Retry-After"]) >= 1


def check_sentence(text: str, whose: str, most: str, setting: str) -> None:
    """First whose limit, then how much of what, the setting, and what to do."""
    sentence = rf"Th(e|is) {re.escape(whose)}\b.* {re.escape(most)} .*\({re.escape(setting)}\)\. \S.*\."
    assert re.fullmatch(sentence, text), text


def test_the_sign_in_page_says_the_same_of_its_limit(service: Service) -> None:
    answer = rate_of_sign_ins(service)
    told = re.search(r'role="alert">(.*)</', answer.text)
    assert told is not None
    check_sentence(told[1], "address", "1", "RATE_LIMIT_DEFAULT")
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1


def test_the_pause_is_that_of_the_limit_which_is_reached(service: Service) -> None:
    """Not that of the rate, which has room."""
    assert waits_of_session(service).headers["Retry-After"] == str(TooManyAtOnce.retry_after)


def test_each_limit_is_reached_here() -> None:
    """By its code, and by each of its settings."""
    kinds = [each for each in kinds_below(LimitReached) if each not in (TooManyAtOnce, ServerLimitReached)]
    assert {each.code for each in kinds} == {code for _, _, code, *_ in CASES}
    settings = {name for each in kinds for name in each.settings.values()}
    assert settings <= {setting for *_, setting in CASES}
