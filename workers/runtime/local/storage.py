"""What the local runtime keeps on disk, and the locks on it.

    $DATA_DIR/workspaces/{uuid}/app/       what the user sees and what is backed up
                               /.session/  the conversation, which the agent makes; backed up too
                               /home/      the editor's own data, HOME in its terminals
                               /meta.json  its identity and the last intent; written last
                               /agent-token   the agent's secrets
                               /editor-secret   the secret by which its editor admits requests
                               /editor.log, /agent.log
                         /.place    a random name of this folder, which no other disk has
    $DATA_DIR/running/{uuid}.json          its processes; only while it should be up
    $DATA_DIR/locks/{uuid}.lock            outlives the folder for a day, and holds its last intent
                   {uuid}.files.lock      for reading all files, and for taking them away
                   {uuid}.drill.lock      for a drill's scratch place
    $DATA_DIR/trash/                       folders to be deleted
    $DATA_DIR/drills/{uuid}/               a restore point that is being proven

Files are written under another name and renamed, so they appear whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from app.core.errors import PermanentError, RetryableError
from app.core.sessions.model import UUID_PATTERN, Identity
from app.editor.code_server import CODE_SERVER
from workers.archive.format import CONVERSATION
from workers.rmtree import delete_tree
from workers.runtime.base import Check, never
from workers.runtime.local.processes import Process

log = logging.getLogger(__name__)

LOCK_POLL = 0.01
"""Seconds between tries for a held lock; flock(2) has no timeout."""

FILES = "files"
"""The lock on a workspace's folder of files: shared by readers of all files, exclusive for those who replace or remove
the folder. No change of the workspace's processes waits for it."""

DRILL = "drill"
"""The lock on a session's scratch place."""

TOKEN_LINE = 200
"""Characters of a token file's first line that are read: a token has 84 at most."""

TOMBSTONE = 86_400.0
"""Seconds the lock file of a removed workspace stays, to refuse intents older than the removal."""


class BrokenMeta(PermanentError):
    """A workspace's meta.json is damaged."""


@dataclass(frozen=True, kw_only=True)
class Meta:
    """A workspace on disk: its identity, the newest intent seen, and the backup it was restored from."""

    identity: Identity
    generation: int
    restored: str = ""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A workspace that should be up. `pid` is the editor's, 0 until its process is started; `started` is the start of
    that process in clock ticks of the boot named `boot`. `started_at` is in seconds since the epoch. `stopping` says
    that it is being stopped, so that its end is no failure; `stopping_at` is since when (seconds since the epoch).

    `agent_pid` and `agent_started` are the same for its agent, which may be restarted without the editor; `agent_port`
    is 0 where it has none."""

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
        """The URL of its agent, "" where it has none."""
        return f"http://127.0.0.1:{self.agent_port}" if self.agent_port else ""

    def with_agent(self, agent: Process) -> Running:
        """The same with this agent."""
        return replace(self, agent_pid=agent.pid, agent_started=agent.started)


@dataclass(frozen=True)
class Lock:
    """A held lock. `generation` is the intent that removed the workspace, 0 for none."""

    file: int
    generation: int

    def leave_tombstone(self, generation: int) -> None:
        """Note the generation of the removal, so that older intents are refused."""
        text = str(max(generation, self.generation)).encode()
        os.ftruncate(self.file, 0)
        os.pwrite(self.file, text, 0)


class WorkspaceStorage:
    """The files of all workspaces in one data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.resolve()
        self._workspaces = self.data_dir / "workspaces"
        self._running = self.data_dir / "running"
        self._locks = self.data_dir / "locks"
        self._trash = self.data_dir / "trash"
        self._drills = self.data_dir / "drills"
        for folder in (self._workspaces, self._running, self._locks, self._trash, self._drills):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _name_once(self._workspaces / ".place")

    # Where things are

    def workspace(self, uuid: str) -> Path:
        return self._workspaces / _checked(uuid)

    def app(self, uuid: str) -> Path:
        return self.workspace(uuid) / "app"

    def conversation(self, uuid: str) -> Path:
        return self.workspace(uuid) / CONVERSATION

    def home(self, uuid: str) -> Path:
        return self.workspace(uuid) / "home"

    def editor_data(self, uuid: str) -> Path:
        return self.home(uuid) / CODE_SERVER.data

    def log(self, uuid: str) -> Path:
        return self.workspace(uuid) / "editor.log"

    def agent_log(self, uuid: str) -> Path:
        return self.workspace(uuid) / "agent.log"

    def token_file(self, uuid: str) -> Path:
        return self.workspace(uuid) / "agent-token"

    def editor_secret_file(self, uuid: str) -> Path:
        return self.workspace(uuid) / "editor-secret"

    def drill(self, uuid: str) -> Path:
        """The scratch place of the session's drill, for who holds the lock `DRILL`."""
        return self._drills / _checked(uuid)

    def empty_drills(self) -> None:
        """Delete the scratch places of drills that were killed."""
        for uuid in [name for name in os.listdir(self._drills) if UUID_PATTERN.fullmatch(name)]:
            # That of a running one is locked.
            with contextlib.suppress(RetryableError), self.locked(uuid, 0.0, DRILL):
                delete_tree(self.drill(uuid))

    def place(self) -> str:
        """The name that the folder of all workspaces got when it was made, "" if it is not there."""
        try:
            return (self._workspaces / ".place").read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""

    # A workspace

    def make(self, uuid: str) -> None:
        """Create the workspace's folders that are missing."""
        self.workspace(uuid).mkdir(mode=0o700, exist_ok=True)
        self.home(uuid).mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.app(uuid).mkdir()
            self.app(uuid).chmod(0o755)
        settings = self.editor_data(uuid) / CODE_SERVER.settings_file
        if not settings.exists():
            settings.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_json(settings, CODE_SERVER.settings, durable=False)

    def uuids(self) -> list[str]:
        """The folders that are named like a workspace."""
        return sorted(name for name in os.listdir(self._workspaces) if UUID_PATTERN.fullmatch(name))

    def exists(self, uuid: str) -> bool:
        """Whether the workspace is complete."""
        return (self.workspace(uuid) / "meta.json").exists()

    def read_meta(self, uuid: str) -> Meta | None:
        """None when the workspace does not exist, or is not complete yet. Raises `BrokenMeta`."""
        try:
            values = json.loads((self.workspace(uuid) / "meta.json").read_bytes())
            identity = Identity(**values.pop("identity"))
            return Meta(identity=identity, **values)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BrokenMeta(f"The meta.json of workspace {uuid} is damaged.") from error

    def write_meta(self, meta: Meta) -> None:
        """Synced to disk when this returns: it must survive a power cut."""
        uuid = meta.identity.uuid
        values = {
            "identity": {**asdict(meta.identity), "labels": dict(meta.identity.labels)},
            "generation": meta.generation,
            "restored": meta.restored,
        }
        _write_json(self.workspace(uuid) / "meta.json", values, durable=True)

    def read_token(self, uuid: str) -> str:
        """The first line of the file that `write_token` wrote, "" where there is none."""
        try:
            with self.token_file(uuid).open(errors="replace") as file:
                return file.readline(TOKEN_LINE).strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""

    def write_token(self, uuid: str, text: str) -> None:
        """Write the agent's secrets, readable by their owner only."""
        _write_secret(self.token_file(uuid), text)

    def write_editor_secret(self, uuid: str, text: str) -> None:
        """Write the editor's secret, likewise."""
        _write_secret(self.editor_secret_file(uuid), text)

    def discard(self, uuid: str) -> None:
        """Move the workspace's folder to the trash in one step; `empty_trash` deletes it."""
        with contextlib.suppress(FileNotFoundError):
            grave = Path(tempfile.mkdtemp(prefix=f"{uuid}-", dir=self._trash))
            self.workspace(uuid).rename(grave / "workspace")
        # No files are left to lock; a process that waits for this lock notices.
        self._lock_file(uuid, FILES).unlink(missing_ok=True)

    def empty_trash(self, uuid: str = "") -> None:
        """Delete the trash, also of interrupted removals, and the lock files of workspaces removed over `TOMBSTONE`
        seconds ago. A folder that can't be deleted keeps no other; if it is of the session `uuid`, its
        `RetryableError` is raised at the end."""
        failed = None
        for grave in list(self._trash.iterdir()):
            try:
                delete_tree(grave)
            except RetryableError as error:
                log.warning("a removed workspace was not deleted (%s): %s", grave.name, error)
                if grave.name.startswith(f"{uuid}-"):
                    failed = error
        for entry in list(self._locks.glob("*.lock")):
            with contextlib.suppress(FileNotFoundError):
                old = time.time() - entry.stat().st_mtime > TOMBSTONE
                if old and not (self._workspaces / entry.name.split(".")[0]).exists():
                    self._unlink_lock(entry)
        if failed is not None:
            raise failed

    # Its processes

    def read_running(self, uuid: str) -> Running | None:
        """None when the workspace should be down. A file cut short by a power cut reads as a start that was never
        completed."""
        try:
            return Running(**json.loads((self._running / f"{_checked(uuid)}.json").read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return Running(uuid=uuid, generation=0, port=0, boot="", started_at=0.0)

    def write_running(self, running: Running) -> None:
        # Its content is valid for this boot only, so it is not synced.
        _write_json(self._running / f"{running.uuid}.json", asdict(running), durable=False)

    def remove_running(self, uuid: str) -> None:
        (self._running / f"{_checked(uuid)}.json").unlink(missing_ok=True)

    def running_files(self) -> dict[str, int]:
        """The workspaces that should be up, each with a number that changes when its file does."""
        found = {}
        with os.scandir(self._running) as entries:
            for entry in entries:
                uuid, dot, ending = entry.name.partition(".")
                with contextlib.suppress(FileNotFoundError):
                    if dot and ending == "json" and UUID_PATTERN.fullmatch(uuid):
                        # A rename brings a new inode, also within one tick of the file system's clock.
                        status = entry.stat()
                        found[uuid] = status.st_mtime_ns ^ status.st_ino
        return found

    # Its lock

    @contextlib.contextmanager
    def locked(
        self, uuid: str, wait: float, purpose: str = "", *, shared: bool = False, check: Check = never
    ) -> Iterator[Lock]:
        """Hold the workspace's lock, or the one that `purpose` names. Raises `RetryableError` when it is not free
        within `wait` seconds, and what `check` raises meanwhile."""
        path = self._lock_file(uuid, purpose)
        deadline = time.monotonic() + wait
        while (file := _try_lock(path, shared=shared)) is None:
            check()
            if time.monotonic() >= deadline:
                raise RetryableError(f"Workspace {uuid} is locked by another change; try again.")
            time.sleep(LOCK_POLL)
        try:
            text = os.pread(file, 32, 0).decode(errors="replace")
            yield Lock(file, int(text) if text.isdecimal() else 0)
        finally:
            os.close(file)

    def _lock_file(self, uuid: str, purpose: str) -> Path:
        return self._locks / (f"{_checked(uuid)}.{purpose}.lock" if purpose else f"{_checked(uuid)}.lock")

    def _unlink_lock(self, path: Path) -> None:
        """A process that waits for an unlinked lock notices, and takes the new one."""
        file = _try_lock(path)
        if file is not None:
            path.unlink(missing_ok=True)
            os.close(file)


def _try_lock(path: Path, *, shared: bool = False) -> int | None:
    """A descriptor that holds the lock, or None. Closing it, or the death of the process, releases the lock."""
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
    """The same with this intent noted, unless a newer one is."""
    return replace(meta, generation=max(meta.generation, generation))


def _checked(uuid: str) -> str:
    if not UUID_PATTERN.fullmatch(uuid):
        raise PermanentError("A workspace's uuid must be 8 characters of 0-9 and a-z.")
    return uuid


def _name_once(path: Path) -> None:
    """Write a random name, unless there is one."""
    if path.exists():
        return
    name = secrets.token_hex(16)
    draft = path.with_name(f"{path.name}.{name}")
    draft.write_text(name)
    # Of two processes the first one's counts.
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()


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
