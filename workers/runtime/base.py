"""The protocol of runtimes, which run the workspaces; each runtime has a package of its own.

Every call that changes something carries the `generation` of its intent. A runtime keeps the highest generation of each
workspace and refuses an older one with `Superseded`: this fencing token stops a worker that lost its lease from undoing
a newer intent.

Errors of all calls: `RuntimeUnavailable` when the runtime cannot be reached, `RetryableError` when it is busy,
`PermanentError` when trying again changes nothing, `WorkspaceConflict` when the workspace belongs to another session.
Every call is idempotent and bounded in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

from app.core.sessions.model import Identity

Check = Callable[[], None]
"""Called at least once a second during long work: raises `Superseded` when the work is no longer wanted. It is cheap,
and throttles itself."""

NO_CAPACITY = "no_capacity"
"""The code of a start that waits for room in the cluster."""

PATIENCE = 2.0
"""s a stop waits for processes to end: a pod takes 0.7, an editor 0.02. A longer stop is tried again later, so that it
occupies no worker."""


def never() -> None:
    """The `Check` of work that is never cancelled."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One workspace as the runtime sees it now.

    `generation` is the last intent carried out on it. `running` says that its processes should run and exist, `ready`
    that the editor answers; `failure` is why it is neither, with the last lines of its log. `deleted` says that it went
    down without a request to sleep: its pod or processes were deleted, or the machine was stopped. `agent` is the
    address of its agent, `http://IP:PORT`, "" if unknown; `trouble` is why its agent does not run although its editor
    does. `waiting` is what a start waits for, as a sentence, and `code` the same for programs, "" where there is none;
    with a `failure`, what it waited for too long.

    The other fields do not count when observations are compared. `epoch` is that of the agent's newest token, 0 if
    unknown, and set by `observe` and `observe_all` only. `created_at` is when the volume was created, `phases` when
    each phase of the current start was seen (`PHASES` in app/core/sessions/model.py), `began` when the editor's process
    began, 0 before that, `ended` when it ended, 0 while it runs; all in seconds since the epoch, as far as known.
    """

    identity: Identity
    generation: int
    running: bool = False
    ready: bool = False
    pod_name: str = ""
    failure: str = ""
    deleted: bool = False
    agent: str = ""
    trouble: str = ""
    waiting: str = ""
    code: str = ""
    epoch: int = field(default=0, compare=False)
    created_at: float = field(default=0.0, compare=False)
    began: float = field(default=0.0, compare=False)
    ended: float = field(default=0.0, compare=False)
    phases: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Snapshot:
    """All workspaces that are running or failed at one moment; all others are down. `unwished` says that a workspace
    which should be up cannot be down by request: the machine, or the whole service, was stopped."""

    workspaces: tuple[Observation, ...]
    unwished: bool = False


@dataclass(frozen=True, kw_only=True)
class BackupSummary:
    """The content of a verified backup. `created_at` is when it began (seconds since the epoch), `size` the bytes of
    the zip, and `content_bytes` those of its files without holes. `changed` names the files that changed at each
    attempt to read them, `unreadable` some of the `unreadable_count` unreadable files that it lacks."""

    created_at: float
    size: int
    files: int
    content_bytes: int
    sha256: str
    changed: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    unreadable_count: int = 0


class Runtime(Protocol):
    """Runs workspaces: folders and processes on this machine, or objects of a cluster."""

    def ping(self) -> None:
        """Return when the runtime answers."""

    def provision(self, identity: Identity, generation: int, *, starting: bool = False) -> None:
        """Create the workspace, not running, or adopt it when it is this session's already. With `starting` a start of
        the same intent follows at once, and may do part of the work."""

    def start(self, uuid: str, generation: int, epoch: int = 0) -> bool:
        """Start the processes and return; `watch` yields when they are ready. The agent gets the token of `epoch`, 0
        for the same epoch as before. True when they ran already: then only the generation, and another epoch, is noted.
        Raises `StillEnding` while old processes end, as `stop`, and `FilesGone` when there is no volume."""

    def stop(self, uuid: str, generation: int, patience: float = PATIENCE) -> None:
        """Stop the processes; return when none is left and the URL no longer leads to them. Raises `StillEnding` when
        that takes longer than `patience` (s): call again. Raises `FilesGoing`, and does nothing, when the stop would
        delete the files, because something else deleted the volume."""

    def renew(self, uuid: str, epoch: int) -> None:
        """Give the workspace's agent the token of this epoch: the running agent within a few seconds, and the next one.
        Belongs to no intent: the last call counts. Does nothing without a workspace."""

    def remove(self, uuid: str, generation: int, *, force: bool = False) -> None:
        """Delete the workspace with its volume; a missing workspace is fine. Where this waits for a running backup, it
        raises `RetryableError` when that does not end soon; with `force` it does not wait, and the backup fails."""

    def backup(self, uuid: str, name: str, *, partial: bool = False, check: Check = never) -> BackupSummary:
        """Write a verified backup `name` of the files, running or not. Nothing appears under that name unless the
        backup is valid, the files stayed in place all the time, and `restore` would accept it. Unreadable files raise
        `BackupIncomplete`, or are named in the backup when it may be `partial`. An error of `check` cancels the backup
        and leaves nothing. Raises `FilesGone` when there is no volume."""

    def restore(self, identity: Identity, generation: int, *, check: Check = never) -> None:
        """Replace the workspace's files by those of the backup `identity.restore_from`, all or nothing, and clear
        `restore_from` in the identity kept with the volume. An error of `check` cancels the restore and leaves the
        files unchanged."""

    def observe(self, uuid: str) -> Observation | None:
        """One workspace, None when it does not exist."""

    def observe_all(self) -> Iterator[Observation]:
        """Every workspace that has a volume, running or not."""

    def watch(self, stop: Event, alive: Callable[[], None] = never) -> Iterator[Snapshot | Observation]:
        """Yield a `Snapshot`, then every change as it happens (a stopped workspace too, with `running=False`), until
        `stop` is set. Sleeping workspaces cost nothing. The loop calls `alive` several times a second, which shows that
        it runs even if nothing happens."""

    def tidy(self) -> None:
        """Delete or update what other settings or an earlier release left. Called now and then."""
