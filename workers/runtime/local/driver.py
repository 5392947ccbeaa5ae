"""Runs workspaces on this machine: each is a folder, and while it is up a detached code-server and a detached agent.

The processes outlive the worker that started them; the next worker finds them by their file in `running/`. That file
is written before the process is started, so a killed worker never leaves an unknown process.

`python -m workers.runtime.local.driver stop-all` ends the processes of all workspaces, for a shutdown of the whole
service.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import redis

from app.core.backups.store import BackupStore
from app.core.errors import (
    FilesGone,
    NoSpace,
    PermanentError,
    RetryableError,
    SessionError,
    StillEnding,
    Superseded,
    WorkspaceConflict,
)
from app.core.redis.connections import connect
from app.core.restore_points import names
from app.core.sessions.model import Identity
from app.core.sessions.reason_codes import ReasonCode
from app.core.storage.archive_keys import ArchiveKeys, SessionKeys
from app.process.settings import Settings
from workers import archive, restore_points
from workers.runtime import exits
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
from workers.runtime.local import probe, processes
from workers.runtime.local.launcher import Launcher
from workers.runtime.local.observer import LocalObserver, log_tail, pod_name
from workers.runtime.local.routes import Routes
from workers.runtime.local.storage import DRILL, FILES, BrokenMeta, Lock, Meta, Running, WorkspaceStorage, raised
from workers.runtime.polling import wait_until

log = logging.getLogger(__name__)

PORTS = range(20_000, 32_768)
"""Below the ports that Linux gives to outgoing connections (ip_local_port_range): no such connection can take a port
between our choosing it and the editor's listening on it."""

LOCK_SLACK = 5.0
"""Seconds a call waits for the lock, beyond the longest time its holder may wait for processes to end."""

REPLACE_PATIENCE = 0.2
"""Seconds a start waits for the old processes to end; an editor takes 0.02."""

SWAP_PATIENCE = 60.0
"""Seconds a restore, when all is extracted, waits for a running backup of the files it replaces."""

ROUTE_PATIENCE, ROUTE_TICK = 0.5, 0.01
"""Seconds Traefik has to drop a route, normally 0.1, and between two looks whether it has."""

STOPS_AT_ONCE = 8
"""How many workspaces `stop_all` stops at a time; each stop mostly waits."""


class LocalRuntime:
    """`Runtime` for one machine. `client` is a Redis for Traefik's routes."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self._settings = settings
        self._storage = WorkspaceStorage(settings.data_dir)
        self._launcher = Launcher(settings, self._storage)
        self._routes = Routes(client, settings)
        self._lock_wait = PATIENCE + LOCK_SLACK

    def ping(self) -> None:
        """See `Runtime.ping`. This machine always answers."""

    def place(self) -> str:
        """See `Runtime.place`."""
        with _disk():
            return self._storage.place()

    def provision(self, identity: Identity, generation: int, *, starting: bool = False) -> None:
        """See `Runtime.provision`. Completes a folder without meta.json, which an interrupted call has left."""
        uuid = identity.uuid
        with _disk(), self._storage.locked(uuid, self._lock_wait) as lock:
            meta = self._storage.read_meta(uuid)
            if meta is None:
                meta = Meta(identity=identity, generation=generation)
            elif (meta.identity.uuid, meta.identity.user_id) != (uuid, identity.user_id):
                raise WorkspaceConflict(f"Workspace {uuid} already exists and belongs to another user.")
            _refuse_older(lock, meta, generation)
            self._storage.make(uuid)
            if meta.restored and meta.restored == identity.restore_mark:
                identity = replace(identity, restore_from="")
            self._storage.write_meta(replace(raised(meta, generation), identity=identity))

    def start(self, uuid: str, generation: int, epoch: int = 0) -> bool:
        """See `Runtime.start`. Replaces processes that have hung since their start."""
        with _disk(), self._intent(uuid, generation) as meta:
            if meta is None:
                raise FilesGone(uuid)
            running = self._storage.read_running(uuid)
            ran = running is not None and self._works(running)
            if running is not None and ran:
                running = replace(running, generation=generation)
                self._storage.write_running(running)
                if epoch and epoch != self._launcher.epoch(uuid):
                    self._launcher.write_token(uuid, epoch)
            else:
                if running is not None:
                    self._end(uuid, REPLACE_PATIENCE)
                running = self._spawn(meta.identity, generation, epoch)
            if not self._storage.exists(uuid):
                # Lost meanwhile, and perhaps made anew, empty.
                raise FilesGone(uuid)
            self._routes.put(uuid, running.port, running.agent_port)
        return ran

    def stop(self, uuid: str, generation: int, patience: float = PATIENCE) -> None:
        """See `Runtime.stop`. Takes 15 ms normally; processes left `stop_grace` after the first call are killed."""
        with _disk(), self._intent(uuid, generation):
            self._drop_route(uuid)
            self._end(uuid, patience)

    def discard(self, identity: Identity, generation: int) -> str:
        """See `Runtime.discard`. A folder that is gone leaves processes; none is out of reach."""
        self.stop(identity.uuid, generation)
        return ""

    def renew(self, uuid: str, epoch: int) -> None:
        """See `Runtime.renew`. The agent reads its token file for each request."""
        with _disk(), self._storage.locked(uuid, self._lock_wait):
            if self._storage.read_meta(uuid) is not None:
                self._launcher.write_token(uuid, epoch)

    def remove(self, uuid: str, generation: int, *, force: bool = False) -> None:
        """See `Runtime.remove`."""
        with _disk():
            with (
                contextlib.nullcontext() if force else self._storage.locked(uuid, LOCK_SLACK, FILES),
                self._storage.locked(uuid, self._lock_wait) as lock,
            ):
                with contextlib.suppress(BrokenMeta):
                    _refuse_older(lock, self._storage.read_meta(uuid), generation)
                self._drop_route(uuid)
                self._end(uuid, PATIENCE)
                lock.leave_tombstone(generation)
                self._storage.discard(uuid)
            self._storage.empty_trash(uuid)

    def backup(self, uuid: str, name: str, *, partial: bool = False, check: Check = never) -> BackupSummary:
        """See `Runtime.backup`. Takes only the lock on the files, so that no wake waits for it."""
        self._with_files(uuid)
        limits = (self._settings.restore_max_bytes, self._settings.restore_max_entries)
        terms = archive.Terms(*limits, partial, check)
        with _disk(), self._storage.locked(uuid, LOCK_SLACK, FILES, shared=True, check=check):
            meta = self._with_files(uuid)
            app = self._storage.app(uuid)
            return archive.write_backup(app, self._files(), name, meta.identity, time.time(), terms)

    def make_point(self, uuid: str, order: PointOrder, *, check: Check = never) -> PointSummary:
        """See `Runtime.make_point`. Takes the same lock as a backup."""
        self._with_files(uuid)
        with _disk(), self._storage.locked(uuid, LOCK_SLACK, FILES, shared=True, check=check):
            self._with_files(uuid)
            url, keys = self._settings.backups_location(), self._keys(uuid)
            volume = self._storage.workspace(uuid)
            begun = order.begun(time.time())
            return restore_points.make_point(volume, url, keys, begun, check, self._settings.restic)

    def prove_point(self, uuid: str, order: ProofOrder, *, check: Check = never) -> Proof:
        """See `Runtime.prove_point`. Takes no lock of the workspace: it may be awake, asleep or archived."""
        url, keys = self._settings.backups_location(), self._keys(uuid)
        with _disk(), self._storage.locked(uuid, LOCK_SLACK, DRILL, check=check):
            scratch = self._storage.drill(uuid)
            return restore_points.prove_point(scratch, url, keys, order, check, self._settings.restic)

    def restore(
        self,
        identity: Identity,
        generation: int,
        *,
        newer_than: float = 0.0,
        going_back: bool = False,
        check: Check = never,
    ) -> RestoredPoint | None:
        """See `Runtime.restore`. Does nothing when it was done before: a repeated task must not undo later work."""
        uuid, name, mark = identity.uuid, identity.restore_from, identity.restore_mark
        self.provision(identity, generation)
        with _disk(), self._storage.locked(uuid, LOCK_SLACK, "restore", check=check):
            archive.clear_leftovers(self._storage.workspace(uuid))
            meta = self._storage.read_meta(uuid)
            if not name or (meta and meta.restored == mark):
                return None

            @contextlib.contextmanager
            def exclusively() -> Iterator[None]:
                with self._storage.locked(uuid, SWAP_PATIENCE, FILES, check=check), self._existing(uuid, generation):
                    yield

            # The files are extracted without the workspace's lock, so it can be removed meanwhile.
            limits = (self._settings.restore_max_bytes, self._settings.restore_max_entries)
            restored = None
            if point := names.parse(name):
                source, point_id = point
                restored = restore_points.restore_point(
                    self._storage.workspace(uuid),
                    self._settings.backups_location(),
                    self._keys(source),
                    point_id,
                    limits,
                    check,
                    self._settings.restic,
                    user_id=identity.user_id,
                    newer_than=newer_than,
                    going_back=going_back,
                    exclusively=exclusively,
                )
            else:
                archive.restore_backup(
                    self._files(),
                    name,
                    self._storage.app(uuid),
                    *limits,
                    check,
                    user_id=identity.user_id,
                    exclusively=exclusively,
                )
            with self._existing(uuid, generation) as meta:
                self._storage.write_meta(replace(meta, identity=replace(meta.identity, restore_from=""), restored=mark))
            return restored

    def observe(self, uuid: str) -> Observation | None:
        """See `Runtime.observe`."""
        meta = self._storage.read_meta(uuid)
        return self._observation(meta) if meta else None

    def observe_all(self) -> Iterator[Observation]:
        """See `Runtime.observe_all`. A workspace whose meta.json is broken is logged and skipped."""
        for uuid in self._storage.uuids():
            try:
                meta = self._storage.read_meta(uuid)
            except BrokenMeta as error:
                log.error("skipping a workspace: %s", error, extra={"uuid": uuid})
                continue
            if meta is not None:
                yield self._observation(meta)

    def tidy(self) -> None:
        """See `Runtime.tidy`. Deletes what killed drills left."""
        with _disk():
            self._storage.empty_drills()

    def watch(
        self, stop: Event, alive: Callable[[], None] = never, look_again: Callable[[str], None] = nobody
    ) -> Iterator[Snapshot | Observation]:
        """See `Runtime.watch`. Also rewrites the routes after Redis has lost them."""
        return LocalObserver(self._storage, self._routes, self._launcher, self._settings).run(stop, alive)

    def look_again(self, uuid: str) -> None:
        """See `Runtime.look_again`. Nothing here waits for its next look."""

    def lead_ports(self, uuid: str, ports: Sequence[int]) -> None:
        """See `Runtime.lead_ports`. There is nothing to do: the workspace's own router takes all its ports."""

    def stop_all(self) -> None:
        """Stop all workspaces, without an intent: the service is going down. Raises the first error, after trying
        all."""

        def stop_one(uuid: str) -> None:
            with _disk(), self._storage.locked(uuid, self._lock_wait):
                # Redis may have stopped already; then the observer removes the route when it starts again.
                with contextlib.suppress(RetryableError):
                    self._routes.drop(uuid)
                self._end(uuid)

        with ThreadPoolExecutor(STOPS_AT_ONCE) as pool:
            tries = [pool.submit(stop_one, uuid) for uuid in self._storage.running_files()]
        for done in tries:
            done.result()

    @contextlib.contextmanager
    def _intent(self, uuid: str, generation: int) -> Iterator[Meta | None]:
        """Hold the workspace's lock and note this intent; yields None when the workspace does not exist."""
        with self._storage.locked(uuid, self._lock_wait) as lock:
            meta = self._storage.read_meta(uuid)
            _refuse_older(lock, meta, generation)
            if meta is not None and generation > meta.generation:
                meta = raised(meta, generation)
                self._storage.write_meta(meta)
            yield meta

    @contextlib.contextmanager
    def _existing(self, uuid: str, generation: int) -> Iterator[Meta]:
        """As `_intent`, but raises `Superseded` when the workspace was removed meanwhile."""
        with self._intent(uuid, generation) as meta:
            if meta is None:
                raise Superseded(f"Workspace {uuid} was removed while it was being restored.")
            yield meta

    def _with_files(self, uuid: str) -> Meta:
        """Raises `FilesGone` without a volume, and `RetryableError` where its files are still to be restored."""
        meta = self._storage.read_meta(uuid)
        if meta is None:
            raise FilesGone(uuid)
        refuse_unrestored(meta.identity)
        return meta

    def _works(self, running: Running) -> bool:
        """Whether it is up and should be: alive, and answering once its time to start is over."""
        if running.stopping or running.process is None or running.boot != processes.current_boot():
            return False
        if not processes.alive(running.process):
            return False
        young = time.time() - running.started_at < self._settings.start_timeout
        return young or probe.answers(running.port)

    def _spawn(self, identity: Identity, generation: int, epoch: int) -> Running:
        """Start agent and editor, the agent first: prompts may wait for it."""
        uuid = identity.uuid
        self._storage.make(uuid)
        for log_file in (self._storage.log(uuid), self._storage.agent_log(uuid)):
            if log_file.exists():
                log_file.replace(log_file.with_suffix(".log.1"))
        ports = self._free_ports()
        running = Running(
            uuid=uuid,
            generation=generation,
            port=ports[0],
            boot=processes.current_boot(),
            started_at=time.time(),
            agent_port=ports[1] if self._launcher.has_agents else 0,
        )
        self._storage.write_running(running)
        try:
            if running.agent_port:
                agent = self._launcher.agent(identity, running.agent_port, running.port, epoch)
                running = running.with_agent(agent)
            process = self._launcher.editor(identity, running.port, running.agent_port)
        except OSError as error:
            self._end_processes(uuid, running, self._settings.stop_grace)
            self._storage.remove_running(uuid)
            if not self._storage.exists(uuid):
                raise FilesGone(uuid) from error
            if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
                raise RetryableError(f"The editor cannot be started now: {error.strerror}.") from error
            raise PermanentError(f"The editor cannot be run: {error.strerror}. Set CODE_SERVER to its path.") from error
        running = replace(running, pid=process.pid, started=process.started)
        self._storage.write_running(running)
        return running

    def _free_ports(self) -> tuple[int, int]:
        """Two free ports: for an editor and an agent."""
        found: list[int] = []
        taken: set[int] = set()
        for uuid in self._storage.running_files():
            if running := self._storage.read_running(uuid):
                taken |= {running.port, running.agent_port}
        for port in random.sample(PORTS, 200):
            with socket.socket() as attempt, contextlib.suppress(OSError):
                if port not in taken:
                    attempt.bind(("127.0.0.1", port))
                    found.append(port)
            if len(found) == 2:
                return found[0], found[1]
        raise RetryableError("No free port was found for the workspace.")

    def _drop_route(self, uuid: str) -> None:
        """Remove the route and wait until the proxy has dropped it, so that no request reaches a dead port."""
        self._routes.drop(uuid)
        port, host, token = self._settings.workspace_port, self._routes.host(uuid), self._routes.probe_token(uuid)
        if port:
            wait_until(lambda: not probe.answers(port, host=host, bearer=token), ROUTE_PATIENCE, ROUTE_TICK)

    def _end(self, uuid: str, patience: float = math.inf) -> None:
        """End the workspace's processes and delete their file in `running/`; `StillEnding` when some are left after
        `patience` seconds."""
        running = self._storage.read_running(uuid)
        told = running is not None and bool(running.stopping_at)
        if running is not None and not told:
            running = replace(running, stopping=True, stopping_at=time.time())
            self._storage.write_running(running)
        # Without a file nobody knows when the stop began.
        grace = self._settings.stop_grace
        left_of_it = grace - (time.time() - running.stopping_at) if running else min(grace, patience)
        self._end_processes(uuid, running, min(grace, left_of_it), patience, told=told)
        self._storage.remove_running(uuid)

    def _end_processes(
        self, uuid: str, running: Running | None, grace: float, patience: float = math.inf, *, told: bool = False
    ) -> None:
        leaders = [running.process, running.agent] if running and running.boot == processes.current_boot() else []
        marks = [f"{name}={value}" for name, value in self._launcher.marks(uuid).items()]
        known = [leader for leader in leaders if leader]
        if processes.end(known, lambda: processes.marked(marks), grace, patience, told=told):
            raise StillEnding(uuid)

    def _observation(self, meta: Meta) -> Observation:
        uuid = meta.identity.uuid
        running = self._storage.read_running(uuid)
        down = Observation(identity=meta.identity, generation=meta.generation, epoch=self._launcher.epoch(uuid))
        if running is None or running.process is None or running.boot != processes.current_boot():
            return down
        if processes.alive(running.process):
            return replace(
                down,
                generation=running.generation,
                running=True,
                ready=not running.stopping and probe.answers(running.port),
                pod_name=pod_name(running),
                agent=running.agent_address,
                began=running.started_at,
            )
        if running.stopping:
            return down
        tail = log_tail(self._storage.log(uuid), self._storage.data_dir)
        text = exits.with_log_tail("The editor ended unexpectedly.", tail)
        return replace(down, generation=running.generation, failure=text, code=ReasonCode.EDITOR_ENDED)

    def _keys(self, uuid: str) -> SessionKeys:
        """The keys of a session's restore points."""
        keys = ArchiveKeys(self._settings.archive_key)
        if not keys:
            raise PermanentError("There are no restore points without an ARCHIVE_KEY.")
        return keys.session(uuid)

    def _files(self) -> BackupStore:
        return BackupStore(self._settings.backups_location(), ArchiveKeys(self._settings.archive_key))


def _refuse_older(lock: Lock, meta: Meta | None, generation: int) -> None:
    newest = max(lock.generation, meta.generation if meta else 0)
    if generation < newest:
        raise Superseded(f"Intent {generation} was superseded by intent {newest}.")


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """Turn a file system's errors into the service's."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace("The disk is full. Nothing was replaced or deleted.") from error
        raise RetryableError(f"The workspace's files cannot be changed: {error.strerror}.") from error


def main(arguments: list[str]) -> int:
    if arguments != ["stop-all"]:
        print("usage: python -m workers.runtime.local.driver stop-all", file=sys.stderr)
        return 2
    settings = Settings.from_env()
    client = connect(settings.routes_url)
    try:
        LocalRuntime(settings, client).stop_all()
    except SessionError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
