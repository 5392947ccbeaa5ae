"""The list of unsteady tests is short, says why, and names tests that are there; these are left out."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date, timedelta

import pytest

from tests.plugins.unsteady import LIST, LONGEST, MOST, ROOT, entries, expired, faults, is_listed

TODAY = date(2026, 11, 24)
ENTRY = {"test": "tests/conftest.py::test_it", "cause": "c", "mend": "m", "expires": TODAY}


def test_the_list_is_in_order():
    assert faults(entries(LIST.read_text()), date.today()) == []


@pytest.mark.parametrize(
    ("listed", "fault"),
    [
        ([ENTRY] * (MOST + 1), "11 entries"),
        ([{**ENTRY, "cause": ""}], "`cause` is missing"),
        ([{**ENTRY, "expires": None}], "`expires` is missing"),
        ([{**ENTRY, "expires": TODAY + LONGEST + timedelta(days=1)}], "2026-12-08 at the latest"),
        ([{**ENTRY, "test": "tests/nowhere.py::test_it"}], "no such file"),
    ],
)
def test_a_fault_of_the_list_is_told(listed, fault):
    assert fault in faults(listed, TODAY)[0]


def test_an_entry_expires_the_day_after_its_last_one():
    assert expired([ENTRY], TODAY) == []
    assert expired([ENTRY], TODAY + timedelta(days=1)) == [ENTRY["test"]]


@pytest.mark.parametrize("nodeid", ["a.py::test_it", "a.py::test_it[1]"])
def test_an_entry_names_a_test_and_all_its_parameters(nodeid):
    assert is_listed(nodeid, [{**ENTRY, "test": "a.py::test_it"}])
    assert is_listed(nodeid, [{**ENTRY, "test": "a.py"}])
    assert not is_listed(nodeid, [{**ENTRY, "test": "a.py::test_i"}])


@pytest.mark.slow
def test_each_entry_of_the_list_leaves_a_test_out():
    """One whose test has gone or has another name would leave out nothing."""
    for test in sorted(entry["test"] for entry in entries(LIST.read_text())):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "tests.plugins.unsteady", "-p", "no:cacheprovider", "-m", ""]
            + ["--collect-only", "-q", test],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "no tests collected" in done.stdout, done.stdout
        assert "not found" not in done.stdout + done.stderr
