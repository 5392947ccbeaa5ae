"""Tables of the documents, for tests that hold them against the service."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def table(document: str, section: str) -> list[list[str]]:
    """The cells of a section's first table, without its head: `document` is a path below docs/."""
    text = (ROOT / "docs" / document).read_text()
    _, *sections = re.split(r"^#{2,4} ", text, flags=re.MULTILINE)
    [found] = [each for each in sections if each.startswith(f"{section}\n")]
    rows = [line for line in found.splitlines() if line.startswith("|")][2:]
    assert rows, f"{document} has no table in {section}"
    return [cells(row) for row in rows]


def cells(row: str) -> list[str]:
    """The texts of a table's row."""
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
