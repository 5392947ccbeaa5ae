"""Tables of the documents, for tests that hold them against the service."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def table(document: str, section: str) -> list[list[str]]:
    """The cells of a section's first table, without its head: `document` is a path below docs/."""
    text = (ROOT / "docs" / document).read_text()
    _, _, rest = text.partition(f"\n## {section}\n")
    lines = re.search(r"^\|.*?\n(?!\|)", rest.split("\n## ", 1)[0], re.MULTILINE | re.DOTALL)
    assert lines is not None, f"{document} has no table in {section}"
    rows = lines[0].splitlines()[2:]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
