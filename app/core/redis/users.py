"""The users of Redis on a cluster: one for each process, with the keys and commands it needs.

`python -m scripts.generate` writes them to `manifests/base/system/redis-users.acl`, and the tests run the
processes as these users. They need Redis 7, whose rules tell reading from writing and can apply to one command.

Redis checks a script's own commands as if its caller had sent them. So naming a key to a script grants nothing, and
every user may name any key to one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.core.redis import keys, task_queue

ANY_SESSION = "?" * 8
"""A uuid in a pattern. A session's other keys are longer, so `session:????????` matches the record alone."""

CONNECTION = ("ping", "select", "client", "multi", "exec", "discard", "watch", "unwatch")
"""Of `client`, as of every command, without the administrators' parts."""

SCRIPTS = ("script|load", "script|exists")

READING = (
    *("exists", "get", "mget", "strlen", "pttl", "info", "memory|usage", "time"),
    *("hget", "hmget", "hgetall", "hkeys", "hvals", "hexists", "hstrlen"),
    *("llen", "lrange", "lpos"),
    *("zcard", "zcount", "zinter", "zrange", "zrangebyscore", "zrevrange", "zrevrangebyscore", "zscore", "zmscore"),
    *("xlen", "xrange", "xread", "xrevrange"),
)

WRITING = (
    *("set", "setrange", "incr", "incrby", "del", "unlink", "expire", "pexpire", "persist"),
    *("hset", "hdel", "hincrby"),
    *("lpush", "rpush", "rpop", "lrem", "ltrim", "blmove"),
    *("zadd", "zrem", "zpopmin", "zremrangebyscore"),
    *("xadd", "xdel", "xtrim", "publish"),
)

WAITING = ("subscribe", "unsubscribe")

LISTENING = ("psubscribe", "punsubscribe")
"""How Flower gets the workers' events."""

SENDING = ("sadd", "smembers")
"""Further commands that Celery needs to enqueue."""

WORKING = ("sadd", "smembers", "brpop")
"""Further commands that Celery's workers need."""

ERASING = ("rename",)
"""A further command of the backup worker, which rewrites the audit for an erasure."""

NOTHING = "*:nothing"
"""The keys that scripts unlink first (app/core/redis/scripts.py)."""

PRIORITIES = "??[369]"
"""Suffixes that Celery's Redis transport adds to a queue for a priority. We use none, but it reads those lists."""

EVENTS_CHANNELS = (keys.EVENTS.format(uuid="*"), keys.FEED)
WORKERS_EVENTS = ("/0.celeryev/*",)
"""What workers publish for Flower. None listens there: workers lack the commands for it."""

LISTENERS = ("_kombu.binding.celeryev", "_kombu.binding_permanent.celeryev", "_kombu.binding_deadlines")
"""Where kombu notes who listens there."""

KEYS_IN_USE = (
    *(keys.USE, keys.RESOURCES, keys.EVENTS, keys.PROMPTS, keys.ANSWERED, keys.TOKENS),
    *(keys.INBOX, keys.HELD, keys.AGENT),
)
"""Keys of one session that change while its agent works."""

SESSION_KEYS = (keys.SESSION, keys.UNDONE, *KEYS_IN_USE)

REFUSAL_KEYS = (keys.AUDIT_REPEATED, keys.AUDIT_COUNTS, keys.AUDIT_WINDOW)
"""The audit's stream of repeatable acts, refusals among them."""

LEDGER_KEYS = ("ledger:*", "costs:*")
"""The cost ledger, for those who carry out what costs: the script that ends an interval writes all of it."""

BUDGET_READS = ("costs:user:*", "costs:key:*", keys.BUDGETS)
"""What a check of a budget reads: the owner's running totals, and a key's budget."""

BUDGET_NOTES = (keys.BUDGET_WARNED.format(month="*", owner="*"), keys.BUDGET_REFUSALS)
"""What it notes."""

AUDIT_KEYS = (keys.AUDIT, *REFUSAL_KEYS)
"""The script that writes an entry also reads the streams, to keep them small."""


@dataclass(frozen=True)
class User:
    """One user: `commands` as in Redis' rules but without a sign; patterns of keys for reading, writing or both, and of
    channels; and the commands that may name any key, since Redis checks what their scripts do."""

    name: str
    commands: tuple[str, ...]
    both: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    checked: tuple[str, ...] = ("evalsha",)

    def rules(self) -> str:
        """The rules in Redis' syntax, without the password. `-@admin` comes last and overrules the lists above."""
        return " ".join(
            [
                "resetchannels",
                *(f"~{each}" for each in _sorted(self.both)),
                *(f"%R~{each}" for each in _sorted(self.reads)),
                *(f"%W~{each}" for each in _sorted(self.writes)),
                *(f"&{each}" for each in _sorted(self.channels)),
                "-@all",
                *(f"+{each}" for each in _sorted(self.commands)),
                "-@admin",
                *([f"({' '.join(f'+{each}' for each in self.checked)} ~*)"] if self.checked else []),
            ]
        )


def _sorted(items: Iterable[str]) -> list[str]:
    return sorted(set(items))


def _any(*names: str) -> tuple[str, ...]:
    """Patterns of these names of app/core/redis/keys.py."""
    known = {"uuid": ANY_SESSION}
    others = ("id", "user_id", "day", "request", "digest", "status", "name", "call", "token", "kind", "owner", "number")
    return tuple(name.format(**known, **dict.fromkeys(others, "*")) for name in names)


def _reports(kind: str) -> str:
    """The key in which the processes of a kind report themselves."""
    return keys.PROCESSES.format(kind=kind)


def _sends(*queues: str) -> tuple[str, ...]:
    """Keys written to enqueue into these queues. Writing alone allows neither reading nor taking the messages there."""
    exchanges = (*queues, "celery")
    return (
        *(name for each in queues for name in (each, f"{each}{PRIORITIES}")),
        *(f"_kombu.{table}.{each}" for each in exchanges for table in ("binding", "binding_permanent")),
    )


def _bindings(*queues: str) -> tuple[str, ...]:
    """Keys read to enqueue into these queues. `celery` is Celery's default exchange."""
    return tuple(f"_kombu.binding.{each}" for each in (*queues, "celery"))


def _queues(tasks: Iterable[str]) -> list[str]:
    """The queues of these tasks."""
    return _sorted(task_queue.ROUTES[each] for each in tasks)


ALL_QUEUES = task_queue.QUEUES
FORWARD_AUTH_QUEUES = _queues(task_queue.START_KINDS)
GATEWAY_QUEUES = _queues([task_queue.DELIVER, task_queue.TELL_FILES, task_queue.TOKEN_ENDED])
BEAT_QUEUES = _queues(task_queue.SWEEPS)

STATUS_SETS = _any(keys.BY_STATUS)

WEB = User(
    "web",
    commands=(*CONNECTION, *SCRIPTS, *READING, *WRITING, *WAITING, *SENDING),
    both=(
        *_any(*SESSION_KEYS, keys.PROMPT, keys.PROMPT_BYTES, keys.INBOX_PENDING, keys.DELIVERY_LEASE),
        *_any(keys.BY_USER, keys.USER_TOMBSTONES, keys.BY_STATUS, keys.DISCONNECT_TRIES),
        *(keys.ALL, keys.IDLE, keys.EXPIRY, keys.INTENTS, keys.DISCONNECTS, keys.BACKUP_REQUESTS, keys.IN_USE),
        keys.OPENINGS,
        *(keys.POINT_REQUESTS, keys.POINTS_WAITING, keys.ERASURES, keys.ARCHIVED, keys.ARCHIVING),
        *_any(keys.LINK, keys.RPC_CALL, keys.RPC_ANSWER, keys.IDEMPOTENCY, keys.KEPT_ANSWERS, keys.CREATED),
        *_any(keys.SIGNED_IN, keys.SIGN_INS),
        *(keys.FEED, keys.PROMPT_TIMES),
        *_any(*AUDIT_KEYS),
        *(*BUDGET_NOTES, keys.BUDGETS, keys.SHOWN),
        *(keys.DEAD_LETTERS, keys.RECOVERY),
        _reports("web"),
        "LIMITER/rate:*",
        NOTHING,
    ),
    reads=(
        *_any(keys.BACKUPS, keys.BACKUP, keys.SESSION_BACKUPS, keys.USER_BACKUPS, keys.USER_TOKENS, keys.POINTS),
        *_any(keys.STARTS, keys.RECENT_STARTS, keys.ACTIONS, keys.COUNTERS, keys.PROCESSES),
        *(keys.SENTINEL, keys.WORKERS_SEEN, keys.OBSERVER_SEEN, keys.OBSERVER_SINCE, keys.NETWORK_POLICIES),
        *(keys.QUEUES_SEEN, keys.MODEL_SEEN, keys.MINUTES, keys.HOURS, keys.DRILLS, keys.POINTS_DUE),
        *LEDGER_KEYS,
        *_bindings(*ALL_QUEUES),
    ),
    writes=_sends(*ALL_QUEUES),
    channels=EVENTS_CHANNELS,
    checked=("eval", "evalsha"),
)
"""The API, which writes records."""

FORWARD_AUTH = User(
    "forward-auth",
    commands=(*CONNECTION, *SCRIPTS, *READING, *WRITING, *SENDING),
    both=(
        *_any(keys.SESSION, keys.USE, keys.EVENTS, keys.LINK, keys.PUBLIC_WAKES, *AUDIT_KEYS),
        *STATUS_SETS,
        *(*BUDGET_NOTES, keys.BUDGETS),
        *(keys.INTENTS, keys.IDLE, keys.OPENINGS),
        _reports("forward-auth"),
        NOTHING,
    ),
    reads=(*_any(keys.RECENT_STARTS), *BUDGET_READS, *_bindings(*FORWARD_AUTH_QUEUES)),
    writes=(keys.FEED, *_sends(*FORWARD_AUTH_QUEUES)),
    channels=EVENTS_CHANNELS,
)
"""A forwarded request uses a login link, counts as activity, wakes a session, and opens a port."""

TOKEN_LEDGER = (
    *("ledger:*", "costs:sessions:*", "costs:user:*", "costs:key:*"),
    *(f"{keys.ALL_COSTS}:????-??", keys.TOTALS),
)
"""What booking a model's tokens writes."""

GATEWAY = User(
    "gateway",
    commands=(*CONNECTION, *SCRIPTS, *READING, *WRITING, *SENDING),
    both=(
        *_any(*KEYS_IN_USE, keys.PROMPT, keys.PROMPT_BYTES, keys.INBOX_PENDING, keys.UNDONE),
        *_any(keys.USER_TOKENS, keys.SPENT, keys.PROMPT_TIMES),
        *TOKEN_LEDGER,
        *BUDGET_NOTES,
        *_any(*REFUSAL_KEYS),
        _reports("gateway"),
        keys.MODEL_SEEN,
        NOTHING,
    ),
    reads=(*_any(keys.SESSION), *BUDGET_READS, keys.SENTINEL, *_bindings(*GATEWAY_QUEUES)),
    writes=(keys.FEED, *_sends(*GATEWAY_QUEUES)),
    channels=EVENTS_CHANNELS,
)
"""The process that workspaces reach: it writes prompts, a session's use, token usage and refusals. It reads records and
writes none, since others act on them. It books tokens in the cost ledger. It has no index, deadline, backup, login
link, or main stream of the audit."""


def _celery(*queues: str) -> tuple[str, ...]:
    """Celery's own keys that a worker of these queues reads and writes."""
    return (
        *(name for each in queues for name in (each, f"{each}{PRIORITIES}")),
        *_bindings(*queues),
        *("unacked", "unacked_index", "unacked_mutex"),
    )


def _erases() -> tuple[str, ...]:
    """Further keys for erasures: events in the feed, answers kept for repeated calls, and the copy of the audit."""
    copies = (keys.AUDIT_COPY.format(stream=stream) for stream in (keys.AUDIT, keys.AUDIT_REPEATED))
    return (keys.FEED, *_any(keys.IDEMPOTENCY, keys.KEPT_ANSWERS), keys.AUDIT_LEASE, *copies)


def _worker(name: str, *queues: str) -> User:
    """A worker that carries out intents: it recovers records, backs up and deletes."""
    others = tuple(each for each in ALL_QUEUES if each not in queues)
    return User(
        name,
        commands=(*CONNECTION, *SCRIPTS, *READING, *WRITING, *WORKING, *(ERASING if "backup" in queues else ())),
        both=(
            *_any(*SESSION_KEYS, keys.PROMPT, keys.PROMPT_BYTES, keys.INBOX_PENDING, keys.DISCONNECT_TRIES),
            *_any(keys.LEASE, keys.BACKUP_LEASE, keys.DELIVERY_LEASE, keys.REMOVED, keys.RPC_CALL, keys.RPC_ANSWER),
            *_any(keys.BY_USER, keys.USER_TOMBSTONES, keys.BY_STATUS, keys.ALL, keys.IDLE, keys.EXPIRY, keys.INTENTS),
            *(keys.ARCHIVED, keys.ARCHIVING),
            *_any(keys.BACKUPS, keys.BACKUP, keys.SESSION_BACKUPS, keys.USER_BACKUPS, keys.BACKUP_REQUESTS),
            *_any(keys.POINTS, keys.POINT_SLOT, keys.POINT_REQUESTS, keys.POINTS_WAITING, keys.POINTS_DUE),
            *(keys.POINTS_ENDING, keys.DRILLS, keys.DRILL_REQUESTS),
            *(keys.IN_USE, keys.RETIRED, keys.DISCONNECTS, keys.CLOCK, keys.SENTINEL, keys.ERASURES),
            *(keys.PLACE, keys.PROMPT_TIMES, keys.OPENINGS),
            *(_erases() if "backup" in queues else ()),
            keys.QUEUES_SEEN,
            *_any(keys.COUNTERS, keys.STARTS, keys.RECENT_STARTS, keys.ACTIONS, keys.DEAD_LETTERS, keys.WORKERS_SEEN),
            *(*_any(*AUDIT_KEYS), *LEDGER_KEYS),
            _reports(name),
            keys.FAILURES,
            *((keys.MINUTES, keys.HOURS, keys.SAMPLED) if "sweep" in queues else ()),
            *((keys.STORE_LOOKED, keys.STORE_LOOK_LEASE, keys.RECOVERY) if "backup" in queues else ()),
            *_celery(*queues),
            NOTHING,
        ),
        # The sweep enqueues no task again that still waits in a queue.
        reads=(keys.OBSERVER_SEEN, keys.OBSERVER_SINCE, *others, *_bindings(*others)),
        writes=(keys.FEED, *_sends(*ALL_QUEUES)),
        channels=(*EVENTS_CHANNELS, *WORKERS_EVENTS),
    )


WORKER = _worker("worker", "wake")
SWEEPER = _worker("sweeper", "lifecycle", "sweep")
BACKUP_WORKER = _worker("backup-worker", "backup")

DELIVERY_WORKER = User(
    "delivery-worker",
    commands=(*CONNECTION, *SCRIPTS, *READING, *WRITING, *WORKING),
    both=(
        *_any(*KEYS_IN_USE, keys.PROMPT, keys.PROMPT_BYTES, keys.INBOX_PENDING, keys.DISCONNECT_TRIES),
        *_any(
            keys.UNDONE,
            keys.DISCONNECTED_AT,
            keys.DELIVERY_LEASE,
            keys.DISCONNECTS,
            keys.COUNTERS,
            keys.DEAD_LETTERS,
            keys.WORKERS_SEEN,
        ),
        *(keys.NETWORK_POLICIES, keys.PROMPT_TIMES),
        _reports("delivery-worker"),
        *_celery("deliver"),
        NOTHING,
    ),
    # A dead worker's task may be of any queue; the first worker that notices puts it back.
    reads=(*_any(keys.SESSION), *_bindings(*ALL_QUEUES)),
    writes=(keys.FEED, *_sends(*ALL_QUEUES)),
    channels=(*EVENTS_CHANNELS, *WORKERS_EVENTS),
)
"""Sends requests to agents: prompts, warnings, disconnects. It reads records and writes none, and has no backup and no
lifecycle task."""

OBSERVER = User(
    "observer",
    commands=(*CONNECTION, *SCRIPTS, *READING, *WRITING, *SENDING),
    both=(
        *_any(*SESSION_KEYS, keys.PROMPT, keys.INBOX_PENDING, keys.BY_STATUS, keys.IDLE, keys.INTENTS),
        *(keys.OBSERVER_SEEN, keys.OBSERVER_SINCE, keys.OBSERVER_LEADER, keys.BALLAST, keys.POINTS_DUE),
        *_any(keys.COUNTERS, keys.STARTS, keys.RECENT_STARTS, keys.ACTIONS, keys.REMOVED, *AUDIT_KEYS),
        *LEDGER_KEYS,
        *(_reports("observer"), keys.FAILURES),
        NOTHING,
    ),
    reads=_bindings(*ALL_QUEUES),
    writes=(keys.FEED, *_sends(*ALL_QUEUES)),
    channels=EVENTS_CHANNELS,
)

BEAT = User(
    "beat",
    commands=(*CONNECTION, *SENDING, "exists", "llen", "lpush", "time", "hset", "hdel", "hgetall"),
    both=(_reports("beat"),),
    reads=_bindings(*BEAT_QUEUES),
    writes=_sends(*BEAT_QUEUES),
    checked=(),
)
"""Enqueues the sweeps and the check of the network, and reads no session."""

FLOWER = User(
    "flower",
    commands=(
        *CONNECTION,
        *SCRIPTS,
        *LISTENING,
        *("exists", "get", "set", "del", "pexpire", "llen", "time", "sadd", "srem"),
        *("zadd", "zrem", "zrange", "zrangebyscore"),
    ),
    # Like every consumer, Flower checks for messages taken so long ago that their worker must be dead.
    both=(*LISTENERS, "celeryev.*", "unacked_mutex"),
    reads=("unacked_index", *(name for each in ALL_QUEUES for name in (each, f"{each}{PRIORITIES}"))),
    channels=WORKERS_EVENTS,
)
"""Receives the workers' events, and reads the queues' lengths. It publishes and enqueues nothing."""

KEDA = User(
    "keda",
    commands=("ping", "select", "client", "type", "llen"),
    reads=_any(keys.INBOX),
    checked=("eval", "evalsha"),
)
"""Reads the length of a session's queue, by a script of its own."""

ADMIN = "admin"
"""May do everything; no process has its password."""

PROCESSES = (WEB, FORWARD_AUTH, GATEWAY, WORKER, SWEEPER, BACKUP_WORKER, DELIVERY_WORKER, OBSERVER, BEAT, FLOWER)
USERS = (*PROCESSES, KEDA)


def lines() -> list[str]:
    """Each user and its rules, as the pod of Redis reads them; the pod inserts the passwords."""
    return [*(f"{user.name} {user.rules()}" for user in USERS), f"{ADMIN} ~* &* +@all"]


def access_list(passwords: dict[str, str]) -> str:
    """Redis' ACL file, with a password for each user."""
    named = (line.partition(" ") for line in lines())
    return "".join(f"user {name} on >{passwords[name]} {rules}\n" for name, _, rules in named)
