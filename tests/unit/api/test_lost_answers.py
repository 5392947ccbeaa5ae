"""Redis did what it was asked, and its answer was lost: redis-py asks again, and nothing is done twice for it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis
from flask import Flask

from app.core.access.login_links import LoginLinks
from app.core.composition import Core
from app.core.prompts.token_usage import Tokens, TokenUsage
from app.core.redis import keys, task_queue
from app.core.redis.connections import connect
from app.core.redis.leases import Leases
from app.core.redis.rpc import Rpc
from app.core.service import IDEMPOTENCY_TTL
from app.core.sessions.model import Status
from tests.losing import LosingProxy, losing, script_mark
from tests.unit.api.helpers import ASYNC, ONCE, AppMaker, Client, add_backup, check_problem, create, move
from tests.world import SECRET_KEY


@pytest.fixture
def proxy(redis_server: str, redis_client: redis.Redis) -> Iterator[LosingProxy]:
    with losing(redis_server) as proxy:
        yield proxy


@pytest.fixture
def app(make_app: AppMaker, proxy: LosingProxy) -> Flask:
    """Each user may have two sessions."""
    return make_app(
        redis_url=proxy.url, max_sessions_per_user=2, llm_base_url="http://127.0.0.1:9/v1", secret_key=SECRET_KEY
    )


@pytest.fixture
def far(proxy: LosingProxy) -> redis.Redis:
    """A client that loses answers."""
    return connect(proxy.url, 5.0)


def backlog(core: Core, name: str) -> int:
    return core.counters.backlog((name,))[name]


def test_a_create_whose_answer_is_lost_makes_one_session_that_counts_once(
    client: Client, core: Core, proxy: LosingProxy
) -> None:
    proxy.lose(script_mark("create"))
    answer = create(client)
    assert (answer.status_code, proxy.lost) == (201, 1)
    page = core.sessions.page(user_id="ada")
    assert [record.uuid for record in page.items] == [answer.json["uuid"]]
    assert backlog(core, "wake") == 1, "the workspace starts at once all the same"
    assert create(client).status_code == 201, "it counts once for the quota"
    check_problem(create(client), 409, "quota_exceeded")


@pytest.mark.parametrize("call", ["create", "restore"])
def test_the_key_of_a_503_gives_the_session_that_was_made(
    client: Client, core: Core, proxy: LosingProxy, call: str
) -> None:
    """Both tries of redis-py lose their answer: the caller can't know, and asks again with the same key."""
    path = "/session/create" if call == "create" else f"/backups/{add_backup(core).name}/restore"
    headers = ONCE
    proxy.lose(script_mark("create"), times=2)
    check_problem(client.post(path, json={"user_id": "ada"}, headers=headers), 503, "state_unavailable")
    [made] = core.sessions.page(user_id="ada").items
    again = client.post(path, json={"user_id": "ada"}, headers=headers)
    assert (again.status_code, again.json["uuid"]) == (201, made.uuid)
    assert again.headers["Location"] == f"/session/{made.uuid}"
    assert core.sessions.page(user_id="ada").total == 1
    replayed = client.post(path, json={"user_id": "ada"}, headers=headers)
    assert (replayed.status_code, replayed.json) == (201, again.json)
    other = client.post(path, json={"user_id": "ada"}, headers={"Idempotency-Key": "k2"})
    assert other.json["uuid"] != made.uuid


@pytest.mark.parametrize("state", [Status.ACTIVE, Status.SLEEPING, Status.FAILED])
def test_the_key_of_a_503_names_its_session_whatever_became_of_it_and_makes_no_other_one(
    client: Client, core: Core, proxy: LosingProxy, state: Status
) -> None:
    proxy.lose(script_mark("create"), times=2)
    assert create(client, ONCE).status_code == 503
    check_problem(create(client, ONCE, size="large"), 422, "idempotency_key_reused")
    [made] = core.sessions.page(user_id="ada").items
    if state is Status.SLEEPING:
        move(core, made.uuid, Status.ACTIVE)
    move(core, made.uuid, state)
    again = create(client, ONCE)
    assert (again.status_code, again.json["uuid"], again.json["status"]) == (201, made.uuid, state)
    assert core.sessions.page(user_id="ada").total == 1


def test_a_name_is_kept_as_long_as_an_answer(client: Client, core: Core) -> None:
    create(client, ONCE)
    [named] = core.redis.keys(keys.CREATED.format(token="*"))
    assert core.redis.ttl(named) > IDEMPOTENCY_TTL - 60
    create(client)
    others = [core.redis.ttl(name) for name in core.redis.keys(keys.CREATED.format(token="*")) if name != named]
    assert len(others) == 1 and 0 < others[0] <= 120


def test_a_request_recognises_its_own_claim(client: Client, proxy: LosingProxy) -> None:
    proxy.lose(b"idempotency:")
    answer = create(client, ONCE)
    assert (answer.status_code, proxy.lost) == (201, 1)
    again = create(client, ONCE)
    assert (again.json, again.headers["Idempotency-Replayed"]) == (answer.json, "true")


def test_a_request_frees_no_claim_but_its_own(client: Client, core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own ended while it was slow, and another request with the same key is at work now."""

    def slow(*_args: object, **_kwargs: object) -> None:
        [name] = core.redis.keys(keys.IDEMPOTENCY.format(digest="*"))
        core.redis.set(name, '{"body": "", "nonce": "of another"}')
        raise RuntimeError

    monkeypatch.setattr(type(core.sessions), "create", slow)
    create(client, ONCE)
    [name] = core.redis.keys(keys.IDEMPOTENCY.format(digest="*"))
    assert "of another" in str(core.redis.get(name))


@pytest.mark.parametrize(
    ("method", "call", "before", "lost", "task"),
    [
        ("POST", "/wake", Status.SLEEPING, "change", task_queue.WAKE),
        ("POST", "/sleep", None, "change", task_queue.SLEEP),
        ("DELETE", "", None, "change", task_queue.TEARDOWN),
        ("POST", "/chat", Status.SLEEPING, "take", task_queue.WAKE),
    ],
)
def test_an_intent_whose_answer_is_lost_is_carried_out_at_once(
    client: Client,
    core: Core,
    uuid: str,
    proxy: LosingProxy,
    method: str,
    call: str,
    before: Status | None,
    lost: str,
    task: str,
) -> None:
    """Asked again, the script finds the session that way already; its message is sent all the same."""
    core.store.change(uuid, time.time(), to=before, settle=True)
    waiting = backlog(core, task_queue.ROUTES[task])
    proxy.lose(script_mark(lost))
    body = {"message": "hi"} if call == "/chat" else None
    answer = client.open(f"/session/{uuid}{call}", method=method, json=body, headers=ASYNC)
    assert (answer.status_code in (200, 202), proxy.lost) == (True, 1), answer.text
    assert backlog(core, task_queue.ROUTES[task]) == waiting + 1
    assert (core.store.get(uuid).generation, core.store.get(uuid).waiting) == (2, int(call == "/chat"))


def test_an_intent_that_stands_already_is_sent_no_second_time(client: Client, core: Core, uuid: str) -> None:
    before = backlog(core, "lifecycle")
    for _ in range(3):
        client.post(f"/session/{uuid}/sleep")
    assert backlog(core, "lifecycle") == before + 1


def test_a_link_whose_answer_is_lost_opens_its_workspace_once(
    core: Core, uuid: str, far: redis.Redis, proxy: LosingProxy
) -> None:
    links = LoginLinks(far)
    secret = links.make(uuid, 0)
    proxy.lose(b"link:")
    look = links.lookup(uuid, secret)
    assert (look.linked, proxy.lost) == (True, 1)
    assert not links.lookup(uuid, secret).linked, "whoever comes second is turned away"
    assert links.lookup(uuid).record == core.store.get(uuid)


def test_a_taken_link_is_forgotten_when_it_would_have_ended(redis_client: redis.Redis) -> None:
    links = LoginLinks(redis_client)
    secret = links.make("k3v9x0qa", 0)
    assert links.lookup("k3v9x0qa", secret).record is None
    [name] = redis_client.keys(keys.LINK.format(digest="*"))
    assert 0 < redis_client.pttl(name) <= 30_000


def test_a_lease_whose_answer_is_lost_is_held(far: redis.Redis, redis_client: redis.Redis, proxy: LosingProxy) -> None:
    proxy.lose(b"lease:k3v9x0qa")
    with Leases(far, 15.0).hold("lease:k3v9x0qa") as held:
        assert (held, proxy.lost) == (True, 1)
        with Leases(redis_client, 15.0).hold("lease:k3v9x0qa") as second:
            assert not second
    assert not redis_client.exists("lease:k3v9x0qa")


def test_tokens_whose_answer_is_lost_are_counted_once(far: redis.Redis, proxy: LosingProxy) -> None:
    spending, now = TokenUsage(far), time.time()
    proxy.lose(b"tokens:ada")
    spending.add("k3v9x0qa", "ada", Tokens(3, 4), now)
    assert proxy.lost == 1
    assert (spending.of_session("k3v9x0qa"), spending.of_day("ada", now)) == (Tokens(3, 4), 7)
    spending.add("k3v9x0qa", "ada", Tokens(3, 4), now)
    assert spending.of_day("ada", now) == 14


def test_a_workers_answer_that_is_lost_is_read_again(
    far: redis.Redis, redis_client: redis.Redis, proxy: LosingProxy
) -> None:
    class Answering:
        def send(self, _task: str, _name: str, call: str) -> None:
            Rpc(redis_client, self, block=0.05).answer(call, {"done": True})  # type: ignore[arg-type]

    proxy.lose(b":answer")
    calls = Rpc(far, Answering(), block=0.05)  # type: ignore[arg-type]
    assert calls.ask(task_queue.DELETE_BACKUP, "a-backup", patience=2.0) == {"done": True}
    assert (proxy.lost, redis_client.keys("rpc:*")) == (1, [])
