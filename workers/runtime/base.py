"""The protocol of runtimes, which run the workspaces; each runtime has a package of its own.

Every call that changes something carries the `generation` of its intent. A runtime keeps the highest generation of each
workspace and refuses an older one with `Superseded`: this fencing token stops a worker that lost its lease from undoing
a newer intent.

Errors of all calls: `RuntimeUnavailable` when the runtime cannot be reached, `RetryableError` when it is busy,
`PermanentError` when trying again changes nothing, `WorkspaceConflict` when the workspace belongs to another session.
Every call is idempotent and bounded in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any, Protocol

from app.core.errors import RetryableError
from app.core.sessions.model import Identity

Check = Callable[[], None]
"""Called at least once a second during long work: raises `Superseded` when the work is no longer wanted. It is cheap,
and throttles itself."""

PATIENCE = 2.0
"""s a stop waits for processes to end: a pod takes 0.7, an editor 0.02. A longer stop is tried again later, so that it
occupies no worker."""


def never() -> None:
    """The `Check` of work that is never cancelled."""


def nobody(uuid: str) -> None:
    """Asks nobody to look at a workspace again."""


def refuse_unrestored(kept: Identity) -> None:
    """Raises `RetryableError` where files are still to be restored, as the identity kept with the volume says: what it
    holds would be taken for their newest copy."""
    if kept.restore_from:
        raise RetryableError("The files are still to be restored. They can be saved after that.")


def silent_editor(patience: float) -> str:
    """Why a start failed whose editor ran for `patience` seconds, whether the observer or the sweep found it first."""
    return f"The editor did not answer within {patience:.0f} s."


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One workspace as the runtime sees it now.

    `generation` is the last intent carried out on it. `running` says that its processes should run and exist, `ready`
    that the editor answers; `failure` is why it is neither, with the last lines of its log. `deleted` says that it went
    down without a request to sleep: its pod or processes were deleted, or the machine was stopped. `agent` is the
    address of its agent, `http://IP:PORT`, "" if unknown; `trouble` is why its agent does not run although its editor
    does. `waiting` is what a start waits for, as a sentence; with a `failure`, what it waited for too long. `code`
    is the reason code of either, "" where there is none.

    The other fields do not count when observations are compared. `epoch` is that of the agent's newest token, 0 if
    unknown, and set by `observe` and `observe_all` only, as is `files_deleted_at`, when something deleted the volume
    although it is in use. `created_at` is when the volume was created, `phases` when each phase of the current start
    was seen (`PHASES` in app/core/sessions/model.py), `began` when the editor's process began, 0 before that, `ended`
    when it ended, 0 while it runs; all in seconds since the epoch, as far as known.
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
    files_deleted_at: float = field(default=0.0, compare=False)
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


@dataclass(frozen=True, kw_only=True)
class PointOrder:
    """A restore point to make. JSON-able, and no secret. `at` is seconds since the epoch; `parent` is the newest point,
    "" for none, and `fingerprint` of the files as that has them, "" if unknown. `full` looks at all content, reads the
    stored data back and prunes. `keep` is how many are kept: last, hourly, daily, weekly. Points known to be `broken`
    ask for a fresh repository; `fresh` asks for one in any case. Those that are `needed` for a restore stay."""

    uuid: str
    id: str
    at: float
    trigger: str
    message_id: str = ""
    parent: str = ""
    fingerprint: str = ""
    full: bool = False
    fresh: bool = False
    keep: tuple[int, int, int, int]
    broken: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    max_bytes: int
    max_entries: int
    identity: Mapping[str, Any]

    def begun(self, now: float) -> PointOrder:
        """The order once nothing is waited for any more: the point is of now (seconds since the epoch)."""
        return replace(self, at=max(self.at, now))


@dataclass(frozen=True, kw_only=True)
class PointSummary:
    """A restore point that was made, or, if nothing changed since its parent, `unchanged` and none. Its files were read
    from `created_at` to `read_until` (seconds since the epoch); it lacks so many `unreadable` ones. `stored` are the
    bytes that it added to the store, `kept` those that all points of the session keep there with it, 0 if `unchanged`.
    `forgotten` are the points that retention removed, `broken` those of which a check found data missing; `checked`
    says that all data was read back. `ms` are the engine's phases."""

    id: str
    created_at: float
    read_until: float = 0.0
    files: int
    size: int
    stored: int
    kept: int = 0
    fingerprint: str
    repository: int
    unreadable: int = 0
    unchanged: bool = False
    forgotten: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    checked: bool = False
    ms: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ProofOrder:
    """A restore point to prove, which has that many `files` with `size` bytes. JSON-able, and no secret."""

    uuid: str
    id: str
    files: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a drill found. `failure` is why the point could not be restored, "" if it could; `different` counts the
    files that are not as the manifest says, and `differences` names a few of them, each with what differs. `files` and
    `size` (bytes) are what was restored, `compared` counts the entries of the manifest, 0 where the point has none.
    `ms` are the phases."""

    id: str
    failure: str = ""
    different: int = 0
    differences: tuple[str, ...] = ()
    files: int = 0
    size: int = 0
    compared: int = 0
    ms: Mapping[str, int] = field(default_factory=dict)

    @property
    def proven(self) -> bool:
        return not self.failure and not self.different


@dataclass(frozen=True)
class RestoredPoint:
    """The restore point whose files a workspace has now; another one than was asked for if that `fell_back`."""

    id: str
    created_at: float
    fell_back: bool = False


class Runtime(Protocol):
    """Runs workspaces: folders and processes on this machine, or objects of a cluster."""

    def ping(self) -> None:
        """Return when the runtime answers."""

    def place(self) -> str:
        """What names the place of all workspaces, their disk or namespace: another disk, and a namespace that
        was made again, have another name. "" when it is not there. Raises `PermanentError` when it can't be told."""

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

    def look_again(self, uuid: str) -> None:
        """Tell the machine of a workspace that starts to retry at once what it was refused. Belongs to no intent, and
        may fail silently, as the machine retries by itself."""

    def lead_ports(self, uuid: str, ports: Sequence[int]) -> None:
        """Have the addresses of these ports lead to the workspace, and those of no other port, unless one route takes
        them all: forward auth refuses a port that is not opened. Belongs to no intent: the last call counts. Does
        nothing without a workspace."""

    def remove(self, uuid: str, generation: int, *, force: bool = False) -> None:
        """Delete the workspace with its volume; a missing workspace is fine. Where this waits for a running backup, it
        raises `RetryableError` when that does not end soon; with `force` it does not wait, and the backup fails."""

    def backup(self, uuid: str, name: str, *, partial: bool = False, check: Check = never) -> BackupSummary:
        """Write a verified backup `name` of the files, running or not. Nothing appears under that name unless the
        backup is valid, the files stayed in place all the time, and `restore` would accept it. Unreadable files raise
        `BackupIncomplete`, or are named in the backup when it may be `partial`. An error of `check` cancels the backup
        and leaves nothing. Raises `FilesGone` when there is no volume, and `RetryableError` while its files are still
        to be restored."""

    def make_point(self, uuid: str, order: PointOrder, *, check: Check = never) -> PointSummary:
        """Make a restore point of the files, running or not, unless nothing changed. An error of `check` cancels it.
        Raises `FilesGone` when there is no volume, and `RetryableError` while its files are still to be restored."""

    def prove_point(self, uuid: str, order: ProofOrder, *, check: Check = never) -> Proof:
        """Restore a stored restore point to a scratch place, compare it with its manifest, and remove it. Needs no
        volume, and changes nothing in the store. An error of `check` cancels it. A point that is not as it should be is
        no error; `NoSpace` and `RetryableError` tell nothing about it."""

    def restore(
        self,
        identity: Identity,
        generation: int,
        *,
        newer_than: float = 0.0,
        going_back: bool = False,
        check: Check = never,
    ) -> RestoredPoint | None:
        """Replace the workspace's files by those of the backup or restore point `identity.restore_from`, all or
        nothing, and clear `restore_from` in the identity kept with the volume; returns the restore point. Instead of a
        broken one it takes the newest whole one that is older, and `newer_than` this time (seconds since the epoch);
        raises `PointsBroken` when there is none. With `going_back` the conversation ends where the restore point
        begins. An error of `check` cancels the restore and leaves the files unchanged."""

    def discard(self, identity: Identity, generation: int) -> str:
        """End the processes of a workspace whose volume is lost, being deleted by something else, or out of reach, so
        that another can take its place. One that is out of reach, which `identity.volume` no longer is, is kept;
        returns its name, "" for none. Raises `StillEnding` as `stop`."""

    def observe(self, uuid: str) -> Observation | None:
        """One workspace, None when it does not exist."""

    def observe_all(self) -> Iterator[Observation]:
        """Every workspace that has a volume, running or not."""

    def watch(
        self, stop: Event, alive: Callable[[], None] = never, look_again: Callable[[str], None] = nobody
    ) -> Iterator[Snapshot | Observation]:
        """Yield a `Snapshot`, then every change as it happens (a stopped workspace too, with `running=False`), until
        `stop` is set. Sleeping workspaces cost nothing. The loop calls `alive` several times a second, which shows that
        it runs even if nothing happens. It only reads: where a machine should be told to `look_again` at a workspace,
        it says so, a few times for each start."""

    def tidy(self) -> None:
        """Delete what killed work left, and update what other settings made. Called now and then."""
