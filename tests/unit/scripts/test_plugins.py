"""What our plugins make of a test: in the presubmit a wait that gave up is tried once more, and nothing else is; with
FORBID_SKIPS=1 a run can't be green by leaving tests out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.shards import _counts
from tests.waiting import GaveUp, wait_for

VAIN = """
import pytest
from tests.waiting import GaveUp

tries = []

def fails_once(error=GaveUp("not within 60 s: the door opens\\nmore")):
    tries.append(1)
    if len(tries) == 1:
        raise error
"""
"""The beginning of a module of tests."""


def outcome(
    folder: Path,
    body: str,
    *arguments: str,
    tests: int = 1,
    noted: str = "",
    plugins: tuple[str, ...] = ("second_try", "forbid_skips"),
) -> subprocess.CompletedProcess[str]:
    """What pytest says of so many modules with this body; `noted` is the file that counts for several runs."""
    for number in range(tests):
        (folder / f"test_{number}.py").write_text(f"{VAIN}\n{body}\n")
    ours = [part for name in plugins for part in ("-p", f"tests.plugins.{name}")]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *ours, "-p", "no:cacheprovider"]
        + [f"--junitxml={folder / 'report.xml'}", *arguments, str(folder)],
        cwd=folder,
        # Loading every plugin that is installed takes seconds; the one that matters here is named.
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "SECOND_TRIES": noted},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_wait_that_gives_up_says_so_by_its_type() -> None:
    with pytest.raises(GaveUp, match="not within 0 s: the door opens. It is shut"):
        wait_for(lambda: False, "the door opens", lambda: "It is shut", seconds=0)  # meant: it gives up


@pytest.mark.parametrize(
    "body",
    [
        "def test_it(): fails_once()",
        "@pytest.fixture\ndef door(): fails_once()\ndef test_it(door): pass",
        "@pytest.fixture(scope='module')\ndef door(): fails_once()\ndef test_a(door): pass\ndef test_b(door): pass",
        "@pytest.fixture(scope='session')\ndef door(): fails_once()\ndef test_a(door): pass\ndef test_b(door): pass",
        "@pytest.fixture\ndef door():\n    yield\n    fails_once()\ndef test_it(door): pass",
    ],
    ids=["call", "fixture", "of the module", "of the session", "teardown"],
)
@pytest.mark.slow
def test_a_wait_that_gave_up_is_tried_once_more(tmp_path, body):
    """It then counts as one that passed, and what was waited for is printed."""
    done = outcome(tmp_path, body)
    assert done.returncode == 0, done.stdout
    assert "passed at the second try; at first: not within 60 s: the door opens\n" in done.stdout
    assert _counts(tmp_path / "report.xml") == (body.count("def test"), 0)


@pytest.mark.slow
def test_the_second_try_has_its_fixtures_anew(tmp_path):
    """What the first one left in those of the module may be why it waited in vain."""
    body = """
made = []
@pytest.fixture(scope="module")
def door():
    made.append(1)
    yield made
    made.append(0)

def test_it(door):
    fails_once()
    assert door == [1, 0, 1]

def test_more(door):
    assert door == [1, 0, 1]
"""
    assert outcome(tmp_path, body).returncode == 0


@pytest.mark.slow
def test_a_second_try_that_fails_is_a_failure(tmp_path):
    done = outcome(tmp_path, "def test_it(): raise GaveUp('not within 60 s: the door opens')")
    assert done.returncode == 1
    assert "test_it failed at the second try" in done.stdout
    assert _counts(tmp_path / "report.xml") == (0, 1)


@pytest.mark.parametrize(
    "body",
    [
        "def test_it(): fails_once(AssertionError('wrong'))",
        "def test_it():\n    try: fails_once()\n    except GaveUp: raise ValueError('wrong')",
        "def test_it(): fails_once(TimeoutError('the product took too long'))",
        "@pytest.fixture\ndef door():\n    yield\n    assert False\ndef test_it(door): fails_once()",
        "def test_it(): tries or (tries.append(1), pytest.skip('no tool'))",
    ],
    ids=["value", "after a wait", "timeout", "beside a wait", "skip"],
)
@pytest.mark.slow
def test_nothing_else_is_tried_again(tmp_path, body):
    done = outcome(tmp_path, body)
    assert done.returncode == 1
    assert "second try" not in done.stdout


@pytest.mark.slow
def test_playwrights_wait_counts_too(tmp_path):
    body = """
from playwright.sync_api import TimeoutError as PlaywrightTimeout
def test_it(): fails_once(PlaywrightTimeout("Locator.click: Timeout 60000ms exceeded."))
"""
    assert "at first: Locator.click: Timeout 60000ms exceeded." in outcome(tmp_path, body).stdout


@pytest.mark.parametrize(("tests", "status"), [(2, 0), (3, 1)])
@pytest.mark.slow
def test_two_in_a_run_are_forgiven_whichever_process_they_ran_in(tmp_path, tests, status):
    done = outcome(tmp_path, "def test_it(): fails_once()", "-p", "xdist", "-n", "2", "--dist=loadfile", tests=tests)
    assert done.returncode == status, done.stdout
    assert len(re.findall("passed at the second try", done.stdout)) == tests
    assert ("3 tests waited in vain. More than 2 in a run are a failure." in done.stdout) == bool(status)
    assert _counts(tmp_path / "report.xml") == (tests, 0)


@pytest.mark.slow
def test_runs_that_note_them_in_the_same_file_count_as_one(tmp_path):
    """The third waits in vain in the second run; one in which nothing is tried again stays green."""
    ended = []
    for number, tests in enumerate((2, 1)):
        (folder := tmp_path / str(number)).mkdir()
        body = "def test_it(): fails_once()"
        ended.append(outcome(folder, body, tests=tests, noted=str(tmp_path / "noted")))
    assert [each.returncode for each in ended] == [0, 1]
    assert "3 tests waited in vain. More than 2 in a run are a failure." in ended[1].stdout
    (folder := tmp_path / "more").mkdir()
    assert outcome(folder, "def test_it(): pass", noted=str(tmp_path / "noted")).returncode == 0


# Skips


@pytest.mark.parametrize(
    "body",
    [
        "@pytest.mark.skip(reason='no tool')\ndef test_it(): pass",
        "def test_it(): pytest.skip('no tool')",
        "@pytest.fixture\ndef tool(): pytest.skip('no tool')\ndef test_it(tool): pass",
        "pytest.skip('no tool', allow_module_level=True)",
    ],
    ids=["mark", "call", "fixture", "module"],
)
@pytest.mark.slow
def test_every_way_of_skipping_fails_and_says_what_and_why(tmp_path, body):
    """The test's name and its reason are in the output."""
    done = outcome(tmp_path, body, plugins=("forbid_skips",))
    assert done.returncode != 0
    assert "test_0.py" in done.stdout
    assert "skipping is forbidden" in done.stdout
    assert "no tool" in done.stdout


@pytest.mark.parametrize("body", ["def test_it(): pass", "@pytest.mark.xfail\ndef test_it(): assert 0"])
@pytest.mark.slow
def test_passed_and_expected_failures_stay_what_they_are(tmp_path, body):
    """Only a skip counts."""
    assert outcome(tmp_path, body, plugins=("forbid_skips",)).returncode == 0
