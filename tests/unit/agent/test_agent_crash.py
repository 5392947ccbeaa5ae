"""Killed at any write, the agent goes on where it was: nothing is lost, nothing is done twice by itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.agent.crash_points import PROMPTS

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What a clean run found after a crash at each point, and one more crash."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.agent.crash_points", str(tmp_path_factory.mktemp("crashes"))],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        timeout=280,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    # Two prompts of three steps each make far more writes than this.
    assert len(found) > 60
    return found


def test_every_prompt_is_answered_once_and_in_order(runs):
    for run in runs:
        users = [message["id"] for message in run["history"] if message["role"] == "user"]
        ended = [message["id"] for message in run["history"] if "outcome" in message]
        assert users == ended == list(PROMPTS), run["point"]
        assert [message["id"] for message in run["history"]] == sorted(message["id"] for message in run["history"])
        assert all(m["outcome"]["status"] == "processed" for m in run["history"] if "outcome" in m), run["point"]


def test_no_tool_runs_twice(runs):
    """Each of the four calls ran once; one may be missing only where its result says that it was interrupted."""
    for run in runs:
        interrupted = [m for m in run["history"] if m["role"] == "tool" and m["content"].startswith("interrupted")]
        assert 4 - len(interrupted) <= len(run["effects"]) <= 4, run["point"]
        assert max(run["effects"].count(name) for name in "ab") <= 2, run["point"]


def test_every_call_has_one_result(runs):
    """The conversation is well-formed: a provider takes it."""
    for run in runs:
        open_calls: list[str] = []
        for message in run["history"]:
            if message["role"] == "tool":
                assert message["call_id"] == open_calls.pop(0), run["point"]
            else:
                assert open_calls == [], run["point"]
                open_calls = [call["call_id"] for call in message.get("tool_calls", [])]


def test_every_outcome_is_reported_at_least_once(runs):
    """Until it is noted that the manager has it; then no more."""
    for run in runs:
        assert set(run["told"]) == set(PROMPTS) and run["unreported"] == [], run["point"]


def test_nothing_is_left_lying_about(runs):
    for run in runs:
        names = [name for name in run["files"] if not name.endswith(".tmp")]
        assert names == ["context.json", "history.json", "journal", "metadata.json"] and run["empty"], run["point"]
