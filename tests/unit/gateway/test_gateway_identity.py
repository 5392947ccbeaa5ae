"""Whose request it is: nobody gets in without a session's token, and none gets another's."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from flask import Flask

from app.core.access.agent_credentials import AgentCredentials
from app.gateway.main import create_app
from app.process.settings import Settings, SettingsError
from tests.unit.gateway.helpers import SECRET_KEY, USER, GatewayMaker, Workspace

CALLS = [
    ("POST", "/llm/v1/chat/completions"),
    ("GET", "/llm/v1/models"),
    ("POST", "/agent/v1/hello"),
    ("POST", "/agent/v1/events"),
    ("PUT", "/agent/v1/checkpoint"),
    ("GET", "/agent/v1/checkpoint"),
    ("GET", "/nothing"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer ",
        "Bearer abcd1234",
        "Basic YTpi",
        f"Bearer {AgentCredentials(['x' * 32]).token('abcd1234', 1)}",
        AgentCredentials([SECRET_KEY]).token("abcd1234", 1),
    ],
)
def test_without_a_good_token_there_is_nothing(
    app: Flask, workspace: Workspace, method: str, path: str, header
) -> None:
    """Not even whether a path exists. The answer is a problem document and says which scheme is wanted."""
    headers = {} if header is None else {"Authorization": header}
    answer = app.test_client().open(path, method=method, headers=headers)
    assert answer.status_code == 401
    assert answer.content_type == "application/problem+json"
    assert answer.json is not None and answer.json["error"] == "unauthorized"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), CALLS[:-1])
def test_the_token_of_an_unknown_session_is_good_again_when_its_record_is_back(
    app: Flask, redis_client: redis.Redis, method: str, path: str
) -> None:
    """Redis may have lost it. A 404 would tell an agent that it has no conversation, and it would begin anew."""
    workspace = Workspace(app)
    redis_client.flushall()
    answer = workspace.call(method, path)
    assert (answer.status_code, answer.json["error"]) == (503, "session_not_found")
    assert answer.headers["Retry-After"] == "2"
    assert Workspace(app).call("GET", "/agent/v1/checkpoint").status_code == 404


@pytest.mark.slow
def test_places_are_given_back_whatever_the_answer(app: Flask, workspace: Workspace) -> None:
    """More requests than places, each refused for another reason."""
    for _ in range(10):
        for method, path in CALLS:
            assert workspace.call(method, path, data=b"{").status_code != 429


def test_redis_down_is_a_503(make_gateway: GatewayMaker, app: Flask) -> None:
    token = Workspace(app).headers
    client = make_gateway(redis_url="redis://127.0.0.1:1/0").test_client()
    answer = client.get("/agent/v1/checkpoint", headers=token)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert (client.get("/livez").status_code, client.get("/readyz").status_code) == (200, 503)


def test_without_a_secret_key_the_gateway_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SECRET_KEY"):
        create_app(Settings(data_dir=tmp_path))


def test_the_figures_name_no_session_and_no_user(workspace: Workspace) -> None:
    """Anyone who reaches the gateway may read them."""
    workspace.ask()
    text = workspace.call("GET", "/metrics").text
    assert 'gateway_requests_total{endpoint="llm.chat_completions",status="200"} 1.0' in text
    assert workspace.uuid not in text
    assert USER not in text
