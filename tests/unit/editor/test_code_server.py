"""Both runtimes start the editor with the same command line and settings."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import psutil
import pytest

from app.editor.code_server import CODE_SERVER
from tests.conftest import ROOT
from tests.unit.editor.node import NODE
from tests.unit.workers.runtime.local.test_local_runtime import A, Stage, stage
from tests.waiting import wait_for
from workers.runtime.local.launcher import PROGRAM_FOLDER

__all__ = ["stage"]

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
console.log(JSON.stringify({ written, arguments: process.argv.slice(1) }));
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
    assert local == json.loads(in_cluster) == CODE_SERVER.settings
    assert local["git.openRepositoryInParentFolders"] == "never"
    assert local["workbench.secondarySideBar.defaultVisibility"] == "hidden"


def test_settings_on_the_volume_are_left_alone() -> None:
    assert container("settings")["written"] == {}


def line(address: str, home: str, folder: str, *own: str) -> list[str]:
    """The command line of an editor after its program."""
    return [
        *("--bind-addr", address),
        *("--user-data-dir", f"{home}/.local/share/code-server"),
        *("--extensions-dir", f"{home}/.local/share/code-server/extensions"),
        *("--auth", "none"),
        *("--config", "/dev/null"),
        *("--disable-proxy", "--disable-telemetry", "--disable-update-check", "--disable-workspace-trust"),
        *own,
        folder,
    ]


def test_an_editor_in_a_container_gets_its_command_line() -> None:
    own = ("--vscode-option", "agent-host-bridge-host=127.0.0.1")
    assert container()["arguments"] == line("0.0.0.0:8080", "/workspace/home", "/workspace/app", *own)


@pytest.mark.slow
def test_an_editor_of_this_machine_gets_the_same(stage: Stage) -> None:
    running = stage.up(A)
    editor = psutil.Process(running.pid)
    wanted = line(f"127.0.0.1:{running.port}", str(stage.folders.home(A)), str(stage.folders.app(A)))

    def has_it() -> bool:
        return editor.cmdline()[-len(wanted) :] == wanted

    # Its process may not have become the editor yet: while it becomes that it shows none, or parts of two.
    wait_for(has_it, "the editor's command line", lambda: f"{editor.cmdline()} and not {wanted}")


def test_the_agent_is_started_where_its_package_is() -> None:
    assert (PROGRAM_FOLDER / "app" / "agent" / "__main__.py").exists()


def test_no_other_source_names_its_flags_its_health_path_or_its_files() -> None:
    """So that another version, or another editor, changes one place."""
    flags = [each for each in (*CODE_SERVER.flags, *CODE_SERVER.pod_flags) if each.startswith("--")]
    facts = [*flags, CODE_SERVER.health, CODE_SERVER.data, CODE_SERVER.settings_file]
    own = {"code_server.json", "code_server.py"}
    sources = [
        file
        for room in ("app", "workers")
        for file in (ROOT / room).rglob("*")
        if file.suffix in (".py", ".js", ".json") and "vendor" not in file.parts and file.name not in own
    ]
    assert len(sources) > 300
    texts = {str(file.relative_to(ROOT)): file.read_text() for file in sources}
    assert [(name, fact) for name, text in texts.items() for fact in facts if fact in text] == []
