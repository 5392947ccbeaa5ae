"""Tokens are read from what passes by, or estimated."""

from __future__ import annotations

import json

import pytest

from app.core.prompts.token_usage import Tokens
from app.gateway.usage import Meter


def chunk(**fields):
    return f"data: {json.dumps({'choices': [], **fields})}\n\n".encode()


def test_the_last_chunk_says_what_it_took():
    """The chunks before carry `usage: null`."""
    meter = Meter(1000)
    meter.see(chunk(usage=None) + chunk(usage={"prompt_tokens": 12, "completion_tokens": 3}) + b"data: [DONE]\n\n")
    assert meter.tokens() == Tokens(12, 3)
    assert meter.done


def test_the_blank_after_the_colon_is_optional():
    """Providers differ."""
    meter = Meter(1000)
    meter.see(b'data:{"usage":{"prompt_tokens":1,"completion_tokens":2}}\r\n\r\ndata:[DONE]\r\n\r\n')
    assert (meter.tokens(), meter.done) == (Tokens(1, 2), True)


def test_the_last_of_several_figures_stands():
    """Some providers count along with every chunk."""
    meter = Meter(1000)
    for completion in (1, 2, 3):
        meter.see(chunk(usage={"prompt_tokens": 12, "completion_tokens": completion}))
    assert meter.tokens() == Tokens(12, 3)


def test_a_model_that_writes_of_usage_counts_nothing():
    """Neither the word nor an end that stands in a text is taken for the real one."""
    text = '{"usage": {"prompt_tokens": 0, "completion_tokens": 0}}\ndata: [DONE]\n'
    meter = Meter(400)
    meter.see(chunk(choices=[{"delta": {"content": text}}]))
    assert meter.tokens().estimated > 0
    assert not meter.done


def test_without_figures_it_is_estimated_and_says_so():
    """A token for four bytes of the prompt, and one for each chunk."""
    meter = Meter(400)
    for _ in range(7):
        meter.see(chunk())
    assert meter.tokens() == Tokens(100, 7, estimated=107)


@pytest.mark.parametrize("document", [b"", b"[]", b"{", b'{"usage": 5}', b'{"usage": null}', b"\xff", b"[" * 100_000])
def test_a_document_that_says_nothing_leaves_the_estimate(document):
    """Whatever a provider answers."""
    meter = Meter(400)
    meter.see_document(document)
    assert meter.tokens().estimated == 100


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": -5}, {"prompt_tokens": "5"}, {"prompt_tokens": None}])
def test_figures_that_are_none_count_nothing(usage):
    """A negative one would refill the budget."""
    meter = Meter(400)
    meter.see_document(json.dumps({"usage": usage}).encode())
    assert meter.tokens().total == 0
