"""What the service asks of whatever runs the workspaces: one protocol, one file for each runtime.

Every call that changes something carries the `generation` of the intent it carries out. A runtime
keeps the highest it has seen with the workspace and refuses an older one with `Superseded`: that
is the fencing token which stops a worker that lost its lease from undoing a newer intent.

Errors, for all calls: `RuntimeUnavailable` when the runtime can't be reached, `RetryableError` when it is busy,
`PermanentError` when trying again changes nothing, `WorkspaceConflict` when what is there belongs
to another session. Every call is idempotent and bounded in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

from app.sessions.model import Identity

Check = Callable[[], None]
"""Asked again and again during long work, at least once a second of it: raises `Superseded` when the work is no longer
wanted. It is cheap, and throttles itself."""


NO_CAPACITY = "no_capacity"
"""The code of a start that waits for room on a machine."""

PATIENCE = 2.0
"""s a stop waits for processes to end: a pod takes 0.7, an editor 0.02. Who needs longer is asked for again, so that no
worker waits for it."""


def never() -> None:
    """The `Check` of work that is wanted whatever happens."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One workspace as the runtime sees it now.

    `generation` is that of the last intent it carried out; `running` whether its processes are
    asked for and there; `ready` whether the editor answers; `failure` why it is neither, with the
    last lines of its log; `deleted` whether it went down without anyone's wish that it sleep: someone deleted what ran
    it, or its machine was stopped.
    `agent` is the address of its agent, `http://IP:PORT`, "" where the runtime doesn't know it; `trouble` why
    its agent does not run though its editor does.
    `waiting` is what a start that goes on waits for, as a sentence, and `code` the same for programs where there is
    one; beside a `failure`, what it has waited for too long.

    Four things are told beside what the workspace is, and make no difference between two looks at it: `epoch` is that
    of the token its agent was given last, 0 where that isn't known or names none, and told by `observe` and
    `observe_all` alone; `created_at` is when its volume was made, `phases` when each step of the present start was seen
    (see `PHASES` in app/sessions/model.py), `began` when its editor's process began, 0 where that is still to begin;
    all in seconds since the epoch, as far as they are known.
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
    phases: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Snapshot:
    """All workspaces that are running or failed at one moment: what is not in it is down. `unwished` says that nobody
    can have wished that of a workspace which should be up: the machine was stopped, or the whole service."""

    workspaces: tuple[Observation, ...]
    unwished: bool = False


@dataclass(frozen=True, kw_only=True)
class BackupSummary:
    """What a verified backup holds. `created_at` is when it was begun (seconds since the epoch), `size`
    that of the zip and `content_bytes` of the files in it, holes left out; `changed` names the files that changed
    while they were read, even after another try, `unreadable` some of the `unreadable_count` it lacks because they
    may not be read."""

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
        """Return when what runs the workspaces answers."""

    def provision(self, identity: Identity, generation: int, *, starting: bool = False) -> None:
        """Create the workspace's volume and what names it, not running; adopt it when it is already
        this session's. With `starting` a start of the same intent follows at once, and what that makes
        in any case may be left to it."""

    def start(self, uuid: str, generation: int, epoch: int = 0) -> bool:
        """Ask for the processes and return; `watch` tells when they are ready. The agent gets the token of `epoch`,
        0 for that of the one it was given last. True when they ran already: only the generation is noted then, and the
        epoch if it is another. Others that must end before: `StillEnding`, as of `stop`. No volume:
        `FilesGone`."""

    def stop(self, uuid: str, generation: int, patience: float = PATIENCE) -> None:
        """Return when no process of the workspace is left and its URL no longer leads to it. `StillEnding` where that
        takes longer than `patience` (s): they were told, and calling again sees how far they are. `FilesGoing` when
        that would be the end of its files too, because someone else had its volume deleted: nothing is done then."""

    def renew(self, uuid: str, epoch: int) -> None:
        """Have the workspace's agent show the token of this epoch, the one that runs within a few seconds, and the next
        whoever starts it. Of no intent: the last call counts. No workspace: success."""

    def remove(self, uuid: str, generation: int, *, force: bool = False) -> None:
        """Delete everything, the volume too. Nothing there: success. Where a backup that runs is waited for,
        `RetryableError` when it doesn't end soon; with `force` none is, and one that runs fails."""

    def backup(self, uuid: str, name: str, *, partial: bool = False, check: Check = never) -> BackupSummary:
        """Write the files to the backup store as `name`, verified; running or not. Nothing appears under that name
        unless all of it is good, the files stayed in place all the time, and `restore` would take it. Files that
        may not be read: `BackupIncomplete`, or, when it may be `partial`, a backup that names them. What `check`
        raises breaks it off, and leaves nothing. No volume: `FilesGone`."""

    def restore(self, identity: Identity, generation: int, *, check: Check = never) -> None:
        """Replace the workspace's files by those of the backup `identity.restore_from`, all or
        nothing, and clear `restore_from` in the identity kept beside the volume. What `check` raises breaks it off,
        and leaves the files as they were."""

    def observe(self, uuid: str) -> Observation | None:
        """One workspace, or None when there is nothing of it."""

    def observe_all(self) -> Iterator[Observation]:
        """Every workspace that has a volume, running or not."""

    def watch(self, stop: Event, alive: Callable[[], None] = never) -> Iterator[Snapshot | Observation]:
        """A `Snapshot`, then every change as it happens (a stopped workspace too, with
        `running=False`), until `stop` is set. Sleeping workspaces cost nothing here. `alive` is called several times a
        second, by the loop that looks: where nothing happens it is the only sign that somebody does."""

    def tidy(self) -> None:
        """Take away, or put right, what other settings or an earlier release left beside the workspaces. Asked now and
        then."""
