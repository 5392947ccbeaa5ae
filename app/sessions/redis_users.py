"""The users of Redis on a cluster: one for each process, with the keys it works on and the commands it needs for that.

What stands here becomes `manifests/base/system/redis-users.acl` (`python -m scripts.lib.redis_users`), and is what the
tests run the processes under. Redis 7 or later: it tells reading from writing, and takes rules apart for one command.

A script's own commands are checked as if its caller had sent them, so what a script is told of keys gives nobody
anything, and every user may name any key to one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.sessions import keys, queue

ANY_SESSION = "?" * 8
"""As a uuid in a pattern. One of a session's own keys is longer than the record's, so this is the record alone."""

CONNECTION = ("ping", "select", "client", "multi", "exec", "discard", "watch", "unwatch")
"""`client` without what is for administrators, as every command."""

SCRIPTS = ("script|load", "script|exists")

READING = (
    *("exists", "get", "mget", "strlen", "pttl", "info", "memory|usage"),
    *("hget", "hmget", "hgetall", "hkeys", "hvals", "hexists", "hstrlen"),
    *("llen", "lrange", "lpos"),
    *("zcard", "zcount", "zrange", "zrangebyscore", "zrevrange", "zrevrangebyscore", "zscore", "zmscore"),
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

SENDING = ("sadd", "smembers")
"""What Celery needs to enqueue, besides."""

WORKING = ("sadd", "srem", "smembers", "brpop", "time", "psubscribe", "punsubscribe", *WAITING)
"""What a worker of Celery's needs besides, and Flower."""

NOTHING = "*:nothing"
"""What every script begins by freeing (app/sessions/scripts.py)."""

PRIORITIES = "??[369]"
"""What Celery's Redis transport adds to the name of a queue for a priority. We use none, but it looks there."""

EVENTS_CHANNELS = (keys.EVENTS.format(uuid="*"),)
CELERY_CHANNELS = ("/0.celery.pidbox", "/0.celeryev", "/0.celeryev/*")
CELERY_KEYS = tuple(
    f"_kombu.{table}.{exchange}"
    for table in ("binding", "binding_permanent")
    for exchange in ("celeryev", "celery.pidbox", "reply.celery.pidbox")
) + ("_kombu.binding_deadlines",)
REPLIES = ("*.reply.celery.pidbox", f"*.reply.celery.pidbox{PRIORITIES}")

SESSION_KEYS = (
    *(keys.SESSION, keys.EVENTS, keys.PROMPTS, keys.ANSWERED, keys.TOKENS),
    *(keys.INBOX, keys.HELD, keys.AGENT),
)
"""What belongs to a session alone, and changes while its agent works."""

AUDIT_KEYS = (keys.AUDIT, keys.AUDIT_REPEATED, keys.AUDIT_COUNTS, keys.AUDIT_WINDOW)
"""An entry is written by a script that sees to it that the stream stays small, so it is read too."""


@dataclass(frozen=True)
class User:
    """One user: `commands` as in Redis' rules without their sign, patterns of keys that are read, written and both,
    of channels, and the commands that may name any key as they check what they do by themselves."""

    name: str
    commands: tuple[str, ...]
    both: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    checked: tuple[str, ...] = ("evalsha",)

    def rules(self) -> str:
        """In Redis' words, but for the password. `-@admin` comes last: no list above gives what it takes."""
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
    """Patterns of these names of app/sessions/keys.py."""
    known = {"uuid": ANY_SESSION}
    others = ("id", "user_id", "day", "request", "digest", "status", "name", "ticket", "token", "kind", "owner")
    return tuple(name.format(**known, **dict.fromkeys(others, "*")) for name in names)


def _sends(*queues: str) -> tuple[str, ...]:
    """What is written to enqueue into these; who may do no more can't read what waits there, nor take it."""
    exchanges = (*queues, "celery")
    return (
        *(name for each in queues for name in (each, f"{each}{PRIORITIES}")),
        *(f"_kombu.{table}.{each}" for each in exchanges for table in ("binding", "binding_permanent")),
    )


def _bindings(*queues: str) -> tuple[str, ...]:
    """What is read to enqueue into these. `celery` is the exchange of those that Celery's application was told of."""
    return tuple(f"_kombu.binding.{each}" for each in (*queues, "celery"))


ALL_QUEUES = queue.QUEUES
STATUS_SETS = _any(keys.BY_STATUS)

WEB = User(
    "web",
    commands=(*CONNECTION, *SCRIPTS, *READING, *WRITING, *WAITING, *SENDING),
    both=(
        *_any(*SESSION_KEYS, keys.MESSAGE, keys.PROMPT_BYTES, keys.INBOX_PENDING, keys.DELIVERY_LEASE),
        *_any(keys.BY_USER, keys.USER_TOMBSTONES, keys.BY_STATUS, keys.LOCKOUT_TRIES),
        *(keys.ALL, keys.IDLE, keys.EXPIRY, keys.INTENTS, keys.LOCKOUTS, keys.BACKUP_REQUESTS, keys.IN_USE),
        *_any(keys.LINK, keys.TICKET, keys.ANSWER, keys.IDEMPOTENCY, keys.KEPT_ANSWERS, keys.CREATED),
        *_any(*AUDIT_KEYS),
        "LIMITER/rate:*",
        NOTHING,
    ),
    reads=(
        *_any(keys.BACKUPS, keys.BACKUP, keys.SESSION_BACKUPS, keys.USER_BACKUPS, keys.USER_TOKENS),
        *_any(keys.STARTS, keys.RECENT_STARTS, keys.COUNTERS, keys.DEAD_LETTERS),
        *(keys.SENTINEL, keys.WORKERS_SEEN, keys.WATCHER_SEEN, keys.WATCHER_SINCE, keys.NETWORK_POLICIES),
        *_bindings(*ALL_QUEUES),
    ),
    writes=_sends(*ALL_QUEUES),
    channels=EVENTS_CHANNELS,
    checked=("eval", "evalsha"),
)
"""Writes records: it is what calls are made to."""

FORWARD_AUTH = User(
    "forward-auth",
    commands=(*CONNECTION, *SCRIPTS, *READING, *WRITING, *SENDING),
    both=(*_any(keys.SESSION, keys.EVENTS, keys.LINK, *AUDIT_KEYS), *STATUS_SETS, keys.INTENTS, keys.IDLE, NOTHING),
    reads=(*_any(keys.RECENT_STARTS), *_bindings("wake", "backup")),
    writes=_sends("wake", "backup"),
    channels=EVENTS_CHANNELS,
)
"""A visit follows a link, is a sign of use, and wakes a session."""

GATEWAY = User(
    "gateway",
    commands=(*CONNECTION, *SCRIPTS, *READING, *WRITING, *SENDING),
    both=(
        *_any(*SESSION_KEYS, keys.MESSAGE, keys.PROMPT_BYTES, keys.INBOX_PENDING),
        *_any(keys.USER_TOKENS, keys.SPENT),
        NOTHING,
    ),
    reads=(keys.SENTINEL, *_bindings("deliver")),
    writes=_sends("deliver"),
    channels=EVENTS_CHANNELS,
)
"""What workspaces reach: their sessions' records and prompts, and what the model costs. No index, no deadline, no
backup, no link."""


def _celery(*queues: str) -> tuple[str, ...]:
    """What a worker of these queues reads and writes of Celery's own."""
    return (
        *(name for each in queues for name in (each, f"{each}{PRIORITIES}")),
        *_bindings(*queues),
        *CELERY_KEYS,
        *REPLIES,
        *("unacked", "unacked_index", "unacked_mutex"),
        f"*.celery.pidbox{PRIORITIES}",
        "*.celery.pidbox",
    )


def _worker(name: str, *queues: str) -> User:
    """A worker that carries out what is wanted of sessions: it creates records anew, backs up and deletes."""
    others = tuple(each for each in ALL_QUEUES if each not in queues)
    return User(
        name,
        commands=(*CONNECTION, *SCRIPTS, *READING, *WRITING, *WORKING),
        both=(
            *_any(*SESSION_KEYS, keys.MESSAGE, keys.PROMPT_BYTES, keys.INBOX_PENDING, keys.LOCKOUT_TRIES),
            *_any(keys.LEASE, keys.BACKUP_LEASE, keys.DELIVERY_LEASE, keys.REMOVED, keys.TICKET, keys.ANSWER),
            *_any(keys.BY_USER, keys.USER_TOMBSTONES, keys.BY_STATUS, keys.ALL, keys.IDLE, keys.EXPIRY, keys.INTENTS),
            *_any(keys.BACKUPS, keys.BACKUP, keys.SESSION_BACKUPS, keys.USER_BACKUPS, keys.BACKUP_REQUESTS),
            *(keys.IN_USE, keys.IN_USE_KNOWN, keys.RETIRED, keys.LOCKOUTS, keys.CLOCK, keys.SENTINEL),
            *_any(keys.COUNTERS, keys.STARTS, keys.RECENT_STARTS, keys.DEAD_LETTERS, keys.WORKERS_SEEN),
            *_any(*AUDIT_KEYS),
            *_celery(*queues),
            NOTHING,
        ),
        # The sweep sends nothing again that still waits in a queue.
        reads=(keys.WATCHER_SEEN, keys.WATCHER_SINCE, *others, *_bindings(*others)),
        writes=_sends(*ALL_QUEUES),
        channels=(*EVENTS_CHANNELS, *CELERY_CHANNELS),
    )


WORKER = _worker("worker", "wake")
SWEEPER = _worker("sweeper", "lifecycle", "sweep")
ARCHIVER = _worker("archiver", "backup")

COURIER = User(
    "courier",
    commands=(*CONNECTION, *SCRIPTS, *READING, *WRITING, *WORKING),
    both=(
        *_any(*SESSION_KEYS, keys.MESSAGE, keys.PROMPT_BYTES, keys.INBOX_PENDING, keys.LOCKOUT_TRIES),
        *_any(keys.DELIVERY_LEASE, keys.LOCKOUTS, keys.COUNTERS, keys.DEAD_LETTERS, keys.WORKERS_SEEN),
        keys.NETWORK_POLICIES,
        *_celery("deliver"),
        NOTHING,
    ),
    # Whose worker died may be in any queue, and whoever notices first puts it back.
    reads=_bindings(*ALL_QUEUES),
    writes=_sends(*ALL_QUEUES),
    channels=(*EVENTS_CHANNELS, *CELERY_CHANNELS),
)
"""Speaks with agents: prompts, warnings and the end of connections; no backup, no session's life."""

WATCHER = User(
    "watcher",
    commands=(*CONNECTION, *SCRIPTS, *READING, *WRITING, *SENDING),
    both=(
        *_any(*SESSION_KEYS, keys.MESSAGE, keys.INBOX_PENDING, keys.BY_STATUS, keys.IDLE, keys.INTENTS),
        *(keys.WATCHER_SEEN, keys.WATCHER_SINCE, keys.WATCHER_LEADER, keys.BALLAST),
        *_any(keys.COUNTERS, keys.STARTS, keys.RECENT_STARTS, keys.REMOVED, *AUDIT_KEYS),
        NOTHING,
    ),
    reads=_bindings(*ALL_QUEUES),
    writes=_sends(*ALL_QUEUES),
    channels=EVENTS_CHANNELS,
)

BEAT = User(
    "beat",
    commands=(*CONNECTION, *SENDING, "exists", "llen", "lpush"),
    reads=_bindings("sweep", "backup", "deliver"),
    writes=_sends("sweep", "backup", "deliver"),
    checked=(),
)
"""Enqueues the sweeps and the look at the network, and sees nothing of any session."""

FLOWER = User(
    "flower",
    commands=(
        *CONNECTION,
        *SCRIPTS,
        *WORKING,
        *("exists", "get", "set", "del", "pexpire", "llen", "publish"),
        *("zadd", "zrem", "zrange", "zrangebyscore", "zrevrangebyscore"),
    ),
    # As every consumer it looks whether a message was taken so long ago that its worker must be dead.
    both=(*CELERY_KEYS, *REPLIES, "celeryev.*", "unacked_mutex"),
    reads=("unacked_index", *(name for each in ALL_QUEUES for name in (each, f"{each}{PRIORITIES}"))),
    channels=CELERY_CHANNELS,
)
"""Hears what workers tell, asks them, and sees how long the queues are. It enqueues nothing."""

KEDA = User(
    "keda",
    commands=("ping", "select", "client", "type", "llen"),
    reads=_any(keys.INBOX),
    checked=("eval", "evalsha"),
)
"""Asks how long a session's queue is, by a script of its own."""

ADMIN = "admin"
"""May do everything. No process has its password."""

PROCESSES = (WEB, FORWARD_AUTH, GATEWAY, WORKER, SWEEPER, ARCHIVER, COURIER, WATCHER, BEAT, FLOWER)
USERS = (*PROCESSES, KEDA)


def lines() -> list[str]:
    """Each user with its rules, as the pod of Redis reads them; it puts the passwords in between."""
    return [*(f"{user.name} {user.rules()}" for user in USERS), f"{ADMIN} ~* &* +@all"]


def access_list(passwords: dict[str, str]) -> str:
    """Redis' file of users, with a password for each."""
    named = (line.partition(" ") for line in lines())
    return "".join(f"user {name} on >{passwords[name]} {rules}\n" for name, _, rules in named)
