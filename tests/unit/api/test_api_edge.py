"""What holds for every call: keys and roles, limits, idempotency, request ids, problem documents."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator

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
from tests.ports import free_port
from tests.unit.api.helpers import (
    ADMIN_KEY,
    BOUND_KEY,
    OWN_LIMITS_KEY,
    SERVICE_KEY,
    Client,
    add_backup,
    check_problem,
    core_of,
    digest,
    keyed,
    new_session,
)

AppMaker = Callable[..., Flask]


def endpoints(app: Flask) -> Iterator[tuple[str, str, str]]:
    """(endpoint, method, path) of every route, with names filled in."""
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<session:uuid>", "zzzzzzzz").replace("<asset>", "docs.js")
        path = path.replace("<name>", "app-zzzzzzzz-20261120-080000.zip")
        for method in (rule.methods or set()) - {"HEAD"}:
            yield rule.endpoint, method, path


@pytest.mark.slow
def test_every_endpoint_but_the_public_ones_needs_a_key(app: Flask) -> None:
    for endpoint, method, path in endpoints(app):
        for headers in ({}, {"X-API-Key": "wrong"}):
            answer = app.test_client().open(path, method=method, headers=headers)
            if rules_of(app, endpoint).anonymous:
                assert answer.status_code != 401
            else:
                check_problem(answer, 401, "unauthorized")
                assert answer.headers["WWW-Authenticate"]


def test_the_public_endpoints_are_those_of_the_contract(app: Flask) -> None:
    public = {path for endpoint, _, path in endpoints(app) if rules_of(app, endpoint).anonymous}
    documents = {"/", "/openapi.json", "/docs", "/docs/assets/docs.js"}
    assert public == {"/livez", "/readyz", "/health", "/auth/again"} | documents


def test_two_keys_are_valid_at_once() -> None:
    ring = Keyring([Principal(name=key, digest=digest(key), role="admin") for key in ("old", "new")])
    found = [ring.find(key) for key in ("old", "new", "none", "", "\u2603")]
    assert [principal and principal.name for principal in found] == ["old", "new", None, None, None]


@pytest.mark.parametrize(
    "api_keys",
    [
        "{",
        "{}",
        "[1]",
        '[{"name": "a"}]',
        json.dumps([{"name": "a", "sha256": "secret", "role": "admin"}]),
        json.dumps([{"name": "a", "sha256": "0" * 64, "role": "root"}]),
        json.dumps([{"name": "a", "sha256": "0" * 64, "role": "admin", "limits": {"create": "often"}}]),
        json.dumps([{"name": "a", "sha256": "0" * 64, "role": "admin", "limits": {"party": "1/minute"}}]),
        json.dumps([{"name": "a", "sha256": "0" * 64, "role": "admin", "secret": 1}]),
        json.dumps([{"name": "oidc:ada", "sha256": "0" * 64, "role": "admin"}]),
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


def test_a_service_key_lists_one_user_at_a_time(app: Flask) -> None:
    client = keyed(app, SERVICE_KEY)
    check_problem(client.get("/sessions"), 403, "forbidden")
    check_problem(client.get("/backups"), 403, "forbidden")
    assert client.get("/sessions?user_id=ada").status_code == 200
    assert client.get("/backups?user_id=ada").status_code == 200
    assert client.get("/backups?uuid=zzzzzzzz").status_code == 200


def test_a_bound_key_sees_its_own_users_only(app: Flask, core: Core, client: Client) -> None:
    others = new_session(client, user_id="ada")
    backup = add_backup(core, uuid=others, user_id="ada")
    bound = keyed(app, BOUND_KEY)
    own = new_session(bound, user_id="course-1")
    assert bound.get(f"/session/{own}").status_code == 200
    check_problem(bound.post("/session/create", json={"user_id": "ada"}), 403, "forbidden")
    check_problem(bound.get("/sessions?user_id=ada"), 403, "forbidden")
    for method, path in (("GET", ""), ("POST", "/wake"), ("DELETE", ""), ("GET", "/events"), ("GET", "/backups")):
        answer = bound.open(f"/session/{others}{path}", method=method)
        check_problem(answer, 404, "session_not_found")
    for method, path in (("GET", "/download"), ("POST", "/restore"), ("DELETE", "")):
        answer = bound.open(f"/backups/{backup.name}{path}", method=method)
        check_problem(answer, 404, "backup_not_found")
    restore = {"user_id": "course-1", "restore_from": backup.name}
    check_problem(bound.post("/session/create", json=restore), 404, "backup_not_found")
    assert bound.get(f"/backups?uuid={others}").json["total"] == 0


def test_limits_hold_per_key_wherever_it_is_used_from(make_app: AppMaker) -> None:
    client = keyed(make_app(rate_limit_default="2/minute"), ADMIN_KEY)
    for address, left in (("10.0.0.1", "1"), ("10.0.0.2", "0")):
        answer = client.get("/sessions", environ_base={"REMOTE_ADDR": address})
        assert answer.headers["RateLimit-Limit"] == "2"
        assert answer.headers["RateLimit-Remaining"] == left
        assert 0 < int(answer.headers["RateLimit-Reset"]) <= 60
    refused = client.get("/sessions", environ_base={"REMOTE_ADDR": "10.0.0.3"})
    problem = check_problem(refused, 429, "rate_limited")
    assert problem["limit"] == {"category": "default", "rate": "2 per 1 minute", "of": "key", "name": "api_key"}
    assert 0 < int(refused.headers["Retry-After"]) <= 60


def test_limits_hold_per_address_whatever_the_key(make_app: AppMaker) -> None:
    """Unauthenticated, rejected and unknown paths count too: guessing keys is limited."""
    client = make_app(rate_limit_default="4/minute").test_client()
    statuses = [
        client.get("/sessions", headers=headers).status_code
        for headers in ({}, {"X-API-Key": "wrong"}, {"X-API-Key": ADMIN_KEY})
    ]
    assert statuses == [401, 401, 200]
    check_problem(client.get("/nowhere"), 404, "not_found")
    problem = check_problem(client.get("/sessions", headers={"X-API-Key": SERVICE_KEY}), 429, "rate_limited")
    assert problem["limit"] == {"category": "default", "rate": "4 per 1 minute", "of": "address", "name": None}


def test_all_addresses_of_an_ipv6_network_count_as_one(make_app: AppMaker) -> None:
    client = make_app(rate_limit_default="2/minute").test_client()

    def status(address: str) -> int:
        return int(client.get("/sessions", environ_base={"REMOTE_ADDR": address}).status_code)

    assert [status(f"2001:db8::{number}") for number in range(3)] == [401, 401, 429]
    assert status("2001:db8:0:1::") == 401
    assert [status(each) for each in ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1")] == [401, 401, 429]


def test_a_key_with_its_own_limit_is_bound_by_that_alone(make_app: AppMaker) -> None:
    app = make_app(rate_limit_create="1/minute", rate_limit_default="1/minute")
    client = keyed(app, OWN_LIMITS_KEY)
    answers = [client.post("/session/create", json={"user_id": "ada"}) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [201] * 5 + [429]
    assert (answers[-1].json["limit"]["rate"], answers[-1].json["limit"]["of"]) == ("5 per 1 minute", "key")
    assert [client.get("/backups?user_id=ada").status_code for _ in range(2)] == [200, 429]


def test_categories_are_counted_apart(make_app: AppMaker) -> None:
    client = keyed(make_app(rate_limit_default="1/minute", rate_limit_wake="2/minute"), ADMIN_KEY)
    assert client.get("/sessions").status_code == 200
    assert client.get("/sessions").status_code == 429
    answer = client.post("/session/zzzzzzzz/wake")
    assert (answer.status_code, answer.headers["RateLimit-Limit"]) == (404, "2")


def test_probes_are_never_limited(make_app: AppMaker) -> None:
    client = make_app(rate_limit_default="1/minute").test_client()
    for path in ("/livez", "/readyz"):
        assert [client.get(path).status_code for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(("proxies", "refused"), [(0, 429), (1, 401)])
def test_forwarded_addresses_count_only_behind_trusted_proxies(make_app: AppMaker, proxies: int, refused: int) -> None:
    client = make_app(rate_limit_default="1/minute", trusted_proxies=proxies).test_client()
    client.get("/sessions", headers={"X-Forwarded-For": "9.9.9.1"})
    assert client.get("/sessions", headers={"X-Forwarded-For": "9.9.9.2"}).status_code == refused


def test_limits_hold_in_memory_while_redis_is_down(make_app: AppMaker) -> None:
    client = keyed(make_app(redis_url=f"redis://127.0.0.1:{free_port()}/0", rate_limit_default="2/minute"), ADMIN_KEY)
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


def test_an_error_answer_of_redis_is_no_outage(app: Flask, core: Core, client: Client) -> None:
    """It fails this request, and all others are counted together all the same."""
    core.redis.set(keys.SESSION.format(uuid="zzzzzzzz"), "no hash")
    check_problem(client.get("/session/zzzzzzzz"), 500, "internal_error")
    (limiter,) = app.extensions["limiter"]
    assert not limiter._storage_dead
    assert client.get("/sessions").status_code == 200


def test_without_redis_the_process_starts_and_says_so(make_app: AppMaker) -> None:
    client = keyed(make_app(redis_url=f"redis://127.0.0.1:{free_port()}/0"), ADMIN_KEY)
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 503
    health = client.get("/health")
    assert (health.status_code, health.json["status"], health.json["redis"]) == (503, "unhealthy", "disconnected")
    assert client.get("/docs").status_code == 200
    check_problem(client.post("/session/create", json={"user_id": "ada"}), 503, "state_unavailable")
    check_problem(client.get("/metrics"), 503, "state_unavailable")


def test_the_same_idempotency_key_replays_the_first_answer(client: Client, core: Core) -> None:
    headers = {"Idempotency-Key": "once"}
    first = client.post("/session/create", json={"user_id": "ada"}, headers=headers)
    again = client.post("/session/create", json={"user_id": "ada"}, headers=headers)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.status_code, again.json) == (201, first.json)
    assert again.headers["Location"] == first.headers["Location"]
    assert core.sessions.page().total == 1


def test_an_idempotency_key_with_another_body_is_422(client: Client) -> None:
    headers = {"Idempotency-Key": "once"}
    client.post("/session/create", json={"user_id": "ada"}, headers=headers)
    answer = client.post("/session/create", json={"user_id": "bob"}, headers=headers)
    check_problem(answer, 422, "idempotency_key_reused")


def test_idempotency_keys_are_each_callers_and_paths_own(app: Flask, core: Core) -> None:
    for key in (ADMIN_KEY, SERVICE_KEY):
        answer = keyed(app, key).post("/session/create", json={"user_id": "ada"}, headers={"Idempotency-Key": "same"})
        assert "Idempotency-Replayed" not in answer.headers
    assert core.sessions.page().total == 2


def test_a_request_whose_twin_is_still_running_is_409(client: Client, core: Core) -> None:
    """While the first holds the claim, which is as a crash leaves it, too: it ends by itself."""
    headers = {"Idempotency-Key": "once"}
    client.post("/session/create", json={"user_id": "ada"}, headers=headers)
    [name] = core.redis.keys(keys.IDEMPOTENCY.format(digest="*"))
    kept = json.loads(str(core.redis.get(name)))
    core.redis.set(name, json.dumps({"body": kept["body"]}))
    answer = client.post("/session/create", json={"user_id": "ada"}, headers=headers)
    check_problem(answer, 409, "request_in_progress")
    assert answer.headers["Retry-After"]


def test_a_claim_ends_by_itself(app: Flask, core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def crash(*_args: object, **_kwargs: object) -> None:
        [name] = core.redis.keys(keys.IDEMPOTENCY.format(digest="*"))
        seen.append(core.redis.ttl(name))
        raise RuntimeError("secret detail")

    monkeypatch.setattr(type(core.sessions), "create", crash)
    client = keyed(app, ADMIN_KEY)
    answer = client.post("/session/create", json={"user_id": "ada"}, headers={"Idempotency-Key": "once"})
    assert "secret" not in answer.text
    check_problem(answer, 500, "internal_error")
    assert 0 < seen[0] <= 60
    assert core.redis.keys(keys.IDEMPOTENCY.format(digest="*")) == []


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 129, "é"])
def test_an_idempotency_key_that_is_not_printable_is_400(client: Client, key: str) -> None:
    answer = client.post("/session/create", json={"user_id": "ada"}, headers={"Idempotency-Key": key})
    check_problem(answer, 400, "invalid_request")


def test_a_request_id_is_taken_over_and_reaches_the_record(client: Client, core: Core) -> None:
    answer = client.post("/session/create", json={"user_id": "ada"}, headers={"X-Request-Id": "req-1.a_B"})
    assert answer.headers["X-Request-Id"] == "req-1.a_B"
    assert core.store.get(answer.json["uuid"]).request_id == "req-1.a_B"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<script>", "é"])
def test_a_request_id_that_could_not_be_logged_is_replaced(client: Client, given: str) -> None:
    made = client.get("/livez", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert made != given and len(made) == 32


def test_log_lines_carry_the_request_id_and_no_key(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        caplog.handler.addFilter(logs.RequestIdFilter())
        client.post("/session/create", json={"user_id": "ada"}, headers={"X-Request-Id": "traced"})
    ours = [record for record in caplog.records if record.name == "app.requests"]
    assert [(record.request_id, record.status) for record in ours] == [("traced", 201)]  # type: ignore[attr-defined]
    assert all(ADMIN_KEY not in str(vars(record)) for record in caplog.records)


def test_log_lines_have_the_route_and_none_of_the_callers_texts(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A path may hold a name, a token, or anything where there is no route."""
    uuid = client.post("/session/create", json={"user_id": "ada"}).json["uuid"]
    with caplog.at_level(logging.DEBUG):
        for path in (f"/session/{uuid}/messages/canary?canary=1", "/canary", "/backups/canary/download"):
            client.get(path)
        client.post(f"/session/{'canary' * 700}/wake")
    ours = [record for record in caplog.records if record.name == "app.requests"]
    paths = [record.path for record in ours]  # type: ignore[attr-defined]
    routes = [f"/session/{uuid}/messages/<message_id>", "", "/backups/<name>/download", "/session/<session:uuid>/wake"]
    assert paths == routes
    assert not any("canary" in str(vars(record)) for record in ours)


def test_unforeseen_errors_are_logged_and_not_shown(
    app: Flask, core: Core, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_args: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(type(core.sessions), "get", fail)
    answer = keyed(app, ADMIN_KEY).get("/session/zzzzzzzz")
    check_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert "secret detail" in caplog.text


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


def test_a_slash_at_the_end_changes_nothing(client: Client) -> None:
    assert client.get("/sessions/").status_code == 200


def test_every_answer_protects_the_browser_that_gets_it(client: Client) -> None:
    for path in ("/sessions", "/nowhere", "/livez"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers.getlist("Content-Security-Policy") == ["default-src 'none'; frame-ancestors 'none'"]


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
    limiter = next(iter(app.extensions["limiter"]))

    def loading(*_: object, **__: object) -> list[object]:
        limiter._storage_dead = True  # by the first
        raise redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory")

    monkeypatch.setattr(limiter.limiter, "_script", loading)
    answer = client.get("/sessions")
    check_problem(answer, 503, "state_unavailable")
