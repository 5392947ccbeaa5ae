"""The model for workspaces: who may ask, what it may cost, and what is answered when there is no answer."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from app.core.costs.usage import day_number
from app.core.errors import StateUnavailable
from app.core.prompts.token_usage import Tokens, TokenUsage, day_of
from app.core.redis import keys
from app.gateway import llm, provider
from app.gateway.cancellation import Call
from tests.model_server import Answer, ModelServer
from tests.unit.gateway.helpers import API_KEY, USER, GatewayMaker, Workspace
from tests.waiting import wait_for


def asked_of(make_gateway: GatewayMaker, status: int, content_type: str, body: str) -> Any:
    """The gateway's answer when this is all its provider says."""

    def serve(server: socket.socket) -> None:
        server.settimeout(30)
        client, _ = server.accept()
        with client:
            client.settimeout(30)
            client.recv(65_536)
            head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall((head + body).encode())

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve, server)
        base = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        answer = Workspace(make_gateway(llm_base_url=base)).ask()
        served.result(30)
    return answer


def metric(workspace: Workspace, name: str, **labels: str) -> float:
    text = workspace.call("GET", "/metrics").text
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())


def test_without_a_model_the_answer_says_how_to_set_one(make_gateway: GatewayMaker) -> None:
    """In one line; everything else of the gateway works."""
    workspace = Workspace(make_gateway(llm_base_url=""))
    for answer in (workspace.ask(), workspace.call("GET", "/llm/v1/models")):
        assert (answer.status_code, answer.json["error"]) == (503, "llm_not_configured")
        assert answer.content_type == "application/problem+json"
        assert "LLM_BASE_URL" in answer.json["detail"]
        assert "\n" not in answer.json["detail"]
    assert workspace.call("GET", "/readyz").status_code == 200


def test_a_user_past_the_budget_hears_when_it_begins_anew(make_gateway: GatewayMaker, model: ModelServer) -> None:
    workspace = Workspace(make_gateway(llm_tokens_per_day=100))
    workspace.parts.token_usage.add("other000", USER, Tokens(99, 1), time.time())
    answer = workspace.ask()
    assert (answer.status_code, answer.json["error"]) == (429, "llm_budget_exceeded")
    assert 0 < int(answer.headers["Retry-After"]) <= 86_401
    assert "T00:00:00.000Z" in answer.json["detail"]
    assert answer.headers["x-should-retry"] == "false"
    assert model.requests == []


def test_the_budget_is_each_users_own_and_the_last_token_counts(make_gateway: GatewayMaker) -> None:
    """One below it may still ask; another user's spending is no matter. 0 is no limit."""
    app = make_gateway(llm_tokens_per_day=100)
    workspace = Workspace(app)
    workspace.parts.token_usage.add("other000", USER, Tokens(99, 0), time.time())
    workspace.parts.token_usage.add("other001", "bob", Tokens(500, 0), time.time())
    assert workspace.ask().status_code == 200
    assert Workspace(app, "bobs0000", "bob").ask().status_code == 429
    assert Workspace(make_gateway(llm_tokens_per_day=0), "bobs0001", "bob").ask().status_code == 200


def test_a_user_past_the_months_budget_in_dollars_asks_no_model(make_gateway: GatewayMaker, model: ModelServer) -> None:
    """Failed and cancelled turns count; another try is no use. The session's events have the warning."""
    workspace = Workspace(make_gateway(budget_per_user=1.0, prices='{"million_tokens": {"*": [1, 1]}}'))
    model.script(Answer(text="x", prompt_tokens=900_000, completion_tokens=100_000))
    assert workspace.ask().status_code == 200
    refused = workspace.ask()
    assert (refused.status_code, refused.json["error"]) == (403, "budget_exceeded")
    assert refused.headers["x-should-retry"] == "false"
    assert len(model.requests) == 1
    assert ("budget", {"cost": 1.0, "budget": 1.0, "owner": "user"}) in workspace.events()


@pytest.mark.parametrize(("wanted", "booked"), [("gpt-5", "gpt-5"), ("made-up", "other")])
def test_tokens_are_booked_under_the_models_name_if_it_has_a_price(
    make_gateway: GatewayMaker, model: ModelServer, wanted: str, booked: str
) -> None:
    workspace = Workspace(make_gateway(llm_model=""))
    model.script(Answer(text="x", prompt_tokens=70, completion_tokens=7))
    assert workspace.ask(model=wanted).status_code == 200
    today = day_number(time.time())
    [used] = workspace.core.ledger.read([workspace.uuid], today, today, time.time())
    assert used.days.total(today, today) == {f"p:{booked}": 70, f"t:{booked}": 7}


@pytest.mark.parametrize("limit", [{"budget_per_user": 1.0}, {}])
def test_with_a_budget_a_model_without_a_price_is_refused(
    make_gateway: GatewayMaker, model: ModelServer, limit: dict[str, float]
) -> None:
    """It would be booked at the price of all others, whatever it costs. The budget is the user's, or the key's that
    made the session."""
    prices = '{"million_tokens": {"gpt-5": [1, 1], "*": [1, 1]}}'
    workspace = Workspace(make_gateway(llm_model="", prices=prices, **limit))
    if not limit:
        workspace.core.redis.hset(keys.BUDGETS, "web-app", "5")
        workspace.core.redis.hset(keys.SESSION.format(uuid=workspace.uuid), "made_by", "web-app")
    for unlisted in ("expensive", "GPT-5", "*", "other"):
        refused = workspace.ask(model=unlisted)
        assert (refused.status_code, refused.json["error"]) == (403, "model_without_price")
        assert "PRICES" in refused.json["detail"]
        assert refused.headers["x-should-retry"] == "false"
    assert model.requests == []
    assert workspace.ask(model="gpt-5").status_code == 200


def test_the_operators_model_needs_no_price_of_its_own(make_gateway: GatewayMaker) -> None:
    """No workspace can choose another: `*` is its price."""
    workspace = Workspace(make_gateway(budget_per_user=1.0, prices='{"million_tokens": {"*": [1, 1]}}'))
    assert workspace.ask(model="expensive").status_code == 200


def test_an_answer_that_is_not_streamed_is_assembled_and_counted_once(workspace: Workspace, model: ModelServer) -> None:
    """As the provider said, which always streams: in Redis, by session and user, and in the figures."""
    model.script(Answer(text="one two", prompt_tokens=70, completion_tokens=7))
    answer = workspace.ask()
    assert model.requests[0].body["stream"] is True
    assert answer.content_type == "application/json"
    assert answer.json["object"] == "chat.completion"
    assert answer.json["choices"][0]["message"] == {"role": "assistant", "content": "one two"}
    assert answer.json["usage"]["total_tokens"] == 77
    assert workspace.tokens() == Tokens(70, 7)
    assert workspace.core.redis.get(keys.USER_TOKENS.format(user_id=USER, day=day_of(time.time()))) == "77"
    assert metric(workspace, "gateway_llm_tokens_total", kind="prompt") == 70
    assert metric(workspace, "gateway_llm_tokens_total", kind="completion") == 7
    assert metric(workspace, "gateway_llm_tokens_estimated_total") == 0


@pytest.mark.parametrize("broken", [Answer(text="one two", cut_after=2), Answer(text="one two", broken=True)])
def test_an_answer_that_cannot_be_assembled_is_a_502_and_counted(
    workspace: Workspace, model: ModelServer, broken: Answer
) -> None:
    model.script(broken)
    answer = workspace.ask()
    assert (answer.status_code, answer.json["error"]) == (502, "llm_stream_cut")
    assert "x-should-retry" not in answer.headers
    assert workspace.tokens().completion > 0
    assert metric(workspace, "gateway_llm_streams_open") == 0


def test_a_client_that_leaves_while_the_provider_has_refused_pays_nothing(
    workspace: Workspace, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the pause before another try."""

    def leave(call: Call, _: float) -> None:
        call.cancel()
        pause(call, 0.0)

    pause = Call.pause
    monkeypatch.setattr(Call, "pause", leave)
    model.script(Answer(status=500))
    assert workspace.ask(max_tokens=5_000).status_code == 499
    assert workspace.tokens() == Tokens()


def test_a_provider_that_does_not_stream_is_served_all_the_same(make_gateway: GatewayMaker) -> None:
    whole = {"object": "chat.completion", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    assert asked_of(make_gateway, 200, "application/json", json.dumps(whole)).json == whole


def test_a_refused_request_costs_nothing(workspace: Workspace, model: ModelServer) -> None:
    model.script(Answer(status=400))
    assert workspace.ask().status_code == 400
    assert workspace.tokens() == Tokens()


def test_a_provider_that_refuses_the_key_is_not_the_workspaces_fault(
    make_gateway: GatewayMaker, model: ModelServer
) -> None:
    """A 401 would say that its own token is wrong; and the key is in no answer."""
    answer = Workspace(make_gateway(llm_api_key="sk-another-key-0123456789")).ask()
    assert (answer.status_code, answer.json["error"]) == (502, "llm_key_refused")
    assert "0123456789" not in answer.text


def test_a_key_in_a_providers_error_is_struck_out(make_gateway: GatewayMaker) -> None:
    """Whole, or as the provider abbreviates it; the rest of its error passes."""
    text = f"Incorrect key: sk-key-of**********6789, that is {API_KEY}, used by project x"
    error = {"error": {"message": text, "type": "forbidden", "code": "no_access"}}
    answer = asked_of(make_gateway, 403, "application/json", json.dumps(error))
    assert (answer.status_code, answer.json["error"]["code"]) == (403, "no_access")
    assert answer.json["error"]["message"] == "Incorrect key: [key], that is [key], used by project x"


def test_retries_end_and_the_last_refusal_passes(
    workspace: Workspace, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As often as `RETRIES` says; the provider's own words and its Retry-After arrive."""
    monkeypatch.setattr(provider, "RETRIES", 2)
    model.script(*[Answer(status=429, retry_after="0")] * 3)
    answer = workspace.ask()
    assert (answer.status_code, answer.json["error"]["code"]) == (429, "rate_limit_exceeded")
    assert answer.headers["Retry-After"] == "1"
    assert len(model.requests) == 3
    assert metric(workspace, "gateway_llm_retries_total", reason="429") == 2


def test_a_pause_too_long_to_wait_for_is_passed_on(workspace: Workspace, model: ModelServer) -> None:
    model.script(Answer(status=429, retry_after="3600"))
    answer = workspace.ask()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3601")
    assert len(model.requests) == 1


def test_a_provider_that_keeps_failing_is_a_502(
    workspace: Workspace, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own page of the error, which may name hosts, stays here."""
    monkeypatch.setattr(provider, "RETRIES", 0)
    model.script(Answer(status=500))
    answer = workspace.ask()
    assert (answer.status_code, answer.json["error"]) == (502, "llm_unavailable")


@pytest.mark.slow
def test_a_provider_that_is_not_there_is_a_502(make_gateway: GatewayMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "RETRIES", 1)
    answer = Workspace(make_gateway(llm_base_url="http://127.0.0.1:1/v1")).ask()
    assert (answer.status_code, answer.json["error"]) == (502, "llm_unavailable")
    assert "127.0.0.1" not in answer.text


@pytest.mark.slow
def test_a_provider_that_does_not_begin_is_a_504(make_gateway: GatewayMaker, model: ModelServer) -> None:
    """After LLM_TIMEOUT, however many retries there might be."""
    workspace = Workspace(make_gateway(llm_timeout=0.2))
    model.script(Answer(text="late", delay=60))
    answer = workspace.ask()
    assert (answer.status_code, answer.json["error"]) == (504, "llm_timeout")
    wait_for(lambda: model.requests, "the provider to read the request")
    assert len(model.requests) == 1


@pytest.mark.slow
def test_a_provider_that_falls_silent_cuts_the_stream(
    workspace: Workspace, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `STREAM_TIMEOUT` between two pieces, with the error clients understand; also on a connection that
    was used before."""
    patient = provider.STREAM_TIMEOUT
    for _ in range(2):
        monkeypatch.setattr(provider, "STREAM_TIMEOUT", patient)
        assert workspace.ask(stream=True).text.endswith("data: [DONE]\n\n")
        monkeypatch.setattr(provider, "STREAM_TIMEOUT", 0.2)
        model.script(Answer(text="one two three", pace=60))
        last = workspace.ask(stream=True).text.strip().rpartition("data: ")[2]
        assert json.loads(last)["error"]["code"] == "llm_stream_cut"
    assert metric(workspace, "gateway_llm_streams_cut_total") == 2


@pytest.mark.parametrize("status", [200, 302, 404])
def test_an_answer_that_is_not_json_is_a_502(make_gateway: GatewayMaker, status: int) -> None:
    """A page of some proxy in between, or of a wrong LLM_BASE_URL, must not pass for an answer of the model."""
    answer = asked_of(make_gateway, status, "text/html", "<html>log in at proxy.internal</html>")
    assert (answer.status_code, answer.json["error"]) == (502, "llm_unavailable")
    assert "proxy.internal" not in answer.text


def test_a_request_that_is_too_large_is_refused_before_the_model_sees_it(
    workspace: Workspace, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its limit is its own: a checkpoint may be larger."""
    monkeypatch.setattr(llm, "LARGEST_REQUEST", 1_000)
    answer = workspace.ask(tools=["x" * 1_000])
    assert (answer.status_code, answer.json["error"]) == (413, "payload_too_large")
    assert model.requests == []


def test_redis_down_after_the_answer_loses_the_count_not_the_answer(
    workspace: Workspace, model: ModelServer, monkeypatch
) -> None:

    def down(*_: object) -> None:
        raise StateUnavailable("down")

    monkeypatch.setattr(TokenUsage, "add", down)
    model.script(Answer(text="x", prompt_tokens=70, completion_tokens=7))
    assert workspace.ask().status_code == 200
    assert metric(workspace, "gateway_llm_tokens_unrecorded_total") == 77


def test_the_list_of_models_is_the_providers_when_none_is_forced(make_gateway: GatewayMaker) -> None:
    """Otherwise it holds the forced one, and the provider isn't asked."""
    free = Workspace(make_gateway(llm_model=""), "free0000").call("GET", "/llm/v1/models")
    assert [each["id"] for each in free.json["data"]] == ["stub-model"]
    bound = Workspace(make_gateway(llm_base_url="http://127.0.0.1:1/v1"), "bound000").call("GET", "/llm/v1/models")
    assert [each["id"] for each in bound.json["data"]] == ["forced-model"]


def test_a_stream_nobody_reads_gives_its_place_back(app: Flask, workspace: Workspace, model: ModelServer) -> None:
    """Closed before its first byte is taken, the request leaves nothing behind."""
    body = {"messages": [], "stream": True}
    for _ in range(20):
        workspace.call("POST", "/llm/v1/chat/completions", buffered=False, json=body).close()
    assert metric(workspace, "gateway_llm_streams_open") == 0
    assert workspace.ask().status_code == 200
