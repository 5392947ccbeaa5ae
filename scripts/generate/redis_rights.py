"""What each user of Redis may do, in plain words: the table of docs/security.md, from app/core/redis/users.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from app.core.redis import keys, task_queue, users
from scripts.generate.marked import Part, table

KINDS: Mapping[str, tuple[str, ...]] = {
    "records": (keys.SESSION,),
    "the use of sessions": (keys.USE, keys.RESOURCES),
    "events": (keys.EVENTS,),
    "the feed of all events": (keys.FEED,),
    "prompts and agents": (
        *(keys.PROMPT, keys.PROMPTS, keys.HELD, keys.ANSWERED, keys.INBOX, keys.INBOX_PENDING),
        *(keys.AGENT, keys.TOKENS),
    ),
    "prompts that were rolled back": (keys.UNDONE,),
    "intents": (keys.INTENTS,),
    "deadlines of sleep": (keys.IDLE,),
    "deadlines of the archive": (keys.EXPIRY, keys.ARCHIVING, keys.ARCHIVED),
    "sets of sessions by status": (keys.BY_STATUS,),
    "lists of sessions": (keys.ALL, keys.BY_USER, keys.USER_TOMBSTONES),
    "revocations to carry out": (keys.DISCONNECTS, keys.DISCONNECT_TRIES),
    "routes to opened ports": (keys.OPENINGS,),
    "wakes by the public": (keys.PUBLIC_WAKES,),
    "how far connections were ended": (keys.DISCONNECTED_AT,),
    "login links": (keys.LINK,),
    "sign-ins": (keys.SIGNED_IN, keys.SIGN_INS),
    "kept answers": (keys.IDEMPOTENCY, keys.KEPT_ANSWERS, keys.NAMING_ANSWERS),
    "what calls created": (keys.CREATED,),
    "the index of backups and restore points": (
        *(keys.BACKUPS, keys.BACKUP, keys.SESSION_BACKUPS, keys.USER_BACKUPS, keys.POINTS),
    ),
    "requests for backups and erasures": (
        *(keys.BACKUP_REQUESTS, keys.POINT_REQUESTS, keys.POINTS_WAITING, keys.ERASURES, keys.IN_USE),
    ),
    "when restore points are due": (keys.POINTS_DUE,),
    "proofs of restore points": (keys.DRILLS,),
    "work on backups": (keys.DRILL_REQUESTS, keys.RETIRED, keys.POINTS_ENDING),
    "looks at the store": (keys.STORE_LOOKED, keys.STORE_LOOK_LEASE),
    "the last recovery": (keys.RECOVERY,),
    "leases of attempts": (keys.LEASE, keys.BACKUP_LEASE, keys.POINT_SLOT),
    "leases of deliveries": (keys.DELIVERY_LEASE,),
    "the observer's lease": (keys.OBSERVER_LEADER,),
    "web's calls to workers": (keys.RPC_CALL, keys.RPC_ANSWER),
    "the cost ledger": (
        *(keys.LEDGER, keys.LEDGER_SESSION, keys.MONTH_SESSIONS, keys.TOTALS),
        keys.BOOKED.format(owner=keys.ALL_COSTS, month="{month}"),
    ),
    "totals of users and API keys": (
        *(keys.BOOKED.format(owner=owner, month="{month}") for owner in (keys.USER_COSTS, keys.KEY_COSTS)),
        *(keys.OPEN.format(owner=owner) for owner in (keys.USER_COSTS, keys.KEY_COSTS)),
        keys.USER_MONTH_SESSIONS,
    ),
    "what costs at the moment": (keys.RUNNING, keys.OPEN.format(owner=keys.ALL_COSTS)),
    "budgets of API keys": (keys.BUDGETS,),
    "notes about budgets": (keys.BUDGET_WARNED, keys.BUDGET_REFUSALS),
    "tokens spent by users": (keys.USER_TOKENS, keys.SPENT),
    "bytes of users' prompts": (keys.PROMPT_BYTES,),
    "the audit of keys and of the service": (keys.AUDIT,),
    "the audit of refusals": (keys.AUDIT_REPEATED, keys.AUDIT_COUNTS, keys.AUDIT_WINDOW),
    "copies of the audit": (
        *(keys.AUDIT_COPY.format(stream=stream) for stream in (keys.AUDIT, keys.AUDIT_REPEATED)),
        keys.AUDIT_LEASE,
    ),
    "rate limits": ("LIMITER/rate:{digest}",),
    "the sentinel": (keys.SENTINEL,),
    "the service's clock and place": (keys.CLOCK, keys.PLACE),
    "removed workspaces": (keys.REMOVED,),
    "the ballast": (keys.BALLAST,),
    "dead letters": (keys.DEAD_LETTERS,),
    "figures and reports": (
        *(keys.COUNTERS, keys.STARTS, keys.RECENT_STARTS, keys.ACTIONS, keys.FAILURES, keys.PROMPT_TIMES, keys.SHOWN),
        *(keys.MINUTES, keys.HOURS, keys.SAMPLED, keys.QUEUES_SEEN, keys.WORKERS_SEEN, keys.MODEL_SEEN),
        *(keys.NETWORK_POLICIES, keys.OBSERVER_SEEN, keys.OBSERVER_SINCE),
        *(keys.PROCESSES.format(kind=user.name) for user in users.PROCESSES),
    ),
    "tasks under way": ("unacked", "unacked_index", "unacked_mutex"),
    "who hears workers": (*users.LISTENERS, "celeryev.{name}"),
}
"""All keys but those of queues, under the names of the table."""

CHANNELS: Mapping[str, tuple[str, ...]] = {
    "news of events": users.EVENTS_CHANNELS,
    "news of workers": users.WORKERS_EVENTS,
}
"""Channels, under theirs: who publishes there writes them, and who subscribes reads them."""

HEAD = ("User", "Writes", "Only reads", "Enqueues into", "Takes tasks from")

EXAMPLES: Mapping[str, str] = {"uuid": "abcd1234", "month": "2026-01", "day": "2026-01-01"}
"""What stands for a part of a key's name; "x" for all others."""


class UnnamedKey(Exception):
    """A user has a pattern of keys that is under no name here."""


class _Parts(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "x"


def example(template: str) -> str:
    """A key of this template."""
    return template.format_map(_Parts(EXAMPLES))


def rights() -> str:
    """The users of Redis as a table. Raises `UnnamedKey`."""
    return table(HEAD, map(row, users.USERS))


def row(user: users.User) -> tuple[str, ...]:
    """What this user may do. Raises `UnnamedKey`."""
    if unnamed := sorted(_unnamed(user)):
        raise UnnamedKey(
            f"scripts/generate/redis_rights.py has no name for what {user.name} may use: {', '.join(unnamed)}"
        )
    readable, writable = (*user.both, *user.reads), (*user.both, *user.writes)
    writes, reads = [], []
    for name, templates in KINDS.items():
        samples = [example(each) for each in templates]
        written = {each for each in samples if _matches(each, writable)}
        read = {each for each in samples if _matches(each, readable)} - written
        writes += _said(name, len(written), len(samples))
        reads += _said(name, len(read), len(samples) - len(written))
    for name, channels in CHANNELS.items():
        if set(channels) <= set(user.channels):
            publishes, hears = "publish" in user.commands, {"subscribe", "psubscribe"} & set(user.commands)
            writes += [name] * publishes
            reads += [name] * bool(hears and not publishes)
    sends = [each for each in task_queue.QUEUES if each in writable]
    takes = [each for each in task_queue.QUEUES if each in user.both]
    counts = [each for each in task_queue.QUEUES if each in user.reads]
    reads += [f"the tasks in {_codes(counts)}"] if counts else []
    return (f"`{user.name}`", ", ".join(writes), ", ".join(reads), _codes(sends), _codes(takes))


def _said(name: str, some: int, of: int) -> list[str]:
    """How to say that `some` keys of that kind are meant, of those that could be."""
    return [name if some == of else f"a part of {name}"] if some else []


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in names)


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, each) for each in patterns)


def _unnamed(user: users.User) -> Iterator[str]:
    known = {*task_queue.QUEUES, *(example(each) for templates in KINDS.values() for each in templates)}
    for pattern in {*user.both, *user.reads, *user.writes}:
        if not _left_out(pattern) and not any(fnmatchcase(each, pattern) for each in known):
            yield pattern


def _left_out(pattern: str) -> bool:
    """Whether the table says nothing of it: a key of no content, and what comes with the right to a queue."""
    comes_with_queue = pattern.startswith("_kombu.binding") or pattern.endswith(users.PRIORITIES)
    return comes_with_queue or pattern == users.NOTHING


PART = Part("security.md", "rights", rights)
