"""Each file of tests is in one shard, and a shard's outcome is pytest's."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests import shards
from tests.shards import Outcome, Shard, WrongList

LIST = shards.LIST.read_text()


def test_each_file_of_tests_is_in_one_shard() -> None:
    assert len(shards.read(LIST, shards.present())) > 3


def test_the_contract_runs_on_a_cluster_too() -> None:
    found = [each for each in shards.read(LIST, []) if each.has("contract/test_runtime.py")]
    assert sorted(each.cluster for each in found) == [False, True]


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


TODAY = date.today()
THERE = "tests/unit/test_shards.py::test_each_file_of_tests_is_in_one_shard"
ON_A_CLUSTER = "tests/cluster/test_keda.py"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Shard, list[str]]]:
    """What would be run, with its arguments. Every second run fails, and each takes 20 s."""
    runs: list[tuple[Shard, list[str]]] = []

    def run(shard: Shard, arguments: Sequence[str]) -> Outcome:
        runs.append((shard, list(arguments)))
        return Outcome(1, 0, 20.0, len(runs) % 2)

    monkeypatch.setattr(shards, "run", run)
    return runs


def list_as_unsteady(monkeypatch: pytest.MonkeyPatch, *tests: str, expires: date = TODAY) -> None:
    listed = [{"test": test, "cause": "c", "mend": "m", "expires": expires} for test in tests]
    monkeypatch.setattr(shards.unsteady, "entries", lambda text: listed)


def test_without_unsteady_tests_their_shard_passes_at_once(monkeypatch, ran, capsys) -> None:
    list_as_unsteady(monkeypatch)
    assert shards.main(["--shard", "unsteady"]) == 0
    assert "no test is unsteady" in capsys.readouterr().out
    assert ran == []


def test_an_unsteady_test_runs_again_and_again_as_in_its_own_shard(monkeypatch, ran, capsys) -> None:
    """It may fail; how often it did is printed."""
    list_as_unsteady(monkeypatch, THERE, ON_A_CLUSTER)
    assert shards.main(["--shard", "unsteady"]) == 0
    printed = capsys.readouterr().out
    assert f"{THERE}: failed 10 times of 20" in printed and f"{ON_A_CLUSTER}: failed 10 times of 20" in printed
    assert [(shard.name, shard.files) for shard, _ in ran[::20]] == [
        ("unit", (THERE.removeprefix("tests/"),)),
        ("cluster-scaling", ("cluster/test_keda.py",)),
    ]
    assert all(arguments == [] for _, arguments in ran)


def test_a_test_that_never_passes_is_not_unsteady(monkeypatch, ran) -> None:
    monkeypatch.setattr(shards, "RUNS", 1)
    list_as_unsteady(monkeypatch, THERE)
    assert shards.main(["--shard", "unsteady"]) == 1


def test_no_run_begins_that_would_end_too_late(monkeypatch, ran) -> None:
    """One that takes longer than there is time for runs once."""
    monkeypatch.setattr(shards, "UNSTEADY_LIMIT", 19)
    list_as_unsteady(monkeypatch, THERE)
    shards.main(["--shard", "unsteady"])
    assert len(ran) == 1


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """The names and arguments of what would be run; all pass."""
    runs: list[tuple[str, list[str]]] = []

    def run(shard: Shard, arguments: Sequence[str]) -> Outcome:
        runs.append((shard.name, list(arguments)))
        return Outcome(1, 0, 0.0, 0)

    monkeypatch.setattr(shards, "run", run)
    return runs


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--shard", "unit"], 1),
        (["--shard", "unsteady"], 1),
        (["--all"], 1),
        (["--shard", "limits"], 0),
        (["--shard", "unit", "--presubmit"], 0),
        ([], 0),
    ],
)
def test_an_expired_entry_fails_its_shard_but_not_the_presubmit(
    monkeypatch, passing, capsys, arguments, status
) -> None:
    list_as_unsteady(monkeypatch, THERE, expires=TODAY - timedelta(days=1))
    assert shards.main(arguments) == status
    told = f"fails: {THERE} has expired. Mend its cause, and take it off unsteady.toml"
    assert (told in capsys.readouterr().out) == bool(status)


def test_a_shard_leaves_the_unsteady_tests_out_and_only_the_presubmit_tries_again(passing) -> None:
    shards.main(["--shard", "limits", "-k", "it"])
    shards.main(["--shard", "unit", "--presubmit"])
    assert passing == [
        ("limits", ["-p", "tests.plugins.unsteady", "-k", "it"]),
        ("unit", ["-p", "tests.plugins.unsteady", "-p", "tests.plugins.second_try"]),
    ]


def test_all_shards_have_the_unsteady_tests_among_them(monkeypatch, passing) -> None:
    list_as_unsteady(monkeypatch, ON_A_CLUSTER)
    shards.main(["--all"])
    assert [name for name, _ in passing[-20:]] == ["cluster-scaling"] * 20
    assert len({name for name, _ in passing}) == len(shards.read(LIST, shards.present()))


def test_a_fault_of_the_unsteady_list_is_told(monkeypatch, capsys) -> None:
    list_as_unsteady(monkeypatch, "tests/nowhere.py::test_it")
    with pytest.raises(SystemExit):
        shards.main(["--all"])
    assert "tests/nowhere.py::test_it: there is no such file" in capsys.readouterr().err


def test_no_shard_begins_after_the_end_of_the_run(ran: list[tuple[Shard, list[str]]]) -> None:
    assert shards.main(["--shard", "unit", "services"], lambda: True) == 1
    assert [shard.name for shard, _ in ran] == ["unit"]
