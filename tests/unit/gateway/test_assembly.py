"""A completion put together from its stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.gateway.assembly import STREAM_MAX, Assembly, Unreadable
from tests.model_server import Answer, ToolCall, chunks_of, completion_of

BODY = {"messages": [{"role": "user", "content": "hi"}], "stream_options": {"include_usage": True}}
END = b": a comment\n\ndata: [DONE]\n\n"


def assembled(*chunks: Any) -> dict[str, Any]:
    assembly = Assembly()
    for chunk in chunks:
        assembly.add(f"data: {json.dumps(chunk)}\n\n".encode())
    assembly.add(END)
    return assembly.document()


def delta(index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": fields}]}


def message(*deltas: dict[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = assembled(*(delta(**each) for each in deltas))["choices"][0]["message"]
    return whole


@pytest.mark.parametrize(
    "answer",
    [
        Answer(text="Grün, and\nmore. "),
        Answer(
            tool_calls=[ToolCall("look", {"path": "a"}), ToolCall("write_file", {"path": "b", "content": "c" * 99})]
        ),
        Answer(text="I look.", tool_calls=[ToolCall("look", {})]),
        Answer(text="one two", finish_reason="length"),
    ],
)
def test_it_is_what_the_provider_would_have_sent_without_a_stream(answer: Answer) -> None:
    whole = completion_of(answer, BODY, 7)
    del whole["choices"][0]["message"]["refusal"]
    streamed = assembled(*chunks_of(answer, BODY, 7))
    del streamed["system_fingerprint"]
    assert streamed == whole | {"created": streamed["created"]}


def test_calls_whose_pieces_mingle_are_told_apart() -> None:
    def piece(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, "function": {"arguments": arguments}, **more}]}

    made = message(piece(1, "{", id="b"), piece(0, "[", id="a"), piece(1, "}"), piece(0, "]"))["tool_calls"]
    assert [(each["id"], each["function"]["arguments"]) for each in made] == [("a", "[]"), ("b", "{}")]
    assert all("index" not in each for each in made)


def test_calls_without_an_index_stand_one_after_another() -> None:
    """As Gemini's, each in one piece."""
    calls = [{"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}} for name in "ab"]
    assert message({"tool_calls": calls[:1]}, {"tool_calls": calls[1:]})["tool_calls"] == calls


def test_what_some_providers_repeat_is_there_once() -> None:
    assert message({"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}) == {
        "role": "assistant",
        "content": "ab",
    }


def test_thoughts_are_kept() -> None:
    details = [{"index": 0, "type": "reasoning.text", "text": text} for text in ("h", "m")]
    made = message(*({"reasoning_content": each["text"], "reasoning_details": [each]} for each in details))
    assert made["reasoning_content"] == "hm"
    assert made["reasoning_details"] == [{"index": 0, "type": "reasoning.text", "text": "hm"}]
    assert made["content"] is None


@pytest.mark.parametrize(
    "data",
    [
        b'{"error": {"message": "overloaded"}}',
        b"[]",
        b"7",
        b'{"choices": "none"}',
        b'{"choices": []}',
        b'{"choices": [1]}',
        b'{"choices": [{"index": 0, "delta": {"content": {"a": "b"}, "role": 1}}, {"index": 0, "delta": "x"}]}',
        *(b"{not json", b"\xff", b'{"a":' * 900 + b"1" + b"}" * 900, b"[" * 100_000),
    ],
)
def test_what_is_no_completion_or_cannot_be_read_is_an_error(data: bytes) -> None:
    assembly = Assembly()
    with pytest.raises(Unreadable):
        assembly.add(b"data: " + data + b"\n\n")
        assembly.add(END)
        assembly.document()


def test_a_stream_without_end_is_an_error() -> None:
    assembly = Assembly()
    comment = b": " + b"x" * 8_388_608 + b"\n"
    with pytest.raises(Unreadable):
        for _ in range(STREAM_MAX // len(comment) + 2):
            assembly.add(comment)
