"""The use cases of going back: a session in place to an earlier moment, or a new session with the files of one.

In place, by a restore point, is an intent of the session, which workers carry out
(workers/lifecycle/rolling_back.py). By a prompt, it is the agent that restores what it noted before the prompt; where
it noted nothing, a restore point from before the prompt takes its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from app.core.agents.agent import Agent
from app.core.errors import (
    AgentNotReady,
    AgentRefused,
    AgentUnavailable,
    IllegalState,
    RestorePointLate,
    RestorePointNotFound,
    RestorePointsOff,
    Superseded,
)
from app.core.prompts.agent_client import AgentClient, RestoredCheckpoint
from app.core.prompts.history import ConversationHistory
from app.core.prompts.inbox import Inbox
from app.core.redis import task_queue
from app.core.redis.events import EventLog
from app.core.restore_points.index import RestorePoint, RestorePoints
from app.core.restore_points.names import parse, reference
from app.core.restore_points.schedule import has_files
from app.core.service import NewSession, SessionService
from app.core.sessions.change import Change
from app.core.sessions.model import GONE, Record, Status, iso
from app.core.sessions.store import SessionStore
from app.process.settings import Settings

TRIES = 5
"""How often a rollback is asked for while other calls keep changing the session, and a busy agent is asked again."""

SAVE_WAIT = 60.0
"""s for which an undo waits for a restore point of the present state at most, whatever a caller prefers: the caller's
connection is held meanwhile."""

TO = {Status.ACTIVE: Status.WAKING, Status.FAILED: Status.WAKING}
"""Where a session goes that is rolled back; one that starts, sleeps or falls asleep goes on with that."""


class GoingBack:
    """Rollbacks and forks. Times are seconds since the epoch."""

    def __init__(
        self,
        sessions: SessionService,
        store: SessionStore,
        points: RestorePoints,
        inbox: Inbox,
        agents: AgentClient,
        history: ConversationHistory,
        events: EventLog,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._points = points
        self._inbox = inbox
        self._agents = agents
        self._history = history
        self._events = events
        self._settings = settings
        self._clock = clock

    def roll_back(self, uuid: str, point_id: str, request_id: str = "") -> Record:
        """Roll the session back to this restore point, in place. One that is up is started again afterwards, one that
        sleeps sleeps on. Raises `RestorePointsOff`, `RestorePointNotFound`, and `IllegalState`."""
        for _ in range(TRIES):
            record = self._of_points(uuid)
            if record.status is not Status.FAILED and not record.rollback_to:
                # A session that failed for want of its files may go back to some.
                self._check_files(record)
            self.usable(uuid, point_id)
            now = round(self._clock(), 3)
            change = Change.intent(
                TO.get(record.status),
                task=task_queue.ROLLBACK,
                noop=(),
                due=now + self._settings.stale_after,
                request_id=request_id,
                touch=True,
                expect={"generation": record.generation, "status": record.status},
                rollback_to=point_id,
                rollback_at=now,
                rolled_back={},
            )
            if change.to is None:
                change = replace(change, event=("state", {"status": record.status}))
            try:
                changed = self._store.apply(uuid, now, change).record
            except Superseded:
                changed = self._store.get(uuid)
                if (changed.rollback_to, changed.rollback_at, changed.request_id) != (point_id, now, request_id):
                    continue
            # What comes from now on is for the next agent; this one would lose it.
            self._inbox.agent_leaves(uuid)
            self._sessions.resend(changed)
            return changed
        raise Superseded(f"Other calls keep changing session {uuid}; retry.")

    def usable(self, uuid: str, point_id: str) -> RestorePoint:
        """One of the session's restore points; raises `IllegalState` for a broken one."""
        point = self._points.get(uuid, point_id)
        if point is None:
            raise RestorePointNotFound(uuid, f"restore point {point_id}")
        if point.broken:
            raise IllegalState(
                f"Data of restore point {point_id} is missing, so it can't be restored; choose another of "
                f"GET /session/{uuid}/restore-points."
            )
        return point

    def before(self, record: Record, message_id: str) -> RestorePoint:
        """The newest restore point from before this prompt; raises `PromptNotFound`, `RestorePointNotFound`."""
        prompt = self._history.prompt(record, message_id)
        # A prompt's own time, or when it came.
        point = self._points.newest_before(record.uuid, prompt.created_at)
        if point is None:
            raise RestorePointNotFound(record.uuid, f"restore point from before message {message_id}")
        return point

    def undo(self, uuid: str, message_id: str, seconds: float, request_id: str = "") -> Record | None:
        """Undo what this prompt and all later ones did, in the running workspace, within `seconds` of waiting for it
        and for a restore point of now. None if no agent is up by then, or if it noted nothing before the prompt. Raises
        `PromptNotFound`, `IllegalState`, `AgentUnavailable`, and `RestorePointLate`, with nothing undone."""
        asked_at, record = self._clock(), self._of_points(uuid)
        self._check_files(record)
        self._history.prompt(record, message_id)
        if record.status is not Status.ACTIVE:
            self._sessions.wake(uuid, request_id, asked=True)
            record = self._sessions.wait(uuid, lambda now: now.status not in (Status.WAKING, Status.CREATED), seconds)
        agent = self._inbox.agent(uuid) if record.status is Status.ACTIVE else None
        if agent is None or (found := self._agents.find_checkpoint(agent, message_id)) is None:
            return None
        if found.restored:
            saved = _saved_for(self._store.get(uuid), message_id)
        else:
            left = min(SAVE_WAIT, seconds - (self._clock() - asked_at))
            saved = self._save(record, agent, left, request_id)
            # If the answer of the agent is lost, a repeated call can't save that state any more.
            self._store.change(uuid, self._clock(), rolled_back={"message_id": message_id, "saved": saved})
        restored = self._restore(agent, message_id)
        if restored is None:
            return None
        now = self._clock()
        # Those that the agent has not been given yet are later than the prompt, too.
        waiting = [each.id for each in self._inbox.unfinished(uuid) if each.created_at <= asked_at]
        self._inbox.end_as_rolled_back(uuid, [*restored.messages_cut, *waiting], now)
        told = {"message_id": message_id, "restored": "checkpoint", "files_of": iso(now), "saved": saved}
        change = Change.of(
            rolled_back={**told, "files": restored.files, "at": iso(now)},
            event=("rolled_back", {"status": "done", **told, "prompts": len(restored.messages_cut)}),
        )
        return self._store.apply(uuid, now, change).record

    def _restore(self, agent: Agent, message_id: str) -> RestoredCheckpoint | None:
        for cancels in range(TRIES + 1):
            if cancels:
                # Not before it was asked for: what can't be undone cancels no turn.
                self._agents.cancel(agent, "user")
            with suppress(AgentNotReady):
                return self._agents.restore_checkpoint(agent, message_id)
        raise IllegalState(f"The agent of session {agent.uuid} keeps running turns; cancel them, then retry.")

    def _save(self, record: Record, agent: Agent, seconds: float, request_id: str) -> str:
        """The id of the restore point that has the present files: the newest, or else one that is made within
        `seconds`. Raises `RestorePointLate`."""
        newest = self._points.newest(record.uuid)
        if newest and not newest.unreadable and newest.fingerprint and newest.fingerprint == self._fingerprint(agent):
            return newest.id
        asked_at = self._clock()
        self._sessions.ask_for_point(record.uuid, "rollback", request_id)

        def over(now: Record) -> bool:
            return now.point_at >= asked_at or now.point_error not in ("", record.point_error)

        made = self._sessions.wait(record.uuid, over, seconds)
        if made.point_at < asked_at:
            why = f" The last attempt failed: {made.point_error}" if made.point_error else ""
            raise RestorePointLate(
                f"The present state of session {record.uuid} is still being saved in a restore point. Nothing was "
                f"undone; retry.{why}"
            )
        return made.point

    def _fingerprint(self, agent: Agent) -> str:
        """That of the files as they are, "" for unknown."""
        with suppress(AgentUnavailable, AgentRefused):
            return self._agents.fingerprint(agent)
        return ""

    def fork(
        self,
        source: Record,
        point: RestorePoint,
        user_id: str = "",
        request_id: str = "",
        call: str = "",
        *,
        made_by: str,
    ) -> Record:
        """A new session with the files of the source's restore point, by default for the same user, who gets HOME, the
        conversation and the session's choices too. `call` is the `name` of `create`; raises as that."""
        if source.status in GONE:
            raise _going(source)
        same = user_id in ("", source.user_id)
        wanted = NewSession(
            user_id=user_id or source.user_id,
            restore_from=reference(source.uuid, point.id),
            size=source.size,
            ttl=source.ttl if same else None,
            idle_timeout=source.idle_timeout if same else None,
            labels=source.labels if same else None,
        )
        made = self._sessions.create(wanted, request_id, call, made_by=made_by)
        self._events.append(
            made.uuid,
            "forked_from",
            {"uuid": source.uuid, "restore_point": point.id, "files_of": iso(point.created_at)},
        )
        return made

    def newest(self, record: Record, seconds: float, request_id: str = "") -> RestorePoint:
        """A restore point with the session's present files, which is made if need be. Raises `RestorePointLate` if that
        takes longer than `seconds`."""
        record = self._of_points(record.uuid)
        found = parse(record.restore_from)
        if found and found[0] == record.uuid:
            # It has no files but these: a volume that was lost, a rollback under way.
            return self.usable(*found)
        self._check_files(record)
        asked_at = self._clock()
        if not _saved(record, asked_at):
            self._sessions.ask_for_point(record.uuid, "api", request_id)
            record = self._sessions.wait(record.uuid, lambda now: _saved(now, asked_at), seconds)
        point = self._points.get(record.uuid, record.point) if _saved(record, asked_at) else None
        if point is None or point.broken:
            raise RestorePointLate(
                f"A restore point of session {record.uuid} is still being made. Fork again with `restore_point` once "
                f"GET /session/{record.uuid}/restore-points lists it."
            )
        return point

    def _of_points(self, uuid: str) -> Record:
        """The session, if it may have restore points. Raises `RestorePointsOff`, `IllegalState`."""
        if not self._settings.archive_key:
            raise RestorePointsOff
        record = self._store.get(uuid)
        if record.status in GONE:
            raise _going(record)
        return record

    def _check_files(self, record: Record) -> None:
        if not has_files(record):
            raise IllegalState(
                f"Session {record.uuid} does not have its files yet; wake it, and retry once it is active."
            )


def _going(record: Record) -> IllegalState:
    return IllegalState(f"Session {record.uuid} is `{record.status}`; restore its backup into a new session.")


def _saved_for(record: Record, message_id: str) -> str | None:
    """The restore point with the state before this message was undone, as the call that undid it noted."""
    noted = record.rolled_back
    return noted.get("saved") if noted.get("message_id") == message_id else None


def _saved(record: Record, now: float) -> bool:
    """Whether the newest restore point has the files as they are."""
    if not record.point_at or record.restore_from:
        return False
    stopped = record.status in (Status.SLEEPING, Status.FAILED) and not record.compute_since
    return record.point_at >= (record.compute_until if stopped else now)
