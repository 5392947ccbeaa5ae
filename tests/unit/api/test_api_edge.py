"""What holds for every call: keys and roles, limits, idempotency, request ids, problem documents."""

from __future__ import annotations

import dataclasses
import json
import logging
from itertools import product
from typing import Any

import pytest
import redis
from flask import Flask

from app.api.blueprint import rules_of
from app.api.prefer import Preference, preference
from app.core.access.keyring import Keyring, Principal, read_keyring
from app.core.composition import Core
from app.core.redis import keys
from app.main import create_app
from app.process import logs
from app.process.settings import Settings, SettingsError
from tests.unit.api.helpers import (
    ADMIN_KEY,
    NO_REDIS,
    ONCE,
    OWN_LIMITS_KEY,
    SERVICE_KEY,
    AppMaker,
    Client,
    check_problem,
    core_of,
    create,
    digest,
    keyed,
    new_session,
    written,
)

IDEMPOTENCY = keys.IDEMPOTENCY.format(digest="*")


@pytest.mark.slow
def test_every_endpoint_but_the_public_ones_of_the_contract_needs_a_key(app: Flask, stranger: Client) -> None:
    public = set()
    for rule in app.url_map.iter_rules():
        path = written(rule.rule).replace("<session:uuid>", "zzzzzzzz").replace("<asset>", "docs.js")
        path = path.replace("<name>", "app-zzzzzzzz-20261120-080000.zip")
        for method, key in product((rule.methods or set()) - {"HEAD"}, ({}, {"X-API-Key": "wrong"})):
            answer = stranger.open(path, method=method, headers=key)
            if rules_of(app, rule.endpoint).anonymous:
                public.add(path)
                assert answer.status_code != 401
            else:
                check_problem(answer, 401, "unauthorized")
                assert answer.headers["WWW-Authenticate"]
    documents = {"/", "/openapi.json", "/docs", "/docs/assets/docs.js"}
    assert public == {"/livez", "/readyz", "/health", "/auth/again"} | documents


def test_two_keys_are_valid_at_once() -> None:
    ring = Keyring([Principal(name=key, digest=digest(key), role="admin") for key in ("old", "new")])
    found = [ring.find(key) for key in ("old", "new", "none", "", "\u2603")]
    assert [principal and principal.name for principal in found] == ["old", "new", None, None, None]


ENTRY = {"name": "a", "sha256": "0" * 64, "role": "admin"}


@pytest.mark.parametrize(
    "api_keys",
    [
        "{",
        "{}",
        "[1]",
        '[{"name": "a"}]',
        json.dumps([ENTRY | {"sha256": "secret"}]),
        json.dumps([ENTRY | {"role": "root"}]),
        json.dumps([ENTRY | {"limits": {"create": "often"}}]),
        json.dumps([ENTRY | {"limits": {"party": "1/minute"}}]),
        json.dumps([ENTRY | {"secret": 1}]),
        json.dumps([ENTRY | {"name": "oidc:ada"}]),
        "[]",
    ],
)
def test_keys_that_make_no_sense_stop_the_start(settings: Settings, api_keys: str) -> None:
    """No key at all is one of them: nobody could call. The text never shows what was configured."""
    with pytest.raises(SettingsError) as raised:
        read_keyring(dataclasses.replace(settings, api_keys=api_keys))
    assert "secret" not in str(raised.value).replace("sha256", "")


def test_a_key_that_can_be_guessed_stops_the_start(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="16 characters"):
        read_keyring(dataclasses.replace(settings, api_key="k" * 15))
    assert read_keyring(dataclasses.replace(settings, api_key="k" * 16)).find("k" * 16) is not None


def test_a_rate_that_makes_no_sense_stops_the_start(make_app: AppMaker) -> None:
    with pytest.raises(SettingsError, match="RATE_LIMIT_WAKE"):
        make_app(rate_limit_wake="now and then")


def test_a_service_key_lists_one_user_at_a_time(service: Client) -> None:
    check_problem(service.get("/sessions"), 403, "forbidden")
    check_problem(service.get("/backups"), 403, "forbidden")
    for path in ("/sessions?user_id=ada", "/backups?user_id=ada", "/backups?uuid=zzzzzzzz"):
        assert service.get(path).status_code == 200


@pytest.mark.settings(rate_limit_default="2/minute")
def test_limits_hold_per_key_wherever_it_is_used_from(client: Client) -> None:
    for address, left in (("10.0.0.1", "1"), ("10.0.0.2", "0")):
        answer = client.get("/sessions", environ_base={"REMOTE_ADDR": address})
        assert answer.headers["RateLimit-Limit"] == "2"
        assert answer.headers["RateLimit-Remaining"] == left
        assert 0 < int(answer.headers["RateLimit-Reset"]) <= 60
    refused = client.get("/sessions", environ_base={"REMOTE_ADDR": "10.0.0.3"})
    problem = check_problem(refused, 429, "rate_limited")
    assert problem["limit"] == {"category": "default", "rate": "2 per 1 minute", "of": "key", "name": "api_key"}
    assert 0 < int(refused.headers["Retry-After"]) <= 60


@pytest.mark.settings(rate_limit_default="4/minute")
def test_limits_hold_per_address_whatever_the_key(stranger: Client) -> None:
    """Unauthenticated, rejected and unknown paths count too: guessing keys is limited."""
    shown: list[dict[str, str]] = [{}, {"X-API-Key": "wrong"}, {"X-API-Key": ADMIN_KEY}]
    assert [stranger.get("/sessions", headers=headers).status_code for headers in shown] == [401, 401, 200]
    check_problem(stranger.get("/nowhere"), 404, "not_found")
    problem = check_problem(stranger.get("/sessions", headers={"X-API-Key": SERVICE_KEY}), 429, "rate_limited")
    assert problem["limit"] == {"category": "default", "rate": "4 per 1 minute", "of": "address", "name": None}


@pytest.mark.settings(rate_limit_default="2/minute")
def test_all_addresses_of_an_ipv6_network_count_as_one(stranger: Client) -> None:
    def status(address: str) -> int:
        return int(stranger.get("/sessions", environ_base={"REMOTE_ADDR": address}).status_code)

    assert [status(f"2001:db8::{number}") for number in range(3)] == [401, 401, 429]
    assert status("2001:db8:0:1::") == 401
    assert [status(each) for each in ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1")] == [401, 401, 429]


@pytest.mark.settings(rate_limit_create="1/minute", rate_limit_default="1/minute")
def test_a_key_with_its_own_limit_is_bound_by_that_alone(app: Flask) -> None:
    client = keyed(app, OWN_LIMITS_KEY)
    answers = [create(client) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [201] * 5 + [429]
    assert (answers[-1].json["limit"]["rate"], answers[-1].json["limit"]["of"]) == ("5 per 1 minute", "key")
    assert [client.get("/backups?user_id=ada").status_code for _ in range(2)] == [200, 429]


@pytest.mark.settings(rate_limit_default="1/minute", rate_limit_wake="2/minute")
def test_categories_are_counted_apart_and_probes_never(client: Client) -> None:
    assert [client.get("/sessions").status_code for _ in range(2)] == [200, 429]
    answer = client.post("/session/zzzzzzzz/wake")
    assert (answer.status_code, answer.headers["RateLimit-Limit"]) == (404, "2")
    for path in ("/livez", "/readyz"):
        assert [client.get(path).status_code for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(("proxies", "refused"), [(0, 429), (1, 401)])
def test_forwarded_addresses_count_only_behind_trusted_proxies(make_app: AppMaker, proxies: int, refused: int) -> None:
    client = make_app(rate_limit_default="1/minute", trusted_proxies=proxies).test_client()
    client.get("/sessions", headers={"X-Forwarded-For": "9.9.9.1"})
    assert client.get("/sessions", headers={"X-Forwarded-For": "9.9.9.2"}).status_code == refused


@pytest.mark.settings(redis_url=NO_REDIS, rate_limit_default="2/minute")
def test_limits_hold_in_memory_while_redis_is_down(client: Client) -> None:
    for _ in range(2):
        answer = client.get("/sessions")
        check_problem(answer, 503, "state_unavailable")
        assert answer.headers["Retry-After"]
    check_problem(client.get("/sessions"), 429, "rate_limited")


@pytest.mark.parametrize("part", ["events", "prompts", "use"])
def test_no_path_suspends_the_shared_limits(app: Flask, core: Core, client: Client, part: str) -> None:
    """A text that names another key of Redis would be an error there, and errors of Redis end the shared counting."""
    uuid = new_session(client)
    core.redis.xadd("session:name:events", {"a": "b"})
    (limiter,) = app.extensions["limiter"]
    for name in (f"{uuid}:{part}", "name:events"):
        check_problem(client.get(f"/session/{name}"), 404, "session_not_found")
        assert not limiter._storage_dead


def test_an_error_answer_of_redis_is_no_outage(
    app: Flask, core: Core, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """It fails this request, is logged and not shown, and all others are counted together all the same."""
    core.redis.set(keys.SESSION.format(uuid="zzzzzzzz"), "no hash")
    answer = client.get("/session/zzzzzzzz")
    check_problem(answer, 500, "internal_error")
    assert ("WRONGTYPE" in caplog.text, "WRONGTYPE" in answer.text) == (True, False)
    (limiter,) = app.extensions["limiter"]
    assert not limiter._storage_dead
    assert client.get("/sessions").status_code == 200


@pytest.mark.settings(redis_url=NO_REDIS)
def test_without_redis_the_process_starts_and_says_so(client: Client) -> None:
    for path, status in (("/livez", 200), ("/readyz", 503), ("/docs", 200), ("/", 302)):
        assert client.get(path).status_code == status
    health = client.get("/health")
    assert (health.status_code, health.json["status"], health.json["redis"]) == (503, "unhealthy", "disconnected")
    check_problem(create(client), 503, "state_unavailable")
    check_problem(client.get("/metrics"), 503, "state_unavailable")


def test_an_idempotency_key_replays_the_first_answer_to_the_same_body(client: Client, core: Core) -> None:
    first, again = create(client, ONCE), create(client, ONCE)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.status_code, again.json) == (201, first.json)
    assert again.headers["Location"] == first.headers["Location"]
    assert core.sessions.page().total == 1
    check_problem(create(client, ONCE, user_id="bob"), 422, "idempotency_key_reused")


def test_idempotency_keys_are_each_callers_and_paths_own(client: Client, service: Client, core: Core) -> None:
    for caller in (client, service):
        assert "Idempotency-Replayed" not in create(caller, ONCE).headers
    assert core.sessions.page().total == 2


def test_a_request_whose_twin_is_still_running_is_409(client: Client, core: Core) -> None:
    """While the first holds the claim, which is as a crash leaves it, too: it ends by itself."""
    create(client, ONCE)
    [name] = core.redis.keys(IDEMPOTENCY)
    kept = json.loads(str(core.redis.get(name)))
    core.redis.set(name, json.dumps({"body": kept["body"]}))
    answer = create(client, ONCE)
    check_problem(answer, 409, "request_in_progress")
    assert answer.headers["Retry-After"]


def test_a_claim_ends_by_itself_and_an_unforeseen_error_is_logged_and_not_shown(
    client: Client, core: Core, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def crash(*_args: object, **_kwargs: object) -> None:
        [name] = core.redis.keys(IDEMPOTENCY)
        seen.append(core.redis.ttl(name))
        raise RuntimeError("secret detail")

    monkeypatch.setattr(type(core.sessions), "create", crash)
    answer = create(client, ONCE)
    assert "secret" not in answer.text
    assert "secret detail" in caplog.text
    check_problem(answer, 500, "internal_error")
    assert 0 < seen[0] <= 60
    assert core.redis.keys(IDEMPOTENCY) == []


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 129, "é"])
def test_an_idempotency_key_that_is_not_printable_is_400(client: Client, key: str) -> None:
    check_problem(create(client, {"Idempotency-Key": key}), 400, "invalid_request")


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<script>", "é"])
def test_a_request_id_that_could_not_be_logged_is_replaced(client: Client, given: str) -> None:
    made = client.get("/livez", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert made != given and len(made) == 32


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.name == "app.requests"]


def test_a_request_id_is_taken_over_and_reaches_the_record_and_the_log_which_has_no_key(
    client: Client, core: Core, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        caplog.handler.addFilter(logs.RequestIdFilter())
        answer = create(client, {"X-Request-Id": "req-1.a_B"})
    assert answer.headers["X-Request-Id"] == "req-1.a_B"
    assert core.store.get(answer.json["uuid"]).request_id == "req-1.a_B"
    assert [(line["request_id"], line["status"]) for line in lines(caplog)] == [("req-1.a_B", 201)]
    assert all(ADMIN_KEY not in str(vars(record)) for record in caplog.records)


def test_log_lines_have_the_route_and_none_of_the_callers_texts(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A path may hold a name, a token, or anything where there is no route."""
    uuid = new_session(client)
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        for path in (f"/session/{uuid}/messages/canary?canary=1", "/canary", "/backups/canary/download"):
            client.get(path)
        client.post(f"/session/{'canary' * 700}/wake")
    routes = [f"/session/{uuid}/messages/<message_id>", "", "/backups/<name>/download", "/session/<session:uuid>/wake"]
    assert [line["path"] for line in lines(caplog)] == routes
    assert "canary" not in str(lines(caplog))


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/docs//assets/docs.js", 404, "not_found"),
        ("GET", "/session/create", 405, "method_not_allowed"),
        ("PUT", "/sessions", 405, "method_not_allowed"),
        ("OPTIONS", "/sessions", 405, "method_not_allowed"),
        ("TRACE", "/session/zzzzzzzz", 405, "method_not_allowed"),
        ("BREW", "/livez", 405, "method_not_allowed"),
    ],
)
def test_unknown_paths_and_methods_are_problems_too(
    client: Client, method: str, path: str, status: int, code: str
) -> None:
    answer = client.open(path, method=method)
    check_problem(answer, status, code)
    assert status != 405 or answer.headers["Allow"]


def test_every_answer_protects_the_browser_that_gets_it(client: Client) -> None:
    """Also where a slash stands at the end, which changes nothing."""
    for path, status in (("/sessions", 200), ("/sessions/", 200), ("/nowhere", 404), ("/livez", 200)):
        answer = client.get(path)
        assert answer.status_code == status
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        policies = answer.headers.getlist("Content-Security-Policy")
        assert policies == ["default-src 'none'; frame-ancestors 'none'"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", Preference(25, "")),
        ("respond-async", Preference(0, "respond-async")),
        ("wait=5", Preference(5, "wait=5")),
        ('Wait = "5"', Preference(5, "wait=5")),
        ("wait=999", Preference(60, "wait=60")),
        ("respond-async, wait=7", Preference(7, "wait=7")),
        ("wait=0", Preference(0, "wait=0")),
        ("wait=-1", Preference(25, "")),
        ("wait=soon, handling=strict", Preference(25, "")),
        ("wait=99999999999999999999", Preference(25, "")),
    ],
)
def test_preferences_are_honoured_or_ignored(header: str, expected: Preference) -> None:
    assert preference(header, default=25, most=60) == expected


def test_create_app_connects_to_nothing(settings: Settings) -> None:
    app = create_app(dataclasses.replace(settings, redis_url="redis://192.0.2.1:1/0", api_key=ADMIN_KEY))
    assert core_of(app).redis.connection_pool._connections == []


def test_own_connections_are_shared_with_the_limits(client: Client, redis_client: redis.Redis) -> None:
    client.get("/sessions")
    names = [str(name) for name in redis_client.scan_iter("*rate:*")]
    assert names and all("joint-fixed-window" in name for name in names)
    assert all(redis_client.ttl(name) > 0 for name in names)


def test_of_two_requests_that_meet_a_loading_redis_at_once_neither_is_an_internal_error(
    app: Flask, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has the limits count in memory; the second had asked Redis by then."""
    (limiter,) = app.extensions["limiter"]

    def loading(*_: object, **__: object) -> list[object]:
        limiter._storage_dead = True  # by the first
        raise redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory")

    monkeypatch.setattr(limiter.limiter, "_script", loading)
    check_problem(client.get("/sessions"), 503, "state_unavailable")
