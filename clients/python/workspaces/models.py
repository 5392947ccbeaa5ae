"""The answers of the API, named as its OpenAPI document names them; `Session` is its SessionStatus and SessionDetail.

Times are aware datetimes. Words such as a status are plain strings, so that a new one breaks nobody; `Status`,
`MessageState`, `ExecState`, `ServiceState`, `PortState` and `FileType` have the present ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import unquote_to_bytes

from workspaces.decoding import Answer, named


class Status(StrEnum):
    """The states of a session."""

    CREATED = "created"
    ACTIVE = "active"
    SLEEPING = "sleeping"
    WAKING = "waking"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    FAILED = "failed"


COMING_UP = frozenset({Status.CREATED, Status.WAKING})
"""The states of a session whose workspace starts."""


class MessageState(StrEnum):
    """The states of a message."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    PROCESSED = "processed"
    FAILED = "failed"


FINISHED = frozenset({MessageState.PROCESSED, MessageState.FAILED})
"""The states of a message that has come to its end."""


class ExecState(StrEnum):
    """The states of a command."""

    RUNNING = "running"
    EXITED = "exited"


class ServiceState(StrEnum):
    """The states of a service of a workspace."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    STOPPED = "stopped"
    FAILED = "failed"


class PortState(StrEnum):
    """The states of a port of a workspace."""

    LISTENING = "listening"
    STARTING = "starting"
    STOPPED = "stopped"


class FileType(StrEnum):
    """What an entry of a folder is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class CreatedSession(Answer):
    """A new session. `open_url` is a login link, if one was asked for."""

    uuid: str
    user_id: str
    status: str
    workspace_url: str
    created_at: datetime
    open_url: str | None


@dataclass(frozen=True, kw_only=True)
class KeptConversation(Answer):
    """Whether the stored conversation is up to date."""

    stale: bool
    unsaved_since: datetime | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class NewestPoint(Answer):
    """The newest restore point: the files are safe as they were at `saved_at`. `error` is why no newer one was made."""

    id: str | None
    saved_at: datetime | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Restoring(Answer):
    """What is being restored, and `of` when the restore point or the backup is."""

    files: int
    bytes: int
    of: datetime


@dataclass(frozen=True, kw_only=True)
class ReportedService(Answer):
    """What a session tells of a service of its workspace, as it was seconds ago. `port` is where it listens, if it
    has one."""

    name: str
    port: int | None
    state: str


@dataclass(frozen=True, kw_only=True)
class OpenedPort(Answer):
    """An opened port, and its address. `public_until` is until when anybody may see it, which may be past; None for
    never."""

    port: int
    url: str
    opened_at: datetime
    public_until: datetime | None


@dataclass(frozen=True, kw_only=True)
class Session(Answer):
    """A session in full. `phases` are the times of its last start, in ms; `risk` is its unsaved work; `files_of` is of
    when its files are, after its volume was lost; `last_proven` is when a drill last restored its newest restore point
    whole. `rollback_to` is the restore point that it is being rolled back to, `rolled_back` is how its last rollback
    ended. `tier` says where its files are: `hot` or `archived`; `restoring` is what is being restored now.
    `services` are those of its workspace, all `stopped` unless it is active; `opened_ports` are shown at an address."""

    uuid: str
    user_id: str
    status: str
    created_at: datetime
    last_activity: datetime | None
    tier: str | None
    archived_at: datetime | None
    archives_at: datetime | None
    expires_at: datetime | None
    workspace_url: str
    pod_name: str | None
    reason: str | None
    reason_code: str | None
    size: str
    idle_timeout: float
    ttl: float
    labels: Mapping[str, str]
    restore_from: str | None
    restoring: Restoring | None
    backup: str | None
    backup_lacks: Mapping[str, Any] | None
    restore_point: NewestPoint | None
    last_proven: datetime | None
    files_of: datetime | None
    rollback_to: str | None
    rolled_back: Mapping[str, Any] | None
    generation: int
    risk: Mapping[str, Any] | None
    conversation: KeptConversation | None
    replicas: int
    queue_length: int
    services: tuple[ReportedService, ...]
    opened_ports: tuple[OpenedPort, ...]
    phases: Mapping[str, int]
    timestamp: datetime

    @property
    def rolling_back(self) -> bool:
        """Whether a rollback is under way; its last step is the start of a session that was up."""
        return self.rollback_to is not None or self.status in COMING_UP


@dataclass(frozen=True, kw_only=True)
class SessionSummary(Answer):
    """A session in a list; an earlier service does not send the URL and the queue's length."""

    uuid: str
    user_id: str
    status: str
    created_at: datetime
    last_activity: datetime | None
    tier: str | None
    archived_at: datetime | None
    archives_at: datetime | None
    expires_at: datetime | None
    workspace_url: str | None
    reason: str | None
    reason_code: str | None
    labels: Mapping[str, str]
    queue_length: int | None
    services: tuple[ReportedService, ...]
    opened_ports: tuple[OpenedPort, ...]


@dataclass(frozen=True, kw_only=True)
class SessionList(Answer):
    """A page of sessions."""

    total: int
    sessions: tuple[SessionSummary, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class Action(Answer):
    """What an action on a session came to; `status` is `success`, `queued`, `done`, or the session's state. `backup` is
    the name of the backup that was made."""

    uuid: str
    action: str
    status: str
    message: str | None
    backup: str | None


@dataclass(frozen=True, kw_only=True)
class Deleted(Answer):
    """A deletion; `terminating` if it still goes on. `backup` is the name of its last backup."""

    uuid: str
    status: str
    message: str
    backup: str | None
    risk: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Opened(Answer):
    """A login link, which works once."""

    uuid: str
    url: str
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Token(Answer):
    """A session token."""

    uuid: str
    token: str
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Verdict(Answer):
    """Whether a session is idle, and why."""

    idle: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class Signal(Answer):
    """One kind of use, with its last time; `holds` says whether it keeps the session awake."""

    signal: str
    last_at: datetime | None
    age_seconds: float | None
    counts_seconds: float | None
    holds: bool
    until: datetime | None
    by_a_person: bool
    detail: str | None


@dataclass(frozen=True, kw_only=True)
class Activity(Answer):
    """Why a session is awake, or when it sleeps."""

    uuid: str
    status: str
    verdict: Verdict
    sleeps_at: datetime | None
    only_a_person_counts_from: datetime | None
    next_check: datetime | None
    idle_timeout: float
    signals: tuple[Signal, ...]
    timestamp: datetime


@dataclass(frozen=True, kw_only=True)
class Risk(Answer):
    """The work that a stop would put at risk, by kind; `known` is false while an awake workspace does not answer."""

    uuid: str
    status: str
    known: bool
    risk: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Resources(Answer):
    """What a workspace uses: CPU in cores, memory, and what of its volume is in use."""

    cpu: float
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True, kw_only=True)
class ResourceMinute(Resources):
    """The same in a minute that began `at` a time."""

    at: datetime


@dataclass(frozen=True, kw_only=True)
class Percentiles(Answer):
    """None without any values."""

    p50: int | None
    p95: int | None


@dataclass(frozen=True, kw_only=True)
class SessionMetrics(Answer):
    """What a session uses now and used in the last hour, how long its answers took (ms), and its tokens."""

    uuid: str
    now: Resources
    hour: tuple[ResourceMinute, ...]
    chat_ms: Percentiles
    tokens: TokenCount
    timestamp: datetime


@dataclass(frozen=True, kw_only=True)
class PastEvent(Answer):
    """An event that is kept, with its time."""

    id: str
    type: str
    at: datetime
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PastEvents(Answer):
    """A page of events."""

    uuid: str
    events: tuple[PastEvent, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class Kept(Answer):
    """How long a session is kept awake."""

    uuid: str
    action: str
    status: str
    until: datetime | None
    hours: str


@dataclass(frozen=True, kw_only=True)
class Chat(Answer):
    """A prompt that was sent, and its answer if there is one. `status` is `processed`, `failed` or `queued`; `state` is
    finer. `message` says what an unfinished prompt waits for, `reason` why one failed; `pod_response` of that has what
    was said, done and spent by then."""

    uuid: str
    status: str
    message_id: str
    state: str
    pod_response: Mapping[str, Any] | None
    reason: str | None
    message: str | None

    @property
    def text(self) -> str:
        """The agent's answer, "" without one."""
        return str((self.pod_response or {}).get("text", ""))


@dataclass(frozen=True, kw_only=True)
class Message(Answer):
    """A prompt with its response. `message` is the prompt, until it is finished."""

    uuid: str
    message_id: str
    state: str
    message: str | None
    response: Mapping[str, Any] | None
    reason: str | None
    created_at: datetime | None
    delivered_at: datetime | None
    processed_at: datetime | None
    rolled_back_at: datetime | None

    @property
    def finished(self) -> bool:
        """Whether it has come to its end, a good or a bad one."""
        return self.state in FINISHED

    @property
    def text(self) -> str:
        """The agent's answer, "" without one."""
        return str((self.response or {}).get("text", ""))


@dataclass(frozen=True, kw_only=True)
class ToolUse(Answer):
    """A call of a tool. `arguments` is a mapping, or a text where the model wrote no JSON object."""

    call_id: str
    name: str
    arguments: Any


@dataclass(frozen=True, kw_only=True)
class Outcome(Answer):
    """How a turn ended: `processed` with a response, or `failed` with a reason, its code, and a response if there was
    something by then."""

    status: str
    response: Mapping[str, Any] | None
    reason: str | None
    code: str | None


@dataclass(frozen=True, kw_only=True)
class ConversationEntry(Answer):
    """One message of a conversation, as the agent keeps it: which fields it has depends on the `role`.

    `id` is the prompt's, the same for all messages of a turn; `state` is of a prompt that the agent has not begun.
    `tool_calls` and `usage` are an assistant's; `call_id`, `name` and `ok` a tool's; `outcome` ends a turn.
    """

    id: str | None
    role: str | None
    content: str | None
    at: datetime | None
    state: str | None
    tool_calls: tuple[ToolUse, ...]
    usage: Mapping[str, Any] | None
    call_id: str | None
    name: str | None
    ok: bool | None
    outcome: Outcome | None


@dataclass(frozen=True, kw_only=True)
class Conversation(Answer):
    """A page of a conversation; `total` counts all but the prompts that the agent has not begun."""

    uuid: str
    total: int | None
    messages: tuple[ConversationEntry, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class Backup(Answer):
    """A backup. `size` is the zip's, `content_bytes` that of its files; `unreadable` names some of those it lacks."""

    name: str
    uuid: str
    user_id: str
    size: int
    files: int
    content_bytes: int
    sha256: str
    created_at: datetime
    verified: bool
    changed: tuple[str, ...]
    complete: bool
    unreadable: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BackupList(Answer):
    """A page of backups."""

    total: int
    backups: tuple[Backup, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class RestorePoint(Answer):
    """A restore point. `size` are the bytes of its files, `stored` those it added to the store. A new session gets its
    files by `restore_from`. It lacks `unreadable` files, which could not be read. Of a `broken` one data is missing.
    `proven_at` is when a drill restored it and found each file as it was."""

    id: str
    created_at: datetime
    trigger: str
    files: int
    size: int
    stored: int
    unreadable: int
    message_id: str | None
    verified_at: datetime | None
    proven_at: datetime | None
    broken: bool
    restore_from: str


@dataclass(frozen=True, kw_only=True)
class RestorePointList(Answer):
    """A page of restore points."""

    total: int
    restore_points: tuple[RestorePoint, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class ForkedSession(CreatedSession):
    """A session with the files of another one's restore point."""

    forked_from: str
    restore_point: str
    files_of: datetime


@dataclass(frozen=True, kw_only=True)
class TokenCount(Answer):
    """Tokens of a model."""

    prompt: int
    completion: int


@dataclass(frozen=True, kw_only=True)
class Dollars(Answer):
    """What something cost, by what it was spent on."""

    compute: float
    disk: float
    backups: float
    points: float
    tokens: float
    total: float


@dataclass(frozen=True, kw_only=True)
class TokenPrice(Answer):
    """Dollars for a million tokens."""

    prompt: float
    completion: float


@dataclass(frozen=True, kw_only=True)
class Prices(Answer):
    """The prices that costs were computed with, in dollars."""

    vcpu_hour: float
    gib_hour: float
    compute_hour: Mapping[str, float]
    disk_gib_month: float
    backup_gib_month: float
    million_tokens: Mapping[str, TokenPrice]


@dataclass(frozen=True, kw_only=True)
class Usage(Answer):
    """What was used, and what it cost; `saved_dollars` were saved by sleeping."""

    compute_seconds: Mapping[str, float]
    storage_gib_hours: float
    backup_gib_hours: float
    point_gib_hours: float
    tokens: Mapping[str, TokenCount]
    dollars: Dollars
    saved_dollars: float


@dataclass(frozen=True, kw_only=True)
class DayUsage(Usage):
    """What was used on a day."""

    day: date


@dataclass(frozen=True, kw_only=True)
class SessionCost(Usage):
    """What a session cost from `first` to `last`; both days count. `days` are those with any use, oldest first."""

    uuid: str
    user_id: str
    size: str
    labels: Mapping[str, str]
    first: date = named("from")
    last: date = named("to")
    days: tuple[DayUsage, ...]
    prices: Prices


@dataclass(frozen=True, kw_only=True)
class CostRow(Usage):
    """What a session, user, size, day or label cost; which of the fields it has depends on the grouping."""

    uuid: str | None
    user_id: str | None
    size: str | None
    labels: Mapping[str, str] | None
    day: date | None
    label: str | None
    sessions: int | None


@dataclass(frozen=True, kw_only=True)
class Costs(Answer):
    """A page of costs."""

    first: date = named("from")
    last: date = named("to")
    group_by: str
    total: int
    rows: tuple[CostRow, ...]
    prices: Prices
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class AuditEntry(Answer):
    """Who did what to which session, from where, with which answer."""

    id: str
    at: datetime
    action: str
    uuid: str | None
    user_id: str | None
    by: str
    role: str
    address: str | None
    status: int | None
    reason: str | None
    request_id: str | None
    count: int


@dataclass(frozen=True, kw_only=True)
class Audit(Answer):
    """A page of the audit; a page before the end may be empty."""

    entries: tuple[AuditEntry, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class RedisMemory(Answer):
    """How full the state store is."""

    state: str
    percent: float | None
    used_bytes: int
    max_bytes: int


@dataclass(frozen=True, kw_only=True)
class Health(Answer):
    """The state of the service's parts. `status` is `healthy`, `degraded` or `unhealthy`."""

    status: str
    version: str
    redis: str
    redis_memory: RedisMemory | None
    kubernetes: str
    workers: int
    runtime: str
    network_policies: str | None
    warnings: tuple[str, ...]
    observer_age_seconds: float | None
    timestamp: datetime


@dataclass(frozen=True, kw_only=True)
class DeadLetter(Answer):
    """A task that was given up, after `tries` attempts. `error` is the kind of the last error."""

    id: str
    at: datetime | None
    task: str
    queue: str | None
    uuid: str | None
    generation: int | None
    tries: int | None
    error: str | None
    reason: str | None
    request_id: str | None


@dataclass(frozen=True, kw_only=True)
class DeadLetterList(Answer):
    """A page of dead letters."""

    total: int
    dead_letters: tuple[DeadLetter, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class Retried(Answer):
    """A task that is tried again; `status` is its session's."""

    id: str
    uuid: str
    task: str
    status: str


@dataclass(frozen=True, kw_only=True)
class Recovery(Answer):
    """The last recovery of sessions from the store: `status` is `none`, `running` or `done`. `found` counts those that
    had restore points and neither record nor workspace, `damaged` those of whose points none can be read; both are
    null until the end. `error` is of the last attempt, which is repeated."""

    status: str
    dry_run: bool | None
    requested_at: datetime | None
    ended_at: datetime | None
    found: int | None
    recovered: int
    damaged: int | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Check(Answer):
    """One check of the service: `status` is `ok`, `warning`, `failed` or `unknown`; `remedy` says what to do."""

    check: str
    status: str
    found: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis(Answer):
    """What is wrong with the service; `status` is the worst of the checks."""

    status: str
    checks: tuple[Check, ...]
    timestamp: datetime


@dataclass(frozen=True, kw_only=True)
class Process(Answer):
    """A process of the service; `silent` after 20 s without a report."""

    name: str
    kind: str
    host: str | None
    status: str
    seen_at: datetime | None
    since: datetime | None
    clock_skew_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Processes(Answer):
    """All processes of the service."""

    processes: tuple[Process, ...]
    timestamp: datetime


@dataclass(frozen=True, kw_only=True)
class Setting(Answer):
    """A setting as it is in force; of a secret only whether it is set."""

    name: str
    value: Any
    unit: str
    default: Any
    reason: str
    changed: bool
    secret: bool


@dataclass(frozen=True, kw_only=True)
class Settings(Answer):
    """All settings as they are in force."""

    settings: tuple[Setting, ...]


@dataclass(frozen=True, kw_only=True)
class Key(Answer):
    """An API key, which is not shown itself; null stands for no limit. `budget` is in dollars a month."""

    name: str
    role: str
    user_prefix: str | None
    limits: Mapping[str, str]
    max_concurrent: int | None
    budget: float | None


@dataclass(frozen=True, kw_only=True)
class Keys(Answer):
    """All API keys."""

    keys: tuple[Key, ...]


@dataclass(frozen=True, kw_only=True)
class Sample(Answer):
    """The service at a time, and what happened since the sample before; null where nothing was started."""

    at: datetime
    sessions: Mapping[str, int]
    wakes: int
    wake_p50_ms: int | None
    wake_p95_ms: int | None
    creates: int
    create_p50_ms: int | None
    create_p95_ms: int | None
    cost_dollars: float
    saved_dollars: float
    failures: Mapping[str, int]
    queues: Mapping[str, int]
    dead_letters: int


@dataclass(frozen=True, kw_only=True)
class History(Answer):
    """The service over time, oldest first."""

    samples: tuple[Sample, ...]
    interval_seconds: int
    timestamp: datetime


@dataclass(frozen=True, kw_only=True)
class Metrics(Answer):
    """The service's figures."""

    total_sessions: int
    created_sessions: int
    active_sessions: int
    sleeping_sessions: int
    waking_sessions: int
    terminating_sessions: int
    terminated_sessions: int
    failed_sessions: int
    archived_sessions: int | None
    dead_letters: int
    queue_backlog: Mapping[str, int]
    workers: int
    observer_age_seconds: float | None
    backups: int
    redis_used_bytes: int
    redis_max_bytes: int
    counters: Mapping[str, int]
    timestamp: datetime


@dataclass(frozen=True)
class Window(Answer):
    """The size of a terminal, in characters, each from 1 to 1,000."""

    rows: int
    columns: int


@dataclass(frozen=True, kw_only=True)
class ExecEntry(Answer):
    """A command that runs or ran. `command` is a text for the shell, or a list of a program and its arguments. One that
    did not end by itself has a `reason`, and one that a signal ended its `signal`; `exit_code` is None for both.
    `left` is how many processes it left running, which were ended. `stdout_bytes` and `stderr_bytes` are what it has
    written so far, `ms` is how long it took or runs. `tty` is the size of its terminal, if it has one, and
    `input_bytes` is what was typed there so far."""

    uuid: str
    exec_id: str
    command: Any
    cwd: str
    detached: bool
    state: str
    exit_code: int | None
    signal: str | None
    reason: str | None
    left: int
    started_at: datetime | None
    ended_at: datetime | None
    ms: int
    stdout_bytes: int
    stderr_bytes: int
    tty: Window | None
    input_bytes: int

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.state == ExecState.RUNNING


@dataclass(frozen=True, kw_only=True)
class Exec(ExecEntry):
    """A command with its output so far. Of a long one `stdout` and `stderr` have the beginning and the end, and
    `truncated` is true; bytes that are no UTF-8 are U+FFFD."""

    stdout: str
    stderr: str
    truncated: bool


@dataclass(frozen=True, kw_only=True)
class ExecInput(Answer):
    """What was typed into the terminal of a command: `input_bytes` of it are taken, in all."""

    uuid: str
    exec_id: str
    input_bytes: int


@dataclass(frozen=True, kw_only=True)
class ExecList(Answer):
    """The commands of a session, newest first."""

    execs: tuple[ExecEntry, ...]


@dataclass(frozen=True, kw_only=True)
class Service(Answer):
    """A service of a workspace. `port` is where it listens, if it has one; `restart` when it is started again after it
    ended by itself; with `autostart` its workspace's start starts it. `exit_code`, `signal` and `reason` say how its
    last run ended, as those of a command; all are None while it runs the first time. `starts` counts its runs since a
    call or its workspace's start started it; `log_bytes` is what it has written so far, also what is kept no longer."""

    uuid: str
    name: str
    command: str
    cwd: str
    port: int | None
    restart: str
    autostart: bool
    state: str
    exit_code: int | None
    signal: str | None
    reason: str | None
    starts: int
    started_at: datetime | None
    ended_at: datetime | None
    log_bytes: int


@dataclass(frozen=True, kw_only=True)
class ServiceList(Answer):
    """The services of a workspace, by name."""

    services: tuple[Service, ...]


@dataclass(frozen=True, kw_only=True)
class Port(Answer):
    """A port of a workspace. `process` is the program that listens there, as far as it is known; `service` the service
    that has this port. `url` is its address, which leads to it only while it is opened: `opened_at` is since when.
    `public_until` is until when anybody may see it, which may be past."""

    port: int
    state: str
    process: str | None
    service: str | None
    url: str
    opened_at: datetime | None
    public_until: datetime | None


@dataclass(frozen=True, kw_only=True)
class PortList(Answer):
    """The ports of a workspace, by number."""

    ports: tuple[Port, ...]


@dataclass(frozen=True, kw_only=True)
class PortOpening(Port):
    """A port that was opened. Unless it is public, `url` is a login link, which works once, until `expires_at`."""

    uuid: str
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class FileEntry(Answer):
    """A file, a folder or something else in a workspace. `path` is relative to the workspace's folder, `size` the bytes
    of a regular file, `mode` its permission bits in octal, as "644". A link has a `target`; `raw_path` are the bytes of
    a path that is no UTF-8, as a URL has them. `etag` is a file's, with its quotes, for the `if_match` of a `write`."""

    uuid: str
    path: str
    type: str
    size: int | None
    mode: str
    modified_at: datetime
    target: str | None
    raw_path: str | None
    etag: str | None

    @property
    def exact_path(self) -> str:
        """The path for the next call, as `os.fsdecode` gives it if it is no UTF-8."""
        return _exact(self.path, self.raw_path)


@dataclass(frozen=True, kw_only=True)
class GonePath(Answer):
    """Where nothing is any more, nor below it; as a `FileEntry` has it."""

    path: str
    raw_path: str | None

    @property
    def exact_path(self) -> str:
        """As that of a `FileEntry`."""
        return _exact(self.path, self.raw_path)


def _exact(path: str, raw_path: str | None) -> str:
    return path if raw_path is None else os.fsdecode(unquote_to_bytes(raw_path))


@dataclass(frozen=True, kw_only=True)
class FileList(Answer):
    """A page of what is in a folder."""

    uuid: str
    path: str
    entries: tuple[FileEntry, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class Tree(Answer):
    """A folder that an archive was written to: how many `files` and links came to it, and the `bytes` of the files."""

    uuid: str
    path: str
    files: int
    bytes: int
