"""What the runtime contract needs of each runtime beyond the protocol: a hand inside its workspaces."""

from __future__ import annotations

import itertools
import os
import queue
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol

import redis
import requests

from app.core.access.agent_credentials import AgentCredentials
from app.core.backups.index import identity_fields
from app.core.backups.store import backup_name
from app.core.errors import StillEnding
from app.core.restore_points.names import new_id
from app.core.sessions.model import Identity
from app.process.settings import Settings
from tests.fakes import FakeRuntime
from tests.waiting import PATIENCE, wait_for
from workers.runtime.base import Observation, PointOrder, Runtime, Snapshot
from workers.runtime.local.driver import LocalRuntime
from workers.runtime.local.routes import ROUTER
from workers.runtime.local.storage import Running, WorkspaceStorage

KINDS = ["kubernetes"] if os.environ.get("KUBECONFIG") else ["fake", "local"]
"""The runtimes under test: that of a cluster where somebody points at one, else those that need none."""

SECRET_KEY = "the-secret-key-of-the-contract-tests"

ARCHIVE_KEY = "QSBrZXkgb2YgdGhlIGNvbnRyYWN0IHRlc3RzLCAzMiE="

A, B, C = "aaaa0001", "bbbb0002", "cccc0003"


def stop(runtime: Runtime, uuid: str, generation: int) -> None:
    """Stop a workspace as its worker does: asked again for as long as its processes take to end."""

    def stopped() -> bool:
        try:
            runtime.stop(uuid, generation)
        except StillEnding:
            return False
        return True

    wait_for(stopped, f"the processes of {uuid} to end", interval=0.0)


class Harness(Protocol):
    """A runtime under test."""

    runtime: Runtime

    def again(self) -> Runtime:
        """The runtime as another process would see it."""

    def write(self, uuid: str, name: str, content: bytes) -> None:
        """Put a file into the workspace, as its user would; the conversation's begin with `../.session/`."""

    def read(self, uuid: str, name: str) -> bytes | None:
        """A file of the workspace."""

    def leftovers(self) -> list[str]:
        """What backups and restores that came to no end have left."""

    def answer(self, uuid: str) -> None:
        """Let the editor become ready, if it doesn't by itself."""

    def crash(self, uuid: str) -> None:
        """Let the editor die."""

    def leads_to(self, uuid: str, port: int) -> bool:
        """Whether the address of that port leads to the workspace."""


class AgentHarness(Harness, Protocol):
    """A runtime under test that runs agents."""

    def agent_address(self, uuid: str) -> str:
        """Where the agent listens, "" when there is none."""

    def agent_life(self, uuid: str) -> object:
        """Something that is another one after the agent died and was started again."""

    def crash_agent(self, uuid: str) -> None:
        """Let the agent die, by SIGKILL."""


class FakeHarness:
    def __init__(self) -> None:
        self.fake = FakeRuntime()
        self.runtime: Runtime = self.fake

    def again(self) -> Runtime:
        return self.fake

    def write(self, uuid: str, name: str, content: bytes) -> None:
        self.fake.workspaces[uuid].files[name] = content

    def read(self, uuid: str, name: str) -> bytes | None:
        return self.fake.workspaces[uuid].files.get(name)

    def leftovers(self) -> list[str]:
        return []

    def answer(self, uuid: str) -> None:
        self.fake.become_ready(uuid)

    def crash(self, uuid: str) -> None:
        self.fake.crash(uuid, "killed by SIGKILL")

    def leads_to(self, uuid: str, port: int) -> bool:
        return uuid in self.fake.workspaces and port in self.fake.workspaces[uuid].ports


class LocalHarness:
    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self.settings = settings
        self.client = client
        self.local = LocalRuntime(settings, client)
        self.runtime: Runtime = self.local
        self.folders = WorkspaceStorage(settings.data_dir)

    def again(self) -> Runtime:
        return LocalRuntime(self.settings, self.client)

    def write(self, uuid: str, name: str, content: bytes) -> None:
        path = self.folders.app(uuid) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def read(self, uuid: str, name: str) -> bytes | None:
        path = self.folders.app(uuid) / name
        return path.read_bytes() if path.exists() else None

    def leftovers(self) -> list[str]:
        data = self.settings.data_dir
        patterns = ("backups/.app-*", "workspaces/*/.*ing-*", "trash/*")
        return [path.name for pattern in patterns for path in data.glob(pattern)]

    def answer(self, uuid: str) -> None:
        """It does so by itself."""

    def crash(self, uuid: str) -> None:
        os.kill(self.pid(uuid), signal.SIGKILL)

    def leads_to(self, uuid: str, port: int) -> bool:
        rule = self.client.get(f"{ROUTER}{uuid}/rule") or ""
        hosts = re.findall(r"HostRegexp\(`(.*?)`\)", rule)
        return any(re.search(each, self.settings.workspace_host(uuid, port)) for each in hosts)

    def pid(self, uuid: str) -> int:
        return self._running(uuid).pid

    def agent_address(self, uuid: str) -> str:
        running = self.folders.read_running(uuid)
        return running.agent_address if running else ""

    def agent_life(self, uuid: str) -> object:
        return self._running(uuid).agent

    def crash_agent(self, uuid: str) -> None:
        os.kill(self._running(uuid).agent_pid, signal.SIGKILL)

    def _running(self, uuid: str) -> Running:
        running = self.folders.read_running(uuid)
        assert running is not None
        return running


def make(
    kind: str, settings: Settings, client: redis.Redis, code_server: Callable[[], str], namespace: Callable[[], str]
) -> Harness:
    """The runtime of this name; only a real one needs the editor's program, or a namespace of a cluster, and runs
    agents."""
    settings = replace(settings, secret_key=SECRET_KEY, archive_key=ARCHIVE_KEY)
    if kind == "fake":
        return FakeHarness()
    if kind == "kubernetes":
        # Imported here: only this one needs a cluster's address to be known.
        from tests.contract.cluster import KubernetesHarness

        return KubernetesHarness(settings, client, namespace())
    return LocalHarness(replace(settings, code_server=code_server(), stop_grace=5.0), client)


class Seen:
    """What a watch has yielded, in order."""

    def __init__(self) -> None:
        self.all: queue.Queue[Snapshot | Observation] = queue.Queue()

    def snapshot(self) -> Snapshot:
        """The next thing seen, which must be a snapshot."""
        first = self.all.get(timeout=PATIENCE)
        assert isinstance(first, Snapshot)
        return first

    def until(self, wanted: Callable[[Observation], bool]) -> Observation:
        """The first observation from here on that is as wanted."""
        while True:
            seen = self.all.get(timeout=PATIENCE)
            if isinstance(seen, Observation) and wanted(seen):
                return seen


@contextmanager
def watching(runtime: Runtime, look_again: Callable[[str], None] = lambda uuid: None) -> Iterator[Seen]:
    """What the runtime's watch tells of, for as long as the block runs."""
    stop, seen = Event(), Seen()

    def watch() -> None:
        for each in runtime.watch(stop, look_again=look_again):
            seen.all.put(each)

    thread = Thread(target=watch, name="watch")
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not thread.is_alive(), "the watch did not end when it was told to"


backup_times = itertools.count(1_763_625_600)


def unused_backup_name(uuid: str) -> str:
    """Of a backup that no other test has made: in a cluster they outlive their test, and are not made again."""
    return backup_name(uuid, next(backup_times))


def order(uuid: str, **more: Any) -> PointOrder:
    """A restore point to make."""
    wanted = {"keep": (3, 24, 7, 4), "max_bytes": 10**9, "max_entries": 10**6}
    origin = identity_fields(identity(uuid))
    return PointOrder(
        **{"uuid": uuid, "id": new_id(), "at": time.time(), "trigger": "api", "identity": origin, **wanted, **more}
    )


def identity(uuid: str, user_id: str = "ada@example.com", **more: str) -> Identity:
    return Identity(uuid=uuid, user_id=user_id, created_at=1_763_625_600.0, labels={"team": "core"}, **more)  # type: ignore[arg-type]


def status_of_agent(address: str, secret: str) -> int:
    """How the agent there answers this secret; 0 when nothing does."""
    headers = {"Authorization": f"Bearer {secret}"}
    try:
        return requests.get(f"{address}/activity", headers=headers, timeout=60).status_code if address else 0
    except requests.ConnectionError:
        return 0


def wait_for_agent(agents: AgentHarness, uuid: str, epoch: int = 0) -> str:
    """The address of the agent that lets the manager in, as of this epoch."""
    secret = AgentCredentials([SECRET_KEY]).agent_secrets(uuid, epoch)[0]
    wait_for(lambda: status_of_agent(agents.agent_address(uuid), secret) == 200, f"the agent of {uuid}")
    return agents.agent_address(uuid)


def environment(pid: int) -> dict[str, str]:
    """What a process was started with. While it is being started there is nothing to read for a moment."""
    text = wait_for(Path(f"/proc/{pid}/environ").read_text, f"the environment of process {pid}", interval=0.001)
    pairs = text.split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
