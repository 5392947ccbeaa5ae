"""Each file of tests is in one shard, and a shard's outcome is pytest's."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests import shards
from tests.shards import Outcome, Shard, WrongList

LIST = shards.LIST.read_text()


def test_each_file_of_tests_is_in_one_shard() -> None:
    assert len(shards.read(LIST, shards.present())) > 3


@pytest.mark.parametrize(
    ("more", "present", "told"),
    [
        ("", ["e2e/test_new.py"], "e2e/test_new.py is in 0 shards"),
        ('[again]\nfiles = ["unit/test_shards.py"]', ["unit/test_shards.py"], "unit/test_shards.py is in 2 shards"),
        ('[gone]\nfiles = ["e2e/test_gone.py"]', [], "gone: there is no e2e/test_gone.py"),
    ],
)
def test_a_file_in_none_or_two_or_that_is_gone_is_told(more: str, present: list[str], told: str) -> None:
    with pytest.raises(WrongList, match=told):
        shards.read(f"{LIST}\n{more}", present)


@pytest.mark.slow
def test_what_passed_and_failed_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_it.py").write_text("def test_a(): pass\ndef test_b(): pass\ndef test_c(): assert False\n")

    def command(self: Shard, report: Path) -> list[str]:
        return [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), f"--junitxml={report}", str(tmp_path)]

    monkeypatch.setattr(Shard, "command", command)
    outcome = shards.run(Shard("it", ()), [])
    assert replace(outcome, seconds=0.0) == Outcome(passed=2, failed=1, seconds=0.0, status=1)
    assert shards.run(Shard("it", ()), ["-k", "test_a"]).status == 0
