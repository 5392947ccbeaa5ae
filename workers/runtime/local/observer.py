"""Observes the workspaces of this machine that should be up.

The observer reads the files in `running/`, checks the processes, and probes the editors that are starting. A sleeping
workspace has no such file, so it costs nothing here.

An agent that died is started again, after a delay that doubles while it keeps dying: its conversation is on the disk,
and the user keeps the editor.
"""

from __future__ import annotations

import logging
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

from app.core.errors import FilesGone, RetryableError
from app.core.sessions.model import Identity
from app.core.sessions.reason_codes import ReasonCode
from app.process.settings import Settings
from workers.runtime import exits
from workers.runtime.base import Observation, Snapshot, never, silent_editor
from workers.runtime.local import processes
from workers.runtime.local.launcher import Launcher
from workers.runtime.local.probe import Probe
from workers.runtime.local.routes import Routes
from workers.runtime.local.storage import BrokenMeta, Running, WorkspaceStorage

log = logging.getLogger(__name__)

STARTING_TICK = 0.005
"""Seconds between looks while a workspace starts; a wake takes up to this much longer."""

TICK = 0.1
"""Seconds between looks otherwise; below the 0.12 s of a start, so that no wake waits for it."""

SLOW_TICK = 2.0
"""Seconds between looks at what changes slowly: the size of the logs, lost routes."""

FIRST_LOOK = 0.3
"""Seconds that running editors have to answer before the snapshot is yielded."""

SIGHTINGS = 2
"""Looks that must find a process gone: its last log lines are written after the first."""

ROUTE_PATIENCE = 1.0
"""Seconds an editor that answers waits for its route to be live, normally under 0.1. After that it counts as ready:
a proxy that is down is not a failure of the workspace."""

FIRST_DELAY, LONGEST_DELAY = 0.1, 30.0
"""Seconds before a dead agent is started again: doubled each time, reset once an agent lived `STABLE_AFTER` seconds."""

STABLE_AFTER = 60.0

LONGEST_STEP = 1.0
"""Seconds between two looks that count towards `START_TIMEOUT` at most: an observer that was held up saw nothing in the
rest."""

LOG_READ = 16_384
"""Bytes of a log that are read for its last lines."""

LOG_LIMIT = 5_000_000
"""Bytes at which a log is truncated; an editor writes a few thousand a day."""


class Tracked:
    """What is known of one workspace that should be up. `deadline` is the observed time by which its editor must
    answer."""

    def __init__(self, running: Running, version: int, identity: Identity, now: float, deadline: float) -> None:
        self.running = running
        self.version = version
        self.identity = identity
        self.deadline = deadline
        self.probe: Probe | None = Probe(running.port)
        self.route_deadline = 0.0
        self.failure = ""
        self.code = ""
        self.sightings = 0
        self.agent_delay = 0.0
        self.agent_due = 0.0
        self.agent_started = now
        self.told: Observation | None = None

    @property
    def starting(self) -> bool:
        return self.probe is not None and not self.running.stopping and not self.failure

    def close(self) -> None:
        """Stop probing the editor."""
        if self.probe is not None:
            self.probe.close()
            self.probe = None

    def observation(self) -> Observation:
        return Observation(
            identity=self.identity,
            generation=self.running.generation,
            running=not self.failure,
            ready=self.probe is None and not self.failure and not self.running.stopping,
            pod_name=pod_name(self.running) if not self.failure else "",
            failure=self.failure,
            code=self.code,
            agent=self.running.agent_address if not self.failure else "",
            phases={"started": self.running.started_at},
            began=self.running.started_at,
        )


class LocalObserver:
    """One run of `LocalRuntime.watch`."""

    def __init__(self, storage: WorkspaceStorage, routes: Routes, launcher: Launcher, settings: Settings) -> None:
        self._storage = storage
        self._routes = routes
        self._launcher = launcher
        self._start_timeout = settings.start_timeout
        self._proxy_port = settings.workspace_port
        self._boot = processes.current_boot()
        self._tracked: dict[str, Tracked] = {}
        self._routed = False
        self._next_slow = 0.0
        self._looked_at: float | None = None
        self._watched = 0.0

    def run(self, stop: Event, alive: Callable[[], None] = never) -> Iterator[Snapshot | Observation]:
        """See `Runtime.watch`."""
        try:
            self._first_look(stop)
            for tracked in self._tracked.values():
                tracked.told = tracked.observation()
            yield Snapshot(tuple(tracked.told for tracked in self._tracked.values() if tracked.told), unwished=True)
            while not stop.is_set():
                alive()
                yield from self._look(time.monotonic())
                self._wait(stop)
        finally:
            for tracked in self._tracked.values():
                tracked.close()

    def _first_look(self, stop: Event) -> None:
        until = time.monotonic() + FIRST_LOOK
        while True:
            list(self._look(time.monotonic()))
            unsure = any(tracked.starting or 0 < tracked.sightings < SIGHTINGS for tracked in self._tracked.values())
            if not unsure or stop.is_set() or time.monotonic() > until:
                return
            self._wait(stop)

    def _wait(self, stop: Event) -> None:
        """Wait until the next look is due, or until an editor that is starting answers."""
        starting = [tracked.probe for tracked in self._tracked.values() if tracked.starting and tracked.probe]
        if not starting:
            stop.wait(TICK)
            return
        # An editor that does not listen yet has no socket to select on: the tick is for those.
        sockets = [probe.waiting_on for probe in starting if probe.waiting_on is not None]
        select.select(sockets, [], [], STARTING_TICK)

    def _look(self, now: float) -> list[Observation]:
        """Everything that changed since the last look."""
        if self._looked_at is not None:
            self._watched += min(now - self._looked_at, LONGEST_STEP)
        self._looked_at = now
        changes = self._follow_files(now)
        slow = now >= self._next_slow
        if slow:
            self._next_slow = now + SLOW_TICK
            self._restore_routes()
        for uuid, tracked in list(self._tracked.items()):
            if not tracked.failure:
                self._look_at(uuid, tracked, now)
            if slow:
                self._look_for_files(uuid, tracked)
                _bound(self._storage.log(uuid))
                _bound(self._storage.agent_log(uuid))
            if uuid not in self._tracked:
                changes.append(self._down(tracked))
            elif tracked.told != (current := tracked.observation()) and not tracked.running.stopping:
                tracked.told = current
                changes.append(current)
        return changes

    def _follow_files(self, now: float) -> list[Observation]:
        """Read the files that appeared, changed or went; returns the workspaces that went down."""
        versions = self._storage.running_files()
        for uuid, version in versions.items():
            tracked = self._tracked.get(uuid)
            if tracked is not None and tracked.version == version:
                continue
            running = self._storage.read_running(uuid)
            if running is None or running.process is None:
                continue
            if tracked is not None and tracked.running.process == running.process and not tracked.failure:
                tracked.running, tracked.version = running, version
                tracked.identity = self._identity(uuid) or tracked.identity
                continue
            identity = self._identity(uuid)
            if identity is not None:
                if tracked is not None:
                    tracked.close()
                self._tracked[uuid] = Tracked(running, version, identity, now, self._watched + self._start_timeout)
            elif not self._storage.exists(uuid):
                # Deleted before the first look, with the identity.
                lost = Tracked(running, version, Identity(uuid=uuid, user_id="", created_at=0.0), now, self._watched)
                self._look_for_files(uuid, lost)
                self._tracked[uuid] = lost
        gone = [self._tracked.pop(uuid) for uuid in list(self._tracked) if uuid not in versions]
        return [self._down(tracked) for tracked in gone]

    def _look_at(self, uuid: str, tracked: Tracked, now: float) -> None:
        """Check whether one workspace is alive, answers, or has failed."""
        running = tracked.running
        if running.boot == self._boot and running.process and processes.alive(running.process):
            tracked.sightings = 0
            self._restart_agent(uuid, tracked, now)
            if tracked.starting and tracked.probe is not None:
                if tracked.probe.answered(now):
                    self._answered(tracked, now)
                elif tracked.route_deadline and now > tracked.route_deadline:
                    tracked.close()
                elif self._watched > tracked.deadline:
                    tracked.close()
                    tracked.failure = self._with_log(uuid, silent_editor(self._start_timeout))
                    tracked.code = ReasonCode.EDITOR_SILENT
            return
        tracked.sightings += 1
        if running.boot != self._boot:
            # The machine was restarted: the workspace did not fail.
            self._forget(uuid, running, keep_file=False)
            del self._tracked[uuid]
        elif tracked.sightings >= SIGHTINGS and not running.stopping:
            # It may have ended because its files are gone.
            self._look_for_files(uuid, tracked)
            if not tracked.failure:
                tracked.close()
                tracked.failure = self._with_log(uuid, "The editor ended unexpectedly.")
                tracked.code = ReasonCode.EDITOR_ENDED
            # Another workspace may soon use its port.
            self._forget(uuid, running, keep_file=True)
            if running.agent:
                # Its turn is interrupted, and resumes with the next start.
                processes.send([running.agent], signal.SIGTERM)

    def _look_for_files(self, uuid: str, tracked: Tracked) -> None:
        """The folder may be deleted behind running processes, which notice nothing."""
        if not tracked.running.stopping and not tracked.failure and not self._storage.exists(uuid):
            tracked.close()
            tracked.failure, tracked.code = str(FilesGone(uuid)), FilesGone.code

    def _restart_agent(self, uuid: str, tracked: Tracked, now: float) -> None:
        """Start a dead agent again once its delay has passed, unless another process holds the workspace's lock."""
        running = tracked.running
        if not running.agent or running.stopping or not self._launcher.has_agents or processes.alive(running.agent):
            return
        if not tracked.agent_due:
            stable = now - tracked.agent_started > STABLE_AFTER
            tracked.agent_delay = FIRST_DELAY if stable else min(LONGEST_DELAY, 2 * tracked.agent_delay or FIRST_DELAY)
            tracked.agent_due = now + tracked.agent_delay
        elif now >= tracked.agent_due:
            tracked.agent_due, tracked.agent_started = 0.0, now
            try:
                with self._storage.locked(uuid, wait=0):
                    if self._storage.read_running(uuid) == running:
                        log.warning("the agent ended; starting it again", extra={"uuid": uuid})
                        agent = self._launcher.agent(tracked.identity, running.agent_port, running.port)
                        tracked.running = running.with_agent(agent)
                        self._storage.write_running(tracked.running)
            except (OSError, RetryableError) as error:
                log.warning("the agent was not started again: %s", error, extra={"uuid": uuid})

    def _answered(self, tracked: Tracked, now: float) -> None:
        """The editor answers on its port; the workspace is ready once its public address leads there."""
        tracked.close()
        if self._proxy_port and not tracked.route_deadline:
            uuid = tracked.identity.uuid
            tracked.probe = Probe(self._proxy_port, self._routes.host(uuid), self._routes.probe_token(uuid))
            tracked.route_deadline = now + ROUTE_PATIENCE

    def _down(self, tracked: Tracked) -> Observation:
        tracked.close()
        uuid = tracked.identity.uuid
        try:
            meta = self._storage.read_meta(uuid)
        except BrokenMeta:
            meta = None
        return Observation(
            identity=meta.identity if meta else tracked.identity,
            generation=meta.generation if meta else tracked.running.generation,
            deleted=True,
        )

    def _identity(self, uuid: str) -> Identity | None:
        try:
            meta = self._storage.read_meta(uuid)
        except BrokenMeta as error:
            log.error("skipping a workspace: %s", error, extra={"uuid": uuid})
            return None
        return meta.identity if meta else None

    def _forget(self, uuid: str, running: Running, *, keep_file: bool) -> None:
        """Remove the route of a dead process, unless another process holds the workspace's lock."""
        try:
            with self._storage.locked(uuid, wait=0):
                if self._storage.read_running(uuid) == running:
                    if not keep_file:
                        self._storage.remove_running(uuid)
                    self._routes.drop(uuid)
        except RetryableError as error:
            log.warning("the route of a dead workspace was not removed: %s", error, extra={"uuid": uuid})

    def _restore_routes(self) -> None:
        """Write all routes at the start and after Redis has lost them, and remove those of workspaces that are down."""
        try:
            if self._routed and not self._routes.lost():
                return
            for uuid in self._routes.all() - set(self._tracked):
                with self._storage.locked(uuid, wait=0):
                    if self._storage.read_running(uuid) is None:
                        self._routes.drop(uuid)
            for uuid, tracked in self._tracked.items():
                if not tracked.failure and not tracked.running.stopping:
                    with self._storage.locked(uuid, wait=0):
                        if self._storage.read_running(uuid) == tracked.running:
                            self._routes.put(uuid, tracked.running.port, tracked.running.agent_port)
            self._routed = True
        except RetryableError as error:
            # Redis is unavailable, or a workspace is locked: the next slow look tries again.
            self._routed = False
            log.warning("routes not written: %s", error)

    def _with_log(self, uuid: str, sentence: str) -> str:
        return exits.with_log_tail(sentence, log_tail(self._storage.log(uuid), self._storage.data_dir))


def pod_name(running: Running) -> str:
    """What this runtime reports as `pod_name`."""
    return f"local-{running.pid}"


def log_tail(path: Path, data_dir: Path) -> str:
    """The last lines of a log for its user, without where `data_dir` lies on this machine."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LOG_READ))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    # Escapes go first: one inside the path would hide it from the replacement.
    return exits.log_tail(exits.ESCAPES.sub("", text).replace(str(data_dir), "$DATA_DIR"))


def _bound(path: Path) -> None:
    """Truncate a log that grew too long; its writer appends, so it simply continues."""
    try:
        if path.stat().st_size > LOG_LIMIT:
            with path.open("r+b") as file:
                file.truncate(0)
    except FileNotFoundError:
        pass
