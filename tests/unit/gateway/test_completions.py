"""How a stream comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from urllib3.exceptions import ProtocolError

from app.gateway.cancellation import Call
from app.gateway.completions import CUT_EVENT, LINE_MAX, relay
from app.gateway.provider import Answer
from app.gateway.usage import Meter

ONE = b'data: {"a":1}\n\n'
DONE = b"data: [DONE]\n\n"
CUT = ProtocolError("cut")


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


@pytest.mark.parametrize(
    ("pieces", "passed"),
    [
        pytest.param(
            [ONE, b': comment\n\ndata: {"b":"\xc3\xa4"}\n\n', DONE],
            [ONE, b': comment\n\ndata: {"b":"\xc3\xa4"}\n\n', DONE],
            id="unchanged as it comes",
        ),
        pytest.param([b'data: {"a', b'":1}\n', b"\n" + DONE], [b'data: {"a":1}\n', b"\n" + DONE], id="by whole lines"),
        pytest.param([ONE + b'data: {"b', CUT], [ONE, CUT_EVENT], id="cut: an error in place of the broken line"),
        pytest.param([ONE], [ONE, CUT_EVENT], id="closed orderly in the midst of an answer: cut too"),
        pytest.param([DONE, CUT], [DONE], id="trouble after the end is none"),
        pytest.param([b"data: [DONE]"], [b"data: [DONE]"], id="an end without a line's end"),
    ],
)
def test_a_stream_is_passed_on_and_one_that_is_not_whole_ends_with_an_error(
    pieces: list[bytes | Exception], passed: list[bytes]
) -> None:
    assert relayed(*pieces) == passed


def test_a_client_that_has_gone_is_told_nothing() -> None:
    call = Call()
    call.cancel()
    assert relayed(ONE, CUT, call=call) == [ONE]


def test_a_line_without_an_end_is_not_kept_back_for_ever() -> None:
    """Memory is bounded, whatever a provider sends."""
    piece = b"x" * 300_000
    out = relayed(*[piece] * 10)
    assert b"".join(out).startswith(piece * 4)
    assert max(map(len, out)) <= LINE_MAX + len(piece)
