"""What commands print: results on standard output, for people or as JSON; all else on standard error."""

from __future__ import annotations

import codecs
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from io import StringIO
from itertools import islice
from typing import Any, Final, NamedTuple, TextIO, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workspaces.decoding import Answer
from workspaces.events import Event
from workspaces.pages import Pages

T = TypeVar("T")

MOST_ROWS: Final = 1_000
"""Rows of one page, at most."""

MORE: Final = "There are more: raise --limit."

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document, as the API answered it."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """One JSON document on a line of its own, for streams."""
    print(json.dumps(_plain(value), ensure_ascii=False), flush=True)


def print_event(event: Event) -> None:
    """An event as a JSON document on a line of its own."""
    print_json_line({"id": event.id, "type": event.type, "data": dict(event.raw)})


def print_rows(rows: Iterable[Sequence[str]], *columns: str, empty: str) -> None:
    """A table; `empty` says what to do if there are no rows. Its cells are texts, never markup."""
    table = Table(*columns, box=None, pad_edge=False, header_style="dim")
    for row in rows:
        table.add_row(*(safe(cell) for cell in row))
    if table.row_count:
        out.print(table)
    else:
        say(empty)


def page_size(limit: int) -> int:
    """How many rows to ask for in a page: one more than is shown tells whether there are more."""
    return min(limit + 1, MOST_ROWS)


def print_list(
    items: Iterable[T], limit: int, row: Callable[[T], Sequence[str]], *columns: str, empty: str, as_json: bool
) -> None:
    """The first `limit` of the items as a table, as `print_rows`, or as JSON; says if there are more."""
    rest = iter(items)
    found = list(islice(rest, limit))
    if as_json:
        print_json(found)
    else:
        print_rows(map(row, found), *columns, empty=empty)
    if next(rest, None) is not None:
        say(MORE)


class CsvPage(NamedTuple):
    """A page of a table in CSV. One without rows may have fewer columns."""

    header: list[str]
    rows: list[list[str]]
    next_cursor: str | None


def print_csv(fetch: Callable[[str | None], tuple[str, str | None]], limit: int) -> None:
    """The first `limit` rows of a table in CSV, after one header; says if there are more. `fetch` answers the page at a
    cursor, and the cursor of the next."""

    def page(cursor: str | None) -> CsvPage:
        text, following = fetch(cursor)
        header, *rows = [*csv.reader(StringIO(text, newline=""))] or [[]]
        return CsvPage(header, rows, following)

    lines = _lines(Pages(page, lambda each: each.rows).pages())
    csv.writer(sys.stdout).writerows(islice(lines, 1 + limit))
    if next(lines, None) is not None:
        say(MORE)


def _lines(pages: Iterable[CsvPage]) -> Iterator[list[str]]:
    """One header, and the rows of all pages."""
    begun = False
    for page in pages:
        if not begun and (page.rows or page.next_cursor is None):
            begun = True
            yield page.header
        yield from page.rows


def print_facts(facts: Mapping[str, str]) -> None:
    """Names and values, one a line, without the empty ones."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        if value:
            out.print(f"[dim]{name:<{width}}[/dim]  {safe(value)}")


def say(text: str) -> None:
    """A line for the person, not part of the result."""
    err.print(safe(text))


def printable(text: str) -> str:
    """The text without control characters: a tenant's text must not move the cursor or colour the terminal."""
    return "".join(each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in text)


def one_line(text: str) -> str:
    """The text as `printable`, also without newlines and tabs: a file's name may have any."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def relay(text: str, to: TextIO) -> None:
    """Pass a program's output on as it is; to a terminal without control characters."""
    to.write(printable(text) if to.isatty() else text)
    to.flush()


def relay_bytes(parts: Iterable[bytes], to: TextIO) -> None:
    """As `relay`, of bytes that come in parts."""
    if to.isatty():
        for text in codecs.iterdecode(parts, "utf-8", "replace"):
            relay(text, to)
    else:
        to.buffer.writelines(parts)
        to.buffer.flush()


def shortened(text: str, most: int) -> str:
    """The text in one line of so many characters."""
    return (text if len(text) <= most else f"{text[:most]} …").replace("\n", " ")


def safe(text: str) -> str:
    """The text for a line with markup: shown as it is, without control characters."""
    return escape(printable(text))


def restored_files(files: int | None, bytes_: int | None, of: datetime | None) -> str:
    """What a restore brings, as far as it is known: "10,000 files, 304 MB, of 2026-05-03 14:02"."""
    parts = ("" if files is None else f"{files:,} files", "" if bytes_ is None else size(bytes_))
    return ", ".join(filter(None, (*parts, f"of {when(of)}" if of else "")))


def when(at: datetime | None) -> str:
    """A time as people read it, "" for none."""
    return f"{at.astimezone():%Y-%m-%d %H:%M}" if at else ""


def ago(at: datetime | None) -> str:
    """How long ago a time was, in one unit, "" for none."""
    if at is None:
        return ""
    seconds = (datetime.now(UTC) - at).total_seconds()
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(seconds) >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def yes_or_no(value: bool) -> str:
    """A bool in words."""
    return "yes" if value else "no"


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1_000:
            return f"{count:.0f} {unit}"
        count /= 1_000
    return f"{count:.1f} TB"


def _plain(value: Any) -> Any:
    if isinstance(value, Answer):
        return dict(value.raw)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
