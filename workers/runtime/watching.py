"""Sees what becomes of the workspaces of this machine that should be up.

It looks at their files in `running/` and at their processes, and asks those that are starting
whether they answer. Workspaces that sleep have no such file, so they cost nothing here.

An agent that died is started again, later each time while it keeps dying: its conversation is on the disk, and its
end is no reason to take the editor from its user.
"""

from __future__ import annotations

import logging
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

from app.sessions.errors import RetryableError
from app.sessions.model import Identity
from app.settings import Settings
from workers.runtime import processes
from workers.runtime.base import Observation, Snapshot, never
from workers.runtime.folders import BrokenMeta, Folders, Running
from workers.runtime.launching import Launcher
from workers.runtime.probe import Probe
from workers.runtime.routes import Routes

log = logging.getLogger(__name__)

STARTING_TICK = 0.005
"""Seconds between looks while a workspace starts: the wake takes up to this much longer."""

TICK = 0.1
"""Seconds between looks otherwise; below the 0.12 s of a start, so that a wake never waits for it."""

SLOW_TICK = 2.0
"""Seconds between looks at what changes by the minute: last use, size of the log, lost routes."""

FIRST_LOOK = 0.3
"""Seconds for running editors to answer before the snapshot is given."""

SIGHTINGS = 2
"""Looks that must find a process gone: after the first, its last words reach the log."""

DOOR_PATIENCE = 1.0
"""Seconds an editor that answers may wait for its route to be live, normally under 0.1; after that it is
ready all the same, since a proxy that is down is no failure of the workspace's."""

FIRST_DELAY, LONGEST_DELAY = 0.1, 30.0
"""Seconds before a dead agent is started again; doubled with each, back at the first after a life of STEADY."""

STEADY = 60.0

LONGEST_STEP = 1.0
"""Seconds between two looks that count towards `START_TIMEOUT`; a watcher that was held up saw nothing in the rest."""

LOG_LINES, LOG_CHARS, LOG_TAIL = 15, 1500, 16_384
"""What of a log is shown for a failure, and how many bytes of it are read for that."""

LOG_LIMIT = 5_000_000
"""Bytes at which a log starts over; an editor writes a few thousand a day."""

ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-_])|[\x00-\x08\x0b-\x1f\x7f]")


class Tracked:
    """What is known of one workspace that should be up. `deadline` is the watched time by which its editor answers."""

    def __init__(self, running: Running, version: int, identity: Identity, now: float, deadline: float) -> None:
        self.running = running
        self.version = version
        self.identity = identity
        self.deadline = deadline
        self.probe: Probe | None = Probe(running.port)
        self.door_deadline = 0.0
        self.failure = ""
        self.sightings = 0
        self.agent_delay = 0.0
        self.agent_due = 0.0
        self.agent_started = now
        self.told: Observation | None = None

    @property
    def starting(self) -> bool:
        return self.probe is not None and not self.running.stopping and not self.failure

    def close(self) -> None:
        """It needs no more asking."""
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
            agent=self.running.agent_address if not self.failure else "",
            phases={"started": self.running.started_at},
            began=self.running.started_at,
        )


class Watch:
    """One pass of `LocalRuntime.watch`."""

    def __init__(self, folders: Folders, routes: Routes, launcher: Launcher, settings: Settings) -> None:
        self._folders = folders
        self._routes = routes
        self._launcher = launcher
        self._start_timeout = settings.start_timeout
        self._door = settings.workspace_port
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
        """Until the next look is due; at once when an editor that is starting has answered."""
        starting = [tracked.probe for tracked in self._tracked.values() if tracked.starting and tracked.probe]
        if not starting:
            stop.wait(TICK)
            return
        # Those that don't listen yet have nothing to select on: they set the pace, the tick.
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
            self._mend_routes()
        for uuid, tracked in list(self._tracked.items()):
            if not tracked.failure:
                self._look_at(uuid, tracked, now)
            if slow:
                _bound(self._folders.log(uuid))
                _bound(self._folders.agent_log(uuid))
            if uuid not in self._tracked:
                changes.append(self._down(tracked))
            elif tracked.told != (current := tracked.observation()) and not tracked.running.stopping:
                tracked.told = current
                changes.append(current)
        return changes

    def _follow_files(self, now: float) -> list[Observation]:
        """Take in the files that came, changed or went; returns the workspaces that went down."""
        versions = self._folders.running_files()
        for uuid, version in versions.items():
            tracked = self._tracked.get(uuid)
            if tracked is not None and tracked.version == version:
                continue
            running = self._folders.read_running(uuid)
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
        gone = [self._tracked.pop(uuid) for uuid in list(self._tracked) if uuid not in versions]
        return [self._down(tracked) for tracked in gone]

    def _look_at(self, uuid: str, tracked: Tracked, now: float) -> None:
        """See whether one workspace lives, answers, or has failed."""
        running = tracked.running
        if running.boot == self._boot and running.process and processes.alive(running.process):
            tracked.sightings = 0
            self._mend_agent(uuid, tracked, now)
            if tracked.starting and tracked.probe is not None:
                if tracked.probe.answered(now):
                    self._answered(tracked, now)
                elif tracked.door_deadline and now > tracked.door_deadline:
                    tracked.close()
                elif self._watched > tracked.deadline:
                    tracked.close()
                    tracked.failure = f"The editor did not answer within {self._start_timeout:.0f} s.{self._tail(uuid)}"
            return
        tracked.sightings += 1
        if running.boot != self._boot:
            # The machine was started anew: nothing went wrong with this one.
            self._forget(uuid, running, keep_file=False)
            del self._tracked[uuid]
        elif tracked.sightings >= SIGHTINGS and not running.stopping:
            tracked.close()
            tracked.failure = f"The editor ended unexpectedly.{self._tail(uuid)}"
            # Its port may soon be another's.
            self._forget(uuid, running, keep_file=True)
            if running.agent:
                # Its turn rests, and goes on with the next start.
                processes.send([running.agent], signal.SIGTERM)

    def _mend_agent(self, uuid: str, tracked: Tracked, now: float) -> None:
        """Start an agent again that has died, in its time and while nobody else is at this workspace."""
        running = tracked.running
        if not running.agent or running.stopping or not self._launcher.has_agents or processes.alive(running.agent):
            return
        if not tracked.agent_due:
            steady = now - tracked.agent_started > STEADY
            tracked.agent_delay = FIRST_DELAY if steady else min(LONGEST_DELAY, 2 * tracked.agent_delay or FIRST_DELAY)
            tracked.agent_due = now + tracked.agent_delay
        elif now >= tracked.agent_due:
            tracked.agent_due, tracked.agent_started = 0.0, now
            try:
                with self._folders.locked(uuid, wait=0):
                    if self._folders.read_running(uuid) == running:
                        log.warning("agent ended, started again", extra={"uuid": uuid})
                        tracked.running = running.with_agent(self._launcher.agent(uuid, running.agent_port))
                        self._folders.write_running(tracked.running)
            except (OSError, RetryableError) as error:
                log.warning("agent not started again: %s", error, extra={"uuid": uuid})

    def _answered(self, tracked: Tracked, now: float) -> None:
        """An editor that answers is ready once it answers at its public address too."""
        tracked.close()
        if self._door and not tracked.door_deadline:
            uuid = tracked.identity.uuid
            tracked.probe = Probe(self._door, self._routes.host(uuid), self._routes.own_pass(uuid))
            tracked.door_deadline = now + DOOR_PATIENCE

    def _down(self, tracked: Tracked) -> Observation:
        tracked.close()
        uuid = tracked.identity.uuid
        try:
            meta = self._folders.read_meta(uuid)
        except BrokenMeta:
            meta = None
        return Observation(
            identity=meta.identity if meta else tracked.identity,
            generation=meta.generation if meta else tracked.running.generation,
            deleted=True,
        )

    def _identity(self, uuid: str) -> Identity | None:
        try:
            meta = self._folders.read_meta(uuid)
        except BrokenMeta as error:
            log.error("workspace left aside: %s", error, extra={"uuid": uuid})
            return None
        return meta.identity if meta else None

    def _forget(self, uuid: str, running: Running, *, keep_file: bool) -> None:
        """Take the route of a dead process away, unless someone is at this workspace already."""
        try:
            with self._folders.locked(uuid, wait=0):
                if self._folders.read_running(uuid) == running:
                    if not keep_file:
                        self._folders.remove_running(uuid)
                    self._routes.drop(uuid)
        except RetryableError as error:
            log.warning("route of a dead workspace left: %s", error, extra={"uuid": uuid})

    def _mend_routes(self) -> None:
        """Write all routes anew when this starts or Redis has lost them, and remove those that lead nowhere."""
        try:
            if self._routed and not self._routes.lost():
                return
            for uuid in self._routes.all() - set(self._tracked):
                with self._folders.locked(uuid, wait=0):
                    if self._folders.read_running(uuid) is None:
                        self._routes.drop(uuid)
            for uuid, tracked in self._tracked.items():
                if not tracked.failure and not tracked.running.stopping:
                    with self._folders.locked(uuid, wait=0):
                        if self._folders.read_running(uuid) == tracked.running:
                            self._routes.put(uuid, tracked.running.port, tracked.running.agent_port)
            self._routed = True
        except RetryableError as error:
            # Redis is away, or a workspace is busy: it all comes again at the next slow look.
            self._routed = False
            log.warning("routes not written: %s", error)

    def _tail(self, uuid: str) -> str:
        lines = log_tail(self._folders.log(uuid), self._folders.data_dir)
        return f" Last lines of its log:\n{lines}" if lines else ""


def pod_name(running: Running) -> str:
    """What this runtime calls the thing that runs a workspace."""
    return f"local-{running.pid}"


def log_tail(path: Path, data_dir: Path) -> str:
    """The last lines of a log, fit to be shown to a user: no terminal escapes, nothing of where `data_dir` lies on
    this machine, at most `LOG_CHARS` characters."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LOG_TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    shown = ESCAPES.sub("", text).replace(str(data_dir), "$DATA_DIR")
    lines = [line.rstrip() for line in shown.splitlines() if line.strip()]
    return "\n".join(lines[-LOG_LINES:])[-LOG_CHARS:]


def _bound(path: Path) -> None:
    """Let a log that grew too long start over; its writer appends, so it just goes on."""
    try:
        if path.stat().st_size > LOG_LIMIT:
            with path.open("r+b") as file:
                file.truncate(0)
    except FileNotFoundError:
        pass
