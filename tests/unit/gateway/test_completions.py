"""How a stream comes back."""

from __future__ import annotations

from collections.abc import Iterator

from urllib3.exceptions import ProtocolError

from app.gateway.cancellation import Call
from app.gateway.completions import CUT_EVENT, LINE_MAX, relay
from app.gateway.provider import Answer
from app.gateway.usage import Meter

DONE = b"data: [DONE]\n\n"


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
