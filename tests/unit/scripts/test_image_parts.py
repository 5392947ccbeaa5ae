"""What the build of the images decides without building: what goes in, what is left out, what needs building."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.editor.code_server import CODE_SERVER
from scripts.images import inputs, part_of_lock, prune
from tests.conftest import ROOT

LOCK = """# Made by scripts/lock
app-server==1.0 ; sys_platform == 'linux' \\
    --hash=sha256:aa
    # via project (setup.cfg)
helper==2.0 \\
    --hash=sha256:bb
    # via
    #   app-server
    #   other
deeper==3.0 \\
    --hash=sha256:cc
    # via helper
other==4.0 \\
    --hash=sha256:dd
    # via project (setup.cfg)
"""

DOCKERFILE = """# comment
FROM debian AS base
RUN one && \\
    # a comment inside
    two
FROM base AS tool
COPY compiler.txt /tmp/
FROM base AS image
COPY --from=tool /opt/x /opt/x
COPY --chown=1:1 src main.txt \\
     /srv/
FROM base AS unrelated
COPY unrelated.txt /
"""


def test_a_part_of_a_lock_holds_what_its_packages_need_down_to_the_last() -> None:
    part = part_of_lock.part(LOCK, ["app-server"])
    assert [name for name, _, _ in part_of_lock.entries(part)] == ["app-server", "helper", "deeper"]
    assert "sha256:cc" in part
    assert "sha256:dd" not in part


def test_a_package_that_the_lock_does_not_have_is_refused() -> None:
    with pytest.raises(KeyError, match="nobody"):
        part_of_lock.part(LOCK, ["helper", "nobody"])


def test_the_real_lock_yields_the_archive_code_without_the_web_server() -> None:
    part = part_of_lock.part((ROOT / "requirements-image.lock").read_text(), ["fsspec", "isal", "stream-zip", "redis"])
    names = {name for name, _, _ in part_of_lock.entries(part)}
    assert {"fsspec", "isal", "stream-zip", "pycryptodome", "redis"} <= names
    assert names.isdisjoint({"flask", "kubernetes", "celery"})


def test_an_image_is_made_from_its_own_stages_only() -> None:
    stages = inputs.needed(inputs.parse(DOCKERFILE), "image")
    assert sorted(source for stage in stages for source in stage.sources) == ["compiler.txt", "main.txt", "src"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    for name in ("compiler.txt", "main.txt", "unrelated.txt", "src/code.py"):
        (tmp_path / name).write_text("one")
    return tmp_path


def test_a_digest_stays_when_what_changes_does_not_go_into_the_image(tree: Path) -> None:
    before = inputs.digest(tree, "image", "base")
    (tree / "unrelated.txt").write_text("two")
    (tree / "Dockerfile").write_text(DOCKERFILE.replace("COPY unrelated.txt /", "COPY unrelated.txt /x"))
    (tree / "src" / "__pycache__").mkdir()
    (tree / "src" / "__pycache__" / "code.pyc").write_text("x")
    assert inputs.digest(tree, "image", "base") == before


@pytest.mark.parametrize("change", ["file", "new file", "mode", "instruction", "base"])
def test_a_digest_changes_with_anything_that_goes_into_the_image(tree: Path, change: str) -> None:
    before = inputs.digest(tree, "image", "base")
    base = "base"
    match change:
        case "file":
            (tree / "src" / "code.py").write_text("two")
        case "new file":
            (tree / "src" / "more.py").write_text("")
        case "mode":
            (tree / "main.txt").chmod(0o755)
        case "instruction":
            (tree / "Dockerfile").write_text(DOCKERFILE.replace("two", "three"))
        case "base":
            base = "another"
    assert inputs.digest(tree, "image", base) != before


def test_a_copied_file_that_is_missing_is_named(tree: Path) -> None:
    (tree / "main.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"main\.txt"):
        inputs.digest(tree, "image", "base")


# The real Dockerfile

IMPORTED = """
import sys, workers.job.program
for name, module in sys.modules.items():
    if name.partition(".")[0] in ("app", "workers"):
        print(module.__file__)
"""


@pytest.fixture
def real() -> dict[str, inputs.Stage]:
    return inputs.parse((ROOT / "Dockerfile").read_text())


@pytest.mark.parametrize("target", ["manager", "workspace", "redis"])
def test_every_file_the_real_dockerfile_copies_is_there_and_reaches_the_builder(
    real: dict[str, inputs.Stage], target: str
) -> None:
    sources = [source for stage in inputs.needed(real, target) for source in stage.sources]
    inputs.files(ROOT, sources)
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert [source for source in sources if not any(f"{source}/".startswith(f"{name}/") for name in allowed)] == []


@pytest.mark.slow
def test_all_that_the_archive_jobs_import_is_in_their_image(real: dict[str, inputs.Stage]) -> None:
    ran = subprocess.run([sys.executable, "-c", IMPORTED], cwd=ROOT, capture_output=True, text=True, timeout=60)
    imported = {Path(line) for line in ran.stdout.splitlines()}
    there = {ROOT / source for source in real["service"].sources}
    assert ROOT / "workers" / "job" / "program.py" in imported
    assert {path for path in imported if path not in there and not set(path.parents) & there} == set()


def test_the_workspaces_image_names_the_editors_port_and_without_a_target_the_manager_is_built(
    real: dict[str, inputs.Stage],
) -> None:
    """A builder takes the last stage then."""
    assert f"EXPOSE {CODE_SERVER.port}" in real["workspace"].instructions
    assert list(real)[-1] == "manager"


def test_pruning_keeps_what_runs_here(tmp_path: Path) -> None:
    editor = tmp_path / prune.EDITOR
    kept = [
        "out/server-main.js",
        "node_modules/node-pty/prebuilds/linux-x64/pty.node",
        "node_modules/@vscode/ripgrep-universal/bin/linux-x64/rg",
        "node_modules/@vscode/sqlite3/build/Release/vscode-sqlite3.node",
        "extensions/git/package.json",
    ]
    dropped = [
        "out/server-main.js.map",
        "node_modules/node-pty/prebuilds/darwin-arm64/pty.node",
        "node_modules/@vscode/ripgrep-universal/bin/win32-x64/rg.exe",
        "node_modules/@vscode/sqlite3/build/Release/obj.target/sqlite3.o",
        "node_modules/@vscode/sqlite3/build/Release/sqlite3.a",
        "extensions/copilot/package.json",
    ]
    for name in [*kept, *dropped]:
        path = editor / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    for path in list(prune.unneeded(tmp_path, "linux-x64")):
        prune.remove(path)
    left = {str(path.relative_to(editor)) for path in editor.rglob("*") if path.is_file()}
    assert left == set(kept)
