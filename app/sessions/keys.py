"""The names of everything the service keeps in Redis, in one place."""

from __future__ import annotations

SESSION = "session:{uuid}"
EVENTS = "session:{uuid}:events"
INBOX = "queue:{uuid}"
LEASE = "lease:{uuid}"
BACKUP_LEASE = "lease:{uuid}:backup"
DELIVERY_LEASE = "lease:{uuid}:deliver"

# Prompts and the agent that works on them. PROMPTS lists all that are not finished, INBOX and HELD those of
# them that the agent has not been given: INBOX keeps the session up, HELD waits for it to be woken.
# INBOX_PENDING holds uuids scored by when to look again. ANSWERED holds the finished that are still kept, each with its
# bytes, by when they go; PROMPT_BYTES, by uuid, what all of a session takes.
MESSAGE = "message:{uuid}:{id}"
HELD = "queue:{uuid}:held"
PROMPTS = "session:{uuid}:prompts"
ANSWERED = "session:{uuid}:answered"
PROMPT_BYTES = "user:{user_id}:prompt_bytes"
AGENT = "agent:{uuid}"
INBOX_PENDING = "inbox:pending"

# What the model costs: `prompt` and `completion` of a session; one number for each user and day (UTC).
TOKENS = "session:{uuid}:tokens"
USER_TOKENS = "tokens:{user_id}:{day}"
SPENT = "spent:{request}"

# A link that opens a workspace once, by the SHA-256 of its secret: which session, and which of its doors.
LINK = "link:{digest}"

# Sorted sets of uuids. A status set is scored by when the session was created (terminated: by when
# it ended), the user's by when it was created; the rest by the moment something is due.
ALL = "sessions:all"
BY_STATUS = "sessions:status:{status}"
BY_USER = "user:{user_id}:sessions"
USER_TOMBSTONES = "user:{user_id}:terminated"
IDLE = "sessions:idle"
EXPIRY = "sessions:expiry"
INTENTS = "sessions:intents"
BACKUP_REQUESTS = "backups:requested"
LOCKOUTS = "sessions:lockouts"

# How often a session was asked to end connections since passes were taken back last.
LOCKOUT_TRIES = "session:{uuid}:lockout"

# Backups: sorted sets of names scored by `created_at`, and the hash of one.
BACKUPS = "backups"
BACKUP = "backup:{name}"
SESSION_BACKUPS = "session:{uuid}:backups"
USER_BACKUPS = "user:{user_id}:backups"

# By uuid, the backup a living session is still to get its files from, as its record says. IN_USE_KNOWN is there while
# that was compared with the records lately. RETIRED holds the names of backups whose files are being deleted.
IN_USE = "backups:in_use"
IN_USE_KNOWN = "backups:in_use:known"
RETIRED = "backups:retired"

# A question of the web process to a worker: there while it waits, and the answer, a list of one.
TICKET = "ticket:{ticket}"
ANSWER = "ticket:{ticket}:answer"

# The generation of a workspace's removal from a cluster, where nothing of it may stay to carry it.
REMOVED = "removed:{uuid}"

# When a sweep last ran, and the time that does not count (app/sessions/clock.py).
CLOCK = "clock"

# Bytes that mean nothing, and are given up when Redis is as good as full (app/sessions/memory.py).
BALLAST = "ballast"

# The service itself.
SENTINEL = "sentinel"
WORKERS_SEEN = "workers:seen"
WATCHER_SEEN = "watcher:seen"
WATCHER_SINCE = "watcher:since"
WATCHER_LEADER = "watcher:leader"
NETWORK_POLICIES = "network:policies"
DEAD_LETTERS = "dead_letters"
COUNTERS = "counters"
STARTS = "starts"
RECENT_STARTS = "starts:recent:{kind}"

# Who did what (app/sessions/audit.py): two streams; by id, how often what stands in the second came again; and, for a
# minute, the id that the same thing is counted with.
AUDIT = "audit"
AUDIT_REPEATED = "audit:repeated"
AUDIT_COUNTS = "audit:repeated:counts"
AUDIT_WINDOW = "audit:window:{digest}"

# Kept answers by Idempotency-Key; and the names of those of a session (of an API key where there is none), by when they
# came.
IDEMPOTENCY = "idempotency:{digest}"
KEPT_ANSWERS = "answers:{owner}"

# What a call has made, so that it makes no second one when its answer was lost and it comes again.
CREATED = "created:{token}"
