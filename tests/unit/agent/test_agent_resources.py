"""What the agent reads of its workspace's use: control groups as a container has them, real processes, real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.agent.activity_reporter import FOLDER
from app.agent.resources import OLDEST, RESOURCES, ResourceMeter, Used, disk_use, editors_use, own_use
from tests.waiting import wait_for

NOW = 1_800_000_000.0
MB = 1_000_000

BURN = "import sys\nheld = bytearray(50_000_000)\nprint('ready', flush=True)\nwhile True: pass"


def group(folder: Path, *, cpu: float, memory: int, inactive: int = 0) -> str:
    """A control group's folder, as in a container."""
    folder.mkdir(exist_ok=True)
    (folder / "cpu.stat").write_text(f"usage_usec {round(cpu * 1e6)}\nuser_usec 1\nsystem_usec 1\n")
    (folder / "memory.current").write_text(f"{memory}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\nactive_file 2\n")
    return str(folder)


def editor_says(home: Path, **told: Any) -> None:
    (home / FOLDER).mkdir(parents=True, exist_ok=True)
    (home / FOLDER / RESOURCES).write_text(json.dumps(told))


@pytest.fixture
def burning() -> Iterator[subprocess.Popen[str]]:
    """A shell with a program below it that holds 50 MB and a CPU."""
    command = ["sh", "-c", '"$0" -c "$1"; true', sys.executable, BURN]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def test_a_container_uses_what_its_group_says_without_what_the_kernel_can_forget(tmp_path: Path) -> None:
    folder = group(tmp_path / "group", cpu=12.5, memory=300 * MB, inactive=100 * MB)
    assert own_use(folder, os.getpid(), NOW) == Used(NOW, 12.5, 200 * MB)


def test_a_container_of_the_first_version_has_a_folder_for_each_part(tmp_path: Path) -> None:
    (tmp_path / "cpuacct").mkdir()
    (tmp_path / "cpuacct" / "cpuacct.usage").write_text("12500000000\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("300\n")
    (tmp_path / "memory" / "memory.stat").write_text("inactive_file 7\ntotal_inactive_file 100\n")
    assert own_use(str(tmp_path), os.getpid(), NOW) == Used(NOW, 12.5, 200)
    (tmp_path / "memory" / "memory.stat").write_text("")
    assert own_use(str(tmp_path), os.getpid(), NOW).memory > 1_000_000, "its processes"


def test_without_a_group_of_its_own_its_processes_count(tmp_path: Path, burning: subprocess.Popen[str]) -> None:
    """On one machine, and in a sandbox without these files: with all that runs below it."""
    for folder in ("", str(tmp_path / "nothing")):
        first = own_use(folder, burning.pid, NOW)
        assert first.memory > 50 * MB
        wait_for(lambda: own_use("", burning.pid, NOW).cpu > first.cpu, "the program's CPU time")  # noqa: B023


def test_a_process_that_has_ended_uses_nothing() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert own_use("", process.pid, NOW) == Used(NOW, 0.0, 0)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"at": NOW, "cpu_seconds": 1},
        {"at": NOW, "cpu_seconds": -1, "memory_bytes": 1},
        {"at": NOW, "cpu_seconds": 1e30, "memory_bytes": 1},
        {"at": NOW, "cpu_seconds": True, "memory_bytes": 1},
        {"at": "now", "cpu_seconds": 1, "memory_bytes": 1},
        {"at": NOW - OLDEST - 1, "cpu_seconds": 1, "memory_bytes": 1},
        {"at": NOW + OLDEST + 1, "cpu_seconds": 1, "memory_bytes": 1},
    ],
)
def test_nonsense_of_the_editor_counts_as_nothing(tmp_path: Path, told: dict[str, Any]) -> None:
    """Or what it said before it ended."""
    editor_says(tmp_path, **told)
    assert editors_use(tmp_path, NOW) is None


def test_a_sample_has_both_containers_since_the_reading_before(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_bytes(b"x" * MB)
    folder = group(tmp_path / "group", cpu=1.0, memory=40 * MB)
    editor_says(tmp_path, at=NOW - 5, cpu_seconds=10.0, memory_bytes=100 * MB)
    meter = ResourceMeter(tmp_path, volume, folder)
    meter.read(NOW)
    assert meter.take() is None, "there is nothing to compare with"
    group(tmp_path / "group", cpu=7.0, memory=50 * MB)
    editor_says(tmp_path, at=NOW + 55, cpu_seconds=40.0, memory_bytes=150 * MB)
    meter.read(NOW + 60)
    sample = meter.take() or {}
    assert (sample["cpu"], sample["memory_bytes"]) == (0.6, 200 * MB)
    assert MB <= sample["disk_bytes"] < 2 * MB
    assert meter.take() is None, "it was taken"


def test_a_container_that_was_started_anew_used_no_cpu_before(tmp_path: Path) -> None:
    folder = group(tmp_path / "group", cpu=50.0, memory=MB)
    meter = ResourceMeter(tmp_path, tmp_path, folder)
    meter.read(NOW)
    group(tmp_path / "group", cpu=1.0, memory=MB)
    meter.read(NOW + 60)
    sample = meter.take() or {}
    assert sample["cpu"] == 0.0


def test_files_count_by_their_blocks_and_no_link_leads_out(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    (volume / "app" / "deep").mkdir(parents=True)
    (volume / "app" / "deep" / "file").write_bytes(b"x" * MB)
    (volume / "home").symlink_to("/usr")
    with (volume / "sparse").open("wb") as sparse:
        sparse.truncate(1_000 * MB)
    assert MB <= disk_use(volume) < 2 * MB


def test_a_filesystem_of_its_own_counts_as_a_whole() -> None:
    """As a volume in a cluster: no walk over its files."""
    found = os.statvfs("/proc/self/root")
    assert disk_use(Path("/")) == pytest.approx((found.f_blocks - found.f_bfree) * found.f_frsize, rel=0.05)


def test_a_walk_that_takes_long_is_not_repeated_each_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[Path] = []

    def slow(volume: Path) -> int:
        walks.append(volume)
        monkeypatch.setattr(time, "monotonic", lambda: base + 1.0)
        return 7

    base = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: base)
    monkeypatch.setattr("app.agent.resources.disk_use", slow)
    meter = ResourceMeter(tmp_path, tmp_path, group(tmp_path / "group", cpu=1.0, memory=1))
    for minute in range(3):
        meter.read(NOW + 60 * minute)
    sample = meter.take() or {}
    assert (len(walks), sample["disk_bytes"]) == (1, 7)
    monkeypatch.setattr(time, "monotonic", lambda: base + 502.0)
    meter.read(NOW + 180)
    assert len(walks) == 2
