"""How values are shown to people: filters of the templates. Each takes what the API answers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from app.look.words import size

MINUTE, HOUR, DAY = 60, 3_600, 86_400

STATUS_TONES = {
    "active": "ok",
    "created": "busy",
    "waking": "busy",
    "terminating": "busy",
    "sleeping": "calm",
    "terminated": "gone",
    "failed": "bad",
}
"""The tone (a class of app.css) in which a session's status is shown."""


def tone(status: str) -> str:
    """The tone of a status."""
    return STATUS_TONES.get(status, "calm")


def ago(when: str | None, now: datetime | None = None) -> str:
    """How long ago a time was, in one unit: "3 min ago"; "" for none."""
    if not when:
        return ""
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(when)).total_seconds()
    text = span(abs(seconds))
    return "just now" if 0 <= seconds < 5 else f"{text} ago" if seconds >= 0 else f"in {text}"


def moment(when: str | None, shown: str) -> Markup:
    """A time as `ago` or as its `age`, and in full when pointed at; "" for none. The page keeps it up to date."""
    if not when:
        return Markup("")
    text = ago(when) if shown == "ago" else ago(when).removesuffix(" ago").removeprefix("just ")
    return Markup('<time datetime="{}" title="{}" data-shown="{}">{}</time>').format(when, when, shown, text)


def clock(when: str, how: str = "") -> str:
    """A time of day in UTC, with the day where that is not today: "14:03:07", "Nov 20 14:03:07"."""
    moment = datetime.fromisoformat(when)
    text = f"{moment:%H:%M:%S}" + (f".{moment.microsecond // 1000:03d}" if how == "ms" else "")
    return text if moment.date() == datetime.now(UTC).date() else f"{moment:%b} {moment.day} {text}"


def backup_time(name: str) -> str:
    """When the backup of this name was made."""
    return datetime.strptime(name[-19:-4], "%Y%m%d-%H%M%S").replace(tzinfo=UTC).isoformat()


def span(seconds: float) -> str:
    """A duration in one unit: "3 min"."""
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds)} s"


def milliseconds(value: float | None) -> str:
    """A duration in ms as people read it: "840 ms", "1.2 s"; "–" for none."""
    if value is None:
        return "–"
    return f"{value:.0f} ms" if value < 1_000 else f"{value / 1_000:.1f} s"


def dollars(value: float | None) -> str:
    """An amount: "$12.34", "$0.0042"; "–" for none."""
    if value is None:
        return "–"
    return f"${value:,.2f}" if value == 0 or abs(value) >= 0.1 else f"${value:.4f}"


RISKS = {
    "unsaved": ("unsaved file", "unsaved files"),
    "uncommitted": ("file not committed", "files not committed"),
    "unpushed": ("commit not pushed", "commits not pushed"),
    "jobs": ("program running in a terminal", "programs running in terminals"),
}


def at_risk(risk: Mapping[str, Any] | None) -> list[str]:
    """Unsaved work, one line for each kind: "2 unsaved files: a.py, b.py"; empty for none."""
    lines = []
    for kind, forms in RISKS.items():
        if found := (risk or {}).get(kind):
            count, names = found["count"], found["names"]
            more = f" and {count - len(names):,} more" if names and count > len(names) else ""
            lines.append(f"{count:,} {forms[count != 1]}" + (f": {', '.join(names)}{more}" if names else ""))
    if risk and not risk.get("complete"):
        lines.append("There may be more: not everything could be checked.")
    return lines


FILTERS = {
    each.__name__: each for each in (tone, ago, moment, span, milliseconds, dollars, size, at_risk, clock, backup_time)
}
