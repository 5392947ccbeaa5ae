"""What programs write, as it is shown while they run."""

from __future__ import annotations

import json

import pytest

from app.web.session.output_stream import SHOWN, shown
from app.web.session.terminal_text import plain
from tests.unit.web.session.conftest import HOSTILE


def event(name: str, number: int, **data: object) -> bytes:
    """As the API's stream has it."""
    return f"id: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


def told(*pieces: bytes) -> list[str]:
    return b"".join(shown(pieces)).decode().split("\n\n")[:-1]


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("\x1b[1;31mred\x1b[0m \x1b[?25l\x1b[2K", "red "),
        ("\x1b]0;a title\x07and \x1b]8;;http://a\x1b\\a link\x1b]8;;\x1b\\", "and a link"),
        ("10%\r20%\r\nend\n", "10%\n20%\nend\n"),
        ("a\tb\x00\x07\x7f\x1b(B", "a\tb"),
        ("[0m é 😀", "[0m é 😀"),
        ("\x1b", ""),
    ],
)
def test_a_page_shows_text_and_nothing_that_a_terminal_obeys(written: str, seen: str) -> None:
    assert plain(written) == seen


def test_each_text_is_an_element_of_its_stream_and_no_markup() -> None:
    first, second, last = told(
        event("stdout", 1, text=f"one\r\n{HOSTILE}</span>\n"), event("stderr", 2, text="bad"), event("exit", 3, code=0)
    )
    assert first.startswith('id: 1\nevent: output\ndata: <span class="stdout">one\ndata: &lt;img')
    assert "<img" not in first
    assert first.count("</span>") == 1
    assert second == 'id: 2\nevent: output\ndata: <span class="stderr">bad</span>'
    assert last == "id: 3\nevent: end\ndata: 1"


def test_a_long_output_is_shown_up_to_a_limit_and_its_end_told() -> None:
    pieces = [event("stdout", number, text="x" * (SHOWN // 4)) for number in range(8)]
    *texts, end = told(*pieces, b": still here\n\n", event("exit", 9))
    assert sum(text.count("x") for text in texts) == SHOWN
    assert [("not shown" in text) for text in texts[:4]] == [False, False, False, True]
    assert texts[4:] == [": still here"] * 5, "so that the stream ends when the browser leaves"
    assert end.startswith("id: 9\nevent: end")


def test_a_stream_that_breaks_off_has_an_end_too() -> None:
    assert [each.splitlines()[1] for each in told(event("log", 1, text="one"))] == ["event: output", "event: end"]
