"""The names of everything the service keeps in Redis, in one place.

A user id may hold colons. After it a name has nothing, or fixed words, a month or a day; and no key is named as one of
those without what follows. So no two users share a key.
"""

from __future__ import annotations

SESSION = "session:{uuid}"
EVENTS = "session:{uuid}:events"
INBOX = "queue:{uuid}"
LEASE = "lease:{uuid}"
BACKUP_LEASE = "lease:{uuid}:backup"
DELIVERY_LEASE = "lease:{uuid}:deliver"

# The feed: events of all sessions (app/core/redis/feed.py). Scripts name it themselves (app/core/redis/lua/record.lua).
FEED = "events"

# A session's use, as noted by processes that may not write its record (app/core/redis/use_fields.py).
USE = "session:{uuid}:use"

# What a session's workspace used, by minute of the hour (app/core/sessions/resources.py).
RESOURCES = "session:{uuid}:resources"

# Prompts and the agent that works on them. PROMPTS lists all unfinished ones, INBOX and HELD those not yet delivered:
# INBOX keeps the session awake, HELD waits for its next wake. INBOX_PENDING holds uuids scored by when a delivery is
# due. ANSWERED holds the finished prompts that are kept, with their bytes, scored by when they expire; PROMPT_BYTES the
# bytes of each session, by uuid. UNDONE lists the prompts that were rolled back, oldest first; it outlives them.
PROMPT = "message:{uuid}:{id}"
HELD = "queue:{uuid}:held"
PROMPTS = "session:{uuid}:prompts"
ANSWERED = "session:{uuid}:answered"
UNDONE = "session:{uuid}:undone"
PROMPT_BYTES = "user:{user_id}:prompt_bytes"
AGENT = "agent:{uuid}"
INBOX_PENDING = "inbox:pending"

# Token usage: `prompt` and `completion` of a session; one number for each user and day (UTC).
TOKENS = "session:{uuid}:tokens"
USER_TOKENS = "tokens:{user_id}:{day}"
SPENT = "spent:{request}"

# A login link, by the SHA-256 of its secret: the session and its access epoch.
LINK = "link:{digest}"

# Sorted sets of uuids. ALL, a status set and a user's sets are scored by when the session was created, or terminated;
# the rest by when something is due.
ALL = "sessions:all"
BY_STATUS = "sessions:status:{status}"
BY_USER = "user:{user_id}:sessions"
USER_TOMBSTONES = "user:{user_id}:terminated"
IDLE = "sessions:idle"
EXPIRY = "sessions:expiry"
# ARCHIVED: those in the archive, scored by since when; scripts name this set themselves. ARCHIVING: those that the
# sweep is archiving, likewise.
ARCHIVED = "sessions:archived"
ARCHIVING = "sessions:archiving"
INTENTS = "sessions:intents"
BACKUP_REQUESTS = "backups:requested"
LOCKOUTS = "sessions:lockouts"

# Terminated sessions of which nothing is to be left, scored by when that is overdue; scripts name this set themselves
# (app/core/erasures.py). The lease for rewriting the audit, and the copy.
ERASURES = "sessions:erasures"
AUDIT_LEASE = "lease:audit"
AUDIT_COPY = "{stream}:copy"

# Tries to end a session's connections since its last revocation.
LOCKOUT_TRIES = "session:{uuid}:lockout"
DISCONNECTED_AT = "session:{uuid}:disconnected"

# Backups: sorted sets of names scored by `created_at`, and the hash of one.
BACKUPS = "backups"
BACKUP = "backup:{name}"
SESSION_BACKUPS = "session:{uuid}:backups"
USER_BACKUPS = "user:{user_id}:backups"

# IN_USE: by uuid, the backup a session is being restored from. RETIRED holds the names of backups whose files are being
# deleted.
IN_USE = "backups:in_use"
RETIRED = "backups:retired"

# Restore points. POINTS: a session's, in a hash by id. POINT_REQUESTS: uuids scored by the next attempt; POINTS_WAITING
# by since when a point is due and not made; POINTS_DUE by when to look whether one is. POINT_SLOT: a lease for each
# point that is made at a time. POINTS_ENDING: uuids of deleted sessions whose points are still stored, by since when.
POINTS = "session:{uuid}:points"
POINT_REQUESTS = "points:requested"
POINTS_WAITING = "points:waiting"
POINTS_DUE = "points:due"
POINT_SLOT = "lease:points:{number}"
POINTS_ENDING = "points:ending"

# Drills. DRILLS: uuids of sessions with restore points, scored by when one was last proven, of a new session by when it
# got its first; DRILL_REQUESTS: of those to be drilled, by the next attempt.
DRILLS = "drills:proven"
DRILL_REQUESTS = "drills:requested"

# When the last whole look at the backup store began, and the lease of the worker that looks.
STORE_LOOKED = "backups:looked"
STORE_LOOK_LEASE = "backups:looking"

# The last recovery of sessions from the store, asked for by an operator (app/core/restore_points/recovery.py).
RECOVERY = "recovery"

# An RPC of the web process to a worker: the call exists while its caller waits; the answer is a list of one.
RPC_CALL = "rpc:{call}"
RPC_ANSWER = "rpc:{call}:answer"

# The generation of a workspace's removal from a cluster, where no object is left to hold it.
REMOVED = "removed:{uuid}"

# What names the disk or namespace of all workspaces (workers/lifecycle/place.py).
PLACE = "workspaces:place"

# The last tick of the sweep, and the gaps that do not count (app/core/sessions/counted_time.py).
CLOCK = "clock"

# Meaningless bytes, freed when Redis is nearly full (app/core/redis/memory.py).
BALLAST = "ballast"

# The service itself.
SENTINEL = "sentinel"
WORKERS_SEEN = "workers:seen"
PROCESSES = "processes:{kind}"
OBSERVER_SEEN = "observer:seen"
OBSERVER_SINCE = "observer:since"
OBSERVER_LEADER = "observer:leader"
MODEL_SEEN = "model:seen"
NETWORK_POLICIES = "network:policies"
DEAD_LETTERS = "dead_letters"
COUNTERS = "counters"
STARTS = "starts"
RECENT_STARTS = "starts:recent:{kind}"

# How long sleeps, backups and deletions took, and how many actions failed; how long prompts took, and how many failed.
ACTIONS = "actions"
PROMPT_TIMES = "prompts:times"

# Failures of sessions and backups, by reason.
FAILURES = "failures"

# Samples of the service for charts (app/core/sessions/samples.py), and what was noted with the last.
MINUTES = "samples:minutes"
HOURS = "samples:hours"
SAMPLED = "samples:last"

# By queue, when its oldest task was enqueued, "" for none; and when the sweep looked.
QUEUES_SEEN = "queues:seen"

# The audit (app/core/access/audit.py): two streams; the counts of the second's entries, by id; and, for a minute, the
# id of the entry that a repeated act is counted with.
AUDIT = "audit"
AUDIT_REPEATED = "audit:repeated"
AUDIT_COUNTS = "audit:repeated:counts"
AUDIT_WINDOW = "audit:window:{digest}"

# Kept responses by Idempotency-Key; and their names, scored by time: of one caller on one session or on none (the
# owner), and of all that name a session.
IDEMPOTENCY = "idempotency:{digest}"
KEPT_ANSWERS = "answers:{owner}"
NAMING_ANSWERS = "answers:naming:{uuid}"

# The session a call has created, so that its repetition after a lost answer creates no second one.
CREATED = "created:{token}"

# The cost ledger (app/core/redis/lua/ledger.lua). A session's use by day and kind, in a hash for each month (UTC); what
# it is, beside that, which outlives its record; and the sessions of a month, scored by when they were created.
LEDGER = "ledger:{uuid}:{month}"
LEDGER_SESSION = "ledger:{uuid}"
MONTH_SESSIONS = "costs:sessions:{month}"
USER_MONTH_SESSIONS = "costs:user:{user_id}:{month}:sessions"

# Running totals of an owner: the service, a user, or an API key. By kind: what was booked in a month, and, in OPEN,
# what runs on. TOTALS has what was booked ever, SHOWN the figures that /metrics has shown.
ALL_COSTS = "costs:all"
USER_COSTS = "costs:user:{user_id}"
KEY_COSTS = "costs:key:{key}"
BOOKED = "{owner}:{month}"
OPEN = "{owner}:open"
TOTALS = "costs:all:ever"
SHOWN = "costs:shown"

# The sessions whose processes run, as far as the ledger knows, scored by since when.
RUNNING = "costs:running"

# Budgets: those of API keys, which the gateway doesn't know; who was warned in a month; and how many were refused.
BUDGETS = "costs:budgets"
BUDGET_WARNED = "costs:warned:{month}:{owner}"
BUDGET_REFUSALS = "costs:refusals"

# A person who is signed in at the dashboard, by the SHA-256 of the cookie's secret; and the names of all sign-ins with
# one API key, or of one person of the provider, newest first (the script `sign_in`).
SIGNED_IN = "dashboard:session:{digest}"
SIGN_INS = "dashboard:sign_ins:{digest}"
