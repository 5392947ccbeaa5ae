"""What is kept for an Idempotency-Key: little, for as many calls as is bounded, and never a secret."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from app.api import idempotency
from app.core.composition import Core
from app.core.erasures import pseudonym_of
from app.core.redis import keys
from app.core.service import IDEMPOTENCY_TTL
from app.core.sessions.model import Status
from tests.unit.api.helpers import ONCE, Client, check_problem, create, move, new_session

LONG = {"text": "a" * 60_000}


def records(core: Core) -> Mapping[str, str]:
    names = core.redis.keys(keys.IDEMPOTENCY.format(digest="*"))
    return {name: str(core.redis.get(name)) for name in names}


def ended(core: Core, uuid: str, response: Mapping[str, Any] = LONG) -> None:
    """The session's agent has answered a prompt."""
    core.inbox.take(uuid, "do it", "m1", now=time.time())
    core.inbox.finish(uuid, "m1", response=response, now=time.time())


def ask(client: Client, uuid: str) -> Any:
    """The answer to that prompt, with a key."""
    return client.post(f"/session/{uuid}/chat", json={"message": "do it", "id": "m1"}, headers=ONCE)


def wake(client: Client, uuid: str, key: str = "once") -> Any:
    return client.post(f"/session/{uuid}/wake", headers={"Idempotency-Key": key})


def replayed(answer: Any) -> bool:
    return answer.headers.get("Idempotency-Replayed") == "true"


@pytest.mark.parametrize(("call", "name"), [("open", "url"), ("token", "token")])
def test_a_secret_is_not_kept_and_made_anew_for_the_same_body(
    client: Client, core: Core, uuid: str, call: str, name: str
) -> None:
    first, again = (client.post(f"/session/{uuid}/{call}", headers=ONCE) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    secrets = [answer.json[name].rpartition("=")[2] for answer in (first, again)]
    [kept] = records(core).values()
    assert not any(secret in kept for secret in secrets)
    assert call == "token" or secrets[0] != secrets[1], "a link opens once: the same again would open nothing"
    other = client.post(f"/session/{uuid}/{call}", json={"other": 1}, headers=ONCE)
    check_problem(other, 422, "idempotency_key_reused")


def test_a_long_answer_is_not_kept_and_given_again_all_the_same(client: Client, core: Core, uuid: str) -> None:
    ended(core, uuid)
    first = ask(client, uuid)
    assert (first.status_code, first.json["pod_response"]) == (200, LONG)
    assert all(len(kept) < 3_000 for kept in records(core).values())
    again = ask(client, uuid)
    assert (again.status_code, again.json, replayed(again)) == (200, first.json, True)
    other = client.post(f"/session/{uuid}/chat", json={"message": "something else"}, headers=ONCE)
    check_problem(other, 422, "idempotency_key_reused")


def test_a_long_answer_is_given_again_without_a_prompt_to_a_session_that_sleeps(
    client: Client, core: Core, uuid: str
) -> None:
    """When the inbox has forgotten it the history answers; the session is not woken for it."""
    ended(core, uuid)
    ask(client, uuid)
    move(core, uuid, Status.SLEEPING)
    core.redis.delete(keys.PROMPT.format(uuid=uuid, id="m1"))
    check_problem(ask(client, uuid), 404, "message_not_found")
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
    first, again = (create(client, ONCE | {"Prefer": "wait=5"}) for _ in range(2))
    assert first.json["uuid"] == again.json["uuid"]
    assert core.sessions.page(user_id="ada").total == 1
    assert all(len(kept) < 3_000 for kept in records(core).values())


@pytest.fixture
def five(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five answers are kept of a caller on a session."""
    monkeypatch.setattr(idempotency, "KEPT_OF_BOTH", 5)


@pytest.mark.usefixtures("five")
def test_of_one_session_so_many_answers_are_kept(client: Client, core: Core) -> None:
    one, two = new_session(client), new_session(client)
    wake(client, two)
    for number in range(12):
        wake(client, one, f"k{number}")
    assert len(records(core)) == 6
    newest, oldest, other = wake(client, one, "k11"), wake(client, one, "k0"), wake(client, two)
    assert [replayed(answer) for answer in (newest, oldest, other)] == [True, False, True]


def test_of_one_caller_so_many_answers_are_kept_whatever_the_number_of_its_sessions(
    client: Client, service: Client, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "KEPT_OF_CALLER", 5)
    sessions = [new_session(client, f"user-{number}") for number in range(8)]
    wake(service, sessions[0])
    first, *_, last = [wake(client, uuid) for uuid in sessions]
    assert (first.status_code, last.status_code, len(records(core))) == (200, 200, 6)
    assert [replayed(wake(client, uuid)) for uuid in (sessions[-1], sessions[0])] == [True, False]
    assert replayed(wake(service, sessions[0]))


@pytest.mark.usefixtures("five")
def test_callers_push_out_none_of_one_anothers_answers(client: Client, service: Client, core: Core, uuid: str) -> None:
    wake(client, uuid)
    for number in range(12):
        wake(service, uuid, f"k{number}")
    assert replayed(wake(client, uuid))
    assert len(records(core)) == 6


@pytest.mark.usefixtures("five")
@pytest.mark.parametrize("name", ["x" * 3_500, "nosuchid", "{foreign}"])
def test_nothing_is_kept_of_calls_on_what_the_caller_may_not_see(
    client: Client, bound: Client, core: Core, name: str
) -> None:
    """Neither a text of the caller's length, nor a place among another session's answers."""

    def known() -> dict[str, str]:
        return {str(key): core.redis.type(key) for key in core.redis.keys("*") if "rate:" not in key}

    foreign = new_session(client, "other-ada")
    wake(client, foreign)
    before = known()
    for number in range(12):
        check_problem(wake(bound, name.format(foreign=foreign), f"k{number}"), 404, "session_not_found")
    assert known() == before
    assert replayed(wake(client, foreign))


def test_a_refusal_is_decided_anew(client: Client, core: Core, uuid: str) -> None:
    move(core, uuid, Status.TERMINATING)
    check_problem(wake(client, uuid), 409, "illegal_state")
    assert records(core) == {}
    core.redis.hset(keys.SESSION.format(uuid=uuid), "status", Status.SLEEPING)
    again = wake(client, uuid)
    assert (again.status_code, replayed(again)) == (200, False)


def test_a_kept_answer_is_bounded_in_bytes(client: Client, core: Core) -> None:
    """With all that is stored beside it, and as it is written: a character of an answer may take seven."""
    for number in range(20, 180, 20):
        uuid = new_session(client)
        ended(core, uuid, {"text": "\N{CYCLONE}" * number})
        ask(client, uuid)
    assert len({len(kept) for kept in records(core).values()}) > 3
    assert all(len(kept.encode()) <= 2_048 for kept in records(core).values())


def test_an_erasure_leaves_nothing_of_the_answers_on_its_session(client: Client, core: Core) -> None:
    """And what is known of them ends with them."""
    uuid = create(client, ONCE).json["uuid"]
    wake(client, uuid)
    known = core.redis.keys("*answers*")
    assert any(uuid in name for name in core.redis.keys("answers:*"))
    assert all(0 < core.redis.ttl(name) <= IDEMPOTENCY_TTL for name in known)
    core.erasures.finish(uuid, pseudonym_of(uuid), time.time())
    assert records(core) == {}
    assert not any(uuid in name for name in core.redis.keys("answers:*"))
