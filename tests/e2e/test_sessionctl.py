"""sessionctl as a person has it: installed into a fresh environment, against the real service."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.model_server import ModelServer
from tests.service import KEY, Service
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

MODEL_KEY = "the-models-key"
SILENT = 90.0
"""s: a process counts as silent 20 s after its last report; the rest is for a loaded machine."""


@pytest.fixture(scope="module")
def sessionctl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, installed from clients/python."""
    folder = tmp_path_factory.mktemp("installed")
    programs, uv = folder / "venv" / "bin", [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", str(folder / "venv")], check=True, timeout=120)
    install = [*uv, "pip", "install", "--quiet", "--python", str(programs / "python"), str(ROOT / "clients" / "python")]
    subprocess.run(install, check=True, timeout=300)
    return programs / "sessionctl"


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str, model: ModelServer) -> Iterator[Service]:
    settings = {"LLM_BASE_URL": model.url, "LLM_API_KEY": MODEL_KEY, "LLM_MODEL": "stub"}
    # A process that does not answer is started anew, unless the doctor is to see it.
    settings["HEARTBEAT_LIMIT"] = "600"
    running = Service(tmp_path_factory.mktemp("service"), code_server, **settings)
    running.start()
    yield running
    running.stop()


class Terminal:
    """A terminal in which only the address and the key are set."""

    def __init__(self, program: Path, service: Service) -> None:
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(program.parent), "TERM": "dumb"}
        self.environ |= {"API_URL": service.url, "API_KEY": KEY}
        self._program = program

    def run(self, *arguments: str, exit_code: int = 0, **environ: str) -> str:
        """The standard output of a command, which must end with this code."""
        done = subprocess.run(
            [str(self._program), *arguments],
            env=self.environ | environ,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == exit_code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def diagnosis(self, **environ: str) -> dict[str, str]:
        """The status of each of the doctor's checks."""
        done = subprocess.run(
            [str(self._program), "doctor", "--json"],
            env=self.environ | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return {each["check"]: each["status"] for each in json.loads(done.stdout)}


@pytest.fixture
def terminal(sessionctl: Path, service: Service) -> Terminal:
    return Terminal(sessionctl, service)


def test_from_nothing_to_a_chat_and_back(terminal: Terminal, tmp_path: Path) -> None:
    made = json.loads(terminal.run("create", "ada@example.com", "--label", "course=python-101", "--json"))
    uuid = made["uuid"]
    assert "active" in terminal.run("status", uuid)
    assert "hi" in terminal.run("chat", uuid, "create hello.py that prints hi and run it")
    assert uuid in terminal.run("list", "--search", "PYTHON-101")
    assert "workspace-link=" in terminal.run("open", uuid)
    assert "done" in terminal.run("backup", uuid)
    assert "sleeping" in terminal.run("sleep", uuid)
    assert "noted" in terminal.run("chat", uuid, "remember 7")
    events = terminal.run("chat", uuid, "remember 8", "--json").splitlines()
    assert json.loads(events[-1])["data"]["state"] == "processed"
    assert "ada@example.com" in terminal.run("costs")
    assert "create" in terminal.run("audit", "--session", uuid)
    deleted = json.loads(terminal.run("delete", uuid, "--yes", "--json"))
    assert deleted["backup"] in terminal.run("backups", uuid)
    assert Path(terminal.run("download", deleted["backup"], "-o", str(tmp_path)).strip()).stat().st_size > 0
    restored = json.loads(terminal.run("restore", deleted["backup"], "--user", "bob", "--json"))
    assert restored["session"]["user_id"] == "bob"
    terminal.run("status", "00000000", exit_code=4)
    terminal.run("delete", restored["uuid"], "--backup", "false", "--yes")


def test_a_wait_ends_with_what_it_waits_for_or_at_its_time(terminal: Terminal, service: Service) -> None:
    """At its time while the worker that would end it stands still."""
    uuid = json.loads(terminal.run("create", "ada@example.com", "--json"))["uuid"]
    with paused(service, "backup-worker"):
        backup = json.loads(terminal.run("backup", uuid, "--timeout", "2", "--json", exit_code=5))
    assert backup["status"] == "queued"
    with paused(service, "sweeper"):
        session = json.loads(terminal.run("sleep", uuid, "--timeout", "2", "--json", exit_code=5))
        assert session["session"]["status"] == "sleeping"
        assert service.processes(WORKSPACE_UUID=uuid)
    terminal.run("sleep", uuid)
    assert service.processes(WORKSPACE_UUID=uuid) == []
    assert "active" in terminal.run("wake", uuid)
    terminal.run("sleep", uuid)
    assert service.processes(WORKSPACE_UUID=uuid) == []
    terminal.run("delete", uuid, "--backup", "false", "--yes")


def test_a_rollback_ends_with_the_workspace_that_has_the_files_again(terminal: Terminal, service: Service) -> None:
    uuid = json.loads(terminal.run("create", "ada@example.com", "--json"))["uuid"]
    notes = service.files(uuid) / "notes.txt"
    notes.write_text("first")
    terminal.run("restore-point", uuid)
    [point] = json.loads(terminal.run("restore-points", uuid, "--json"))
    notes.write_text("second")
    rolled_back = json.loads(terminal.run("rollback", uuid, "--point", point["id"], "--json"))
    assert (rolled_back["session"]["status"], rolled_back["session"]["rollback_to"]) == ("active", None)
    assert notes.read_text() == "first"
    with paused(service, "backup-worker"):
        late = terminal.run("rollback", uuid, "--point", point["id"], "--timeout", "2", exit_code=5)
    assert "under way" in late
    terminal.run("delete", uuid, "--backup", "false", "--yes")


def test_the_doctor_finds_each_fault(terminal: Terminal, service: Service, model: ModelServer) -> None:
    """Eleven of them: three at the caller's, six of the service that are there at the same time, Redis, the model."""
    wait_for(lambda: not bad(terminal), "nothing to be wrong", lambda: str(terminal.diagnosis()), SILENT)
    assert terminal.diagnosis(API_KEY="") == {"configuration": "failed"}
    assert terminal.diagnosis(API_URL="http://127.0.0.1:9") == {"api": "failed"}
    assert terminal.diagnosis(API_KEY="wrong")["key"] == "failed"

    stopped = ("sweeper", "beat", "observer", "gateway", "forward-auth")
    store, aside = service.data_dir / "backups", service.data_dir / "backups-aside"
    with paused(service, *stopped):
        shutil.move(store, aside)
        store.write_text("no folder")
        try:
            found(terminal, "workers", "beat", "observer", "gateway", "ingress", "storage")
        finally:
            store.unlink()
            shutil.move(aside, store)
    with paused(service, "redis"):
        found(terminal, "redis")
    model.__exit__()
    # A gateway asks the model when it starts, then once a minute.
    service.kill("gateway")
    found(terminal, "model")


@contextmanager
def paused(service: Service, *names: str) -> Iterator[None]:
    """These of the service's processes, with their children, don't run in the block."""
    tops = [psutil.Process(int((service.data_dir / "pids" / f"{name}.pid").read_text())) for name in names]
    pids = [each.pid for top in tops for each in (top, *top.children(recursive=True))]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def found(terminal: Terminal, *faults: str) -> None:
    """Wait until the doctor names these faults."""
    wanted = f"{faults} to be found"
    wait_for(lambda: bad(terminal) >= set(faults), wanted, lambda: str(terminal.diagnosis()), SILENT)


def bad(terminal: Terminal) -> set[str]:
    """The checks that are neither fine nor only a warning."""
    return {name for name, status in terminal.diagnosis().items() if status in ("failed", "unknown")}
