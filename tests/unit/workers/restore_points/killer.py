"""Kills a maker, restorer or prover of restore points.

As a program it is one, for a test to kill. Arguments: `make VOLUME URL ORDER`, `restore VOLUME URL ID` or `prove
SCRATCH URL ORDER`; the session's keys come on standard input. It prints a line when it begins, and when it is done.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from app.core.storage.archive_keys import SessionKeys
from tests import sampling
from tests.unit.workers.restore_points.conftest import LIMITS, Shelf
from tests.waiting import wait_for
from workers.restore_points import make_point, prove_point, restore_point
from workers.runtime.base import PointOrder, ProofOrder, never


class Killer:
    """Runs this program, and kills it at a moment of its work."""

    def __init__(self, shelf: Shelf, name: str) -> None:
        self.shelf = shelf
        self.dice = sampling.dice(name)

    def run(
        self, action: str, volume: Path, what: str, within: float = 0.0, when: Callable[[], bool] | None = None
    ) -> float:
        """Run it to its end, or kill it at random within so many seconds after it began, or once `when` is true;
        answers how long it took."""
        command = [sys.executable, "-m", Killer.__module__, action, str(volume), self.shelf.url, what]
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
        calls = (each for each in psutil.process_iter(["name", "cmdline"]) if each.info["name"] == "restic")
        return [each for each in calls if str(self.shelf.folder) in " ".join(each.info["cmdline"] or ())]


def main(action: str, volume: str, url: str, what: str) -> None:
    keys = SessionKeys.from_text(sys.stdin.readline())
    print("begun", flush=True)
    if action == "make":
        order = json.loads(what)
        make_point(Path(volume), url, keys, PointOrder(**{**order, "keep": tuple(order["keep"])}), never)
    elif action == "prove":
        proof = prove_point(Path(volume), url, keys, ProofOrder(**json.loads(what)), never)
        assert proof.proven, proof
    else:
        restore_point(Path(volume), url, keys, what, LIMITS, never, user_id="ada@example.com")
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
