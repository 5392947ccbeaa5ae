"""What one tenant may hold at a time, and that nobody else is kept out by it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

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
    ASYNC,
    KEYS,
    AppMaker,
    Client,
    bearer,
    check_problem,
    core_of,
    key_entry,
    keyed,
    move,
    new_session,
)
from tests.waiting import wait_for

BATCH_KEY = "batch-key"

pytestmark = pytest.mark.settings(max_concurrent_per_session=2, max_concurrent_per_user=3, wait_default=5.0)


@contextmanager
def streaming(client: Client, uuid: str, count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            answer = client.get(f"/session/{uuid}/events", buffered=False)
            assert answer.status_code == 200
            stack.callback(answer.close)
        yield


def test_a_session_and_a_user_have_so_many_streams_and_others_have_theirs(client: Client) -> None:
    one, other, strangers = new_session(client), new_session(client), new_session(client, "bob")

    def refused(uuid: str, whose: str) -> None:
        answer = client.get(f"/session/{uuid}/events")
        assert whose in str(check_problem(answer, 429, "too_many_streams")["detail"])
        assert answer.headers["Retry-After"]

    with streaming(client, one, 2):
        refused(one, f"session {one}")
        with streaming(client, other, 1):
            refused(other, "user ada")
            with streaming(client, strangers, 2):
                pass
    with streaming(client, one, 2):
        pass


def test_one_more_waiting_call_is_refused_before_anything_is_done(
    client: Client, core: Core, uuid: str, app: Flask
) -> None:
    move(core, uuid, Status.SLEEPING)

    def wait() -> None:
        """For a session that nobody starts."""
        keyed(app, ADMIN_KEY).post(f"/session/{uuid}/wake", headers={"Prefer": "wait=60"})

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    limits: TenantLimits = app.extensions[EXTENSION]
    wait_for(lambda: limits.held(Kind.WAIT, f"session {uuid}") == 2, "both calls to wait")
    before = core.store.get(uuid)
    check_problem(client.post(f"/session/{uuid}/sleep", headers={"Prefer": "wait=1"}), 429, "too_many_waits")
    check_problem(client.delete(f"/session/{uuid}"), 429, "too_many_waits")
    assert core.store.get(uuid).generation == before.generation
    assert client.get(f"/session/{uuid}").status_code == 200
    assert client.post(f"/session/{uuid}/sleep").status_code == 200
    assert client.delete(f"/session/{uuid}", headers=ASYNC).status_code == 202
    for thread in threads:
        thread.join(60)
    assert limits.held(Kind.WAIT, f"session {uuid}") == 0


def test_a_tenant_with_a_token_keeps_the_product_out_of_nothing(client: Client, holder: Client, uuid: str) -> None:
    with streaming(holder, uuid, 2):
        check_problem(holder.get(f"/session/{uuid}/events"), 429, "too_many_streams")
        with streaming(client, uuid, 2):
            pass


def test_calls_to_a_slow_agent_are_bounded(
    client: Client, core: Core, uuid: str, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one of them does not ask it page after page for as long as it likes."""
    with ExitStack() as stack:
        by = read_keyring(core.settings).find(ADMIN_KEY)
        assert by is not None
        for _ in range(2):
            stack.enter_context(app.extensions[EXTENSION].hold(Kind.AGENT, by, "ada", uuid))
        for path in ("messages", "messages/m1"):
            check_problem(client.get(f"/session/{uuid}/{path}"), 429, "too_many_agent_calls")
    monkeypatch.setattr("app.core.prompts.history.TURN_LIMIT", -1.0)
    with pytest.raises(AgentUnavailable, match="too long"):
        core.history.prompt(core.store.get(uuid), "m1")


def batch(max_concurrent: object) -> str:
    """API_KEYS with a key that sets its own bound."""
    return json.dumps([*KEYS, key_entry("batch", BATCH_KEY, max_concurrent=max_concurrent)])


def test_a_key_may_set_a_bound_of_its_own(make_app: AppMaker) -> None:
    app = make_app(api_keys=batch(1))
    own, other = keyed(app, BATCH_KEY), keyed(app, ADMIN_KEY)
    uuid, second = new_session(other), new_session(other, "bob")
    with streaming(own, uuid, 1):
        check_problem(own.get(f"/session/{second}/events"), 429, "too_many_streams")
        with streaming(other, uuid, 2):
            pass
    assert core_of(app).settings.max_concurrent_per_session == 16


@pytest.mark.parametrize("bound", [-1, "3", True, 1.5])
def test_a_bound_that_is_none_stops_the_start(settings: Settings, bound: object) -> None:
    with pytest.raises(SettingsError, match="max_concurrent"):
        read_keyring(replace(settings, api_keys=batch(bound)))


def test_refusals_are_held_back_from_tokens_and_strangers_only(app: Flask, core: Core, uuid: str) -> None:
    """The product's servers hear at once: a thread of theirs waits."""
    token = core.access_tokens.issue(PassKind.TOKEN, uuid, core.sessions.get(uuid).access_epoch, time.time())[0]
    for headers, whose in (
        ({"X-API-Key": ADMIN_KEY}, ""),
        ({"X-API-Key": "wrong"}, "ip:local"),
        (bearer(token), f"session:{uuid}"),
        (bearer("wrong"), "ip:local"),
    ):
        with app.test_request_context(f"/session/{uuid}", headers=headers):
            with suppress(Problem):
                app.preprocess_request()
            assert tarpit_name() == whose
