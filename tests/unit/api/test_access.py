"""Bound keys, session tokens and web pages: what they open, and what they don't."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from app.api.blueprint import rules_of
from app.core.access.tokens import Kind
from app.core.composition import Core
from app.core.sessions.model import Status
from app.main import create_app
from app.process.settings import Settings, SettingsError
from tests.tenant_tables import WEB, Try
from tests.unit.api.helpers import (
    ADMIN_KEY,
    AppMaker,
    Client,
    add_backup,
    bearer,
    check_problem,
    move,
    new_session,
    written,
)

PAGE = "https://app.example.com"

pytestmark = pytest.mark.settings(cors_origins=f"{PAGE}, http://localhost:3000/")


def of_one_thing(app: Flask, part: str) -> Iterator[tuple[str, str, Try]]:
    """Path, method and way to ask of each call on one session, or one backup."""
    for rule in app.url_map.iter_rules():
        for each in WEB[rule.endpoint]:
            if each.key == 404 and part in rule.rule:
                for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                    yield written(rule.rule), method, each


def ask(client: Client, path: str, method: str, how: Try) -> Any:
    return client.open(path, method=method, json=how.body, query_string=how.query)


def test_for_a_bound_key_what_is_of_other_users_is_not_there(
    app: Flask, client: Client, bound: Client, core: Core, uuid: str
) -> None:
    """Every call on a session or a backup."""
    backup = add_backup(core, uuid=uuid, user_id="ada").name
    before = core.store.get(uuid)
    for part, whose in (("session:uuid", uuid), ("name", backup)):
        for path, method, how in of_one_thing(app, f"<{part}>"):
            answer = ask(bound, path.replace(f"<{part}>", whose), method, how)
            check_problem(answer, 404, "backup_not_found" if whose == backup else "session_not_found")
    assert (core.store.get(uuid), core.backups.count()) == (before, 1)
    own = new_session(bound, user_id="course-1")
    assert bound.get(f"/session/{own}").status_code == 200
    check_problem(bound.post("/session/create", json={"user_id": "ada"}), 403, "forbidden")
    for path in ("/sessions?user_id=ada", "/events?user_id=ada"):
        check_problem(bound.get(path), 403, "forbidden")
    restore = {"user_id": "course-1", "restore_from": backup}
    check_problem(bound.post("/session/create", json=restore), 404, "backup_not_found")
    assert bound.get(f"/backups?uuid={uuid}").json["total"] == 0


@pytest.mark.parametrize("uuid", ["zzzzzzzz", "UPPERCAS", "x", "a%00b", "%F0%9F%92%A9", "abcdefgh:events"])
def test_a_session_that_does_not_exist_is_404(app: Flask, client: Client, bound: Client, uuid: str) -> None:
    for path, method, how in of_one_thing(app, "<session:uuid>"):
        for caller in (client, bound):
            answer = ask(caller, path.replace("<session:uuid>", uuid), method, how)
            check_problem(answer, 404, "session_not_found")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("app-zzzzzzzz-20261120-080000.zip", "backup_not_found"),
        ("x", "backup_not_found"),
        ("..%2Fetc%2Fpasswd", "not_found"),
        ("app-%00", "backup_not_found"),
    ],
)
def test_a_backup_that_does_not_exist_is_404(app: Flask, client: Client, name: str, error: str) -> None:
    for path, method, how in of_one_thing(app, "<name>"):
        check_problem(ask(client, path.replace("<name>", name), method, how), 404, error)


def test_a_token_opens_its_sessions_own_calls_and_nothing_else(app: Flask, holder: Client, uuid: str) -> None:
    """Every route there is; a key that may everything gets in everywhere."""
    opened = set()
    for rule in app.url_map.iter_rules():
        if "<session:uuid>" not in rule.rule:
            continue
        path = written(rule.rule).replace("<session:uuid>", uuid)
        for method in (rule.methods or set()) & {"GET", "POST", "DELETE"}:
            answer = holder.open(path, method=method, json={} if method == "POST" else None)
            answer.close()
            if answer.status_code not in (401, 403):
                opened.add(rule.endpoint)
    declared = {endpoint for endpoint in app.view_functions if rules_of(app, endpoint).session_token}
    assert opened == declared
    document = holder.get("/openapi.json").json
    said = [each for item in document["paths"].values() for each in item.values() if "security" in each]
    assert sum({"SessionToken": []} in each["security"] for each in said) == len(declared)
    for path in ("/sessions", "/backups", "/metrics", "/events"):
        check_problem(holder.get(path), 403, "forbidden")
    check_problem(holder.post("/session/create", json={"user_id": "ada"}), 403, "forbidden")


def test_a_key_that_came_as_a_token_is_told_where_it_belongs(stranger: Client, uuid: str) -> None:
    for shown in (f"Bearer {ADMIN_KEY}", "Bearer wrong-key", f"Basic {ADMIN_KEY}", ADMIN_KEY):
        answer = stranger.get(f"/session/{uuid}", headers={"Authorization": shown})
        problem = check_problem(answer, 401, "unauthorized")
        assert "X-API-Key" in str(problem["detail"])
        assert ADMIN_KEY not in str(problem)
    expired = stranger.get(f"/session/{uuid}", headers=bearer("eyJh.eyJh.c2ln"))
    detail = str(check_problem(expired, 401, "unauthorized")["detail"])
    assert "expired" in detail and "X-API-Key" not in detail


def test_a_token_is_no_use_for_another_session(client: Client, holder: Client) -> None:
    check_problem(holder.get(f"/session/{new_session(client)}"), 404, "session_not_found")


def test_a_token_ends_with_its_time_its_session_and_its_revocation(
    client: Client, stranger: Client, core: Core, uuid: str, holder: Client
) -> None:
    path = f"/session/{uuid}"
    old, _ = core.access_tokens.issue(Kind.TOKEN, uuid, 0, time.time() - 901)
    check_problem(stranger.get(path, headers=bearer(old)), 401, "unauthorized")
    assert holder.get(path).status_code == 200
    assert client.post(f"{path}/revoke").status_code == 200
    check_problem(holder.get(path), 401, "unauthorized")
    again = bearer(client.post(f"{path}/token").json["token"])
    move(core, uuid, Status.TERMINATING)
    assert stranger.get(path, headers=again).status_code == 200
    move(core, uuid, Status.TERMINATED)
    check_problem(stranger.get(path, headers=again), 401, "unauthorized")


def test_a_revocation_restarts_the_workspace_where_that_is_asked_for(client: Client, core: Core, uuid: str) -> None:
    """By a boolean and nothing that looks like one: a restart ends what the user runs."""
    generation = core.sessions.get(uuid).generation
    for wrong in (0, 1, "true", None):
        assert client.post(f"/session/{uuid}/revoke", json={"restart": wrong}).status_code == 400
    for body in ({}, {"restart": False}):
        assert client.post(f"/session/{uuid}/revoke", json=body).status_code == 200
    assert core.sessions.get(uuid).generation == generation
    assert client.post(f"/session/{uuid}/revoke", json={"restart": True}).status_code == 200
    assert (core.sessions.get(uuid).generation, core.sessions.get(uuid).stopping) == (generation + 1, True)


def test_a_preflight_of_a_listed_page_is_answered_without_a_key(stranger: Client, uuid: str) -> None:
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answer = stranger.options(f"/session/{uuid}/chat", headers=asks)
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "X-API-Key" not in answer.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize(
    "origin", ["https://example.com", f"{PAGE}.example.com", "null", "http://app.example.com", "*"]
)
def test_other_pages_are_told_nothing(stranger: Client, holder: Client, uuid: str, origin: str) -> None:
    asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert stranger.options(f"/session/{uuid}/chat", headers=asks).status_code in (401, 405)
    assert "Access-Control-Allow-Origin" not in holder.get(f"/session/{uuid}", headers={"Origin": origin}).headers


def test_a_listed_page_may_read_answers_and_errors(holder: Client, uuid: str) -> None:
    for path in (f"/session/{uuid}", "/sessions"):
        answer = holder.get(path, headers={"Origin": PAGE})
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


def test_without_origins_no_page_may_call(make_app: AppMaker) -> None:
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "GET"}
    assert "Access-Control-Allow-Origin" not in make_app().test_client().options("/sessions", headers=asks).headers


@pytest.mark.parametrize("origins", ["*", "app.example.com", "https://app.example.com/page", "null"])
def test_what_is_no_origin_stops_the_start(settings: Settings, origins: str) -> None:
    with pytest.raises(SettingsError, match="CORS_ORIGINS"):
        create_app(replace(settings, cors_origins=origins).checked())
