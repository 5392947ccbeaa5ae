"""The use cases of sessions, which the API and the sweeps share.

Each one records an intent, then enqueues the task that carries it out. None touches a workspace. Only `wait` and
`wait_for_prompt` wait: on the session's events.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from app.core.access.revocation import Revocations, nothing_runs
from app.core.backups.index import Backup, BackupIndex
from app.core.costs.budgets import Budgets
from app.core.erasures import Erasures
from app.core.errors import (
    BackupNotFound,
    IllegalState,
    InvalidRequest,
    RestorePointsOff,
    SessionError,
    SessionNotFound,
    Superseded,
)
from app.core.prompts.delivery import Delivery
from app.core.prompts.inbox import Inbox, Prompt, Taken
from app.core.redis import keys, task_queue
from app.core.redis.events import EventLog, SessionEvent
from app.core.redis.paging import Page
from app.core.redis.task_queue import TaskQueue
from app.core.restore_points.index import RestorePoints
from app.core.restore_points.names import parse
from app.core.restore_points.schedule import has_files
from app.core.sessions.change import Change
from app.core.sessions.listing import Filter, SessionList
from app.core.sessions.model import (
    GONE,
    SIZES,
    UP,
    USER_ID_PATTERN,
    USER_ID_RULE,
    Record,
    Signal,
    Status,
    Tier,
    new_uuid,
    number,
)
from app.core.sessions.signals import Activity
from app.core.sessions.store import Call, SessionStore
from app.process import tracing
from app.process.settings import Settings

T = TypeVar("T")

UUID_TRIES = 5
IDEMPOTENCY_TTL = 86_400
"""s that an Idempotency-Key replays its first answer."""

CALL_KEPT = 60
"""s a call without an idempotency key is remembered: redis-py repeats one with a lost answer within two seconds."""
REVOKE_TRIES = 5


@dataclass(frozen=True, kw_only=True)
class NewSession:
    """What a caller may choose. `idle_timeout` and `ttl` are in seconds; 0 is never, None the setting's default."""

    user_id: str
    restore_from: str = ""
    size: str = "standard"
    ttl: float | None = None
    idle_timeout: float | None = None
    labels: Mapping[str, str] | None = None


class SessionService:
    """The use cases of sessions."""

    def __init__(
        self,
        *,
        store: SessionStore,
        session_list: SessionList,
        events: EventLog,
        backups: BackupIndex,
        points: RestorePoints,
        erasures: Erasures,
        inbox: Inbox,
        delivery: Delivery,
        tasks: TaskQueue,
        activity: Activity,
        revocations: Revocations,
        budgets: Budgets,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._list = session_list
        self._events = events
        self._backups = backups
        self._points = points
        self._erasures = erasures
        self._inbox = inbox
        self._delivery = delivery
        self._tasks = tasks
        self._activity = activity
        self._revocations = revocations
        self._budgets = budgets
        self._settings = settings
        self._clock = clock

    def create(self, wanted: NewSession, request_id: str = "", name: str = "", *, made_by: str = "") -> Record:
        """Create a session and start it; with `restore_from`, with the files of that backup. A call whose answer from
        Redis was lost creates no second session. One with a `name` (an idempotency key) answers the same session for
        a day, in its current state. Raises `KeyReused` for a name used with other values, and
        `BudgetExceeded` for the user or for the API key that it is `made_by`."""
        if not USER_ID_PATTERN.fullmatch(wanted.user_id):
            raise InvalidRequest(f"user_id must be {USER_ID_RULE}")
        if wanted.size not in SIZES:
            raise InvalidRequest(f"size must be one of {', '.join(SIZES)}.")
        if wanted.restore_from:
            self._check_source(wanted.restore_from)
        self._budgets.check(wanted.user_id, made_by)
        now = round(self._clock(), 3)  # as Redis will hold it, so that repeated answers are equal
        kept = IDEMPOTENCY_TTL if name else CALL_KEPT
        call = Call(name or secrets.token_hex(16), _digest(wanted), kept)
        for _ in range(UUID_TRIES):
            record = Record(
                uuid=new_uuid(),
                user_id=wanted.user_id,
                created_at=now,
                size=wanted.size,
                idle_timeout=self._settings.idle_timeout if wanted.idle_timeout is None else wanted.idle_timeout,
                ttl=self._settings.session_ttl if wanted.ttl is None else wanted.ttl,
                labels=dict(wanted.labels or {}),
                restore_from=wanted.restore_from,
                made_by=made_by,
                status=Status.CREATED,
                task=task_queue.RESTORE if wanted.restore_from else task_queue.PROVISION,
                request_id=request_id,
                traceparent=tracing.traceparent(),
                requested_at=now,
                last_activity=now,
            )
            quota = self._settings.max_sessions_per_user
            uuid = self._store.create(record, quota=quota, due=self._overdue(now), call=call)
            if uuid:
                made = record if uuid == record.uuid else self._store.get(uuid)
                # An earlier try may have died before it enqueued; a second broker message changes nothing.
                if made.settled < made.generation:
                    self._enqueue(made, request_id)
                return made
        raise SessionError("No free session uuid was found; retry.")

    def _check_source(self, source: str) -> None:
        """Raises `BackupNotFound` unless the backup, or the restore point, is there."""
        point = parse(source)
        if point is None:
            self._backups.get(source)
        elif self._points.get(*point) is None:
            raise BackupNotFound(source)

    def get(self, uuid: str) -> Record:
        return self._store.get(uuid)

    def page(
        self,
        *,
        status: Status | None = None,
        user_id: str | None = None,
        tier: Tier | None = None,
        labels: Sequence[tuple[str, str]] = (),
        search: str = "",
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Record]:
        """Sessions, newest first, as `SessionList.page`."""
        wanted = Filter(user_id=user_id, status=status, tier=tier, labels=labels, search=search)
        return self._list.page(wanted, limit=limit, cursor=cursor)

    def wake(self, uuid: str, request_id: str = "", *, asked: bool = False) -> Record:
        """Start the workspace; one that runs or starts stays as it is, and counts as used. One that somebody `asked`
        for raises `BudgetExceeded`; the service's own repairs go on."""
        record = self._store.get(uuid)
        if asked:
            self._budgets.check(record.user_id, record.made_by, uuid)
        return self._intend(
            uuid,
            Status.WAKING,
            task=_bringing(record) or task_queue.WAKE,
            noop=UP,
            request_id=request_id,
            touch=True,
        )

    def prompt(
        self, uuid: str, text: str, message_id: str = "", request_id: str = "", *, delivery_worker: bool = True
    ) -> Taken:
        """Store a prompt for the session's agent, and wake the session if it sleeps; raises as `Inbox.take`. With
        `delivery_worker` False no delivery is enqueued for an agent that runs: the caller delivers the prompt. Raises
        `BudgetExceeded`."""
        if not self._budgets.unlimited:
            record = self._store.get(uuid)
            self._budgets.check(record.user_id, record.made_by, uuid)
        now = self._clock()
        taken = self._inbox.take(uuid, text, message_id, now=now, request_id=request_id)
        if taken.record is not None and (taken.woken or _answer_lost(taken.record, now, request_id)):
            self._enqueue(taken.record, request_id)
        elif taken.deliver and delivery_worker:
            self._delivery.request(uuid, request_id)
        return taken

    def sleep(self, uuid: str, request_id: str = "", seen: Record | None = None) -> Record:
        """Put the session to sleep. With `seen`, raises `Superseded` if the session changed or was used since."""
        expect = {} if seen is None else seen_idle(seen)
        # A restore under way is finished first, however long it takes.
        task = _bringing(seen or self._store.get(uuid)) or task_queue.SLEEP
        return self._intend(
            uuid, Status.SLEEPING, task=task, noop=(Status.SLEEPING,), request_id=request_id, expect=expect
        )

    def archive(self, seen: Record) -> Record:
        """Leave the files of a sleeping session to the archive; raises `Superseded` if it changed since it was seen."""
        now = self._clock()
        change = Change.of(
            task=task_queue.ARCHIVE,
            due=self._overdue(now),
            expect={**seen_idle(seen), **_as(seen, "status", "settled", "archived_at")},
            request_id="",
            traceparent="",
            started_at=0.0,
        )
        record = self._store.apply(seen.uuid, now, change).record
        self._enqueue(record, "")
        return record

    def restart(self, seen: Record) -> Record:
        """Start an active session's workspace again after its processes ended unexpectedly, unless it changed since."""
        task = _bringing(seen) or task_queue.WAKE
        expect = _as(seen, "generation", "status")
        return self._intend(seen.uuid, Status.WAKING, task=task, noop=(), request_id=seen.request_id, expect=expect)

    def replace_workspace(self, seen: Record, request_id: str = "") -> Record:
        """End all processes of a workspace that is up, and start it again: what a stranger left in it ends. Raises
        `Superseded` when the session changed since it was seen."""
        return self._intend(
            seen.uuid,
            Status.WAKING if seen.status is Status.ACTIVE else None,
            task=_bringing(seen) or (seen.task if seen.status is Status.CREATED else task_queue.WAKE),
            noop=(),
            request_id=request_id,
            expect=_as(seen, "generation", "status", "access_epoch"),
            stopping=True,
            replaced_epoch=seen.access_epoch,
        )

    def keep_up(self, uuid: str, seconds: float) -> Record:
        """Keep the session awake for so long, at most `KEEPALIVE_MAX` and within `MAX_AWAKE`; 0 ends that."""
        now = self._clock()
        until = now + min(seconds, self._settings.keepalive_max)
        return self._keep(uuid, "keepalive", Signal(now, until=until), now)

    def keep_up_in(self, uuid: str, hours: str) -> Record:
        """Keep the session awake in these hours of the week (app/core/sessions/awake_hours.py), "" for none."""
        now = self._clock()
        return self._keep(uuid, "window", Signal(now, detail=hours), now)

    def _keep(self, uuid: str, name: str, signal: Signal, now: float) -> Record:
        if not self._activity.write(uuid, {name: signal}):
            record = self._store.get(uuid)
            raise IllegalState(f"Session {uuid} is `{record.status}`; only a session that can run can be kept awake.")
        # Until this call something else may have kept the session awake, so the next idle check may be hours away.
        self._store.defer(keys.IDLE, uuid, now)
        return self._store.get(uuid)

    def delete(
        self,
        uuid: str,
        *,
        backup: bool = True,
        partial: bool = False,
        erase: bool = False,
        request_id: str = "",
        seen: Record | None = None,
    ) -> Record:
        """Delete the session and its files, after a verified backup unless `backup` is False; `partial` accepts a
        backup without the unreadable files. With `erase` nothing is left; see `erase`. A call that demands less of the
        backup, or to erase, replaces a deletion under way, so False forces one at any time. `seen` is for an expired
        session: raises `Superseded` if it was used since."""
        expect = {} if seen is None else _as(seen, "generation", "last_activity")
        record = seen or self._store.get(uuid)
        less = record.delete_backup and (not backup or (partial and not record.delete_partial))
        less = less or (erase and not record.delete_erase)
        forced = record.status is Status.TERMINATING and less
        return self._intend(
            uuid,
            Status.TERMINATING,
            task=task_queue.LEAVE if self._inbox.has_agent(uuid) else task_queue.TEARDOWN,
            noop=(Status.TERMINATED,) if forced else GONE,
            request_id=request_id,
            expect=expect,
            delete_backup=backup,
            delete_partial=partial,
            delete_erase=erase,
            expiry_tries=seen.expiry_tries + 1 if seen else 0,
        )

    def erase(self, uuid: str, request_id: str = "") -> None:
        """Leave nothing of a session: neither files nor backups, restore points, conversation or events. If it is
        terminated, or has no record, what is left of it is erased. Its entries in the audit and the cost ledger keep a
        pseudonym for the user, and no labels. Raises `BackupInUse` while another session is being restored from it."""
        record = self._find(uuid)
        if record is not None and record.status is not Status.TERMINATED:
            record = self.delete(uuid, backup=False, erase=True, request_id=request_id)
        if record is None or record.status is Status.TERMINATED:
            self._erasures.request(uuid, self._overdue(self._clock()))
            self._tasks.send(task_queue.ERASE, uuid, request_id=request_id)

    def wait_for_erasure(self, uuid: str, seconds: float) -> tuple[Record | None, bool]:
        """The record, None where there is none, and whether the session is erased: once it is or has failed, or after
        `seconds`."""

        def read() -> tuple[Record | None, bool]:
            # In this order: what is terminated with an erasure has it in the set.
            record = self._find(uuid)
            gone = record is None or record.status is Status.TERMINATED
            return record, gone and not self._erasures.pending(uuid)

        def over(found: tuple[Record | None, bool]) -> bool:
            return found[1] or (found[0] is not None and found[0].status is Status.FAILED)

        return self._wait(uuid, read, over, seconds)

    def _find(self, uuid: str) -> Record | None:
        return next(iter(self._store.find([uuid])), None)

    def revoke(self, uuid: str, request_id: str = "", *, restart: bool = False) -> Record:
        """Revoke all access tokens, cookies and login links of the workspace, and end the connections made with them.
        The workspace token is revoked too; a running workspace gets another. With `restart` it is replaced, which ends
        all programs in it as well."""
        for _ in range(REVOKE_TRIES):
            access_epoch = self._store.get(uuid).access_epoch
            try:
                record = self._revocations.revoke(uuid, access_epoch, self._clock()).record
                if restart and record.status in UP:
                    return self.replace_workspace(record, request_id)
            except Superseded:
                continue  # another call has revoked; this one must also revoke what was issued since
            if not nothing_runs(record):
                self._tasks.send(task_queue.RENEW_TOKEN, uuid, request_id=request_id)
                if record.status is Status.ACTIVE:
                    self._tasks.send(task_queue.DISCONNECT, uuid, request_id=request_id)
            return record
        raise Superseded(f"Other calls keep revoking access to session {uuid}; retry.")

    def request_backup(self, uuid: str, request_id: str = "") -> Record:
        """Request a backup of the current files; the session stays as it is. `backup_asked` of the record is the
        request's number."""
        record = self._store.get(uuid)
        if record.status in GONE:
            raise IllegalState(f"Session {uuid} is `{record.status}`; GET /backups lists its last backup.")
        if record.archived_at:
            raise IllegalState(f"Session {uuid} is archived: its files have a restore point. Wake it first.")
        if record.status is Status.CREATED or record.restore_from or not record.provisioned:
            raise IllegalState(f"Session {uuid} does not have its files yet; retry once it is active.")
        now = self._clock()
        number = self._store.request_backup(uuid, now, self._overdue(now))
        if not number:
            raise SessionNotFound(uuid)
        self._tasks.send(task_queue.BACKUP, uuid, request_id=request_id)
        return replace(record, backup_asked=number)

    def request_point(self, uuid: str, request_id: str = "") -> Record:
        """Request a restore point of the current files; the session stays as it is. Raises `RestorePointsOff`."""
        if not self._settings.archive_key:
            raise RestorePointsOff
        record = self._store.get(uuid)
        if record.status in GONE:
            raise IllegalState(f"Session {uuid} is `{record.status}`; GET /backups lists its last backup.")
        if record.archived_at:
            raise IllegalState(f"Session {uuid} is archived: its files have a restore point. Wake it first.")
        if not has_files(record):
            raise IllegalState(f"Session {uuid} does not have its files yet; retry once it is active.")
        self.ask_for_point(uuid, "api", request_id)
        return record

    def ask_for_point(self, uuid: str, trigger: str, request_id: str = "") -> None:
        """Have a restore point made, where there are any; one that no caller waits for is asked for once at a time."""
        now = self._clock()
        if self._settings.archive_key and self._store.request_point(uuid, now, self._overdue(now), trigger):
            self._tasks.send(task_queue.POINT, uuid, request_id=request_id)

    def restore(
        self, name: str, user_id: str = "", request_id: str = "", call: str = "", *, made_by: str = ""
    ) -> Record:
        """A new session with a backup's files, by default for the backup's user; `call` is the `name` of `create`."""
        backup = self._backups.get(name)
        return self.create(
            NewSession(user_id=user_id or backup.user_id, restore_from=name), request_id, call, made_by=made_by
        )

    def backup(self, name: str) -> Backup:
        return self._backups.get(name)

    def wait(self, uuid: str, until: Callable[[Record], bool], seconds: float) -> Record:
        """The record once `until` holds, or as it is after `seconds`."""
        return self._wait(uuid, lambda: self._store.get(uuid), until, seconds)

    def wait_for_prompt(self, uuid: str, prompt: Prompt, seconds: float) -> tuple[Prompt, bool]:
        """The prompt once it is finished or held back by a sleep, or as it is after `seconds`; and whether it is
        held."""
        return self._wait(
            uuid,
            lambda: self._inbox.progress(uuid, prompt.id),
            lambda found: found[0].finished or found[1],
            seconds,
            lambda event: event.type in ("state", "phase") or event.data.get("message_id") == prompt.id,
        )

    def _wait(
        self,
        uuid: str,
        read: Callable[[], T],
        until: Callable[[T], bool],
        seconds: float,
        relevant: Callable[[SessionEvent], bool] = lambda _: True,
    ) -> T:
        """Read again after each relevant event of the session, until `until` holds or the time is over."""
        after = self._events.last_id(uuid)
        found = read()
        if seconds <= 0 or until(found):
            return found
        for event in self._events.follow(uuid, after, seconds):
            if event is None or relevant(event):
                found = read()
                if until(found):
                    break
        return found

    def resend(self, record: Record) -> None:
        """Enqueue the session's current intent again."""
        self._store.defer(keys.INTENTS, record.uuid, self._overdue(self._clock()))
        with tracing.span("resend", parent=record.traceparent):
            self._enqueue(record, record.request_id)

    def _intend(
        self,
        uuid: str,
        to: Status | None,
        *,
        task: str,
        noop: Collection[Status],
        request_id: str,
        **wanted: Any,
    ) -> Record:
        now = self._clock()
        change = Change.intent(to, task=task, noop=noop, due=self._overdue(now), request_id=request_id, **wanted)
        changed = self._store.apply(uuid, now, change)
        if changed.applied or _answer_lost(changed.record, now, request_id):
            self._enqueue(changed.record, request_id)
        return changed.record

    def _enqueue(self, record: Record, request_id: str) -> None:
        self._tasks.send(record.task, record.uuid, record.generation, request_id=request_id)

    def _overdue(self, now: float) -> float:
        return now + self._settings.stale_after


def _bringing(record: Record) -> str:
    """The task of an intent that has to bring the session's files first, "" where they are there."""
    if record.rollback_to:
        return task_queue.ROLLBACK
    return task_queue.RESTORE if record.restore_from else ""


def seen_idle(record: Record) -> dict[str, Any]:
    """The fields an idle verdict rests on: a change that acts on the verdict expects them unchanged."""
    return _as(record, "generation", "last_activity", "waiting", "unfinished", "signals")


def _answer_lost(record: Record, now: float, request_id: str) -> bool:
    """Whether this request recorded the intent at `now` itself: its first try's answer was lost, and the task is not
    enqueued yet."""
    return bool(request_id) and record.request_id == request_id and number(record.requested_at) == number(now)


def _digest(wanted: NewSession) -> str:
    return hashlib.sha256(json.dumps(vars(wanted), sort_keys=True, default=dict).encode()).hexdigest()


def _as(seen: Record, *names: str) -> dict[str, Any]:
    """These fields as they were seen, for a change to expect unchanged."""
    return {name: getattr(seen, name) for name in names}
