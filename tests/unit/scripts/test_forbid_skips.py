"""With FORBID_SKIPS=1 a test run can't be green by leaving tests out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

BODIES = {
    "mark": "@pytest.mark.skip(reason='no tool')\ndef test_it(): pass",
    "call": "def test_it(): pytest.skip('no tool')",
    "fixture": "@pytest.fixture\ndef tool(): pytest.skip('no tool')\ndef test_it(tool): pass",
    "module": "pytest.skip('no tool', allow_module_level=True)",
}


def outcome(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(f"import pytest\n{body}\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.plugins.forbid_skips", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        # Loading every plugin that is installed takes seconds, and none of them matters here.
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.slow
def test_every_way_of_skipping_fails_and_says_what_and_why(tmp_path, body):
    """The test's name and its reason are in the output."""
    done = outcome(tmp_path, body)
    assert done.returncode != 0
    assert "test_it.py" in done.stdout
    assert "skipping is forbidden" in done.stdout
    assert "no tool" in done.stdout


@pytest.mark.parametrize("body", ["def test_it(): pass", "@pytest.mark.xfail\ndef test_it(): assert 0"])
@pytest.mark.slow
def test_passed_and_expected_failures_stay_what_they_are(tmp_path, body):
    """Only a skip counts."""
    assert outcome(tmp_path, body).returncode == 0
