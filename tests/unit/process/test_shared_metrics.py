"""Processes that count together: in programs of their own, as the class of values is one for each process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from app.process import shared_metrics
from tests.conftest import ROOT

BEGIN = """
import os, signal, sys
from pathlib import Path
from prometheus_client import CollectorRegistry, Counter, Gauge
from app.process import shared_metrics as shared

folder = Path(sys.argv[1])
shared.begin(str(folder), int(sys.argv[2]))
counter = Counter("things", "", registry=CollectorRegistry())
gauge = Gauge("open", "", registry=CollectorRegistry(), multiprocess_mode=shared.SUM_OF_LIVING)

class Server:
    WORKERS = {}

class Worker:
    pass

def child(act):
    \"\"\"Have a process, forked as gunicorn does it, act, then wait to be killed.\"\"\"
    done, told = os.pipe()
    worker = Worker()
    shared.pre_fork(Server, worker)
    pid = os.fork()
    if not pid:
        shared.post_fork(Server, worker)
        act()
        os.write(told, b"x")
        signal.pause()
    os.read(done, 1)
    Server.WORKERS[pid] = worker
    return pid

def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    shared.child_exit(Server, Server.WORKERS.pop(pid))

def shown():
    text = shared.exposition(shared.shown(), "text/plain")[0].decode()
    return dict(line.split() for line in text.splitlines() if not line.startswith("#"))
"""


def result(folder: Path, program: str, processes: int = 4) -> str:
    """What a program prints that counts in this folder."""
    command = [sys.executable, "-c", BEGIN + program, str(folder), str(processes)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_counts_of_all_processes_add_up_and_those_of_dead_ones_stay_while_gauges_are_of_the_living(
    tmp_path: Path,
) -> None:
    program = """
def both(number, opened):
    counter.inc(number)
    gauge.inc(opened)

first, second = child(lambda: both(2, 2)), child(lambda: both(3, 3))
print(shown()["things_total"], shown()["open"])
kill(first)
print(shown()["things_total"], shown()["open"])
third = child(lambda: both(10, 0))
print(shown()["things_total"], shown()["open"])
kill(second), kill(third)
"""
    assert result(tmp_path, program).splitlines() == ["5.0 5.0", "5.0 3.0", "15.0 3.0"]


@pytest.mark.slow
def test_a_process_takes_the_slot_of_a_dead_one_and_a_parent_that_counts_keeps_its_own(tmp_path: Path) -> None:
    """So there are no more files than processes at a time, however many die."""
    program = """
counter.inc()
for _ in range(20):
    kill(child(counter.inc))
counter.inc()
print(shown()["things_total"], len(list(folder.glob("*.db"))))
"""
    assert result(tmp_path, program).split() == ["22.0", str(5 * len(shared_metrics.RESERVED))]


def test_more_processes_than_there_is_space_for_count_too(tmp_path: Path) -> None:
    program = """
pids = [child(counter.inc) for _ in range(4)]
print(shown()["things_total"])
for pid in pids:
    kill(pid)
"""
    assert result(tmp_path, program, processes=2) == "4.0"


@pytest.mark.slow
def test_a_dead_one_leaves_room_for_the_gauges_of_the_next(tmp_path: Path) -> None:
    program = """
kill(child(lambda: gauge.inc(2)))
print(sum(each.stat().st_blocks * 512 for each in folder.glob("gauge_*_0.db")), shown()["open"])
"""
    assert result(tmp_path, program).split() == [str(shared_metrics.RESERVED["gauge_livesum"]), "0.0"]


@pytest.mark.slow
def test_a_program_empties_its_folder(tmp_path: Path) -> None:
    (tmp_path / "counter_9.db").write_bytes(b"of an earlier run")
    (tmp_path / "folder").mkdir()
    assert result(tmp_path, "counter.inc(); print(shown()['things_total'])") == "1.0"
    assert not (tmp_path / "counter_9.db").exists()


@pytest.mark.slow
def test_the_space_is_reserved(tmp_path: Path) -> None:
    """A write into a mapped file without room kills its process."""
    program = "print(sum(each.stat().st_blocks * 512 for each in folder.glob('*.db')))"
    assert result(tmp_path, program, processes=2) == str(3 * sum(shared_metrics.RESERVED.values()))


@pytest.mark.slow
def test_without_room_each_process_counts_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.touch()
    program = "counter.inc(); print(counter._value.get(), shared.VARIABLE in os.environ)"
    assert result(file / "below", program) == "1.0 False"


def test_without_a_folder_an_instruments_own_registry_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(shared_metrics.VARIABLE, raising=False)
    registry = CollectorRegistry(auto_describe=False)
    Counter("things", "What was counted", registry=registry).inc()
    shared_metrics.begin("", 4)
    text, content_type = shared_metrics.exposition(shared_metrics.shown(registry), "text/plain")
    assert b"things_total 1.0" in text
    assert content_type.startswith("text/plain")
