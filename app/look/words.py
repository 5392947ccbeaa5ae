"""How the pages for visitors and the dashboard say values in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def size(value: float | None) -> str:
    """Bytes as people read them: "1.2 MB"; "–" for none."""
    if value is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1_000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1_000
    return f"{value:.1f} TB"


def restored_files(known: Mapping[str, Any]) -> str:
    """What a restore brings (`files`, `bytes` and `of`, as far as they are known): "10,000 files, 304 MB, of 3 May
    2026, 14:02 UTC"; "" if nothing is known."""
    files, bytes_, of = (known.get(name) for name in ("files", "bytes", "of"))
    parts = []
    if isinstance(files, int):
        parts.append(f"{files:,} file{'s' if files != 1 else ''}")
    if isinstance(bytes_, int):
        parts.append(size(bytes_))
    if of:
        when = datetime.fromisoformat(str(of)).astimezone(UTC)
        parts.append(f"of {when.day} {when:%b %Y, %H:%M} UTC")
    return ", ".join(parts)
