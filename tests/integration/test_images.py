"""The images, built from the Dockerfile and run as a cluster runs them: without root, on a root nobody can write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.backups.index import identity_fields
from app.core.sessions.model import Identity
from scripts.images import oci
from tests.conftest import ROOT
from tests.integration.containers import Container, Image
from tests.unit.agent.fake_gateway import AGENT_SECRET, TOKEN

BUILD_LIMIT = 3_000
"""Seconds; a cold build of all takes six minutes, and the archives are kept."""

# The first test builds what isn't there.
pytestmark = pytest.mark.timeout(BUILD_LIMIT + 600)

USER = 1000
WORKSPACE = "localhost/workspace:dev"
UUID = "a1b2c3d4"


def archives() -> dict[str, Path]:
    """Build what isn't built yet; the archives by the names of their targets."""
    if os.geteuid() != 0:
        pytest.skip("building images without docker needs root")
    done = subprocess.run(
        [ROOT / "scripts" / "images" / "build"], capture_output=True, text=True, timeout=BUILD_LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    return {name.rpartition("/")[2].partition(":")[0]: Path(path) for name, path, *_ in lines}


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, Image]]:
    found: dict[str, Image] = {}
    try:
        for target, archive in archives().items():
            found[target] = Image(archive)
        yield found
    finally:
        for image in found.values():
            image.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    return folder


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """An empty volume, as a new workspace gets it."""
    folder = tmp_path / "volume"
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder


def ended(image: Image, bundle: Path, *command: str) -> str:
    """What a command prints in a container of its own; fails the test when the command fails."""
    with Container(image, bundle, "!", *command) as container:
        status = container.wait()
        assert status == 0, container.output()
        return container.output()


# The manager


def test_the_manager_has_all_its_processes_import(images: dict[str, Image], bundle: Path) -> None:
    modules = "app.main, workers.celery.app, workers.observer, workers.runtime.kubernetes.driver, flower"
    code = f"import {modules}; print('imported')"
    assert "imported" in ended(images["manager"], bundle, "python", "-c", code)


def test_the_web_process_serves_without_writing_outside_of_tmp(images: dict[str, Image], bundle: Path) -> None:
    with Container(images["manager"], bundle, "web", API_KEY="a-key-for-the-images") as container:
        assert container.get("http://127.0.0.1:8000/livez")[0] == 200
        assert container.run("id", "-u") == str(USER)
        with pytest.raises(AssertionError, match="Read-only file system"):
            container.run("touch", "/srv/app/x")


def test_a_process_that_the_procfile_does_not_have_is_refused(images: dict[str, Image], bundle: Path) -> None:
    with Container(images["manager"], bundle, "nothing") as container:
        assert container.wait() == 2
        assert "one of: web forward-auth gateway worker" in container.output()


@pytest.mark.parametrize("name", ["web", "worker", "observer"])
def test_a_process_that_is_told_to_end_before_it_is_up_ends(images: dict[str, Image], bundle: Path, name: str) -> None:
    """A rollout over another one needn't wait until its pods are killed."""
    with Container(images["manager"], bundle, name, API_KEY="a-key-for-the-images") as container:
        assert container.stop() == 128 + signal.SIGTERM


def test_the_manager_holds_no_compiler_and_no_installer(images: dict[str, Image]) -> None:
    found = {path.name for folder in ("usr/bin", "usr/local/bin", "opt/venv/bin") for path in programs(images, folder)}
    assert "python3" in found
    assert found.isdisjoint({"cc", "gcc", "g++", "make", "ld", "pip", "pip3"})


def programs(images: dict[str, Image], folder: str) -> Iterator[Path]:
    yield from (images["manager"].root / folder).iterdir()


# The workspace


def test_the_editor_comes_up_on_an_empty_volume(images: dict[str, Image], bundle: Path, volume: Path) -> None:
    with Container(images["workspace"], bundle, volume=volume, WORKSPACE_SECRET_FILE="none") as container:
        status, text = container.get("http://127.0.0.1:8080/healthz")
        assert status == 200
        assert "status" in json.loads(text)
        status, page = container.get("http://127.0.0.1:8080/?folder=/workspace/app")
        assert status == 200
        assert "workbench.js" in page
        assert container.run("stat", "-Lc", "%u %F", "/app") == f"{USER} directory"
        signs = "/workspace/home/.local/state/workspace/terminals.json"
        container.run("timeout", "20", "sh", "-c", f"until [ -s {signs} ]; do sleep 0.1; done")
        with pytest.raises(AssertionError, match="Read-only file system"):
            container.run("touch", "/opt/editor/x")
        assert container.stop() == 0
    assert sorted(path.name for path in volume.iterdir()) == ["app", "home"]


def test_an_editor_that_is_not_told_who_may_come_in_does_not_start(
    images: dict[str, Image], bundle: Path, volume: Path
) -> None:
    """And says so where the cluster takes the reason of a failure from."""
    with Container(images["workspace"], bundle, volume=volume) as container:
        assert container.wait() == 1
        assert "WORKSPACE_SECRET_FILE is not set" in container.output()


def test_the_editor_has_the_extension_that_tells_of_its_use(images: dict[str, Image]) -> None:
    extensions = images["workspace"].root / "opt/editor/node_modules/code-server/lib/vscode/extensions"
    assert {path.name for path in (extensions / "workspace-activity").iterdir()} == {"extension.js", "package.json"}


def test_the_editors_terminals_have_keep(images: dict[str, Image]) -> None:
    keep = images["workspace"].root / "opt/editor/node_modules/code-server/lib/vscode/bin/remote-cli/keep"
    assert (keep.stat().st_mode & 0o777, keep.read_text()) == (0o755, (ROOT / "app/editor/keep").read_text())


def test_the_editor_starts_from_compiled_code(images: dict[str, Image], bundle: Path, volume: Path) -> None:
    """Node says itself whether it took a module of the editor from the cache in the image."""
    settings = {"NODE_DEBUG_NATIVE": "COMPILE_CACHE", "WORKSPACE_SECRET_FILE": "/dev/null"}
    # Into a file: what Node says of itself is lost in a pipe that is full for a moment.
    script = "exec node /opt/editor/workspace.js 2>/tmp/said"
    with Container(images["workspace"], bundle, "!", "sh", "-c", script, volume=volume, **settings) as container:
        container.get("http://127.0.0.1:8080/healthz")
        said = container.run("cat", "/tmp/said")
    accepted = [line for line in said.splitlines() if "was accepted" in line]
    assert any("code-server/out/node/main.js" in line for line in accepted)


AGENT = {
    "WORKSPACE_UUID": UUID,
    "WORKSPACE_DIR": "/workspace/app",
    "AGENT_TOKEN_FILE": "/workspace/token",
    "PYTHONPATH": "/workspace/app",
}


def test_the_agent_comes_up_on_an_empty_volume_before_the_editor(
    images: dict[str, Image], bundle: Path, volume: Path
) -> None:
    """It makes the folders itself, as private as the editor would, and ends when it is told to."""
    with Container(images["workspace"], bundle, "!", "tini", "--", "workspace-agent", volume=volume, **AGENT) as made:
        status, text = made.get("http://127.0.0.1:1111/health")
        assert (status, json.loads(text)["status"]) == (200, "ok")
        assert made.get("http://127.0.0.1:1111/history")[0] == 401
        assert made.run("stat", "-c", "%a", "/workspace/app", "/workspace/home").split() == ["700", "700"]
        assert made.stop() == 0


def test_the_agent_runs_our_code_and_not_the_users(images: dict[str, Image], bundle: Path, volume: Path) -> None:
    """A workspace's owner could put a module of the same name where Python looks first."""
    for name in ("app", "flask", "json"):
        package = volume / "app" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise SystemExit('the code of the user')")
    for path in (volume / "app", *(volume / "app").rglob("*")):
        os.chown(path, USER, USER)
    with Container(images["workspace"], bundle, "!", "tini", "--", "workspace-agent", volume=volume, **AGENT) as made:
        assert made.get("http://127.0.0.1:1111/health")[0] == 200


def test_the_agent_is_compiled_and_holds_no_more_than_it_needs(images: dict[str, Image]) -> None:
    """Nothing can be compiled on a root that nobody can write; and no client of Redis or of a store is within reach."""
    packages = images["workspace"].root / "opt/agent/lib/python3.11/site-packages"
    sources = list((packages / "app").rglob("*.py"))
    compiled = {path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc" for path in sources}
    assert len(sources) > 20
    assert [path for path in compiled if not path.exists()] == []
    assert (packages / "app/agent/system_prompt.md").exists()
    found = {path.name for path in packages.iterdir()}
    assert {"flask", "waitress", "openai"} <= found
    assert found.isdisjoint({"redis", "fsspec", "celery", "kubernetes", "cryptography"})
    own, editor = (
        {path.name for path in (packages / folder).iterdir()} - {"__pycache__"} for folder in ("app", "app/editor")
    )
    assert own == {"__init__.py", "agent", "editor", "volume"}
    assert editor == {"__init__.py", "code_server.py", "code_server.json"}


def test_a_workspace_has_the_tools_it_promises(images: dict[str, Image], bundle: Path) -> None:
    script = (
        "git --version && node --version && npm --version && python --version && python -m venv /tmp/v && echo $HOME"
    )
    text = ended(images["workspace"], bundle, "sh", "-ec", script)
    for expected in ("git version 2.", "v24.", "Python 3.11", "/workspace/home"):
        assert expected in text


def test_a_login_shell_keeps_the_images_path(images: dict[str, Image], bundle: Path) -> None:
    """Terminals and the agent's commands have their variables from one; an image of one's own may add to PATH."""
    text = ended(images["workspace"], bundle, "env", "PATH=/opt/own/bin:/usr/bin:/bin", "bash", "-lc", "echo $PATH")
    assert text.strip() == "/opt/own/bin:/usr/bin:/bin"


def test_an_archive_job_runs_our_code_and_not_the_users(images: dict[str, Image], bundle: Path, volume: Path) -> None:
    """A workspace's owner could put a module of the same name where Python looks first."""
    for folder in ("app", "home/.local/lib/python3.11/site-packages"):
        package = volume / folder / "workers"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise SystemExit('the code of the user')")
    script = "cd /workspace/app && PYTHONPATH=/workspace/app archive-job backup --help"
    with Container(images["workspace"], bundle, "!", "sh", "-c", script, volume=volume) as container:
        assert container.wait() == 0, container.output()
        assert "--identity" in container.output()


def test_a_job_backs_up_and_restores_the_volume(images: dict[str, Image], bundle: Path, volume: Path) -> None:
    """By the image's own program, with the files' modes and links, and its outcome where a cluster reads it."""
    files = volume / "app"
    files.mkdir()
    (files / "program").write_text("echo")
    (files / "program").chmod(0o750)
    (files / "link").symlink_to("program")
    for path in (files, *files.iterdir()):
        os.chown(path, USER, USER, follow_symlinks=False)
    identity = json.dumps(identity_fields(Identity(uuid=UUID, user_id="ann", created_at=1767225600.0)))
    common = (
        f"--url file:///workspace/store --name app-{UUID}-20260101-000000.zip --max-bytes 1000000 --max-entries 100"
    )
    script = (
        f"archive-job backup --files /workspace/app {common} --identity '{identity}' --at 1767225600; "
        f"archive-job restore --files /workspace/restored {common} --user-id ann"
    )
    with Container(images["workspace"], bundle, "!", "sh", "-ec", script, volume=volume) as container:
        assert container.wait() == 0, container.output()
        assert json.loads(container.last_words()) == {}
    restored = volume / "restored"
    assert (restored / "program").stat().st_mode & 0o777 == 0o750
    assert os.readlink(restored / "link") == "program"


# A workspace of one's own, by docs/own-image.md

OWN = f"localhost/own-workspace:test-{os.getpid()}"
BUILD = "echo 'int main(void) { return 7; }' >a.c && gcc a.c -o a; ./a || echo $?"
STUBS = f"""
import sys
from tests.model_server import Answer, ModelServer, ToolCall
from tests.unit.agent.fake_gateway import FakeGateway
with ModelServer() as model, FakeGateway(model.url) as gateway:
    model.script(Answer(tool_calls=[ToolCall("run_command", {{"command": {BUILD!r}}})]), Answer(text="done"))
    print(gateway.url, flush=True)
    sys.stdin.read()
"""
"""A model, and a manager before it."""


@pytest.fixture(scope="module")
def own(images: dict[str, Image], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image of the example, built from the workspaces' as `docker build` would."""
    archive = tmp_path_factory.mktemp("own") / "own.tar"
    oci.load(images["workspace"].archive, WORKSPACE)
    options = ["--runtime", "runc", "--format", "oci", "--pull-never", "--build-arg", f"WORKSPACE={WORKSPACE}"]
    oci.run(["buildah", "bud", *options, "--tag", OWN, str(ROOT / "docs" / "own-image")], BUILD_LIMIT)
    oci.save(OWN, archive)
    image = Image(archive)
    yield image
    image.close()
    oci.run(["buildah", "rmi", OWN], BUILD_LIMIT)


def test_an_image_of_ones_own_is_a_workspace_with_more(own: Image, bundle: Path, volume: Path) -> None:
    """The editor, a Job and the new compiler, all as the user that workspaces run as."""
    assert own.config["User"] == f"{USER}:{USER}"
    with Container(own, bundle, volume=volume, WORKSPACE_SECRET_FILE="none") as container:
        assert container.get("http://127.0.0.1:8080/healthz")[0] == 200
        script = f"cd /app && {BUILD} && id -u && archive-job backup --help"
        assert container.run("sh", "-c", script).startswith(f"7\n{USER}\nusage: ")


def test_an_agent_of_ones_own_works_on_prompts(own: Image, bundle: Path, volume: Path) -> None:
    """Started as a pod's, on the image's program."""
    (volume / "token").write_text(f"{TOKEN}\n{AGENT_SECRET}\n")
    script = 'until [ -s "$0" ]; do sleep 0.05; done; GATEWAY_URL=$(cat "$0") exec workspace-agent'
    command = ("!", "tini", "--", "sh", "-c", script, "/workspace/gateway")
    settings = AGENT | {"AGENT_PROGRAM": "python3 -I /opt/own/agent.py"}
    with Container(own, bundle, *command, volume=volume, **settings) as made:
        with made.beside(sys.executable, "-c", STUBS) as stubs:
            (volume / "gateway").write_text(stubs.readline().strip())
            assert made.get("http://127.0.0.1:1111/health")[0] == 200
            secret, prompt = f"Authorization: Bearer {AGENT_SECRET}", '{"id": "m1", "message": "write a.c"}'
            answer = made.run("curl", "-sS", "-H", secret, "-d", prompt, "http://127.0.0.1:1111/chat")
            assert json.loads(answer)["response"]["text"] == "done"
            history = json.loads(made.run("curl", "-sS", "-H", secret, "http://127.0.0.1:1111/history"))
            assert [each["content"] for each in history["messages"] if each["role"] == "tool"] == ["7"]
        assert made.stop() == 0


# All of them


@pytest.mark.parametrize("target", ["manager", "workspace", "redis"])
def test_an_image_names_itself_and_runs_as_nobody_special(images: dict[str, Image], target: str) -> None:
    config = images[target].config
    assert config["User"] == f"{USER}:{USER}"
    labels = config["Labels"]
    assert {f"org.opencontainers.image.{name}" for name in ("title", "description", "licenses", "base.name")} <= set(
        labels
    )


def test_redis_serves_as_the_manifests_start_it(images: dict[str, Image], bundle: Path) -> None:
    with Container(images["redis"], bundle, "!", "redis-server", "--dir", "/tmp", "--appendonly", "yes") as container:
        ping = 'until [ "$(redis-cli ping)" = PONG ]; do sleep 0.05; done; redis-cli info server'
        assert "redis_version:7." in container.run("timeout", "20", "sh", "-c", ping)


def test_nothing_is_built_again_when_nothing_has_changed(images: dict[str, Image]) -> None:
    before = {target: (path.resolve(), path.stat().st_ino) for target, path in archives().items()}
    assert {target: (path.resolve(), path.stat().st_ino) for target, path in archives().items()} == before
