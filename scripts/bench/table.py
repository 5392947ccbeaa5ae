"""What every measurement gives: rows of label, value and target."""

from __future__ import annotations

from collections.abc import Iterable

Row = tuple[str, str, str]


def print_table(title: str, rows: Iterable[Row]) -> None:
    """Print the rows under their title, aligned."""
    print(f"\n{title}")
    for label, value, target in rows:
        print(f"  {label:56} {value:>16}  {target}".rstrip(), flush=True)
