"""Makes a skipped test a failure, for where everything the tests need is known to be there.

Loaded by `scripts/test` when FORBID_SKIPS=1. A test expected to fail (xfail) is not a skipped one.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest


def forbid(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a report of a skip into one of a failure that says what was skipped and why."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    where_and_why = report.longrepr
    why = where_and_why[2] if isinstance(where_and_why, tuple) else str(where_and_why)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid} was skipped, and skipping is forbidden here. {why}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    forbid(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    forbid(report)
    return report
