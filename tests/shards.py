"""Runs shards of the tests, those of tests/shards.toml; `scripts/test` calls it once all that tests need is there.

    python -m tests.shards                    those of the presubmit that need no cluster
    python -m tests.shards --all              all of them: the complete suite
    python -m tests.shards --shard NAME …     these
    python -m tests.shards --shards           lists them

Each ends with a line: its name, the commit, how many passed, how many failed, and its seconds. All run, even when
one fails; after SIGTERM, which pytest gets too, the running one ends and no other begins. The tests of
tests/unsteady.toml are left out of them, and run in a shard of their own, `unsteady`.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from tests.plugins import unsteady

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
LIST = TESTS / "shards.toml"

LIMIT = 3_600
"""s. A shard should take under 540; what hangs is ended, as pytest-timeout does it with a single test."""

UNSTEADY = "unsteady"
"""The shard of the unsteady tests. Each of them runs up to RUNS times; they share UNSTEADY_LIMIT seconds."""
RUNS = 20
UNSTEADY_LIMIT = 540


class WrongList(Exception):
    """A list of tests is wrong; the text says what to do."""


@dataclass(frozen=True)
class Shard:
    """Some of the tests. `files` are relative to tests/, a folder stands for all in it."""

    name: str
    files: tuple[str, ...]
    presubmit: bool = False
    cluster: bool = False
    spread: str = "loadfile"

    def has(self, file: str) -> bool:
        """Whether a file of tests is in it."""
        return any(file == each or file.startswith(each + "/") for each in self.files)

    def command(self, report: Path) -> list[str]:
        """What runs it, and writes a report in JUnit's format."""
        paths = [f"tests/{each}" for each in self.files]
        pytest = [sys.executable, "-m", "pytest", "-m", "", f"--junitxml={report}", "--durations=5", *paths]
        if self.cluster:
            return ["scripts/cluster/cluster", "exec", *pytest]
        # In their order: a long file of few tests would come last else, and alone.
        return [*pytest, "--numprocesses=2", f"--dist={self.spread}", "--no-loadscope-reorder"]


@dataclass(frozen=True)
class Outcome:
    """How a shard ended: how many tests passed and failed, in how many seconds; `status` is pytest's exit status."""

    passed: int
    failed: int
    seconds: float
    status: int


def read(text: str, present: Iterable[str]) -> list[Shard]:
    """The list's shards; `present` are all files of tests. Raises `WrongList` where one is in none, or in several of
    those on a cluster, or of the others."""
    shards = [Shard(name, **{**given, "files": tuple(given["files"])}) for name, given in tomllib.loads(text).items()]
    faults = []
    for file in present:
        where = Counter(shard.cluster for shard in shards if shard.has(file))
        if not where or max(where.values()) > 1:
            faults.append(f"{file} is in {where.total()} shards")
    for shard in shards:
        faults += [f"{shard.name}: there is no {each}" for each in shard.files if not (TESTS / each).exists()]
    if faults:
        raise WrongList(f"Each file of tests belongs in one shard of {LIST.name}:\n  " + "\n  ".join(faults))
    return shards


def present() -> list[str]:
    """All files of tests."""
    return [str(path.relative_to(TESTS)) for path in sorted(TESTS.rglob("test_*.py"))]


def run(shard: Shard, arguments: Sequence[str]) -> Outcome:
    """Run it, with more arguments for pytest."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shard-") as folder:
        report = Path(folder) / "report.xml"
        try:
            command = [*shard.command(report), *arguments]
            status = subprocess.run(command, cwd=ROOT, timeout=LIMIT, check=False).returncode
        except subprocess.TimeoutExpired:
            print(f"{shard.name}: ended after {LIMIT} s", file=sys.stderr)
            status = 124
        counts = _counts(report)
    return Outcome(*counts, time.monotonic() - began, status)


def run_unsteady(shards: Iterable[Shard], listed: Sequence[Mapping[str, Any]], arguments: Sequence[str]) -> Outcome:
    """Run each unsteady test again and again, as its own shard would, and print how often it failed.

    It may fail by time, so `status` is 1 only where one passed in none of its runs. `passed` and `failed` count runs.
    """
    began, lines, passed, failed, status = time.monotonic(), ["no test is unsteady"], 0, 0, 0
    for number, entry in enumerate(listed):
        share = (UNSTEADY_LIMIT - (time.monotonic() - began)) / (len(listed) - number)
        good, bad = _repeat(_alone(shards, entry["test"]), arguments, share)
        lines.append(f"{entry['test']}: failed {bad} times of {good + bad}")
        passed, failed, status = passed + good, failed + bad, status or int(not good)
    print("\n".join(lines[1:] or lines), flush=True)
    return Outcome(passed, failed, time.monotonic() - began, status)


def _repeat(shard: Shard, arguments: Sequence[str], seconds: float) -> tuple[int, int]:
    """How often it passed and failed: in RUNS runs, or in as many as fit into these seconds, but at least one."""
    began, runs = time.monotonic(), [run(shard, arguments)]
    while len(runs) < RUNS and time.monotonic() - began + runs[-1].seconds < seconds:
        runs.append(run(shard, arguments))
    good = sum(each.status == 0 for each in runs)
    return good, len(runs) - good


def _alone(shards: Iterable[Shard], test: str) -> Shard:
    """The shard of an unsteady test, of this test only."""
    return replace(home(shards, test), files=(test.removeprefix("tests/"),))


def home(shards: Iterable[Shard], test: str) -> Shard:
    """The shard that has a test's file."""
    file = test.partition("::")[0].removeprefix("tests/")
    return next(shard for shard in shards if shard.has(file))


def unsteady_tests(today: date) -> list[Mapping[str, Any]]:
    """The entries of tests/unsteady.toml. Raises `WrongList` where one is wrong, but not where one has expired."""
    listed = unsteady.entries(unsteady.LIST.read_text())
    if faults := unsteady.faults(listed, today):
        raise WrongList(f"{unsteady.LIST.name}:\n  " + "\n  ".join(faults))
    return listed


def _counts(report: Path) -> tuple[int, int]:
    """How many tests passed and failed; none where there is no report."""
    if not report.exists():
        return 0, 0
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    total: Counter[str] = Counter()
    for suite in suites:
        total.update({key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")})
    failed = total["failures"] + total["errors"]
    return total["tests"] - failed - total["skipped"], failed


def commit() -> str:
    """The checkout's, short; with a + where files differ from it."""
    command = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() or "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/test", description="Runs the tests, shard by shard.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--all", action="store_true", help="all shards, instead of those of the presubmit")
    choice.add_argument("--shard", nargs="+", default=[], metavar="NAME", help="these shards")
    choice.add_argument("--shards", action="store_true", help="list the shards")
    again = "as the presubmit, also with --shard: what waited in vain is tried once more, and no expired entry fails"
    parser.add_argument("--presubmit", action="store_true", help=again)
    return parser


def main(arguments: Sequence[str] | None = None, ended: Callable[[], object] = bool) -> int:
    """The exit status: 0 if all passed. No further shard begins once `ended`."""
    parser = _parser()
    options, more = parser.parse_known_args(arguments)
    today = date.today()
    try:
        shards = {each.name: each for each in read(LIST.read_text(), present())}
        listed = unsteady_tests(today)
    except WrongList as error:
        parser.error(str(error))
    every = [*shards, UNSTEADY]
    if unknown := [name for name in options.shard if name not in every]:
        parser.error(f"no such shard: {', '.join(unknown)}; there are: {', '.join(every)}")
    if options.shards:
        for each in shards.values():
            where = "presubmit" if each.presubmit else "on a cluster" if each.cluster else ""
            print(f"{each.name:22} {where:14} {' '.join(each.files)}")
        print(f"{UNSTEADY:22} {'':14} the tests of {unsteady.LIST.name}")
        return 0
    on_one_machine = [each.name for each in shards.values() if each.presubmit and not each.cluster]
    chosen = every if options.all else options.shard or on_one_machine
    presubmit = options.presubmit or not (options.all or options.shard)
    left_out = ["-p", "tests.plugins.unsteady", *(["-p", "tests.plugins.second_try"] if presubmit else [])]
    expired = [] if presubmit else unsteady.expired(listed, today)
    lines, worst = [], 0
    for name in chosen:
        print(f"== {name}", flush=True)
        if name == UNSTEADY:
            outcome = run_unsteady(shards.values(), listed, more)
        else:
            outcome = run(shards[name], [*left_out, *more])
        worst = worst or outcome.status
        for test in expired:
            if name in (UNSTEADY, home(shards.values(), test).name):
                print(f"{name} fails: {test} has expired. Mend its cause, and take it off {unsteady.LIST.name}")
                worst = worst or 1
        lines.append(f"{name} {commit()} {outcome.passed} {outcome.failed} {outcome.seconds:.0f}")
        print(lines[-1], flush=True)
        if ended():
            return worst or 1
    if len(chosen) > 1:
        print("== shard, commit, passed, failed, seconds", *lines, sep="\n")
    return worst


if __name__ == "__main__":
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    sys.exit(main(ended=told.copy))
