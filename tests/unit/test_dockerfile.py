"""The image of a workspace takes single files of the service; whatever they import must be among them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

IMPORTED = """
import sys, workers.archive_job
for name, module in sys.modules.items():
    if name.partition(".")[0] in ("app", "workers"):
        print(module.__file__)
"""


def copied() -> list[Path]:
    """What the stage `service` copies from the tree: files and folders."""
    text = (ROOT / "Dockerfile").read_text()
    [stage] = [each for each in text.split("\nFROM ") if each.splitlines()[0].endswith(" AS service")]
    lines = [line.split()[1:-1] for line in stage.splitlines() if line.startswith("COPY ")]
    return [ROOT / name for names in lines for name in names]


def test_all_that_the_archive_jobs_import_is_in_their_image() -> None:
    ran = subprocess.run([sys.executable, "-c", IMPORTED], cwd=ROOT, capture_output=True, text=True, timeout=60)
    imported = {Path(line) for line in ran.stdout.splitlines()}
    there = copied()
    assert ROOT / "workers" / "archive_job.py" in imported
    assert {path for path in imported if path not in there and not set(path.parents) & set(there)} == set()
