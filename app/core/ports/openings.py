"""Opening and closing the ports of workspaces.

An opened port is an intent: it stands in the record, and while the ingress may not lead to it yet the session is in
`sessions:openings`, by when to have that done again. A lost broker message only delays it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.core.errors import IllegalState, Superseded
from app.core.limit_errors import Owner, TooManyPorts
from app.core.redis import keys, task_queue
from app.core.redis.task_queue import TaskQueue
from app.core.sessions.model import GONE, Record
from app.core.sessions.opened_ports import OpenedPort, find
from app.core.sessions.store import SessionStore

TRIES = 10
"""How often a change is made again because others opened or closed a port meanwhile."""


class Openings:
    """The opened ports of all sessions, so many of each. A broker message that no worker took within `patience` (s)
    counts as lost. Every method raises `StateUnavailable` and `SessionNotFound`."""

    def __init__(
        self,
        store: SessionStore,
        tasks: TaskQueue,
        most: int,
        patience: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._most = most
        self._patience = patience
        self._clock = clock

    def open(self, uuid: str, port: int, public_until: int | None = None, request_id: str = "") -> OpenedPort:
        """Open a port, or change until when it is public (0 for never, None to leave that). Where as many are opened as
        may be, the one opened first is closed that is not public; raises `TooManyPorts` if all are. Raises
        `IllegalState` for a session that is deleted."""

        def opened(record: Record, now: float) -> tuple[OpenedPort, ...]:
            if record.status in GONE:
                raise IllegalState(f"Session {uuid} is {record.status}; no port of it can be opened.")
            known = find(record.opened_ports, port)
            until = known.public_until if known and public_until is None else public_until or 0
            wanted = OpenedPort(port, known.opened_at if known else int(now), until)
            others = [each for each in record.opened_ports if each.port != port]
            while len(others) >= self._most:
                private = next((each for each in others if not each.is_public(now)), None)
                if private is None:
                    raise TooManyPorts(Owner.SESSION, uuid, most=self._most)
                others.remove(private)
            return (*others, wanted)

        record = self._change(uuid, opened, request_id)
        return next(each for each in record.opened_ports if each.port == port)

    def close(self, uuid: str, port: int, request_id: str = "") -> None:
        """Close a port: whoever sees it by a cookie or as the public can't any more."""
        self._change(
            uuid, lambda record, _: tuple(each for each in record.opened_ports if each.port != port), request_id
        )

    def led(self, record: Record) -> None:
        """Note that the ingress leads to the record's opened ports, and to no others of its session."""
        self._store.defer(keys.OPENINGS, record.uuid, 0.0)
        if self._store.get(record.uuid).opened_ports != record.opened_ports:
            self.lead(record.uuid, record.request_id)

    def lead(self, uuid: str, request_id: str = "") -> None:
        """Have the ingress lead to the opened ports, also if that may be under way."""
        self._due(uuid)
        self._tasks.send(task_queue.LEAD_PORTS, uuid, request_id=request_id)

    def _due(self, uuid: str) -> bool:
        """Have it done again if it is not in time; whether it was not due yet."""
        return self._store.look_earlier(keys.OPENINGS, uuid, self._clock() + self._patience)

    def _change(self, uuid: str, wanted: Callable[[Record, float], tuple[OpenedPort, ...]], request_id: str) -> Record:
        for _ in range(TRIES):
            record, now = self._store.get(uuid), self._clock()
            ports = wanted(record, now)
            try:
                changed = self._store.change(
                    uuid, now, expect={"opened_ports": record.opened_ports}, opened_ports=ports
                )
            except Superseded:
                continue  # another call has opened or closed a port
            # Also where nothing changed: the call before may have been killed here. One message at a time does for any
            # number of changes, as whoever takes it looks for later ones (`led`).
            if self._due(uuid):
                self._tasks.send(task_queue.LEAD_PORTS, uuid, request_id=request_id)
            return changed.record
        raise Superseded(f"Other calls keep opening and closing ports of session {uuid}; retry.")
