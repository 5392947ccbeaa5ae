"""What can be done with sessions: the use cases the API, the sweeps and the dashboard share.

Each one writes what is wanted, then enqueues the task that carries it out. Nothing here touches a
workspace, and nothing waits except `wait`, which sleeps on the session's events.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from app.sessions import keys, queue
from app.sessions.backups import Backup, BackupIndex
from app.sessions.errors import IllegalState, InvalidRequest, SessionError, Superseded
from app.sessions.events import EventLog
from app.sessions.inbox import Inbox, Message, Taken
from app.sessions.lockouts import Lockouts, owed
from app.sessions.model import (
    GONE,
    SIZES,
    UP,
    USER_ID_PATTERN,
    Record,
    Signal,
    Status,
    new_uuid,
)
from app.sessions.paging import Page
from app.sessions.queue import TaskQueue
from app.sessions.signals import Signals
from app.sessions.store import Call, SessionStore, intent, number
from app.settings import Settings

UUID_TRIES = 5
CALL_KEPT = 60.0
"""s a call without a name of its own is known: redis-py asks again within a second or two of a lost answer."""
REVOKE_TRIES = 5


@dataclass(frozen=True, kw_only=True)
class NewSession:
    """What a caller may choose for a session. `idle_timeout` and `ttl` are seconds, 0 never, None the setting's."""

    user_id: str
    restore_from: str = ""
    size: str = "standard"
    ttl: float | None = None
    idle_timeout: float | None = None
    labels: Mapping[str, str] | None = None


class SessionService:
    """The use cases. Raises the errors of app/sessions/errors.py."""

    def __init__(
        self,
        *,
        store: SessionStore,
        events: EventLog,
        backups: BackupIndex,
        inbox: Inbox,
        tasks: TaskQueue,
        signals: Signals,
        lockouts: Lockouts,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._events = events
        self._backups = backups
        self._inbox = inbox
        self._tasks = tasks
        self._signals = signals
        self._lockouts = lockouts
        self._settings = settings
        self._clock = clock

    def create(self, wanted: NewSession, request_id: str = "", name: str = "") -> Record:
        """A new session, starting at once; with `restore_from`, holding the files of that backup. A call makes one
        session, also when Redis' answer is lost: one with a `name` the same for `IDEMPOTENCY_TTL`, as it is by then.
        Raises `KeyReused` for a name that came with something else."""
        if not USER_ID_PATTERN.fullmatch(wanted.user_id):
            raise InvalidRequest("user_id must be 1 to 128 of A-Z a-z 0-9 @ . _ + -")
        if wanted.size not in SIZES:
            raise InvalidRequest(f"size must be one of {', '.join(SIZES)}.")
        if wanted.restore_from:
            self._backups.get(wanted.restore_from)
        now = round(self._clock(), 3)  # as Redis will hold it, so that no two answers differ
        kept = self._settings.idempotency_ttl if name else CALL_KEPT
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
                status=Status.CREATED,
                task=queue.RESTORE if wanted.restore_from else queue.PROVISION,
                request_id=request_id,
                requested_at=now,
                last_activity=now,
                epoch=1,
            )
            quota = self._settings.max_sessions_per_user
            uuid = self._store.create(record, quota=quota, due=self._overdue(now), call=call)
            if uuid:
                made = record if uuid == record.uuid else self._store.get(uuid)
                # Made by a try that died before it came to this, perhaps; one message more changes nothing.
                if made.settled < made.generation:
                    self._enqueue(made, request_id)
                return made
        raise SessionError("No free session name was found; try again.")

    def get(self, uuid: str) -> Record:
        return self._store.get(uuid)

    def page(
        self, *, status: Status | None = None, user_id: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[Record]:
        """Sessions, newest first."""
        return self._store.page(status=status, user_id=user_id, limit=limit, cursor=cursor)

    def wake(self, uuid: str, request_id: str = "") -> Record:
        """Bring the session up; one that is up, or coming up, counts as used and stays as it is."""
        record = self._store.get(uuid)
        return self._intend(
            uuid,
            Status.WAKING,
            task=queue.RESTORE if record.restore_from else queue.WAKE,
            noop=UP,
            request_id=request_id,
            touch=True,
        )

    def prompt(
        self, uuid: str, text: str, message_id: str = "", request_id: str = "", *, courier: bool = True
    ) -> Taken:
        """Take a prompt for the session's agent, and wake the session if it isn't up; raises as `Inbox.take`. With
        `courier` False none is sent to an agent that is there: the caller hands the prompt over."""
        now = self._clock()
        taken = self._inbox.take(uuid, text, message_id, now=now, request_id=request_id)
        if taken.record is not None and (taken.woken or _answer_lost(taken.record, now, request_id)):
            self._enqueue(taken.record, request_id)
        elif taken.deliver and courier:
            self._tasks.send(queue.DELIVER, uuid, request_id=request_id)
        return taken

    def wait_for_message(self, uuid: str, message: Message, seconds: float) -> tuple[Message, bool]:
        """The message as soon as its end is known, or as it is when `seconds` have passed, and whether a sleep holds it
        back: then there is nothing to wait for."""
        after = self._events.last_id(uuid)
        message, held = self._inbox.look(uuid, message.id)
        if seconds <= 0 or message.finished or held:
            return message, held
        for event in self._events.follow(uuid, after, seconds):
            if event is None or event.type == "state" or event.data.get("message_id") == message.id:
                message, held = self._inbox.look(uuid, message.id)
                if message.finished or held:
                    break
        return message, held

    def sleep(self, uuid: str, request_id: str = "", seen: Record | None = None) -> Record:
        """Put the session to sleep. With `seen` only if nothing happened to it since: else `Superseded`."""
        expect = {} if seen is None else seen_idle(seen)
        # One whose files are still to come gets them first, which may take as long as it does.
        task = queue.RESTORE if (seen or self._store.get(uuid)).restore_from else queue.SLEEP
        return self._intend(
            uuid, Status.SLEEPING, task=task, noop=(Status.SLEEPING,), request_id=request_id, expect=expect
        )

    def bring_back(self, seen: Record) -> Record:
        """Bring an active session up again whose processes went without anyone's wish, unless it changed since."""
        task = queue.RESTORE if seen.restore_from else queue.WAKE
        expect = _as(seen, "generation", "status")
        return self._intend(seen.uuid, Status.WAKING, task=task, noop=(), request_id=seen.request_id, expect=expect)

    def keep_up(self, uuid: str, seconds: float) -> Record:
        """Let nothing put the session to sleep by itself for so long, `KEEPALIVE_MAX` at most and as far as
        `MAX_AWAKE` allows; 0 takes it back."""
        now = self._clock()
        until = now + min(seconds, self._settings.keepalive_max)
        return self._keep(uuid, "keepalive", Signal(now, until=until), now)

    def keep_up_in(self, uuid: str, hours: str) -> Record:
        """Let nothing put the session to sleep by itself in these hours of the week, none in ""; see
        app/sessions/hours.py."""
        now = self._clock()
        return self._keep(uuid, "window", Signal(now, detail=hours), now)

    def _keep(self, uuid: str, name: str, signal: Signal, now: float) -> Record:
        if not self._signals.write(uuid, {name: signal}):
            record = self._store.get(uuid)
            raise IllegalState(f"Session {uuid} is {record.status}; it can't be kept up.")
        # The next look may be hours away, and this may have taken back what it was put off for.
        self._store.defer(keys.IDLE, uuid, now)
        return self._store.get(uuid)

    def delete(
        self,
        uuid: str,
        *,
        backup: bool = True,
        partial: bool = False,
        request_id: str = "",
        seen: Record | None = None,
    ) -> Record:
        """Delete the session and its files, after a verified backup unless `backup` is False; `partial` accepts one
        without the files that can't be read. What asks less of the backup takes the place of a deletion under way, so
        False is a force at any time. With `seen` because it has expired, if nothing happened to it since: else
        `Superseded`."""
        expect = {} if seen is None else _as(seen, "generation", "last_activity")
        record = seen or self._store.get(uuid)
        less = record.delete_backup and (not backup or (partial and not record.delete_partial))
        forced = record.status is Status.TERMINATING and less
        return self._intend(
            uuid,
            Status.TERMINATING,
            task=queue.LEAVE if self._inbox.has_agent(uuid) else queue.TEARDOWN,
            noop=(Status.TERMINATED,) if forced else GONE,
            request_id=request_id,
            expect=expect,
            delete_backup=backup,
            delete_partial=partial,
            expiry_tries=seen.expiry_tries + 1 if seen else 0,
        )

    def revoke(self, uuid: str, request_id: str = "") -> Record:
        """Take back every pass to the session's workspace that there is, and have the connections ended that were
        made with one. Its token ends too; what runs is given another."""
        for _ in range(REVOKE_TRIES):
            door = self._store.get(uuid).door
            try:
                record = self._lockouts.revoke(uuid, door, self._clock()).record
            except Superseded:
                continue  # another call has taken some back; those given out since are ours to take
            if owed(record):
                self._tasks.send(queue.RENEW_TOKEN, uuid, request_id=request_id)
            if owed(record) and record.status is Status.ACTIVE:
                self._tasks.send(queue.LOCK_OUT, uuid, request_id=request_id)
            return record
        raise Superseded(f"Session {uuid} is being revoked by others all the time.")

    def request_backup(self, uuid: str, request_id: str = "") -> Record:
        """Ask for a backup of the files as they are; the session goes on as before."""
        record = self._store.get(uuid)
        if record.status in GONE:
            raise IllegalState(f"Session {uuid} is {record.status}; its last backup is listed under /backups.")
        if record.status is Status.CREATED or record.restore_from or not record.provisioned:
            raise IllegalState(f"Session {uuid} does not have its files yet; back it up once it is active.")
        now = self._clock()
        self._store.request_backup(uuid, self._overdue(now))
        self._tasks.send(queue.BACKUP, uuid, request_id=request_id)
        return record

    def restore(self, name: str, user_id: str = "", request_id: str = "", call: str = "") -> Record:
        """A new session with the files of a backup, for the backup's own user unless told otherwise; `call` is as
        the name in `create`."""
        backup = self._backups.get(name)
        return self.create(NewSession(user_id=user_id or backup.user_id, restore_from=name), request_id, call)

    def backup(self, name: str) -> Backup:
        return self._backups.get(name)

    def wait(self, uuid: str, until: Callable[[Record], bool], seconds: float) -> Record:
        """The record as soon as `until` holds, or as it is when `seconds` have passed."""
        after = self._events.last_id(uuid)
        record = self._store.get(uuid)
        if seconds <= 0 or until(record):
            return record
        for _ in self._events.follow(uuid, after, seconds):
            record = self._store.get(uuid)
            if until(record):
                break
        return record

    def resend(self, record: Record) -> None:
        """Enqueue the session's current intent again."""
        self._store.defer(keys.INTENTS, record.uuid, self._overdue(self._clock()))
        self._enqueue(record, record.request_id)

    def _intend(
        self,
        uuid: str,
        to: Status,
        *,
        task: str,
        noop: Collection[Status],
        request_id: str,
        expect: Mapping[str, Any] | None = None,
        touch: bool = False,
        **fields: Any,
    ) -> Record:
        now = self._clock()
        change = self._store.change(
            uuid,
            now,
            **intent(to, task=task, noop=noop, due=self._overdue(now), request_id=request_id),
            expect=expect,
            touch=touch,
            **fields,
        )
        if change.applied or _answer_lost(change.record, now, request_id):
            self._enqueue(change.record, request_id)
        return change.record

    def _enqueue(self, record: Record, request_id: str) -> None:
        self._tasks.send(record.task, record.uuid, record.generation, request_id=request_id)

    def _overdue(self, now: float) -> float:
        return now + self._settings.stale_after


def seen_idle(record: Record) -> dict[str, Any]:
    """What a verdict about an active session rests on: what a change expects that acts on it."""
    return _as(record, "generation", "last_activity", "waiting", "unfinished", "signals")


def _answer_lost(record: Record, now: float, request_id: str) -> bool:
    """Whether the record's intent, which stood when it was asked for at `now`, is this very request's: then the answer
    to its first try was lost, and nobody has sent the message."""
    return bool(request_id) and record.request_id == request_id and number(record.requested_at) == number(now)


def _digest(wanted: NewSession) -> str:
    return hashlib.sha256(json.dumps(vars(wanted), sort_keys=True, default=dict).encode()).hexdigest()


def _as(seen: Record, *names: str) -> dict[str, Any]:
    """These fields as they were seen: what a change expects that must not come too late."""
    return {name: getattr(seen, name) for name in names}
