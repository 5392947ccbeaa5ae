"""What is kept for an Idempotency-Key: little, for as many calls as is bounded, and never a secret."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from flask import Flask

from app.api import idempotency
from app.core.composition import Core
from app.core.erasures import pseudonym_of
from app.core.redis import keys
from app.core.service import IDEMPOTENCY_TTL
from app.core.sessions.model import Status
from tests.unit.api.helpers import (
    ADMIN_KEY,
    BOUND_KEY,
    SERVICE_KEY,
    AppMaker,
    Client,
    check_problem,
    core_of,
    keyed,
    move,
    new_session,
)

CONFIGURED = {"llm_base_url": "http://127.0.0.1:1/v1", "secret_key": "k" * 32}
KEY = {"Idempotency-Key": "once"}
LONG = {"text": "a" * 60_000}


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    limits = {f"rate_limit_{name}": "10000/minute" for name in ("default", "create", "chat", "wake")}
    return make_app(**CONFIGURED, **limits)


def records(core: Core) -> Mapping[str, str]:
    names = core.redis.keys(keys.IDEMPOTENCY.format(digest="*"))
    return {name: str(core.redis.get(name)) for name in names}


def answered(client: Client, core: Core, response: Mapping[str, Any] = LONG) -> tuple[str, Any]:
    """A session, and the answer to a prompt with this key that its agent has ended."""
    uuid = new_session(client)
    move(core, uuid, Status.ACTIVE)
    core.inbox.take(uuid, "do it", "m1", now=time.time())
    core.inbox.finish(uuid, "m1", response=response, now=time.time())
    return uuid, client.post(f"/session/{uuid}/chat", json={"message": "do it", "id": "m1"}, headers=KEY)


@pytest.mark.parametrize("call", ["open", "token"])
def test_a_secret_is_not_kept_and_made_anew(client: Client, core: Core, call: str) -> None:
    uuid = new_session(client)
    move(core, uuid, Status.ACTIVE)
    first, again = (client.post(f"/session/{uuid}/{call}", headers=KEY) for _ in range(2))
    name = {"open": "url", "token": "token"}[call]
    assert (first.status_code, again.status_code) == (200, 200)
    secret, other = first.json[name].rpartition("=")[2], again.json[name].rpartition("=")[2]
    [kept] = records(core).values()
    assert secret not in kept and other not in kept
    if call == "open":
        assert secret != other, "a link opens once: the same again would open nothing"


@pytest.mark.parametrize("call", ["open", "token"])
def test_the_key_of_a_secret_is_for_one_body_all_the_same(client: Client, call: str) -> None:
    uuid = new_session(client)
    client.post(f"/session/{uuid}/{call}", headers=KEY)
    other = client.post(f"/session/{uuid}/{call}", json={"other": 1}, headers=KEY)
    check_problem(other, 422, "idempotency_key_reused")


def test_a_long_answer_is_not_kept_and_given_again_all_the_same(client: Client, core: Core) -> None:
    uuid, first = answered(client, core)
    assert (first.status_code, first.json["pod_response"]) == (200, LONG)
    assert all(len(kept) < 3_000 for kept in records(core).values())
    again = client.post(f"/session/{uuid}/chat", json={"message": "do it", "id": "m1"}, headers=KEY)
    assert (again.status_code, again.json) == (200, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = client.post(f"/session/{uuid}/chat", json={"message": "something else"}, headers=KEY)
    check_problem(other, 422, "idempotency_key_reused")


def test_a_long_answer_is_given_again_without_a_prompt_to_a_session_that_sleeps(client: Client, core: Core) -> None:
    """When the inbox has forgotten it the history answers; the session is not woken for it."""
    uuid, _ = answered(client, core)
    move(core, uuid, Status.SLEEPING)
    core.redis.delete(keys.PROMPT.format(uuid=uuid, id="m1"))
    again = client.post(f"/session/{uuid}/chat", json={"message": "do it", "id": "m1"}, headers=KEY)
    check_problem(again, 404, "message_not_found")
    record = core.store.get(uuid)
    assert (record.status, record.waiting) == (Status.SLEEPING, 0)


def test_a_long_problem_is_worked_out_anew_and_makes_no_second_session(
    client: Client, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = type(core.sessions).create

    def failing(*args: Any, **kwargs: Any) -> Any:
        record = made(*args, **kwargs)
        if record.status is Status.FAILED:
            return record
        return move(core, record.uuid, Status.FAILED, reason="the log's last lines\n" * 300)

    monkeypatch.setattr(type(core.sessions), "create", failing)
    headers = KEY | {"Prefer": "wait=5"}
    first, again = (client.post("/session/create", json={"user_id": "ada"}, headers=headers) for _ in range(2))
    assert first.json["uuid"] == again.json["uuid"]
    assert core.sessions.page(user_id="ada").total == 1
    assert all(len(kept) < 3_000 for kept in records(core).values())


def test_of_one_session_so_many_answers_are_kept(make_app: AppMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "KEPT_OF_BOTH", 5)
    app = make_app(**CONFIGURED, rate_limit_wake="10000/minute")
    client, core = keyed(app, ADMIN_KEY), core_of(app)
    one, two = new_session(client), new_session(client)
    client.post(f"/session/{two}/wake", headers=KEY)
    for number in range(12):
        client.post(f"/session/{one}/wake", headers={"Idempotency-Key": f"k{number}"})
    assert len(records(core)) == 6
    newest = client.post(f"/session/{one}/wake", headers={"Idempotency-Key": "k11"})
    oldest = client.post(f"/session/{one}/wake", headers={"Idempotency-Key": "k0"})
    other = client.post(f"/session/{two}/wake", headers=KEY)
    assert [answer.headers.get("Idempotency-Replayed") for answer in (newest, oldest, other)] == ["true", None, "true"]


def test_of_one_caller_so_many_answers_are_kept_whatever_the_number_of_its_sessions(
    make_app: AppMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "KEPT_OF_CALLER", 5)
    app = make_app(**CONFIGURED, rate_limit_wake="10000/minute")
    product, other, core = keyed(app, ADMIN_KEY), keyed(app, SERVICE_KEY), core_of(app)
    sessions = [new_session(product, f"user-{number}") for number in range(8)]
    other.post(f"/session/{sessions[0]}/wake", headers=KEY)
    first, *_, last = [product.post(f"/session/{uuid}/wake", headers=KEY) for uuid in sessions]
    assert (first.status_code, last.status_code, len(records(core))) == (200, 200, 6)
    again = [product.post(f"/session/{uuid}/wake", headers=KEY) for uuid in (sessions[-1], sessions[0])]
    assert [answer.headers.get("Idempotency-Replayed") for answer in again] == ["true", None]
    assert other.post(f"/session/{sessions[0]}/wake", headers=KEY).headers["Idempotency-Replayed"] == "true"


def test_callers_push_out_none_of_one_anothers_answers(make_app: AppMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "KEPT_OF_BOTH", 5)
    app = make_app(**CONFIGURED, rate_limit_wake="10000/minute")
    product, other = keyed(app, ADMIN_KEY), keyed(app, SERVICE_KEY)
    uuid = new_session(product)
    product.post(f"/session/{uuid}/wake", headers=KEY)
    for number in range(12):
        other.post(f"/session/{uuid}/wake", headers={"Idempotency-Key": f"k{number}"})
    assert product.post(f"/session/{uuid}/wake", headers=KEY).headers["Idempotency-Replayed"] == "true"
    assert len(records(core_of(app))) == 6


@pytest.mark.parametrize("name", ["x" * 3_500, "nosuchid", "foreign"])
def test_nothing_is_kept_of_calls_on_what_the_caller_may_not_see(
    make_app: AppMaker, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a text of the caller's length, nor a place among another session's answers."""
    monkeypatch.setattr(idempotency, "KEPT_OF_BOTH", 5)
    app = make_app(**CONFIGURED, rate_limit_wake="10000/minute")
    product, bound, core = keyed(app, ADMIN_KEY), keyed(app, BOUND_KEY), core_of(app)
    foreign = new_session(product, "other-ada")
    product.post(f"/session/{foreign}/wake", headers=KEY)
    before = {key: core.redis.type(key) for key in core.redis.keys("*") if "rate:" not in key}
    for number in range(12):
        path = f"/session/{foreign if name == 'foreign' else name}/wake"
        check_problem(bound.post(path, headers={"Idempotency-Key": f"k{number}"}), 404, "session_not_found")
    assert {key: core.redis.type(key) for key in core.redis.keys("*") if "rate:" not in key} == before
    assert product.post(f"/session/{foreign}/wake", headers=KEY).headers["Idempotency-Replayed"] == "true"


def test_a_refusal_is_decided_anew(client: Client, core: Core) -> None:
    uuid = new_session(client)
    move(core, uuid, Status.TERMINATING)
    check_problem(client.post(f"/session/{uuid}/wake", headers=KEY), 409, "illegal_state")
    assert records(core) == {}
    core.redis.hset(keys.SESSION.format(uuid=uuid), "status", Status.SLEEPING)
    again = client.post(f"/session/{uuid}/wake", headers=KEY)
    assert (again.status_code, again.headers.get("Idempotency-Replayed")) == (200, None)


def test_a_kept_answer_is_bounded_in_bytes(client: Client, core: Core) -> None:
    """With all that is stored beside it, and as it is written: a character of an answer may take seven."""
    for number in range(20, 180, 20):
        answered(client, core, {"text": "\N{CYCLONE}" * number})
    assert len({len(kept) for kept in records(core).values()}) > 3
    assert all(len(kept.encode()) <= 2_048 for kept in records(core).values())


def test_an_erasure_leaves_nothing_of_the_answers_on_its_session(client: Client, core: Core) -> None:
    uuid = client.post("/session/create", json={"user_id": "ada"}, headers=KEY).json["uuid"]
    client.post(f"/session/{uuid}/wake", headers=KEY)
    assert any(uuid in name for name in core.redis.keys("answers:*"))
    core.erasures.finish(uuid, pseudonym_of(uuid), time.time())
    assert records(core) == {}
    assert not any(uuid in name for name in core.redis.keys("answers:*"))


def test_what_is_known_of_a_sessions_answers_ends_with_them(client: Client, core: Core) -> None:
    uuid = new_session(client)
    client.post(f"/session/{uuid}/wake", headers=KEY)
    for name in core.redis.keys("*answers*"):
        assert 0 < core.redis.ttl(name) <= IDEMPOTENCY_TTL
