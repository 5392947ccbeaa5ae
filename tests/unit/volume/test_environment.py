"""Processes are found by marks in their environment, whatever they are doing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from app.volume.environment import started_with

MARK = f"TEST_OF_MARKS={os.getpid()}"


@pytest.mark.slow
def test_a_process_that_begins_one_program_after_another_is_found_at_each_look(tmp_path: Path) -> None:
    """In the midst of an execve(2) it shows an empty environment."""
    script = tmp_path / "again"
    script.write_text(f"#!/bin/sh\nexec {script}\n")
    script.chmod(0o755)
    name, value = MARK.split("=")
    with subprocess.Popen([script], env={name: value}) as process:
        try:
            seen = [started_with(lambda each: f"\0{MARK}\0".encode() in each) for _ in range(100)]
        finally:
            process.kill()
    assert seen == [{process.pid}] * 100


def test_a_mark_that_another_begins_with_is_another(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"], env={"PATH": os.environ["PATH"], "A": "bc"}) as process:
        try:
            assert process.pid in started_with(lambda each: b"\0A=bc\0" in each)
            assert process.pid not in started_with(lambda each: b"\0A=b\0" in each)
        finally:
            process.kill()
