"""Stand-ins for the outside world, written by hand and kept honest by the contract tests."""

from __future__ import annotations

import hashlib
import math
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import NoReturn

from app.core.errors import (
    ArchiveError,
    BackupIncomplete,
    BackupNotFound,
    FilesGone,
    PointsBroken,
    Superseded,
    WorkspaceConflict,
)
from app.core.restore_points.names import new_id, parse, reference
from app.core.sessions.model import Identity
from workers.runtime.base import (
    PATIENCE,
    BackupSummary,
    Check,
    Observation,
    PointOrder,
    PointSummary,
    Proof,
    ProofOrder,
    RestoredPoint,
    Snapshot,
    never,
    nobody,
    refuse_unrestored,
)


@dataclass
class FakeWorkspace:
    """A workspace in memory; one that is `waiting` has not begun. `files` are its content by path, `unreadable` the
    paths of some that may not be read."""

    identity: Identity
    generation: int
    restored: str = ""
    running: bool = False
    ready: bool = False
    failure: str = ""
    waiting: str = ""
    code: str = ""
    began: float = 0.0
    ended: float = 0.0
    agent: str = ""
    epoch: int = 0
    ports: tuple[int, ...] = ()
    files_deleted_at: float = 0.0
    files: dict[str, bytes] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class FakePoint:
    """A restore point in memory."""

    created_at: float
    files: dict[str, bytes]


class FakeRuntime:
    """`Runtime` in memory. A test plays the editor's part with `become_ready` and `crash`.

    `calls` holds what was asked for, in order. An exception put into `errors` under a method's name
    is raised by its next call, once, before anything changes; what `meanwhile` has under it happens first, once too.
    `orders` are those of the points that were made. `damaged` holds the references of points, and
    the names of backups, that can't be restored.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.workspaces: dict[str, FakeWorkspace] = {}
        self.backups: dict[str, dict[str, bytes]] = {}
        self.points: dict[str, FakePoint] = {}
        self.damaged: set[str] = set()
        self.backup_users: dict[str, str] = {}
        self.calls: list[tuple[str, str, int]] = []
        self.errors: dict[str, BaseException] = {}
        self.meanwhile: dict[str, Callable[[], object]] = {}
        self.orders: list[PointOrder] = []
        self.named = "here"
        self._buried: dict[str, int] = {}
        self._changes: queue.Queue[Observation] = queue.Queue()

    # What a test does to a workspace

    def become_ready(self, uuid: str) -> None:
        """Its editor answers now."""
        self.workspaces[uuid].ready = True
        self._tell(uuid)

    def crash(self, uuid: str, text: str) -> None:
        """Its processes end by themselves; `text` is the last they said."""
        workspace = self.workspaces[uuid]
        workspace.running = workspace.ready = False
        workspace.ended = self._clock()
        workspace.failure = f"The editor ended unexpectedly. Last lines of its log:\n{text}"
        self._tell(uuid)

    @property
    def called(self) -> list[str]:
        """The names of what was asked for, in order."""
        return [name for name, *_ in self.calls]

    # The protocol

    def ping(self) -> None:
        self._called("ping", "", 0)

    def place(self) -> str:
        return self.named

    def provision(self, identity: Identity, generation: int, *, starting: bool = False) -> None:
        self._called("provision", identity.uuid, generation)
        self._provision(identity, generation)

    def start(self, uuid: str, generation: int, epoch: int = 0) -> bool:
        self._called("start", uuid, generation)
        workspace = self._intent(uuid, generation)
        if workspace is None:
            raise FilesGone(uuid)
        ran = workspace.running
        workspace.epoch = epoch or workspace.epoch
        if not ran:
            workspace.running, workspace.failure, workspace.began = True, "", self._clock()
            workspace.ended = 0.0
        self._tell(uuid)
        return ran

    def stop(self, uuid: str, generation: int, patience: float = PATIENCE) -> None:
        self._called("stop", uuid, generation)
        workspace = self._intent(uuid, generation)
        if workspace is not None:
            self._stop(uuid, workspace)

    def discard(self, identity: Identity, generation: int) -> str:
        uuid = identity.uuid
        self._called("discard", uuid, generation)
        workspace = self._intent(uuid, generation)
        if workspace is None:
            return ""
        self._stop(uuid, workspace)
        if workspace.identity.volume == identity.volume:
            return ""
        del self.workspaces[uuid]
        return f"volume-{workspace.identity.volume}"

    def renew(self, uuid: str, epoch: int) -> None:
        self._called("renew", uuid, epoch)
        if uuid in self.workspaces:
            self.workspaces[uuid].epoch = epoch

    def look_again(self, uuid: str) -> None:
        self._called("look_again", uuid, 0)

    def lead_ports(self, uuid: str, ports: Sequence[int]) -> None:
        self._called("lead_ports", uuid, 0)
        if uuid in self.workspaces:
            self.workspaces[uuid].ports = tuple(ports)

    def remove(self, uuid: str, generation: int, *, force: bool = False) -> None:
        self._called("remove", uuid, generation)
        workspace = self._intent(uuid, generation)
        if workspace is not None:
            self._stop(uuid, workspace)
            del self.workspaces[uuid]
        self._buried[uuid] = max(generation, self._buried.get(uuid, 0))

    def backup(self, uuid: str, name: str, *, partial: bool = False, check: Check = never) -> BackupSummary:
        self._called("backup", uuid, 0)
        workspace = self.workspaces.get(uuid)
        if workspace is None:
            raise FilesGone(uuid)
        refuse_unrestored(workspace.identity)
        unreadable = tuple(sorted(workspace.unreadable & workspace.files.keys()))
        if unreadable and not partial:
            raise BackupIncomplete(f"Files that may not be read would be missing: {', '.join(unreadable)}.")
        files = {}
        for path in sorted(workspace.files.keys() - workspace.unreadable):
            check()
            files[path] = workspace.files[path]
        check()
        if self.workspaces.get(uuid) is not workspace:
            raise FilesGone(uuid)
        self.backups[name] = files
        self.backup_users[name] = workspace.identity.user_id
        content = sum(len(each) for each in files.values())
        digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        return BackupSummary(
            created_at=self._clock(),
            size=content,
            files=len(files),
            content_bytes=content,
            sha256=digest,
            unreadable=unreadable,
            unreadable_count=len(unreadable),
        )

    def make_point(self, uuid: str, order: PointOrder, *, check: Check = never) -> PointSummary:
        self._called("make_point", uuid, 0)
        self.orders.append(order)
        workspace = self.workspaces.get(uuid)
        if workspace is None:
            raise FilesGone(uuid)
        refuse_unrestored(workspace.identity)
        check()
        check()
        digest = hashlib.sha256(repr(sorted(workspace.files.items())).encode()).hexdigest()
        unchanged = digest == order.fingerprint and not order.full
        saved = {path: content for path, content in workspace.files.items() if path not in workspace.unreadable}
        if not unchanged:
            self.points[reference(uuid, order.id)] = FakePoint(order.at, saved)
            self.backup_users[reference(uuid, order.id)] = workspace.identity.user_id
        return PointSummary(
            id=order.parent if unchanged else order.id,
            created_at=order.at,
            read_until=order.at + 0.001,
            files=len(saved),
            size=sum(map(len, saved.values())),
            stored=0 if unchanged else 100,
            kept=0 if unchanged else self._kept(uuid),
            fingerprint=digest,
            repository=1,
            unreadable=len(workspace.files) - len(saved),
            unchanged=unchanged,
            checked=order.full,
            ms={"engine": 10},
        )

    def _kept(self, uuid: str) -> int:
        """What its points keep in the store: 10 KiB each, and their files."""
        own = [each for name, each in self.points.items() if name.startswith(reference(uuid, ""))]
        return sum(10_240 + sum(map(len, each.files.values())) for each in own)

    def prove_point(self, uuid: str, order: ProofOrder, *, check: Check = never) -> Proof:
        self._called("prove_point", uuid, 0)
        check()
        check()
        name = reference(uuid, order.id)
        point = self.points.get(name)
        if point is None or name in self.damaged:
            return Proof(id=order.id, failure="It can't be restored.", ms={"restore": 10})
        return Proof(
            id=order.id, files=len(point.files), size=order.size, compared=len(point.files), ms={"restore": 10}
        )

    def restore(
        self,
        identity: Identity,
        generation: int,
        *,
        newer_than: float = 0.0,
        going_back: bool = False,
        check: Check = never,
    ) -> RestoredPoint | None:
        self._called("restore", identity.uuid, generation)
        self._provision(identity, generation)
        workspace, name = self.workspaces[identity.uuid], identity.restore_from
        if not name or workspace.restored == identity.restore_mark:
            return None
        asked = name
        if parse(name):
            name = self._whole(name, newer_than)
        point = self.points.get(name)
        files = point.files if point else self.backups.get(name)
        if name in self.damaged:
            raise ArchiveError("The backup is damaged.")
        if files is None:
            raise BackupNotFound(name)
        for _ in files:
            check()
        check()
        own = self.backup_users.get(name, identity.user_id) == identity.user_id
        kept = ("../.undo/",) if own else ("../.undo/", "../.session/")
        workspace.files = {path: text for path, text in files.items() if not path.startswith(kept)}
        if point and going_back and any(path.startswith("../.session/") for path in workspace.files):
            workspace.files[f"../.session/until-{point.created_at:.3f}"] = b""
        workspace.identity = replace(workspace.identity, restore_from="")
        workspace.restored = identity.restore_mark
        named = parse(name)
        return RestoredPoint(named[1], point.created_at, fell_back=name != asked) if point and named else None

    def _whole(self, asked: str, newer_than: float) -> str:
        """The point, or the newest whole one before it."""
        own = {name: each for name, each in self.points.items() if name.startswith(asked[: -len(new_id())])}
        if not own:
            raise BackupNotFound(asked)
        made = own[asked].created_at if asked in own else math.inf
        older = {name: each.created_at for name, each in own.items() if newer_than < each.created_at < made}
        for name in (asked, *sorted(older, key=lambda each: older[each], reverse=True)):
            if name in own and name not in self.damaged:
                return name
        raise PointsBroken("None of this session's restore points is whole.")

    def observe(self, uuid: str) -> Observation | None:
        workspace = self.workspaces.get(uuid)
        return _observation(workspace) if workspace else None

    def observe_all(self) -> Iterator[Observation]:
        for uuid in sorted(self.workspaces):
            yield _observation(self.workspaces[uuid])

    def watch(
        self, stop: Event, alive: Callable[[], None] = never, look_again: Callable[[str], None] = nobody
    ) -> Iterator[Snapshot | Observation]:
        self._changes = queue.Queue()
        yield Snapshot(tuple(each for each in self.observe_all() if each.running or each.failure))
        while not stop.is_set():
            alive()
            try:
                yield self._changes.get(timeout=0.01)
            except queue.Empty:
                continue

    def tidy(self) -> None:
        """There is nothing beside the workspaces."""

    def _provision(self, identity: Identity, generation: int) -> None:
        uuid = identity.uuid
        there = self.workspaces.get(uuid)
        if there is not None and there.identity.user_id != identity.user_id:
            raise WorkspaceConflict(f"The workspace {uuid} that is here belongs to another user.")
        workspace = self._intent(uuid, generation)
        if workspace is None:
            self.workspaces[uuid] = FakeWorkspace(identity, generation)
        elif workspace.restored and workspace.restored == identity.restore_mark:
            workspace.identity = replace(identity, restore_from="")
        else:
            workspace.identity = identity

    def _stop(self, uuid: str, workspace: FakeWorkspace) -> None:
        if workspace.running or workspace.failure:
            workspace.running = workspace.ready = False
            workspace.failure = ""
            workspace.ended = self._clock()
            self._tell(uuid)

    def _intent(self, uuid: str, generation: int) -> FakeWorkspace | None:
        workspace = self.workspaces.get(uuid)
        newest = max(workspace.generation if workspace else 0, self._buried.get(uuid, 0))
        if generation < newest:
            raise Superseded(f"Intent {generation} was overtaken by {newest}.")
        if workspace is not None:
            workspace.generation = generation
        return workspace

    def _called(self, name: str, uuid: str, generation: int) -> None:
        self.calls.append((name, uuid, generation))
        if name in self.meanwhile:
            self.meanwhile.pop(name)()
        if name in self.errors:
            raise self.errors.pop(name)

    def _tell(self, uuid: str) -> None:
        self._changes.put(_observation(self.workspaces[uuid]))


def _observation(workspace: FakeWorkspace) -> Observation:
    return Observation(
        identity=workspace.identity,
        generation=workspace.generation,
        running=workspace.running,
        ready=workspace.ready,
        pod_name=f"fake-{workspace.identity.uuid}" if workspace.running else "",
        failure=workspace.failure,
        waiting=workspace.waiting,
        code=workspace.code,
        began=0.0 if workspace.waiting else workspace.began,
        ended=0.0 if workspace.running else workspace.ended,
        agent=workspace.agent,
        epoch=workspace.epoch,
        files_deleted_at=workspace.files_deleted_at,
    )


def raising(error: BaseException) -> Callable[..., NoReturn]:
    """A function that raises this, however it is called."""

    def raises(*_: object, **__: object) -> NoReturn:
        raise error

    return raises
