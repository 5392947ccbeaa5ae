"""The changes of files in workspaces, for whoever shows them: who follows them wakes nothing, and is no use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from app.core.errors import AgentUnavailable, IllegalState
from app.core.files.client import FileClient
from app.core.files.model import Changes, Watched
from app.core.reach import Workspaces
from app.core.redis.events import QUIET, EventLog
from app.core.service import SessionService
from app.core.sessions.model import GONE, UP, Status


@dataclass(frozen=True)
class Away:
    """The workspace does not run, so nothing in it changes; it has this status."""

    status: Status


class FileChanges:
    """The changes of all workspaces."""

    def __init__(
        self,
        workspaces: Workspaces,
        client: FileClient,
        sessions: SessionService,
        events: EventLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._workspaces = workspaces
        self._client = client
        self._sessions = sessions
        self._events = events
        self._clock = clock

    def follow(
        self, uuid: str, watched: Watched, position: str, seconds: float, quiet: float
    ) -> Iterator[Changes | Away | None]:
        """The changes after the position, "" for none, as they come, for so many seconds; None after `quiet` seconds
        at most without any. While the workspace does not run it is `Away` once; the first changes after that are told
        `anew`. Raises `FileRefused`, `SessionNotFound`, and `IllegalState` for a session that ends."""
        deadline = self._clock() + seconds
        # The first answer tells whether there is anything to follow.
        wait = 0.0
        while (began := self._clock()) < deadline:
            ask = partial(self._client.changes, watched=watched, position=position, wait=wait)
            try:
                changes = self._workspaces.ask_on(uuid, ask, quiet)
            except IllegalState:
                position = ""
                yield from self._until_up(uuid, deadline - began, quiet)
            except AgentUnavailable:
                yield None
            else:
                position, wait = changes.position, min(quiet, self._client.longest_wait)
                yield changes if changes.anew or not changes.empty else None
                if changes.empty:
                    self._workspaces.pace(began)

    def _until_up(self, uuid: str, seconds: float, quiet: float) -> Iterator[Away | None]:
        """Until the workspace is to run, for so many seconds."""
        last = self._events.last_id(uuid)
        told = False
        for _ in self._events.follow(uuid, last, seconds, min(quiet, QUIET)):
            status = self._sessions.get(uuid).status
            if status in GONE:
                raise IllegalState(f"Session {uuid} is `{status}`, so nothing in its workspace changes any more.")
            if status in UP:
                return
            yield None if told else Away(status)
            told = True
