"""What the supervisor makes of what programs print."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from scripts.lib.supervisor import LONGEST_LINE, Output


class Lines:
    """Keeps the lines with the name they came under."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def write(self, name: str, line: str) -> None:
        self.found.append((name, line))


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def output(lines: Lines) -> Iterator[Output]:
    found = Output("thing", lines)
    yield found
    found.close()


def test_nothing_printed_is_no_line_and_nobody_waits(output: Output, lines: Lines) -> None:
    output.read()
    assert lines.found == []


def test_a_line_is_logged_once_its_end_is_there(output: Output, lines: Lines) -> None:
    os.write(output.writing, b"one\n\ntw")
    output.read()
    assert lines.found == [("thing", "one"), ("thing", "")]
    os.write(output.writing, b"o\n")
    output.read()
    assert lines.found[2:] == [("thing", "two")]


def test_a_line_without_an_end_is_not_kept_for_ever(output: Output, lines: Lines) -> None:
    """What one writes without a line's end would fill the memory of all."""
    os.write(output.writing, b"x" * LONGEST_LINE)
    output.read()
    assert lines.found == []
    os.write(output.writing, b"y" * 10)
    output.read()
    assert [line for _, line in lines.found] == ["x" * LONGEST_LINE + "y" * 10]
    os.write(output.writing, b"z\n")
    output.read()
    assert lines.found[1:] == [("thing", "z")]
