"""Writes the table of docs/settings.md from app/process/settings.py, to keep the two in step.

    python -m scripts.lib.settings_table

replaces what stands between the two markers in docs/settings.md.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from app.process.settings import Settings
from scripts.lib import marked

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
COMMAND = "python -m scripts.lib.settings_table"
BEGIN = f"<!-- settings: written by {COMMAND} -->"
END = "<!-- end of settings -->"


def table() -> str:
    """All settings as a Markdown table, in the order of app/process/settings.py."""
    rows = [
        ("Variable", "Default", "Unit", "Why"),
        ("---", "---", "---", "---"),
        *(
            (f"`{field.name.upper()}`", shown_default(field.default), field.metadata["unit"], field.metadata["why"])
            for field in dataclasses.fields(Settings)
        ),
    ]
    return "\n".join("| " + " | ".join(escaped(cell) for cell in row) + " |" for row in rows)


def shown_default(default: Any) -> str:
    """A default as one would write it in the environment; nothing for an empty one."""
    if isinstance(default, float) and default.is_integer():
        default = int(default)
    return f"`{default}`" if str(default) else ""


def escaped(cell: str) -> str:
    """A text that does not end its cell."""
    return cell.replace("|", "\\|")


def replaced(text: str) -> str:
    """`text` with the table of today between its markers; raises `marked.MarkersMissing`."""
    return marked.replaced(text, "docs/settings.md", BEGIN, END, table())


def main() -> int:
    try:
        PAGE.write_text(replaced(PAGE.read_text()))
    except marked.MarkersMissing as error:
        print(f"settings_table: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
