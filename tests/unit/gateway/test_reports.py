"""What an agent tells is checked, put together and cut to size."""

from __future__ import annotations

import json

import pytest

from app.agent.protocol import REPORT_EVENTS, Event
from app.core.errors import InvalidRequest
from app.gateway.reports import ESCAPED, RESPONSE_MAX, TEXT_MAX, Report, fitted, shown
from tests.unit.gateway.helpers import event


def token(text, message_id="m1"):
    return event("token", message_id, text=text)


def runs(*events):
    """Each run as the events that it tells; an end as one."""

    def plain(each):
        return event(each.type, each.message_id, **each.data)

    found = Report.from_json({"events": list(events)}).runs()
    return [plain(run) if isinstance(run, Event) else [plain(each) for each in run] for run in found]


A, B, OTHERS = token("a"), event("token", text="b", again=True), token("b", "m2")
CALL = event("tool_call", name="read", arguments={}, call_id="c")
END = event("processed", response={"text": "done"})
LONG = [token("x" * 3_000), token("y" * 3_000)]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([A, OTHERS], [[A, OTHERS]], id="not those of different messages"),
        pytest.param([A, B, *map(token, "cde")], [[A, B, token("cde")]], id="not one that begins a text anew"),
        pytest.param(LONG, [LONG], id="up to a size"),
        pytest.param([A, CALL, END, OTHERS], [[A, CALL], END, [OTHERS]], id="in order around an end"),
    ],
)
def test_tokens_that_follow_one_another_are_put_together(events, expected):
    """A stream of a session holds a bounded number of events."""
    assert runs(*events) == expected


def test_only_what_is_meant_for_the_stream_reaches_it_and_no_long_text():
    data = {"call_id": "c", "name": "run", "ok": False, "text": "z" * 9_999, "secret": "s"}
    told = shown(Event("tool_result", "m1", data))
    assert set(told) == {"message_id", "call_id", "name", "ok", "text"}
    assert told["ok"] is False
    assert told["text"] == "z" * TEXT_MAX + "…"


def test_long_arguments_are_shown_as_cut_text_and_short_ones_as_they_are():
    short = shown(Event("tool_call", "m1", {"arguments": {"path": "a"}}))
    long = shown(Event("tool_call", "m1", {"arguments": {"content": "z" * 9_999}}))
    assert short["arguments"] == {"path": "a"}
    assert len(long["arguments"]) == TEXT_MAX + 1


@pytest.mark.parametrize(
    ("kind", "forged", "told"),
    [
        ("tool_call", {"name": 7, "arguments": [1]}, {"name": "7", "arguments": "[1]"}),
        ("tool_result", {"ok": "yes", "text": None, "call_id": {}}, {"ok": False, "text": "null", "call_id": "{}"}),
        ("token", {"text": "a", "again": 1}, {"text": "a", "again": False}),
    ],
)
def test_every_field_has_the_type_that_the_api_documents(kind, forged, told):
    """A client may rely on it, whatever a workspace reports."""
    assert shown(Event(kind, "m1", forged)) == {"message_id": "m1", **told}


@pytest.mark.parametrize("character", ["a", "ä", "𝄞", "\0", '"'])
def test_what_an_event_takes_in_memory_is_bounded(character):
    """However many bytes JSON makes of a character: a workspace chooses its texts."""
    for kind, data in (
        ("token", {"text": character * 99_999}),
        ("tool_call", dict.fromkeys(("name", "call_id"), character * 9_999) | {"arguments": {"a": character * 99_999}}),
        ("tool_result", {"name": [character] * 9_999, "ok": character * 9_999, "text": character * 99_999}),
    ):
        assert len(json.dumps(shown(Event(kind, "m1", data)))) < 5 * TEXT_MAX


@pytest.mark.parametrize("character", ["a", "ä", "𝄞", "\0"])
def test_what_a_response_takes_in_memory_is_bounded(character):
    assert len(json.dumps(fitted({"text": character * 999_999}))) < RESPONSE_MAX + 100


def test_a_response_that_fits_is_kept_whole():
    response = {"text": "hi", "steps": 2, "usage": {"prompt_tokens": 1}}
    assert fitted(response) == response


def test_a_response_too_long_is_cut_and_says_so():
    """Refusing it would have the agent send it again for ever."""
    cut = fitted({"text": "z" * (RESPONSE_MAX + 1), "steps": 2})
    assert cut["truncated"] is True
    assert cut["text"] == "z" * (RESPONSE_MAX // ESCAPED)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"events": {}},
        {"busy": "yes"},
        {"events": [None]},
        {"events": [{}]},
        {"events": [token("a")] * (REPORT_EVENTS + 1)},
        {"events": [{**token("a"), "type": "state"}]},
        {"events": [{**token("a"), "type": ["token"]}]},
        {"events": [{**token("a"), "message_id": "a:b"}]},
        {"events": [{**token("a"), "message_id": 5}]},
        {"events": [{**token("a"), "data": "text"}]},
        {"events": [{**token("a"), "data": {"text": 5}}]},
        {"events": [{"type": "processed", "message_id": "m", "data": {}}]},
        {"events": [{"type": "failed", "message_id": "m", "data": {"reason": None}}]},
    ],
)
def test_what_is_no_report_is_refused_whole(document):
    with pytest.raises(InvalidRequest):
        Report.from_json(document)
