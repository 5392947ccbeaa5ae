"""What of a request goes to the provider, and how a stream comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from urllib3.exceptions import ProtocolError

from app.gateway.cancellation import Call
from app.gateway.completions import CUT_EVENT, LINE_MAX, provider_request, relay
from app.gateway.provider import Answer
from app.gateway.usage import Meter
from app.problems import Problem

DONE = b"data: [DONE]\n\n"
MESSAGES = [{"role": "user", "content": "hi"}]


class FakeAnswer(Answer):
    """A stream of these pieces; an exception among them is raised."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        super().__init__(200, "text/event-stream")
        self._pieces = pieces

    def pieces(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def relayed(*pieces: bytes | Exception, call: Call | None = None) -> list[bytes]:
    return list(relay(FakeAnswer(*pieces), call or Call(), Meter(0)))


def sent(forced: str, /, **fields: object) -> dict[str, object]:
    return dict(json.loads(provider_request(json.dumps({"messages": MESSAGES, **fields}).encode(), forced)[0]))


def test_the_settings_model_stands_in_for_the_wanted_one():
    assert sent("forced", model="wanted")["model"] == "forced"
    assert sent("", model="wanted")["model"] == "wanted"


@pytest.mark.parametrize("model", [None, "", 5, ["a"]])
def test_without_any_model_the_request_is_refused(model):
    with pytest.raises(Problem) as error:
        sent("", model=model)
    assert error.value.status == 400


def test_what_chooses_the_bill_is_left_out():
    """What a model needs for its answer is passed on."""
    passed = sent("m", tools=[{"type": "function"}], temperature=0, n=100, service_tier="priority", store=True)
    assert passed == {"messages": MESSAGES, "model": "m", "tools": [{"type": "function"}], "temperature": 0}


def with_image(image: object) -> dict[str, object]:
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": image}]
    return sent("m", messages=[{"role": "user", "content": parts}])


def test_an_image_in_the_request_is_passed_on():
    url = "data:image/png;base64,AAAA"
    assert url in json.dumps(with_image({"url": url}))


@pytest.mark.parametrize(
    "image", [{"url": "https://example.com/x.png"}, {"url": "http://169.254.169.254/"}, "file:///etc/passwd", {}, None]
)
def test_an_image_from_elsewhere_is_refused(image):
    """The model's server would fetch it, with what it can reach."""
    with pytest.raises(Problem) as error:
        with_image(image)
    assert error.value.status == 400


def test_what_changes_the_models_template_is_left_out():
    """With some servers it is code."""
    assert "chat_template_kwargs" not in sent("m", chat_template_kwargs={"x": "{{ 1 }}"})


def test_a_stream_is_told_to_count_even_if_asked_not_to():
    assert sent("m", stream=True, stream_options={"include_usage": False})["stream_options"] == {"include_usage": True}
    assert "stream_options" not in sent("m", stream=False, stream_options={"include_usage": True})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"messages": "hi"}', b"\xff", b"[" * 100_000])
def test_what_is_no_request_for_a_completion_is_refused(body):
    with pytest.raises(Problem) as error:
        provider_request(body, "m")
    assert error.value.status == 400


def test_half_a_character_does_not_spoil_the_request():
    """A model's own tokens may hold one, and come back in the history; providers refuse a body that is no UTF-8."""
    body = b'{"messages": [{"role": "user", "content": "a\\ud800z"}]}'
    assert json.loads(provider_request(body, "m")[0])["messages"][0]["content"] == "a?z"


def test_bytes_are_passed_on_unchanged_as_they_come():
    pieces = [b'data: {"a":1}\n\n', b': comment\n\ndata: {"b":"\xc3\xa4"}\n\n', DONE]
    assert relayed(*pieces) == pieces


def test_a_line_is_passed_on_once_it_is_whole():
    """Wherever the network cut it."""
    assert relayed(b'data: {"a', b'":1}\n', b"\n" + DONE) == [b'data: {"a":1}\n', b"\n" + DONE]


def test_a_cut_stream_ends_with_an_error_in_place_of_the_broken_line():
    assert relayed(b'data: {"a":1}\n\ndata: {"b', ProtocolError("cut")) == [b'data: {"a":1}\n\n', CUT_EVENT]


def test_a_stream_that_ends_without_saying_so_is_cut():
    """A connection that is closed orderly, in the midst of an answer."""
    assert relayed(b'data: {"a":1}\n\n') == [b'data: {"a":1}\n\n', CUT_EVENT]


def test_trouble_after_the_end_is_none():
    """The answer is whole."""
    assert relayed(DONE, ProtocolError("cut")) == [DONE]
    assert relayed(b"data: [DONE]") == [b"data: [DONE]"]


def test_a_client_that_has_gone_is_told_nothing():
    call = Call()
    call.cancel()
    assert relayed(b'data: {"a":1}\n\n', ProtocolError("shut"), call=call) == [b'data: {"a":1}\n\n']


def test_a_line_without_an_end_is_not_kept_back_for_ever():
    """Memory is bounded, whatever a provider sends."""
    piece = b"x" * 300_000
    out = relayed(*[piece] * 10)
    assert b"".join(out).startswith(piece * 4)
    assert max(map(len, out)) <= LINE_MAX + len(piece)
