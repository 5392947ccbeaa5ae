"""What the local runtime keeps on disk, and the lock that keeps its users apart.

    $DATA_DIR/workspaces/{uuid}/app/       what the user sees and what is backed up
                               /home/      the editor's own data, HOME in its terminals
                               /meta.json  whose it is, and the last intent; written last
                               /agent-token   what its agent is known by, and lets the manager in by
                               /editor-secret   what its editor lets visitors in by
                               /editor.log, /agent.log
    $DATA_DIR/running/{uuid}.json          its processes; only while it should be up
    $DATA_DIR/locks/{uuid}.lock            outlives the folder for a day, with the last intent in it
                   {uuid}.files.lock      who reads all files, and who takes them away
    $DATA_DIR/trash/                       folders on their way out

A file appears whole or not at all: it is written under another name and renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from app.sessions.errors import PermanentError, RetryableError
from app.sessions.model import UUID_PATTERN, Identity
from workers.runtime.base import Check, never
from workers.runtime.processes import Process
from workers.trees import delete_tree

LOCK_POLL = 0.01
"""Seconds between tries for a held lock; flock(2) knows no timeout."""

FILES = "files"
"""The purpose of the lock that keeps a workspace's folder of files where it is: shared by those who read all of it,
held alone by those who take it away. No change of the workspace's processes waits for it."""

TOMBSTONE = 86_400.0
"""Seconds a removed workspace's lock file stays, to refuse an intent older than the removal."""

EDITOR_SETTINGS = {
    "chat.disableAIFeatures": True,
    "workbench.startupEditor": "none",
    "telemetry.telemetryLevel": "off",
    "files.exclude": {".session": True},
}
"""What a new workspace's editor starts with: files and a terminal, no other vendor's sign-in before
them, and not the agent's own folder among them. The user's to change."""


class BrokenMeta(PermanentError):
    """A workspace's meta.json is not one."""


@dataclass(frozen=True, kw_only=True)
class Meta:
    """A workspace on disk: whose it is, the newest intent seen, and the backup it was restored from."""

    identity: Identity
    generation: int
    restored: str = ""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A workspace that should be up. `pid` is 0 from just before its process is started until just
    after; `started` is that process's start in clock ticks of the boot named `boot`; `started_at`
    seconds since the epoch; `stopping` that it is being stopped, so that its end is no failure, and `stopping_at`
    since when, in the same.

    `agent_pid` and `agent_started` are the same of its agent, which may die and come back without the
    editor; `agent_port` is 0 where there is none."""

    uuid: str
    generation: int
    port: int
    boot: str
    started_at: float
    pid: int = 0
    started: int = 0
    stopping: bool = False
    stopping_at: float = 0.0
    agent_port: int = 0
    agent_pid: int = 0
    agent_started: int = 0

    @property
    def process(self) -> Process | None:
        return Process(self.pid, self.started) if self.pid else None

    @property
    def agent(self) -> Process | None:
        return Process(self.agent_pid, self.agent_started) if self.agent_pid else None

    @property
    def agent_address(self) -> str:
        """Where its agent listens, "" where there is none."""
        return f"http://127.0.0.1:{self.agent_port}" if self.agent_port else ""

    def with_agent(self, agent: Process) -> Running:
        """The same with this agent in the place of the one before."""
        return replace(self, agent_pid=agent.pid, agent_started=agent.started)


@dataclass(frozen=True)
class Lock:
    """Held by one process at a time. `generation` is that of the workspace's removal, 0 for none."""

    file: int
    generation: int

    def bury(self, generation: int) -> None:
        """Leave the generation of the removal behind, for intents that come later."""
        text = str(max(generation, self.generation)).encode()
        os.ftruncate(self.file, 0)
        os.pwrite(self.file, text, 0)


class Folders:
    """The files of all workspaces of one data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.resolve()
        self._workspaces = self.data_dir / "workspaces"
        self._running = self.data_dir / "running"
        self._locks = self.data_dir / "locks"
        self._trash = self.data_dir / "trash"
        for folder in (self._workspaces, self._running, self._locks, self._trash):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    # Where things are

    def workspace(self, uuid: str) -> Path:
        return self._workspaces / _checked(uuid)

    def app(self, uuid: str) -> Path:
        return self.workspace(uuid) / "app"

    def home(self, uuid: str) -> Path:
        return self.workspace(uuid) / "home"

    def editor_data(self, uuid: str) -> Path:
        """Where code-server keeps its data by itself; in its HOME, so that its terminals agree."""
        return self.home(uuid) / ".local" / "share" / "code-server"

    def log(self, uuid: str) -> Path:
        return self.workspace(uuid) / "editor.log"

    def agent_log(self, uuid: str) -> Path:
        return self.workspace(uuid) / "agent.log"

    def token_file(self, uuid: str) -> Path:
        return self.workspace(uuid) / "agent-token"

    def editor_secret_file(self, uuid: str) -> Path:
        return self.workspace(uuid) / "editor-secret"

    # A workspace

    def make(self, uuid: str) -> None:
        """Create the workspace's folders; those that exist stay as they are."""
        self.workspace(uuid).mkdir(mode=0o700, exist_ok=True)
        self.home(uuid).mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.app(uuid).mkdir()
            self.app(uuid).chmod(0o755)
        settings = self.editor_data(uuid) / "User" / "settings.json"
        if not settings.exists():
            settings.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_json(settings, EDITOR_SETTINGS, durable=False)

    def uuids(self) -> list[str]:
        """Every folder that is named like a workspace."""
        return sorted(name for name in os.listdir(self._workspaces) if UUID_PATTERN.fullmatch(name))

    def read_meta(self, uuid: str) -> Meta | None:
        """Raises `BrokenMeta`; None when the workspace isn't there, or not all of it yet."""
        try:
            values = json.loads((self.workspace(uuid) / "meta.json").read_bytes())
            identity = Identity(**values.pop("identity"))
            return Meta(identity=identity, **values)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BrokenMeta(f"The file that says whose workspace {uuid} is can't be read.") from error

    def write_meta(self, meta: Meta) -> None:
        """On disk when this returns: it must survive a power cut, whatever Redis survives."""
        uuid = meta.identity.uuid
        values = {
            "identity": {**asdict(meta.identity), "labels": dict(meta.identity.labels)},
            "generation": meta.generation,
            "restored": meta.restored,
        }
        _write_json(self.workspace(uuid) / "meta.json", values, durable=True)

    def write_token(self, uuid: str, text: str) -> None:
        """Put the agent's secrets in place, readable for their owner only."""
        _write_secret(self.token_file(uuid), text)

    def write_editor_secret(self, uuid: str, text: str) -> None:
        """The same for the editor's."""
        _write_secret(self.editor_secret_file(uuid), text)

    def discard(self, uuid: str) -> None:
        """Take the workspace's folder out of sight in one step; `empty_trash` deletes it."""
        with contextlib.suppress(FileNotFoundError):
            grave = Path(tempfile.mkdtemp(prefix=f"{uuid}-", dir=self._trash))
            self.workspace(uuid).rename(grave / "workspace")
        # There are no files to lock any more; whoever waits for them notices.
        self._lock_file(uuid, FILES).unlink(missing_ok=True)

    def empty_trash(self) -> None:
        """Delete what was removed, also by those who were killed before they could; and tombstones
        that have had their day."""
        for grave in list(self._trash.iterdir()):
            delete_tree(grave)
        for entry in list(self._locks.glob("*.lock")):
            with contextlib.suppress(FileNotFoundError):
                old = time.time() - entry.stat().st_mtime > TOMBSTONE
                if old and not (self._workspaces / entry.name.split(".")[0]).exists():
                    self._unlink_lock(entry)

    # Its processes

    def read_running(self, uuid: str) -> Running | None:
        """None when it should be down. A file cut short by a power cut reads as a start that was
        never completed."""
        try:
            return Running(**json.loads((self._running / f"{_checked(uuid)}.json").read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return Running(uuid=uuid, generation=0, port=0, boot="", started_at=0.0)

    def write_running(self, running: Running) -> None:
        # Nothing in it outlives the boot, so it needs no trip to the disk.
        _write_json(self._running / f"{running.uuid}.json", asdict(running), durable=False)

    def remove_running(self, uuid: str) -> None:
        (self._running / f"{_checked(uuid)}.json").unlink(missing_ok=True)

    def running_files(self) -> dict[str, int]:
        """The workspaces that should be up, with a number that changes when their file does."""
        found = {}
        with os.scandir(self._running) as entries:
            for entry in entries:
                uuid, dot, ending = entry.name.partition(".")
                with contextlib.suppress(FileNotFoundError):
                    if dot and ending == "json" and UUID_PATTERN.fullmatch(uuid):
                        # A rename brings a new inode, even within one tick of the clock of the file system.
                        status = entry.stat()
                        found[uuid] = status.st_mtime_ns ^ status.st_ino
        return found

    # Its lock

    @contextlib.contextmanager
    def locked(
        self, uuid: str, wait: float, purpose: str = "", *, shared: bool = False, check: Check = never
    ) -> Iterator[Lock]:
        """Hold the workspace's lock, alone or with others who share it; `RetryableError` when it isn't free within
        `wait` seconds, and what `check` raises meanwhile.

        `purpose` names another lock of the same workspace.
        """
        path = self._lock_file(uuid, purpose)
        deadline = time.monotonic() + wait
        while (file := _try_lock(path, shared=shared)) is None:
            check()
            if time.monotonic() >= deadline:
                raise RetryableError(f"Workspace {uuid} is busy with another change.")
            time.sleep(LOCK_POLL)
        try:
            text = os.pread(file, 32, 0).decode(errors="replace")
            yield Lock(file, int(text) if text.isdecimal() else 0)
        finally:
            os.close(file)

    def _lock_file(self, uuid: str, purpose: str) -> Path:
        return self._locks / (f"{_checked(uuid)}.{purpose}.lock" if purpose else f"{_checked(uuid)}.lock")

    def _unlink_lock(self, path: Path) -> None:
        """Whoever waits for a lock that is unlinked notices, and takes the new one."""
        file = _try_lock(path)
        if file is not None:
            path.unlink(missing_ok=True)
            os.close(file)


def _try_lock(path: Path, *, shared: bool = False) -> int | None:
    """A descriptor that holds the lock, or None. Closing it lets go; so does the holder's death."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file), os.stat(path)):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(file)
    return None


def raised(meta: Meta, generation: int) -> Meta:
    """The same with the newest intent noted."""
    return replace(meta, generation=max(meta.generation, generation))


def _checked(uuid: str) -> str:
    if not UUID_PATTERN.fullmatch(uuid):
        raise PermanentError("A workspace's name is 8 characters of 0-9 and a-z.")
    return uuid


def _write_secret(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.rename(path)


def _write_json(path: Path, values: Mapping[str, Any], *, durable: bool) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w") as file:
        json.dump(values, file, sort_keys=True)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    draft.rename(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
