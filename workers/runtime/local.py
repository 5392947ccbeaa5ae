"""Runs workspaces on this machine: each is a folder, and while it is up a detached code-server and a detached agent.

Its processes outlive the worker that started them; whatever worker comes next finds them by their
file in `running/`. That file is written before the process is started, so that no moment exists in
which a killed worker leaves a process nobody knows of.

`python -m workers.runtime.local stop-all` ends every workspace's processes, for when the whole
service goes down.
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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import redis

from app.sessions.backup_files import BackupFiles
from app.sessions.connections import connect
from app.sessions.errors import (
    FilesGone,
    NoSpace,
    PermanentError,
    RetryableError,
    SessionError,
    StillEnding,
    Superseded,
    WorkspaceConflict,
)
from app.sessions.model import Identity
from app.settings import Settings
from workers import archive
from workers.runtime import probe, processes
from workers.runtime.base import PATIENCE, BackupSummary, Check, Observation, Snapshot, never
from workers.runtime.folders import FILES, BrokenMeta, Folders, Lock, Meta, Running, raised
from workers.runtime.launching import Launcher
from workers.runtime.routes import Routes
from workers.runtime.watching import Watch, log_tail, pod_name
from workers.trees import delete_tree

log = logging.getLogger(__name__)

PORTS = range(20_000, 32_768)
"""Below the ports Linux gives to outgoing connections (ip_local_port_range): between being chosen and
being listened on, none of those can take one."""

LOCK_SLACK = 5.0
"""Seconds a call waits for another beyond the longest that one may wait for processes to end."""

REPLACE_PATIENCE = 0.2
"""Seconds a start waits for processes that must end before; an editor takes 0.02."""

SWAP_PATIENCE = 60.0
"""Seconds a restore waits for a backup of the files it replaces: all is extracted by then."""

DOOR_PATIENCE, DOOR_TICK = 0.5, 0.01
"""Seconds Traefik gets to drop a route, normally 0.1, and between two looks whether it has."""

STOPS_AT_ONCE = 8
"""How many workspaces `stop_all` stops at a time; each mostly waits."""


class LocalRuntime:
    """`Runtime` for one machine. `client` is a Redis for Traefik's routes."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self._settings = settings
        self._folders = Folders(settings.data_dir)
        self._launcher = Launcher(settings, self._folders)
        self._routes = Routes(client, settings)
        self._lock_wait = PATIENCE + LOCK_SLACK

    def ping(self) -> None:
        """See `Runtime.ping`. This machine does."""

    def provision(self, identity: Identity, generation: int, *, starting: bool = False) -> None:
        """See `Runtime.provision`. A folder without meta.json is from one that was killed: it is completed."""
        uuid = identity.uuid
        with _disk(), self._folders.locked(uuid, self._lock_wait) as lock:
            meta = self._folders.read_meta(uuid)
            if meta is None:
                meta = Meta(identity=identity, generation=generation)
            elif (meta.identity.uuid, meta.identity.user_id) != (uuid, identity.user_id):
                raise WorkspaceConflict(f"The workspace {uuid} that is here belongs to another user.")
            _refuse_older(lock, meta, generation)
            self._folders.make(uuid)
            if meta.restored and meta.restored == identity.restore_from:
                identity = replace(identity, restore_from="")
            self._folders.write_meta(replace(raised(meta, generation), identity=identity))

    def start(self, uuid: str, generation: int, epoch: int = 0) -> bool:
        """See `Runtime.start`. One that has hung since its start is replaced."""
        with _disk(), self._intent(uuid, generation) as meta:
            if meta is None:
                raise FilesGone(uuid)
            running = self._folders.read_running(uuid)
            ran = running is not None and self._works(running)
            if running is not None and ran:
                running = replace(running, generation=generation)
                self._folders.write_running(running)
                if epoch and epoch != self._launcher.epoch(uuid):
                    self._launcher.write_token(uuid, epoch)
            else:
                if running is not None:
                    self._end(uuid, REPLACE_PATIENCE)
                running = self._spawn(uuid, generation, epoch)
            self._routes.put(uuid, running.port, running.agent_port)
        return ran

    def stop(self, uuid: str, generation: int, patience: float = PATIENCE) -> None:
        """See `Runtime.stop`. 15 ms normally; what is there `stop_grace` after the first call is killed."""
        with _disk(), self._intent(uuid, generation):
            self._close_door(uuid)
            self._end(uuid, patience)

    def renew(self, uuid: str, epoch: int) -> None:
        """See `Runtime.renew`. An agent reads its token file for each call."""
        with _disk(), self._folders.locked(uuid, self._lock_wait):
            if self._folders.read_meta(uuid) is not None:
                self._launcher.write_token(uuid, epoch)

    def remove(self, uuid: str, generation: int, *, force: bool = False) -> None:
        """See `Runtime.remove`."""
        with _disk():
            with (
                contextlib.nullcontext() if force else self._folders.locked(uuid, LOCK_SLACK, FILES),
                self._folders.locked(uuid, self._lock_wait) as lock,
            ):
                with contextlib.suppress(BrokenMeta):
                    _refuse_older(lock, self._folders.read_meta(uuid), generation)
                self._close_door(uuid)
                self._end(uuid, PATIENCE)
                lock.bury(generation)
                self._folders.discard(uuid)
            self._folders.empty_trash()

    def backup(self, uuid: str, name: str, *, partial: bool = False, check: Check = never) -> BackupSummary:
        """See `Runtime.backup`. Takes only the lock on the files: a wake must not wait for it."""
        if self._folders.read_meta(uuid) is None:
            raise FilesGone(uuid)
        limits = (self._settings.restore_max_bytes, self._settings.restore_max_entries)
        terms = archive.Terms(*limits, partial, check)
        with _disk(), self._folders.locked(uuid, LOCK_SLACK, FILES, shared=True, check=check):
            meta = self._folders.read_meta(uuid)
            if meta is None:
                raise FilesGone(uuid)
            app = self._folders.app(uuid)
            return archive.write_backup(app, self._files(), name, meta.identity, time.time(), terms)

    def restore(self, identity: Identity, generation: int, *, check: Check = never) -> None:
        """See `Runtime.restore`. Done already: nothing happens, so that a repeated task takes no later work back."""
        uuid, name = identity.uuid, identity.restore_from
        self.provision(identity, generation)
        with _disk(), self._folders.locked(uuid, LOCK_SLACK, "restore", check=check):
            # The files come together beside the workspace's, without its lock: it can be removed meanwhile.
            staging = self._folders.workspace(uuid) / "restoring"
            # Of one that was killed, maybe after it was done.
            delete_tree(staging)
            meta = self._folders.read_meta(uuid)
            if not name or (meta and meta.restored == name):
                return
            staging.mkdir(mode=0o700)
            try:
                limits = (self._settings.restore_max_bytes, self._settings.restore_max_entries)
                archive.restore_backup(self._files(), name, staging / "app", *limits, check)
                with (
                    self._folders.locked(uuid, SWAP_PATIENCE, FILES, check=check),
                    self._intent(uuid, generation) as meta,
                ):
                    if meta is None:
                        raise Superseded(f"The workspace {uuid} was removed while it was being restored.")
                    self._folders.app(uuid).rename(staging / "replaced")
                    (staging / "app").rename(self._folders.app(uuid))
                    self._folders.write_meta(
                        replace(meta, identity=replace(meta.identity, restore_from=""), restored=name)
                    )
            finally:
                delete_tree(staging)

    def observe(self, uuid: str) -> Observation | None:
        """See `Runtime.observe`."""
        meta = self._folders.read_meta(uuid)
        return self._observation(meta) if meta else None

    def observe_all(self) -> Iterator[Observation]:
        """See `Runtime.observe_all`. A workspace whose meta.json is broken is logged and left out."""
        for uuid in self._folders.uuids():
            try:
                meta = self._folders.read_meta(uuid)
            except BrokenMeta as error:
                log.error("workspace left aside: %s", error, extra={"uuid": uuid})
                continue
            if meta is not None:
                yield self._observation(meta)

    def tidy(self) -> None:
        """See `Runtime.tidy`. There is nothing of the kind on a disk."""

    def watch(self, stop: Event, alive: Callable[[], None] = never) -> Iterator[Snapshot | Observation]:
        """See `Runtime.watch`. Also writes the routes again when Redis has lost them."""
        return Watch(self._folders, self._routes, self._launcher, self._settings).run(stop, alive)

    def stop_all(self) -> None:
        """Stop whatever runs, without an intent: the service is going down. Raises the first error, after
        trying all."""

        def stop_one(uuid: str) -> None:
            with _disk(), self._folders.locked(uuid, self._lock_wait):
                # Redis may have gone first; then the watcher removes the route when it starts again.
                with contextlib.suppress(RetryableError):
                    self._routes.drop(uuid)
                self._end(uuid)

        with ThreadPoolExecutor(STOPS_AT_ONCE) as pool:
            tries = [pool.submit(stop_one, uuid) for uuid in self._folders.running_files()]
        for done in tries:
            done.result()

    @contextlib.contextmanager
    def _intent(self, uuid: str, generation: int) -> Iterator[Meta | None]:
        """Hold the workspace for this intent, which is noted; None when there is no workspace."""
        with self._folders.locked(uuid, self._lock_wait) as lock:
            meta = self._folders.read_meta(uuid)
            _refuse_older(lock, meta, generation)
            if meta is not None and generation > meta.generation:
                meta = raised(meta, generation)
                self._folders.write_meta(meta)
            yield meta

    def _works(self, running: Running) -> bool:
        """Whether it is up and meant to be: alive, and answering once it had its time to start."""
        if running.stopping or running.process is None or running.boot != processes.current_boot():
            return False
        if not processes.alive(running.process):
            return False
        young = time.time() - running.started_at < self._settings.start_timeout
        return young or probe.answers(running.port)

    def _spawn(self, uuid: str, generation: int, epoch: int) -> Running:
        """Start both, the agent first: prompts may wait for it."""
        self._folders.make(uuid)
        for log_file in (self._folders.log(uuid), self._folders.agent_log(uuid)):
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
        self._folders.write_running(running)
        try:
            if running.agent_port:
                running = running.with_agent(self._launcher.agent(uuid, running.agent_port, epoch))
            process = self._launcher.editor(uuid, running.port)
        except OSError as error:
            self._end_processes(uuid, running, self._settings.stop_grace)
            self._folders.remove_running(uuid)
            if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
                raise RetryableError(f"The editor can't be started now: {error.strerror}.") from error
            raise PermanentError(f"The editor can't be run: {error.strerror}. CODE_SERVER must name it.") from error
        running = replace(running, pid=process.pid, started=process.started)
        self._folders.write_running(running)
        return running

    def _free_ports(self) -> tuple[int, int]:
        """Two ports nobody has: for an editor and an agent."""
        found: list[int] = []
        taken: set[int] = set()
        for uuid in self._folders.running_files():
            if running := self._folders.read_running(uuid):
                taken |= {running.port, running.agent_port}
        for port in random.sample(PORTS, 200):
            with socket.socket() as attempt, contextlib.suppress(OSError):
                if port not in taken:
                    attempt.bind(("127.0.0.1", port))
                    found.append(port)
            if len(found) == 2:
                return found[0], found[1]
        raise RetryableError("No ports are free for the workspace.")

    def _close_door(self, uuid: str) -> None:
        """Take the route away and let the proxy notice, so that no visitor meets a dead port behind it."""
        self._routes.drop(uuid)
        door, until = self._settings.workspace_port, time.monotonic() + DOOR_PATIENCE
        host, shown = self._routes.host(uuid), self._routes.own_pass(uuid)
        while door and time.monotonic() < until and probe.answers(door, host=host, bearer=shown):
            time.sleep(DOOR_TICK)

    def _end(self, uuid: str, patience: float = math.inf) -> None:
        """Leave no process of the workspace, and no file that says there should be one; `StillEnding` when some are
        left after so many seconds."""
        running = self._folders.read_running(uuid)
        told = running is not None and bool(running.stopping_at)
        if running is not None and not told:
            running = replace(running, stopping=True, stopping_at=time.time())
            self._folders.write_running(running)
        # Where no file says since when, nobody else knows it either.
        grace = self._settings.stop_grace
        left_of_it = grace - (time.time() - running.stopping_at) if running else min(grace, patience)
        self._end_processes(uuid, running, min(grace, left_of_it), patience, told=told)
        self._folders.remove_running(uuid)

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
        running = self._folders.read_running(uuid)
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
        tail = log_tail(self._folders.log(uuid), self._folders.data_dir)
        text = f"The editor ended unexpectedly. Last lines of its log:\n{tail}"
        return replace(down, generation=running.generation, failure=text)

    def _files(self) -> BackupFiles:
        return BackupFiles(self._settings.backups_location())


def _refuse_older(lock: Lock, meta: Meta | None, generation: int) -> None:
    newest = max(lock.generation, meta.generation if meta else 0)
    if generation < newest:
        raise Superseded(f"Intent {generation} was overtaken by {newest}.")


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """Turn what a file system may raise into the service's own errors."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace("The disk is full; nothing was replaced or deleted.") from error
        raise RetryableError(f"The workspace's files can't be changed: {error.strerror}.") from error


def main(arguments: list[str]) -> int:
    if arguments != ["stop-all"]:
        print("usage: python -m workers.runtime.local stop-all", file=sys.stderr)
        return 2
    settings = Settings.from_env()
    client = connect(settings.routes_url, settings.redis_timeout)
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
