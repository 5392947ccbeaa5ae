"""What app/editor/resources.js says of the editor's use: a control group's files, and real processes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.editor.node import NODE

DRIVER = """
const { resources } = require(process.argv[1]);
const { spawn } = require("node:child_process");
const child = spawn("sh", ["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done; echo done; cat"], {
  stdio: ["pipe", "pipe", "inherit"],
});
const before = resources(process.argv[2], process.pid);
child.stdout.once("data", () => {
  console.log(JSON.stringify([before, resources(process.argv[2], process.pid), process.memoryUsage().rss]));
  child.stdin.end();
});
"""


def readings(group: Path) -> list[Any]:
    """Before and after a child used the CPU, and the process' own memory."""
    command = [str(NODE), "-e", DRIVER, str(ROOT / "app/editor/resources.js"), str(group)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found: list[Any] = json.loads(done.stdout)
    return found


def test_a_container_says_what_its_group_has(tmp_path: Path) -> None:
    """Without files that the kernel can forget at once, as the kubelet counts."""
    (tmp_path / "cpu.stat").write_text("usage_usec 12500000\nuser_usec 1\n")
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 100\n")
    assert readings(tmp_path)[:2] == [{"cpu_seconds": 12.5, "memory_bytes": 200}] * 2


def test_a_container_of_the_first_version_has_a_folder_for_each_part(tmp_path: Path) -> None:
    for name, text in (
        ("cpuacct/cpuacct.usage", "12500000000\n"),
        ("memory/memory.usage_in_bytes", "300\n"),
        ("memory/memory.stat", "inactive_file 7\ntotal_inactive_file 100\n"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert readings(tmp_path)[:2] == [{"cpu_seconds": 12.5, "memory_bytes": 200}] * 2


@pytest.mark.parametrize("lacking", ["cpu.stat", "memory.current", "memory.stat", ""])
def test_where_a_group_lacks_something_its_processes_count(tmp_path: Path, lacking: str) -> None:
    """With all below it; so in a sandbox, and on one machine, where there is none."""
    for name, text in (("cpu.stat", "usage_usec 1"), ("memory.current", "1"), ("memory.stat", "inactive_file 1")):
        if lacking and name != lacking:
            (tmp_path / name).write_text(text)
    before, after, own = readings(tmp_path if lacking else Path())
    assert after["cpu_seconds"] > before["cpu_seconds"]
    assert 0.8 * own < after["memory_bytes"] < own + 100_000_000
