"""Session tokens and web pages: what they open, and what they don't."""

from __future__ import annotations

import time

import pytest
from flask import Flask

from app.api.blueprint import rules_of
from app.core.access.tokens import Kind
from app.core.composition import Core
from app.core.sessions.model import Status
from app.main import create_app
from app.process.settings import Settings, SettingsError
from tests.unit.api.helpers import BOUND_KEY, AppMaker, Client, check_problem, keyed, move, new_session
from tests.world import SECRET_KEY

PAGE = "https://app.example.com"


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return make_app(
        rate_limit_default="10000/minute",
        rate_limit_create="10000/minute",
        secret_key=SECRET_KEY,
        cors_origins=f"{PAGE}, http://localhost:3000/",
    )


@pytest.fixture
def uuid(client: Client) -> str:
    return new_session(client)


@pytest.fixture
def holder(app: Flask, client: Client, uuid: str) -> Client:
    """A client with a session token instead of a key."""
    made = client.post(f"/session/{uuid}/token").json
    assert made.keys() == {"uuid", "token", "expires_at"}
    holder: Client = app.test_client()
    holder.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {made['token']}"
    return holder


def test_a_token_opens_its_sessions_own_calls_and_nothing_else(app: Flask, holder: Client, uuid: str) -> None:
    """Every route there is; a key that may everything gets in everywhere."""
    opened = set()
    for rule in app.url_map.iter_rules():
        if "<session:uuid>" not in rule.rule:
            continue
        path = rule.rule.replace("<session:uuid>", uuid).replace("<message_id>", "m1")
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
    for path in ("/sessions", "/backups", "/metrics"):
        check_problem(holder.get(path), 403, "forbidden")
    check_problem(holder.post("/session/create", json={"user_id": "ada"}), 403, "forbidden")


def test_a_token_is_no_use_for_another_session(client: Client, holder: Client) -> None:
    check_problem(holder.get(f"/session/{new_session(client)}"), 404, "session_not_found")


def test_a_token_ends_with_its_time_its_session_and_its_revocation(
    app: Flask, client: Client, core: Core, uuid: str, holder: Client
) -> None:
    old, _ = core.access_tokens.issue(Kind.TOKEN, uuid, 0, time.time() - 901)
    check_problem(
        app.test_client().get(f"/session/{uuid}", headers={"Authorization": f"Bearer {old}"}), 401, "unauthorized"
    )
    assert holder.get(f"/session/{uuid}").status_code == 200
    assert client.post(f"/session/{uuid}/revoke").status_code == 200
    check_problem(holder.get(f"/session/{uuid}"), 401, "unauthorized")
    again = client.post(f"/session/{uuid}/token").json["token"]
    headers = {"Authorization": f"Bearer {again}"}
    move(core, uuid, Status.TERMINATING)
    assert app.test_client().get(f"/session/{uuid}", headers=headers).status_code == 200
    move(core, uuid, Status.TERMINATED)
    check_problem(app.test_client().get(f"/session/{uuid}", headers=headers), 401, "unauthorized")


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


def test_only_who_may_see_a_session_lets_others_in(app: Flask, uuid: str) -> None:
    for call in ("open", "token", "revoke"):
        check_problem(keyed(app, BOUND_KEY).post(f"/session/{uuid}/{call}"), 404, "session_not_found")


def test_a_preflight_of_a_listed_page_is_answered_without_a_key(app: Flask, uuid: str) -> None:
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answer = app.test_client().options(f"/session/{uuid}/chat", headers=asks)
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "X-API-Key" not in answer.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize(
    "origin", ["https://example.com", f"{PAGE}.example.com", "null", "http://app.example.com", "*"]
)
def test_other_pages_are_told_nothing(app: Flask, holder: Client, uuid: str, origin: str) -> None:
    asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert app.test_client().options(f"/session/{uuid}/chat", headers=asks).status_code in (401, 405)
    assert "Access-Control-Allow-Origin" not in holder.get(f"/session/{uuid}", headers={"Origin": origin}).headers


def test_a_listed_page_may_read_answers_and_errors(holder: Client, uuid: str) -> None:
    for path in (f"/session/{uuid}", "/sessions"):
        answer = holder.get(path, headers={"Origin": PAGE})
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


def test_without_origins_no_page_may_call(make_app: AppMaker) -> None:
    app = make_app(secret_key=SECRET_KEY)
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "GET"}
    assert "Access-Control-Allow-Origin" not in app.test_client().options("/sessions", headers=asks).headers


@pytest.mark.parametrize("origins", ["*", "app.example.com", "https://app.example.com/page", "null"])
def test_what_is_no_origin_stops_the_start(settings: Settings, origins: str) -> None:
    with pytest.raises(SettingsError, match="CORS_ORIGINS"):
        create_app(type(settings)(**{**vars(settings), "cors_origins": origins}).checked())
