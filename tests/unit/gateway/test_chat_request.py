"""What of a request goes to the provider."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.gateway.chat_request import TOKENS_MAX, ChatRequest, provider_request
from app.http.problems import Problem

MESSAGES = [{"role": "user", "content": "hi"}]
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


def asked(forced: str, /, **fields: object) -> ChatRequest:
    return provider_request(json.dumps({"messages": MESSAGES, **fields}).encode(), forced)


def sent(forced: str, /, **fields: object) -> dict[str, object]:
    return dict(json.loads(asked(forced, **fields).body))


def refused(forced: str, /, **fields: object) -> Problem:
    with pytest.raises(Problem) as error:
        asked(forced, **fields)
    return error.value


def test_the_settings_model_stands_in_for_the_wanted_one():
    assert sent("forced", model="wanted")["model"] == "forced"
    assert sent("", model="wanted")["model"] == "wanted"


@pytest.mark.parametrize("model", [None, "", 5, ["a"]])
def test_without_any_model_the_request_is_refused(model):
    assert refused("", model=model).status == 400


def test_what_chooses_the_bill_or_changes_the_models_template_is_left_out():
    """A template is code with some servers. What a model needs for its answer is passed on."""
    code = {"x": "{{ 1 }}"}
    left_out = {"n": 100, "service_tier": "priority", "store": True, "chat_template_kwargs": code}
    passed = sent("m", tools=[{"type": "function"}], temperature=0, **left_out)
    assert passed == {"messages": MESSAGES, "model": "m", "tools": [{"type": "function"}], "temperature": 0} | STREAMED


HELD = "data:image/png;base64,iVBORw0KGgo="

FUNCTION = {"name": "look", "description": "Looks.", "parameters": {"$ref": "#/$defs/a", "$defs": {"a": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"url": "https://a.example"}'}}

PASSED = {
    "an image": {"content": [{"type": "image_url", "image_url": {"url": HELD, "detail": "low"}}]},
    "an image without an object": {"content": [{"type": "image_url", "image_url": HELD}]},
    "sound": {"content": [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]},
    "a file": {
        "content": [{"type": "file", "file": {"filename": "a", "file_data": "data:application/pdf;base64,JVBERi0="}}]
    },
    "text of an address": {"content": [{"type": "text", "text": "read https://a.example"}]},
    "a place to cache up to": {"content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
    "a call": {"role": "assistant", "content": None, "tool_calls": [CALL]},
    "Gemini's call": {"tool_calls": [CALL | {"extra_content": {"google": {"thought_signature": "AAA"}}}]},
    "a call's result": {"role": "tool", "content": "done", "tool_call_id": "call_1"},
    "a thought": {"reasoning_content": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
}


@pytest.mark.parametrize("message", PASSED.values(), ids=PASSED.keys())
def test_what_clients_send_is_passed_on_unchanged(message):
    message = {"role": "user"} | message
    assert sent("m", messages=[message])["messages"] == [message]


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "auto"},
        {"tool_choice": {"type": "function", "function": {"name": "look"}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": {}}}},
        {"response_format": None, "tools": None, "stop": ["a", "b"], "logit_bias": {"50256": -100}},
        {"thinking": {"type": "enabled", "budget_tokens": 1000}, "stop": "a", "max_tokens": 5},
    ],
)
def test_how_clients_ask_is_passed_on_unchanged(fields):
    assert sent("m", **fields) == {"messages": MESSAGES, "model": "m", **fields} | STREAMED


ELSEWHERE = "https://elsewhere.example/x"

FETCHED: dict[str, Any] = {
    "an image": {"type": "image_url", "image_url": {"url": ELSEWHERE}},
    "an image of the provider's network": {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
    "an image of the provider's disk": {"type": "image_url", "image_url": "file:///etc/passwd"},
    "an image's object": {"type": "image_url", "image_url": {"url": {"url": ELSEWHERE}}},
    "a picture that names others": {"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,PHN2Zz4="}},
    "a list of addresses": {"type": "image_url", "image_url": {"url": "data:text/uri-list;base64,aHR0cHM6"}},
    "an address after data": {"type": "image_url", "image_url": {"url": f"{HELD} {ELSEWHERE}"}},
    "a film": {"type": "video_url", "video_url": {"url": ELSEWHERE}},
    "a sound": {"type": "audio_url", "audio_url": {"url": ELSEWHERE}},
    "a sound by address": {"type": "input_audio", "input_audio": {"data": ELSEWHERE, "format": "wav"}},
    "an image as Anthropic names it": {"type": "image", "source": {"type": "url", "url": ELSEWHERE}},
    "a file": {"type": "file", "file": {"file_data": ELSEWHERE}},
    "a part in a part": {"type": "tool_result", "content": [{"type": "image_url", "image_url": {"url": ELSEWHERE}}]},
    "a part in a text": {"type": "text", "text": [{"type": "image_url", "image_url": {"url": ELSEWHERE}}]},
    "a list in the list": [{"type": "image_url", "image_url": {"url": ELSEWHERE}}],
    "no type": {"image_url": {"url": ELSEWHERE}},
    "a type that is none": {"type": ["text"], "text": ELSEWHERE},
}


@pytest.mark.parametrize("part", FETCHED.values(), ids=FETCHED.keys())
@pytest.mark.parametrize("role", ["user", "tool"])
def test_nothing_in_a_message_makes_the_provider_fetch(part, role):
    """With what its server can reach, and in the service's name."""
    message = {"role": role, "content": [{"type": "text", "text": "what is this?"}, part]}
    problem = refused("m", messages=[*MESSAGES, message])
    assert (problem.status, problem.code) == (400, "invalid_request")
    assert "`messages.1.content.1" in str(problem)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": FETCHED["an image"]}]},
        {"messages": [[{"role": "user", "content": "hi"}]]},
        {"messages": [{"role": {"content": ELSEWHERE}, "content": "hi"}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"type": "mcp", "server_url": ELSEWHERE}]}]},
        {"tools": [{"type": "mcp", "server_label": "x", "server_url": ELSEWHERE}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": {"type": "function"}},
        {"tools": ["web_search"]},
        {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"items": [{"$ref": ELSEWHERE}]}}}]},
        {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"$Ref": "other.json"}}}]},
        {"tool_choice": {"type": "mcp", "server_url": ELSEWHERE}},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [{"type": "mcp"}]}}},
        {"response_format": {"type": "structural_tag", "format": {"url": ELSEWHERE}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": ELSEWHERE}}}},
        {"thinking": {"type": {"url": ELSEWHERE}}},
        {"temperature": {"url": ELSEWHERE}},
        {"stop": [{"url": ELSEWHERE}]},
        {"logit_bias": {"a": {"url": ELSEWHERE}}},
    ],
)
def test_nothing_beside_the_messages_makes_the_provider_fetch(fields):
    problem = refused("m", **fields)
    assert (problem.status, problem.code) == (400, "invalid_request")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "hi", "Content": [FETCHED["an image"]], "audio": {"id": "another's"}},
        {"role": "user", "content": [{"type": "text", "text": "hi", "IMAGE_URL": {"url": ELSEWHERE}}]},
        {"role": "user", "content": [{"type": "text", "text": "hi", "image_url": {"url": ELSEWHERE}}]},
        {"role": "user", "content": [{"type": "file", "file": {"file_id": "another's", "url": ELSEWHERE}}]},
    ],
)
def test_fields_that_are_not_known_are_left_out(message):
    """Some providers read names in any case, or whatever else there is."""
    passed = json.dumps(sent("m", messages=[message]))
    assert not any(word in passed for word in ("elsewhere", "another's", "Content"))


@pytest.mark.parametrize("stream", [True, False, None])
def test_the_provider_always_streams_and_counts(stream):
    """Whatever the workspace asks for: so an answer that nobody waits for has been counted so far."""
    request = asked("m", stream=stream, stream_options={"include_usage": False})
    assert json.loads(request.body) == {"messages": MESSAGES, "model": "m"} | STREAMED
    assert request.streams is bool(stream)


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({}, 0),
        ({"max_tokens": None}, 0),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
    ],
)
def test_the_most_tokens_of_an_answer_are_known(fields, most):
    assert asked("m", **fields).most_tokens == most


@pytest.mark.parametrize("most", [0, -1, True, 1.5, "5", [5], TOKENS_MAX + 1, 10**400])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_number_of_tokens_that_is_none_is_refused(name, most):
    assert f"`{name}` must be a whole number" in str(refused("m", **{name: most}))


def with_schema(depth: int) -> bytes:
    """A request for a call whose arguments are described this deep."""
    body = b'{"messages": [], "tools": [{"type": "function", "function": {"parameters": %b}}]}'
    return body % (b'{"a":' * depth + b"1" + b"}" * depth)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"messages": "hi"}', b"\xff", b"[" * 100_000, with_schema(200), with_schema(5_000)],
)
def test_what_is_no_request_for_a_completion_is_refused(body):
    with pytest.raises(Problem) as error:
        provider_request(body, "m")
    assert error.value.status == 400


def test_half_a_character_does_not_spoil_the_request():
    """A model's own tokens may hold one, and come back in the history; providers refuse a body that is no UTF-8."""
    body = b'{"messages": [{"role": "user", "content": "a\\ud800z"}]}'
    assert json.loads(provider_request(body, "m").body)["messages"][0]["content"] == "a?z"
