"""Kills the maker of restore points."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests import sampling
from tests.unit.workers.restore_points.conftest import Shelf
from tests.waiting import wait_for


class Killer:
    """Runs a process of `killed_maker`, and kills it at a moment of its work."""

    def __init__(self, shelf: Shelf, name: str) -> None:
        self.shelf = shelf
        self.dice = sampling.dice(name)

    def run(
        self, action: str, volume: Path, what: str, within: float = 0.0, when: Callable[[], bool] | None = None
    ) -> float:
        """Run it to its end, or kill it at random within so many seconds after it began, or once `when` is true;
        answers how long it took."""
        module = "tests.unit.workers.restore_points.killed_maker"
        command = [sys.executable, "-m", module, action, str(volume), self.shelf.url, what]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(self.shelf.keys.to_text() + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "begun\n"
            begun = time.monotonic()
            if when:
                wait_for(when, "the moment to kill it")
            elif within:
                time.sleep(self.dice.uniform(0, within))  # meant: the moment is what is tried
            else:
                assert process.stdout.readline() == "done\n"
            return time.monotonic() - begun
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
            wait_for(lambda: not self._orphans(), "restic to die with its caller")

    def _orphans(self) -> list[psutil.Process]:
        """Calls of restic on this store."""
        found = []
        for process in psutil.process_iter(["name", "cmdline"]):
            if process.info["name"] == "restic" and str(self.shelf.folder) in " ".join(process.info["cmdline"] or ()):
                found.append(process)
        return found
