"""The services of this workspace: which there are, and which run."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from app.agent.disk import read_document, write_document
from app.agent.execs.execs import READY_WAIT, Closed, NotReady, TooMany
from app.agent.execs.order import BadOrder, folder_of
from app.agent.execs.run import KILL_AFTER, Run
from app.agent.execs.runners import Runner
from app.agent.protocol import ExecReason, Restart
from app.agent.services.definition import Definition, read_definition
from app.agent.services.service import Service
from app.agent.tools.command import order_of
from app.agent.tools.orphans import MARK
from app.agent.tools.runner import shell
from app.agent.tools.sandbox_path import Workspace

log = logging.getLogger(__name__)

DOCUMENT = "services.json"
"""In the conversation's folder, so that restore points have it: what services there are."""

FOLDER = ".services"
"""The name of the folder of their logs, beside the workspace's and on the same volume. No restore point has it."""

END_WAIT = KILL_AFTER + 2.0
"""Seconds for a service to end."""


class Services:
    """The services of one workspace, of which there are `most` at most. Thread-safe. `document` keeps them, `folder`
    their logs; `environment` is that of their commands, `hidden` a folder these can't read. None starts while the
    workspace is `closing`."""

    def __init__(
        self,
        workspace: Workspace,
        document: Path,
        folder: Path,
        environment: Mapping[str, str],
        *,
        hidden: Path | None = None,
        most: int,
        closing: Callable[[], bool] = lambda: False,
    ) -> None:
        self._workspace = workspace
        self._document = document
        self._folder = folder
        self._environment = environment
        self._mark = f"{environment.get(MARK, '')}.services"
        self._hidden = hidden
        self._most = most
        self._closing = closing
        self._changing = threading.Lock()
        self._services: dict[str, Service] = {}
        self._stopping = False
        self._ready = threading.Event()

    def open(self) -> None:
        """Read what services there are, and start those that start with the workspace, and those that ran when an
        earlier agent was killed. What these left running has ended."""
        kept = read_document(self._document, {"services": list}) or {"services": []}
        for given in kept["services"][: self._most]:
            try:
                definition = read_definition(given if isinstance(given, dict) else {})
            except BadOrder as e:
                log.warning("A service in %s is invalid: %s", DOCUMENT, e)
                continue
            if definition.name in self._services:
                continue
            service = self._services[definition.name] = self._made(definition)
            if definition.autostart or (service.lost and definition.restart is not Restart.NEVER):
                service.start()
        self._ready.set()

    def start(self, definition: Definition) -> tuple[Service, bool]:
        """Have a service run: the service, and whether its name is new. One that runs by this definition is left so,
        one by another is ended first. Raises `BadOrder` for a folder that does not exist, `TooMany`, `NotReady`,
        `Closed`, and OSError if it can't be kept; then nothing is changed."""
        with self._change():
            folder_of(self._workspace, definition.cwd)
            before = self._services.get(definition.name)
            if before is None and len(self._services) >= self._most:
                raise TooMany
            if before is None or before.definition != definition:
                self._keep({**self._definitions(), definition.name: definition})
                if before is not None:
                    _end(before)
                self._services = {**self._services, definition.name: self._made(definition)}
            service = self._services[definition.name]
            service.start()
            return service, before is None

    def restart(self, name: str) -> Service | None:
        """End a service, if it runs, and start it; None if there is none. Raises `NotReady` and `Closed`."""
        with self._change():
            service = self._services.get(name)
            if service is not None:
                _end(service)
                service.start()
            return service

    def bring_back(self, ports: Collection[int]) -> None:
        """Start the services of these ports that ended with the workspace: somebody was given the addresses. None is
        started while another change goes on for long; the next call does it then."""
        with contextlib.suppress(NotReady, Closed), self._change():
            for service in self._services.values():
                if service.definition.port in ports and service.ended_with_workspace:
                    service.start()

    def remove(self, name: str) -> bool:
        """End a service, and forget it with its log; False if there is none. Raises `NotReady`, `Closed` and
        OSError."""
        with self._change():
            service = self._services.get(name)
            if service is None:
                return False
            self._keep({each: kept for each, kept in self._definitions().items() if each != name})
            _end(service)
            self._services = {each: kept for each, kept in self._services.items() if each != name}
            shutil.rmtree(self._folder / name, ignore_errors=True)
            return True

    def find(self, name: str) -> Service | None:
        """A service, None if there is none. Raises `NotReady`."""
        self._wait_ready()
        return self._services.get(name)

    def all(self) -> list[Service]:
        """All services, by name. Raises `NotReady`."""
        self._wait_ready()
        return [self._services[name] for name in sorted(self._services)]

    def report(self) -> list[dict[str, Any]] | None:
        """What the manager shows of each without asking, by name; None before they are read."""
        if not self._ready.is_set():
            return None
        return [
            {"name": name, "port": service.definition.port, "state": service.state}
            for name, service in sorted(self._services.items())
        ]

    def stop(self, reason: ExecReason) -> None:
        """Have all end, and none start any more: the workspace stops. `join` waits for them."""
        self._stopping = True
        for service in self._services.values():
            service.stop(reason)

    def join(self, seconds: float) -> None:
        """Wait so long for the end of all."""
        deadline = time.monotonic() + seconds
        for service in self._services.values():
            service.join(max(0.0, deadline - time.monotonic()))

    def _definitions(self) -> dict[str, Definition]:
        return {name: service.definition for name, service in self._services.items()}

    def _keep(self, definitions: Mapping[str, Definition]) -> None:
        self._document.parent.mkdir(parents=True, exist_ok=True)
        write_document(self._document, {"services": [each.to_json() for each in definitions.values()]})

    def _made(self, definition: Definition) -> Service:
        name = definition.name
        return Service(definition, self._folder / name, f"{self._mark}.{name}", self._begin)

    def _begin(self, definition: Definition, mark: str) -> Run:
        """Begin a run of a service. Raises `BadOrder` and OSError."""
        order = order_of(
            [shell(), "-c", definition.command],
            folder_of(self._workspace, definition.cwd),
            seconds=float("inf"),
            hidden=self._hidden,
            mark=mark,
            added={} if definition.port is None else {"PORT": str(definition.port)},
        )
        runner = Runner(self._environment)
        runner.run(order, b"")
        return Run(runner)

    def _wait_ready(self) -> None:
        if not self._ready.wait(READY_WAIT):
            raise NotReady

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """One change at a time."""
        self._wait_ready()
        if not self._changing.acquire(timeout=READY_WAIT):
            raise NotReady
        try:
            if self._stopping or self._closing():
                raise Closed
            yield
        finally:
            self._changing.release()


def _end(service: Service) -> None:
    """End a service, if it runs. Raises `NotReady` if it does not end in time."""
    service.stop(ExecReason.KILLED)
    if not service.join(END_WAIT):
        raise NotReady
