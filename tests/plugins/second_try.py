"""Tries a test once more that waited in vain, with all its fixtures made anew, and says so at the end of the run.

Loaded by the presubmit, where a test may fail for a defect only. A wait that gave up may be a moment of the machine, so
two of a run are forgiven if their second try passes; with more the run fails. Runs that name the same file in
SECOND_TRIES count as one, as the shards of `.ci/run` do. A wrong value is never tried again. Both tries share the
test's limit of time, and only the last is reported.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from tests.waiting import GaveUp

FORGIVEN = 2
"""Tests of a run that may wait in vain at first."""

ERRORS = pytest.StashKey[list[BaseException]]()
"""Those of a test's set-up, call and teardown, skips too."""
NOTED = pytest.StashKey[list[str]]()
"""What the end of a run tells."""
TRIED_AGAIN = "tried again"
"""A property of a report, as these go from the processes of pytest-xdist to the one that counts."""


def gave_up(error: BaseException) -> bool:
    """Whether it says that a wait gave up: ours, or Playwright's for a page."""
    kind = type(error)
    playwrights = kind.__name__ == "TimeoutError" and kind.__module__.startswith("playwright.")
    return playwrights or isinstance(error, GaveUp)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.excinfo is not None:
        item.stash.setdefault(ERRORS, []).append(call.excinfo.value)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """After a wait in vain, fixtures of module and session go too: they may be why, and a failed one is kept."""
    if any(gave_up(error) for error in item.stash.get(ERRORS, [])):
        item.session._setupstate.teardown_exact(None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    errors = item.stash.get(ERRORS, [])
    if any(report.failed for report in reports) and errors and all(gave_up(error) for error in errors):
        waited_for = str(errors[0]).partition("\n")[0]
        errors.clear()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        ended = "failed" if any(report.failed for report in reports) else "passed"
        told = f"{item.nodeid} {ended} at the second try; at first: {waited_for}"
        reports[-1].user_properties.append((TRIED_AGAIN, told))
    errors.clear()
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def tried_again(config: pytest.Config) -> list[str]:
    """A line for each test that was tried again; in a process of pytest-xdist there are none."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    reports = [report for each in terminal.stats.values() for report in each] if terminal else []
    return [told for each in reports for name, told in getattr(each, "user_properties", []) if name == TRIED_AGAIN]


def noted(lines: list[str]) -> list[str]:
    """These, after those of earlier runs that named the same file."""
    if not (name := os.environ.get("SECOND_TRIES")):
        return lines
    with Path(name).open("a") as file:
        file.writelines(f"{each}\n" for each in lines)
    return Path(name).read_text().splitlines()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not (lines := tried_again(session.config)):
        return
    session.config.stash[NOTED] = found = noted(lines)
    if len(found) > FORGIVEN and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(NOTED, []):
        terminalreporter.section("tests that waited in vain")
        terminalreporter.write("\n".join(lines) + "\n")
        if len(lines) > FORGIVEN:
            terminalreporter.write_line(
                f"{len(lines)} tests waited in vain. More than {FORGIVEN} in a run are a failure."
            )
