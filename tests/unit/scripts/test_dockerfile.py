"""What the Dockerfile builds by default, and that the workspaces' image has every module its files import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.editor.code_server import CODE_SERVER
from scripts.images import inputs
from tests.conftest import ROOT

IMPORTED = """
import sys, workers.job.program
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


@pytest.mark.slow
def test_all_that_the_archive_jobs_import_is_in_their_image() -> None:
    ran = subprocess.run([sys.executable, "-c", IMPORTED], cwd=ROOT, capture_output=True, text=True, timeout=60)
    imported = {Path(line) for line in ran.stdout.splitlines()}
    there = copied()
    assert ROOT / "workers" / "job" / "program.py" in imported
    assert {path for path in imported if path not in there and not set(path.parents) & set(there)} == set()


def test_the_workspaces_image_names_the_editors_port() -> None:
    workspace = inputs.parse((ROOT / "Dockerfile").read_text())["workspace"]
    assert f"EXPOSE {CODE_SERVER.port}" in workspace.instructions


def test_without_a_target_the_manager_is_built() -> None:
    """A builder takes the last stage then."""
    assert list(inputs.parse((ROOT / "Dockerfile").read_text()))[-1] == "manager"
