"""What one tenant may hold at a time, and that nobody else is kept out by it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from flask import Flask

from app.api.security import tarpit_name
from app.api.tenant_limits import EXTENSION, Kind, TenantLimits
from app.core.access.keyring import read_keyring
from app.core.access.tokens import Kind as PassKind
from app.core.composition import Core
from app.core.errors import AgentUnavailable
from app.core.sessions.model import Status
from app.http.problems import Problem
from app.process.settings import Settings, SettingsError
from tests.unit.api.helpers import (
    ADMIN_KEY,
    KEYS,
    AppMaker,
    Client,
    check_problem,
    core_of,
    digest,
    keyed,
    move,
    new_session,
)
from tests.waiting import wait_for
from tests.world import SECRET_KEY

LIMITS = {"rate_limit_default": "10000/minute", "rate_limit_create": "10000/minute", "rate_limit_wake": "10000/minute"}


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return make_app(held_per_session=2, held_per_user=3, wait_default=5.0, secret_key=SECRET_KEY, **LIMITS)


def asleep(client: Client, core: Core, user_id: str = "ada") -> str:
    uuid = new_session(client, user_id)
    move(core, uuid, Status.ACTIVE)
    move(core, uuid, Status.SLEEPING)
    return uuid


@contextmanager
def streaming(client: Client, uuid: str, count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            answer = client.get(f"/session/{uuid}/events", buffered=False)
            assert answer.status_code == 200
            stack.callback(answer.close)
        yield


def test_a_session_and_a_user_have_so_many_streams_and_others_have_theirs(client: Client, core: Core) -> None:
    user = "ada"
    one, other, strangers = new_session(client, user), new_session(client, user), new_session(client, "bob")
    with streaming(client, one, 2):
        refused = client.get(f"/session/{one}/events")
        check_problem(refused, 429, "too_many_streams")
        assert f"session {one}" in refused.json["detail"]
        assert refused.headers["Retry-After"]
        with streaming(client, other, 1):
            refused = client.get(f"/session/{other}/events")
            check_problem(refused, 429, "too_many_streams")
            assert f"user {user}" in refused.json["detail"]
            with streaming(client, strangers, 2):
                pass
    with streaming(client, one, 2):
        pass


def waiting(client: Client, uuid: str, count: int) -> list[threading.Thread]:
    """As many calls that wait for a session that nobody starts."""

    def wait() -> None:
        client.application.test_client().post(
            f"/session/{uuid}/wake", headers={"X-API-Key": ADMIN_KEY, "Prefer": "wait=60"}
        )

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_one_more_waiting_call_is_refused_before_anything_is_done(client: Client, core: Core, app: Flask) -> None:
    uuid = asleep(client, core)
    threads = waiting(client, uuid, 2)
    limits = app.extensions[EXTENSION]
    assert isinstance(limits, TenantLimits)
    wait_for(lambda: limits.held(Kind.WAIT, f"session {uuid}") == 2, "both calls to wait")
    before = core.store.get(uuid)
    check_problem(client.post(f"/session/{uuid}/sleep", headers={"Prefer": "wait=1"}), 429, "too_many_waits")
    check_problem(client.delete(f"/session/{uuid}"), 429, "too_many_waits")
    assert core.store.get(uuid).generation == before.generation
    assert client.get(f"/session/{uuid}").status_code == 200
    assert client.post(f"/session/{uuid}/sleep").status_code == 200
    assert client.delete(f"/session/{uuid}", headers={"Prefer": "respond-async"}).status_code == 202
    for thread in threads:
        thread.join(60)
    assert limits.held(Kind.WAIT, f"session {uuid}") == 0


def test_a_tenant_with_a_token_keeps_the_product_out_of_nothing(client: Client, core: Core, app: Flask) -> None:
    uuid = new_session(client)
    move(core, uuid, Status.ACTIVE)
    token = client.post(f"/session/{uuid}/token").json["token"]
    tenant = app.test_client()
    tenant.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    with streaming(tenant, uuid, 2):
        check_problem(tenant.get(f"/session/{uuid}/events"), 429, "too_many_streams")
        with streaming(client, uuid, 2):
            pass


def test_calls_to_a_slow_agent_are_bounded(
    client: Client, core: Core, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one of them does not ask it page after page for as long as it likes."""
    uuid = new_session(client)
    with ExitStack() as stack:
        by = read_keyring(core.settings).find(ADMIN_KEY)
        assert by is not None
        for _ in range(2):
            stack.enter_context(app.extensions[EXTENSION].hold(Kind.AGENT, by, "ada", uuid))
        check_problem(client.get(f"/session/{uuid}/messages"), 429, "too_many_agent_calls")
        check_problem(client.get(f"/session/{uuid}/messages/m1"), 429, "too_many_agent_calls")
    monkeypatch.setattr("app.core.prompts.history.TURN_LIMIT", -1.0)
    with pytest.raises(AgentUnavailable, match="too long"):
        core.history.prompt(core.store.get(uuid), "m1")


def test_a_key_may_set_a_bound_of_its_own(make_app: AppMaker) -> None:
    entry = {"name": "batch", "sha256": digest("batch-key"), "role": "service", "held_at_once": 1}
    app = make_app(api_keys=json.dumps([*KEYS, entry]), **LIMITS)
    batch, other = keyed(app, "batch-key"), keyed(app, ADMIN_KEY)
    uuid, second = new_session(other), new_session(other, "bob")
    with streaming(batch, uuid, 1):
        check_problem(batch.get(f"/session/{second}/events"), 429, "too_many_streams")
        with streaming(other, uuid, 2):
            pass
    assert core_of(app).settings.held_per_session == 16


@pytest.mark.parametrize("bound", [-1, "3", True, 1.5])
def test_a_bound_that_is_none_stops_the_start(settings: Settings, bound: object) -> None:
    entry = {"name": "batch", "sha256": digest("batch-key"), "role": "service", "held_at_once": bound}
    with pytest.raises(SettingsError, match="held_at_once"):
        read_keyring(Settings(**{**vars(settings), "api_keys": json.dumps([entry])}))


def test_refusals_are_held_back_from_tokens_and_strangers_only(app: Flask, client: Client, core: Core) -> None:
    """The product's servers hear at once: a thread of theirs waits."""
    uuid = new_session(client)
    token = core.access_tokens.issue(PassKind.TOKEN, uuid, core.sessions.get(uuid).access_epoch, time.time())[0]
    asked = {
        "X-API-Key": {ADMIN_KEY: "", "wrong": "ip:local"},
        "Authorization": {f"Bearer {token}": f"session:{uuid}", "Bearer wrong": "ip:local"},
    }
    for header, expected in asked.items():
        for value, whose in expected.items():
            with app.test_request_context(f"/session/{uuid}", headers={header: value}):
                with suppress(Problem):
                    app.preprocess_request()
                assert tarpit_name() == whose
