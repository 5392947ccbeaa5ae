"""Sessions: create, wake, put to sleep, open, watch, delete."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from workspaces.decoding import decode
from workspaces.errors import StartFailed, StateConflict, WaitTimedOut
from workspaces.events import Event, RolledBackEvent, StateEvent, ends_session, typed
from workspaces.models import (
    COMING_UP,
    Action,
    Activity,
    CreatedSession,
    Deleted,
    Kept,
    Opened,
    PastEvent,
    PastEvents,
    Risk,
    Session,
    SessionList,
    SessionMetrics,
    SessionSummary,
    Status,
    Token,
)
from workspaces.pages import Pages
from workspaces.resources.base import MOST_WAIT, Resource, given, operation, path
from workspaces.sse import STREAM, Stream, follow

PAUSE = 0.5
"""s between two calls of a wait: a service may be set up to wait for nothing."""


class Sessions(Resource):
    """The calls on sessions. `wait` is how long the service may wait for the end state (s, at most 60): None as long as
    it does by default, 0 not at all. Other times are in seconds too."""

    @operation("createSession")
    def create(
        self,
        user_id: str,
        *,
        size: str | None = None,
        restore_from: str | None = None,
        ttl: float | None = None,
        idle_timeout: float | None = None,
        labels: Mapping[str, str] | None = None,
        open: bool | None = None,
        wait: float | None = None,
        idempotency_key: str | None = None,
    ) -> CreatedSession:
        """Create a session; its workspace starts at once. `open` adds a login link, `restore_from` is a backup's name.
        Raises `QuotaExceeded`, `BudgetExceeded`, and with `wait` `StartFailed`."""
        body = given(
            user_id=user_id,
            size=size,
            restore_from=restore_from,
            ttl=ttl,
            idle_timeout=idle_timeout,
            labels=labels,
            open=open,
        )
        return self._post(CreatedSession, "/session/create", body=body, wait=wait, idempotency_key=idempotency_key)

    @operation("listSessions")
    def list(
        self,
        *,
        status: str | None = None,
        user_id: str | None = None,
        tier: str | None = None,
        label: Sequence[str] | None = None,
        q: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Pages[SessionList, SessionSummary]:
        """The sessions, newest first; terminated ones only with `status="terminated"`. Those with every `label`, as
        `course=python-101`, and with `q` in uuid, user or a label. `tier` is where the files are: `hot` or `archived`.
        `limit` is of one page."""

        def fetch(cursor: str | None) -> SessionList:
            chosen = {"status": status, "user_id": user_id, "tier": tier, "label": label, "q": q}
            query = {**chosen, "limit": limit, "cursor": cursor}
            return self._get(SessionList, "/sessions", query=query)

        return Pages(fetch, lambda page: page.sessions, cursor)

    @operation("getSession")
    def get(self, uuid: str) -> Session:
        """One session in full; raises `SessionNotFound`."""
        return session_of(self._http.json("GET", path("session", uuid)))

    @operation("getSessionStatus")
    def status(self, uuid: str) -> Session:
        """The same as `get`, at the path that earlier versions had."""
        return session_of(self._http.json("GET", path("session", uuid, "status")))

    @operation("wakeSession")
    def wake(self, uuid: str, *, wait: float | None = None, idempotency_key: str | None = None) -> Action:
        """Wake a session; answers at once unless it may wait."""
        return self._act(uuid, "wake", wait, idempotency_key)

    @operation("sleepSession")
    def sleep(self, uuid: str, *, wait: float | None = None, idempotency_key: str | None = None) -> Action:
        """Put a session to sleep; answers at once unless it may wait."""
        return self._act(uuid, "sleep", wait, idempotency_key)

    @operation("scaleUpSession")
    def scale_up(self, uuid: str, *, wait: float | None = None, idempotency_key: str | None = None) -> Action:
        """Wake a session, and wait until its workspace answers."""
        return self._act(uuid, "scale-up", wait, idempotency_key)

    @operation("scaleDownSession")
    def scale_down(self, uuid: str, *, wait: float | None = None, idempotency_key: str | None = None) -> Action:
        """Put a session to sleep, and wait until its processes have ended."""
        return self._act(uuid, "scale-down", wait, idempotency_key)

    @operation("deleteSession")
    def delete(
        self,
        uuid: str,
        *,
        backup: Literal["true", "false", "partial"] | None = None,
        erase: bool = False,
        wait: float | None = None,
    ) -> Deleted:
        """Delete a session after a verified backup, and wait for it; `backup="false"` makes none, `"partial"` accepts
        one without the files that can't be read. `erase` leaves nothing: no backup, restore point or conversation, also
        of a session that was deleted before. After `TeardownFailed` or `BackupIncomplete` nothing was deleted."""
        query = {"backup": backup, "erase": "true" if erase else None}
        return decode(Deleted, self._http.json("DELETE", path("session", uuid), query=query, wait=wait))

    @operation("openSession")
    def open(self, uuid: str, *, path: str | None = None, idempotency_key: str | None = None) -> Opened:
        """A login link for a browser, which works once, within seconds; it leads to `path` in the workspace."""
        where = f"{session_path(uuid)}/open"
        return self._post(Opened, where, body=given(path=path), idempotency_key=idempotency_key)

    @operation("makeToken")
    def token(self, uuid: str, *, idempotency_key: str | None = None) -> Token:
        """A session token: it opens this one session to a browser or a program, for minutes."""
        return self._post(Token, path("session", uuid, "token"), idempotency_key=idempotency_key)

    @operation("revokeAccess")
    def revoke(self, uuid: str, *, restart: bool = False, idempotency_key: str | None = None) -> Action:
        """Revoke every cookie, login link and token of a session, and end the connections opened with them. `restart`
        also ends all programs in the workspace, and starts it again."""
        where = f"{session_path(uuid)}/revoke"
        body = {"restart": True} if restart else None
        return self._post(Action, where, body=body, idempotency_key=idempotency_key)

    @operation("getActivity")
    def activity(self, uuid: str) -> Activity:
        """Why a session is awake, or when it sleeps."""
        return self._get(Activity, path("session", uuid, "activity"))

    @operation("keepSessionUp")
    def keepalive(
        self,
        uuid: str,
        *,
        seconds: float | None = None,
        until: datetime | None = None,
        hours: str | None = None,
        idempotency_key: str | None = None,
    ) -> Kept:
        """Keep a session awake: for `seconds`, `until` a time, or in `hours` of the week such as `Mon-Fri 08:00-18:00`
        (UTC). Give one of them; 0 seconds, or empty hours, end it."""
        body = given(seconds=seconds, until=until.astimezone().isoformat() if until else None, hours=hours)
        return self._post(Kept, path("session", uuid, "keepalive"), body=body, idempotency_key=idempotency_key)

    @operation("followSession", STREAM)
    def events(self, uuid: str, *, after: str | None = None) -> Stream[Event]:
        """A session's events as they happen: first its present state, or all after the event with the id `after`. It
        connects again by itself where it broke off, and ends with the session."""
        return Stream(self._follow(uuid, after))

    @operation("listSessionEvents")
    def past_events(
        self, uuid: str, *, type: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> Pages[PastEvents, PastEvent]:
        """The events that are kept of a session, newest first; `type` chooses some, as `state,phase`."""

        def fetch(cursor: str | None) -> PastEvents:
            query = {"type": type, "limit": limit, "cursor": cursor}
            return self._get(PastEvents, path("session", uuid, "events", "past"), query=query)

        return Pages(fetch, lambda page: page.events, cursor)

    @operation("getRisk")
    def risk(self, uuid: str) -> Risk:
        """The unsaved work that a stop would put at risk, asked of the workspace if it is awake."""
        return self._get(Risk, path("session", uuid, "risk"))

    @operation("getSessionMetrics")
    def metrics(self, uuid: str) -> SessionMetrics:
        """What a session uses now and used in the last hour, how long its answers took, and its tokens."""
        return self._get(SessionMetrics, path("session", uuid, "metrics"))

    def wait_until_active(
        self, uuid: str, *, timeout: float = 120.0, on_event: Callable[[Event], None] | None = None
    ) -> Session:
        """Wait until a session that starts is `active`; `on_event` is shown its states and phases. It wakes nothing.
        Raises `WaitTimedOut` after `timeout` seconds, `StartFailed`, and `StateConflict` if it does not start."""
        for event in self._follow(uuid, None, time.monotonic() + timeout):
            if on_event is not None:
                on_event(event)
            if not isinstance(event, StateEvent) or event.status in COMING_UP:
                continue
            if event.status == Status.ACTIVE:
                return self.get(uuid)
            if event.status == Status.FAILED:
                raise start_failed(uuid, event.reason)
            break
        raise StateConflict(f"Session {uuid} does not start: it was put to sleep or deleted.", code="illegal_state")

    def wait_until_rolled_back(
        self, uuid: str, *, timeout: float = 300.0, on_event: Callable[[Event], None] | None = None
    ) -> Session:
        """Wait until a rollback that was asked for is over, and the session is up again if it was; `on_event` is shown
        its states and phases. Raises `WaitTimedOut` after `timeout` seconds, `StartFailed`, and `StateConflict` if it
        was called off or the session ended."""
        for event in self._follow(uuid, None, time.monotonic() + timeout):
            if on_event is not None:
                on_event(event)
            if not isinstance(event, StateEvent | RolledBackEvent):
                continue
            session = self.get(uuid)
            if session.rolling_back:
                continue
            if session.status == Status.FAILED:
                raise start_failed(uuid, session.reason)
            if error := (session.rolled_back or {}).get("error"):
                raise StateConflict(f"The session was not rolled back: {error}", code="rollback_failed")
            return session
        raise StateConflict(f"Session {uuid} ended before its rollback.", code="illegal_state")

    def put_to_sleep(self, uuid: str, *, timeout: float = 120.0) -> Session:
        """Put a session to sleep, and wait until no process of its workspace runs. Raises `WaitTimedOut` after
        `timeout` seconds, `StopFailed`, and `StateConflict` if it was woken or deleted meanwhile."""
        deadline = time.monotonic() + timeout
        left = timeout
        while self.scale_down(uuid, wait=min(left, MOST_WAIT)).status != "success":
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimedOut(
                    f"Processes of session {uuid} still run after {timeout:.0f} s; they are being ended."
                )
            self._http.sleep(min(left, PAUSE))
        return self.get(uuid)

    def _follow(self, uuid: str, after: str | None, deadline: float | None = None) -> Iterator[Event]:
        for raw in follow(self._http, path("session", uuid, "events"), after, deadline):
            event = typed(raw)
            yield event
            if ends_session(event):
                return

    def _act(self, uuid: str, action: str, wait: float | None, idempotency_key: str | None) -> Action:
        return self._post(Action, path("session", uuid, action), wait=wait, idempotency_key=idempotency_key)


def start_failed(uuid: str, reason: str | None) -> StartFailed:
    """The error of a session that did not start."""
    return StartFailed(reason or "The workspace did not start.", code="start_failed", body={"uuid": uuid})


def session_path(uuid: str) -> str:
    """The path of a session."""
    return path("session", uuid)


def session_of(body: Any) -> Session:
    """The session of an answer, which has most of its fields in an object of their own."""
    inner = body.get("session") if isinstance(body, dict) else None
    return decode(Session, {**body, **inner} if isinstance(inner, dict) else body)
