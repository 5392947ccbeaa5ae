"""Tokens are read from what passes by, or estimated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.core.prompts.token_usage import Tokens
from app.gateway.usage import THOUGHTS_PER_SECOND, Meter

DONE = b"data: [DONE]\n\n"


def chunk(**fields):
    return f"data: {json.dumps({'choices': [], **fields})}\n\n".encode()


@pytest.mark.parametrize(
    ("lines", "tokens"),
    [
        pytest.param(
            [chunk(usage=None) + chunk(usage={"prompt_tokens": 12, "completion_tokens": 3}) + DONE],
            Tokens(12, 3),
            id="the last chunk says it, those before it null",
        ),
        pytest.param(
            [b'data:{"usage":{"prompt_tokens":1,"completion_tokens":2}}\r\n\r\ndata:[DONE]\r\n\r\n'],
            Tokens(1, 2),
            id="no blank after the colon",
        ),
        pytest.param(
            [*(chunk(usage={"prompt_tokens": 12, "completion_tokens": each}) for each in (1, 2, 3)), DONE],
            Tokens(12, 3),
            id="counted along with every chunk",
        ),
        pytest.param(
            [*[chunk()] * 7, DONE], Tokens(100, 7, estimated=107), id="no figures: a token for 4 bytes, and each chunk"
        ),
    ],
)
def test_what_an_answer_took_is_read_or_estimated(lines, tokens):
    meter = Meter(400)
    for each in lines:
        meter.see(each)
    assert meter.tokens() == tokens
    assert meter.done


def test_a_model_that_writes_of_usage_counts_nothing():
    """Neither the word nor an end that stands in a text is taken for the real one."""
    text = '{"usage": {"prompt_tokens": 0, "completion_tokens": 0}}\ndata: [DONE]\n'
    meter = Meter(400)
    meter.see(chunk(choices=[{"delta": {"content": text}}]))
    assert meter.tokens().estimated > 0
    assert not meter.done


def test_long_chunks_are_estimated_by_their_text():
    """Some providers send a sentence at a time."""
    meter = Meter(400)
    meter.see(chunk(text=""))
    for _ in range(5):
        meter.see(chunk(text="x" * 4_000))
    meter.see(DONE)
    assert 4_900 < meter.tokens().completion < 5_100


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def left(after: float = 0.0, *seen: bytes, **more: Any) -> Tokens:
    """What counts when the client leaves so many seconds after it saw this."""
    clock = Clock()
    meter = Meter(400, clock=clock, **more)
    for lines in seen:
        meter.see(lines)
    clock.now += after
    return meter.tokens()


def test_a_client_that_leaves_is_charged_what_it_asked_for():
    """Before the first byte, or after all but the last: what the model had thought by then is not known."""
    assert left(most_tokens=5_000) == Tokens(100, 5_000, estimated=5_100)
    assert left(0.0, chunk(), most_tokens=5_000) == Tokens(100, 5_000, estimated=5_100)


def test_a_client_that_leaves_and_asked_for_no_limit_is_charged_for_silence():
    assert left(0.5).completion == 0
    assert left(31.0).completion == 30 * THOUGHTS_PER_SECOND
    assert left(11.0, chunk(), chunk()).completion == 2 + 10 * THOUGHTS_PER_SECOND


def test_a_count_along_the_way_is_a_lower_bound():
    running = chunk(usage={"prompt_tokens": 90, "completion_tokens": 40})
    assert left(0.0, running) == Tokens(90, 40)
    assert left(0.0, running, most_tokens=100) == Tokens(90, 100, estimated=60)
    assert left(0.0, running, DONE, most_tokens=100) == Tokens(90, 40)


def test_a_provider_that_cuts_an_answer_charges_what_was_seen():
    """A client can bring that about, too, by not reading: so silence counts."""
    clock = Clock()
    meter = Meter(400, most_tokens=5_000, clock=clock)
    meter.see(chunk())
    clock.now += 3.0
    meter.cut = True
    assert meter.tokens().completion == 1 + 2 * THOUGHTS_PER_SECOND


NOTHING = [b"", b"[]", b"{", b'{"usage": 5}', b'{"usage": null}', b"\xff", b"[" * 100_000]
NO_FIGURES = [{}, {"prompt_tokens": -5}, {"prompt_tokens": "5"}, {"prompt_tokens": None}]


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        *((each, Tokens(100, estimated=100)) for each in NOTHING),
        *((json.dumps({"usage": each}).encode(), Tokens()) for each in NO_FIGURES),
    ],
)
def test_a_document_that_says_nothing_leaves_the_estimate_and_figures_that_are_none_count_nothing(document, tokens):
    """A negative one would refill the budget."""
    meter = Meter(400)
    meter.see_document(document)
    assert meter.tokens() == tokens
