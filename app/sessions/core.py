"""The core, put together: what the web process and the workers alike build from the settings."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from app.sessions.agents import AgentClient
from app.sessions.archive_store import Archive
from app.sessions.audit import Audit
from app.sessions.backup_files import BackupFiles
from app.sessions.backups import BackupIndex
from app.sessions.byte_budget import ByteBudget
from app.sessions.connections import connect
from app.sessions.conversations import Conversations
from app.sessions.events import EventLog
from app.sessions.fleet import Fleet
from app.sessions.inbox import Inbox
from app.sessions.leases import Leases
from app.sessions.links import Links
from app.sessions.lockouts import Lockouts
from app.sessions.memory import Memory
from app.sessions.passes import Passes
from app.sessions.queue import TaskQueue
from app.sessions.secrets import SessionSecrets
from app.sessions.service import SessionService
from app.sessions.signals import Signals
from app.sessions.store import SessionStore
from app.sessions.store_process import stores
from app.sessions.stored import Direct, Remote, Stored
from app.sessions.tickets import Tickets
from app.sessions.verdict import Policy
from app.settings import Settings


@dataclass(frozen=True)
class Core:
    """One of each, sharing a Redis client. Building it connects to nothing."""

    settings: Settings
    redis: redis.Redis
    memory: Memory
    store: SessionStore
    events: EventLog
    backups: BackupIndex
    files: BackupFiles
    stored: Stored
    tickets: Tickets
    archive: Archive
    secrets: SessionSecrets
    passes: Passes
    links: Links
    lockouts: Lockouts
    fleet: Fleet
    leases: Leases
    tasks: TaskQueue
    inbox: Inbox
    agents: AgentClient
    conversations: Conversations
    signals: Signals
    policy: Policy
    sessions: SessionService
    budget: ByteBudget
    audit: Audit


def build_core(settings: Settings, *, stores_apart: bool = False) -> Core:
    """Wire the core; each process builds its own, after any fork. `stores_apart` is for those that gevent patches:
    remote stores are called in another process."""
    client = connect(settings.redis_url, settings.redis_timeout)
    memory = Memory(client, settings.redis_reserve)
    store = SessionStore(client, settings.tombstone_ttl, settings.session_event_bytes, settings.redis_reserve)
    events = EventLog(client, memory, most=settings.session_event_bytes)
    backups = BackupIndex(client)
    tasks = TaskQueue(client, settings.redis_url, settings.visibility_timeout, settings.redis_timeout)
    files, archive = stores(settings, apart=stores_apart)
    tickets = Tickets(client, tasks, block=settings.redis_timeout / 2)
    in_cluster = settings.runtime == "kubernetes"
    secrets = SessionSecrets(settings.secret_keys())
    inbox = Inbox(client, store, settings)
    lockouts = Lockouts(client, store, settings.stale_after)
    signals = Signals(client)
    budget = ByteBudget(settings.body_budget_bytes)
    agents = AgentClient(secrets, settings.agent_timeout, budget)
    return Core(
        settings=settings,
        redis=client,
        memory=memory,
        store=store,
        events=events,
        backups=backups,
        files=files,
        stored=Remote(tickets, settings.wait_default) if in_cluster else Direct(files, backups),
        tickets=tickets,
        archive=archive,
        secrets=secrets,
        passes=Passes(settings.secret_keys(), settings.cookie_ttl, settings.token_ttl),
        links=Links(client, settings.link_ttl),
        lockouts=lockouts,
        fleet=Fleet(client),
        leases=Leases(client, settings.lease_ttl),
        tasks=tasks,
        inbox=inbox,
        agents=agents,
        conversations=Conversations(inbox, agents, archive),
        signals=signals,
        policy=Policy.of(settings),
        sessions=SessionService(
            store=store,
            events=events,
            backups=backups,
            inbox=inbox,
            tasks=tasks,
            signals=signals,
            lockouts=lockouts,
            settings=settings,
        ),
        budget=budget,
        audit=Audit(client, settings.audit_bytes, settings.redis_reserve),
    )
