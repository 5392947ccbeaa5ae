"""A part of a page of the docs that is generated: what stands between two comments that bear its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
COMMAND = "python -m scripts.generate"


class MarkersMissing(Exception):
    """A page has no place for the part: it lacks one of its two comments, or has one twice."""


@dataclass(frozen=True)
class Part:
    """`page` is a path below docs/; `write` makes the part's text."""

    page: str
    name: str
    write: Callable[[], str]

    @property
    def path(self) -> Path:
        return DOCS / self.page

    @property
    def begin(self) -> str:
        return f"<!-- {self.name}: written by {COMMAND} -->"

    @property
    def end(self) -> str:
        return f"<!-- end of {self.name} -->"

    def replaced(self, text: str) -> str:
        """`text`, that of the page, with today's part in its place; raises `MarkersMissing`."""
        if text.count(self.begin) != 1 or text.count(self.end) != 1 or text.index(self.begin) > text.index(self.end):
            raise MarkersMissing(
                f"docs/{self.page} must have these two lines, once each, in this order:\n{self.begin}\n{self.end}"
            )
        before, _, rest = text.partition(self.begin)
        return f"{before}{self.begin}\n\n{self.write()}\n\n{self.end}{rest.partition(self.end)[2]}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; no text ends its cell."""
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, ["---"] * len(head), *rows)
    )
