"""Leaves the tests of tests/unsteady.toml out of a run: those that fail by time, until their cause is mended.

Loaded by `.ci/run` and for every shard, where a test may fail for a defect only. A run without it has them all.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "tests" / "unsteady.toml"

MOST = 10
LONGEST = timedelta(days=14)
"""From today to the day an entry expires."""


def entries(text: str) -> list[Mapping[str, Any]]:
    """The list's entries, each with `test` (a node id, or the beginning of several), `cause`, `mend` and `expires`."""
    return tomllib.loads(text).get("unsteady", [])


def faults(listed: Iterable[Mapping[str, Any]], today: date) -> list[str]:
    """What is wrong with the list; an entry that has expired is no fault here."""
    listed = list(listed)
    found = [] if len(listed) <= MOST else [f"there are {len(listed)} entries; {MOST} are allowed"]
    for entry in listed:
        name = entry.get("test", "an entry without a test")
        missing = [each for each in ("test", "cause", "mend", "expires") if not entry.get(each)]
        found += [f"{name}: `{each}` is missing" for each in missing]
        if not missing and entry["expires"] > today + LONGEST:
            found.append(f"{name}: it may expire on {today + LONGEST} at the latest")
        if not (ROOT / name.partition("::")[0]).exists():
            found.append(f"{name}: there is no such file")
    return found


def expired(listed: Iterable[Mapping[str, Any]], today: date) -> list[str]:
    """The tests of the entries that have expired."""
    return [entry["test"] for entry in listed if entry["expires"] < today]


def is_listed(nodeid: str, listed: Iterable[Mapping[str, Any]]) -> bool:
    """Whether an entry names this test, its class or file, or all its parameters."""
    return any(
        nodeid == each["test"] or nodeid.startswith((each["test"] + "::", each["test"] + "[")) for each in listed
    )


def pytest_report_header() -> list[str]:
    listed, today = entries(LIST.read_text()), date.today()
    left_out = f"unsteady tests: {len(listed)} entries of {LIST.relative_to(ROOT)} are left out"
    return [left_out, *(f"expired, mend it: {test}" for test in expired(listed, today))]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    listed = entries(LIST.read_text())
    left_out = [item for item in items if is_listed(item.nodeid, listed)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not is_listed(item.nodeid, listed)]
