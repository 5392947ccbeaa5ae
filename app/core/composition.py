"""Builds the core from the settings, for the web process and the workers alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import cast

import redis

from app.core.access.agent_credentials import AgentCredentials
from app.core.access.audit import Audit
from app.core.access.login_links import LoginLinks
from app.core.access.revocation import Revocations
from app.core.access.tokens import AccessTokens
from app.core.agents.requests import AGENT_TIMEOUT
from app.core.backups.backup_access import BackupAccess, Direct, Remote
from app.core.backups.index import BackupIndex
from app.core.backups.store import BackupStore
from app.core.byte_budget import ByteBudget
from app.core.costs.budgets import Budgets, key_budgets
from app.core.costs.ledger import Ledger
from app.core.costs.prices import Prices
from app.core.erasures import Erasures
from app.core.execs.client import ExecClient
from app.core.execs.service import Execs
from app.core.files.changes import FileChanges
from app.core.files.client import FileClient
from app.core.files.service import Files
from app.core.files.trees import Trees
from app.core.going_back import GoingBack
from app.core.ports.client import PortClient
from app.core.ports.openings import Openings
from app.core.ports.public_wakes import PublicWakes
from app.core.ports.service import Ports
from app.core.prompts.agent_client import AgentClient
from app.core.prompts.delivery import Delivery
from app.core.prompts.history import ConversationHistory
from app.core.prompts.history_store import HistoryStore
from app.core.prompts.inbox import Inbox
from app.core.reach import Workspaces
from app.core.redis.connections import connect
from app.core.redis.counters import START_BUCKETS, Counters
from app.core.redis.dead_letters import DeadLetters
from app.core.redis.events import EventLog
from app.core.redis.feed import Feed
from app.core.redis.heartbeats import Heartbeats
from app.core.redis.leases import Leases
from app.core.redis.memory import Memory
from app.core.redis.model_answers import ModelAnswers
from app.core.redis.processes import Processes
from app.core.redis.rpc import Rpc
from app.core.redis.task_queue import SHORT_TASK_LIMIT, TaskQueue, visibility_timeout
from app.core.restore_points.index import RestorePoints
from app.core.restore_points.recovery import Recoveries
from app.core.service import SessionService
from app.core.services.client import ServiceClient
from app.core.services.service import Services
from app.core.sessions.attempts import Attempts
from app.core.sessions.idle_policy import Policy
from app.core.sessions.listing import SessionList
from app.core.sessions.resources import Resources
from app.core.sessions.samples import Samples
from app.core.sessions.signals import Activity
from app.core.sessions.store import SessionStore
from app.core.storage.archive_keys import ArchiveKeys
from app.core.storage.key_check import KeyCheck, Listing
from app.core.storage.object_stores import is_remote
from app.core.storage.remote import FilesProxy, Proxy, StoreProcess
from app.process.settings import Settings


class Core:
    """The parts of the core, sharing a Redis client. Building them connects to nothing; each process builds its own,
    after any fork. With `stores_apart`, remote stores are called in another process: gevent's patching breaks their
    clients. A process that `knows_keys` has API_KEYS, and notes their budgets for those without. The other arguments
    replace parts in tests."""

    def __init__(
        self,
        settings: Settings,
        *,
        stores_apart: bool = False,
        knows_keys: bool = False,
        client: redis.Redis | None = None,
        tasks: TaskQueue | None = None,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        client = client or connect(settings.redis_url)
        keys, in_cluster = settings.secret_keys(), settings.runtime == "kubernetes"
        self.settings = settings
        self.redis = client
        self.tasks = tasks or TaskQueue(client, settings.redis_url, visibility_timeout(settings))
        self.memory = Memory(client)
        self.feed = Feed(client, self.memory)
        self.events = EventLog(client, self.memory)
        self.rpc = Rpc(client, self.tasks)
        self.heartbeats = Heartbeats(client)
        self.processes = Processes(client, clock)
        self.model_answers = ModelAnswers(client)
        self.counters = Counters(client)
        self.samples = Samples(client, len(START_BUCKETS) + 1)
        self.dead_letters = DeadLetters(client)
        self.leases = Leases(client, settings.lease_ttl)
        self.prices = Prices.of(settings)
        self.ledger = Ledger(client, self.prices)
        self.budgets = Budgets(
            client,
            self.ledger,
            self.events,
            per_user=settings.budget_per_user,
            per_key=key_budgets(settings.api_keys),
            knows_keys=knows_keys,
            clock=clock,
        )
        self.budget = ByteBudget(settings.body_budget_bytes)
        self.store = SessionStore(client)
        self.attempts = Attempts(client, self.leases)
        self.activity = Activity(client, ticks)
        self.resources = Resources(client)
        self.policy = Policy.of(settings)
        self.credentials = AgentCredentials(keys)
        self.access_tokens = AccessTokens(keys, settings.cookie_ttl)
        self.login_links = LoginLinks(client)
        self.revocations = Revocations(client, self.store, settings.stale_after)
        self.openings = Openings(self.store, self.tasks, settings.ports_per_session, settings.stale_after, clock)
        self.public_wakes = PublicWakes(client, settings.public_wakes_per_hour)
        self.audit = Audit(client, settings.audit_bytes)
        self.backup_store, self.history_store = build_stores(settings, apart=stores_apart)
        self.backups = BackupIndex(client)
        self.restore_points = RestorePoints(client)
        self.recoveries = Recoveries(client)
        self.erasures = Erasures(client)
        # In a cluster the processes that make them have the key, and the others assume that these do.
        self.makes_restore_points = bool(settings.archive_key) or in_cluster
        self.backup_access: BackupAccess = (
            Remote(self.rpc, settings.wait_default) if in_cluster else Direct(self.backup_store, self.backups, clock)
        )
        self.inbox = Inbox(client, settings)
        self.agents = AgentClient(self.credentials, AGENT_TIMEOUT, self.budget)
        self.history = ConversationHistory(self.inbox, self.agents, self.history_store)
        self.delivery = Delivery(
            self.store, self.inbox, self.agents, self.leases, self.tasks, SHORT_TASK_LIMIT / 2, clock, pause
        )
        self.sessions = SessionService(
            store=self.store,
            session_list=SessionList(client, self.store),
            events=self.events,
            backups=self.backups,
            points=self.restore_points,
            erasures=self.erasures,
            inbox=self.inbox,
            delivery=self.delivery,
            tasks=self.tasks,
            activity=self.activity,
            revocations=self.revocations,
            budgets=self.budgets,
            settings=settings,
            clock=clock,
        )
        reached = partial(Workspaces, self.sessions, self.inbox, self.activity, clock=clock, pause=pause)
        run = reached("exec")
        self.execs = Execs(run, ExecClient(self.credentials, AGENT_TIMEOUT, self.budget, settings.execs_at_once))
        self.services = Services(
            run, ServiceClient(self.credentials, AGENT_TIMEOUT, self.budget, settings.services_per_session)
        )
        self.ports = Ports(run, PortClient(self.credentials, AGENT_TIMEOUT, self.budget))
        at_files = reached("files"), FileClient(self.credentials, AGENT_TIMEOUT, self.budget)
        self.files = Files(*at_files)
        self.trees = Trees(*at_files, clock)
        self.file_changes = FileChanges(*at_files, self.sessions, self.events, clock)
        self.going_back = GoingBack(
            self.sessions,
            self.store,
            self.restore_points,
            self.inbox,
            self.agents,
            self.history,
            self.events,
            settings,
            clock,
        )


def build_stores(
    settings: Settings, *, apart: bool, process: StoreProcess | None = None
) -> tuple[BackupStore, HistoryStore]:
    """The backup store and the history store. With `apart`, remote ones are called in another process. Raises
    `SettingsError` for a malformed `ARCHIVE_KEY`."""
    process = process or StoreProcess(settings.log_level)
    keys = ArchiveKeys(settings.archive_key)
    history_arguments = (settings.history_location(), settings.history_max_bytes, keys)
    backup_arguments = (settings.backups_location(), keys)
    history_store, backup_store = HistoryStore(*history_arguments), BackupStore(*backup_arguments)
    if apart and is_remote(settings.history_location()):
        history_store = cast(HistoryStore, Proxy(process, HistoryStore, *history_arguments))
    if apart and is_remote(settings.backups_location()):
        backup_store = cast(BackupStore, FilesProxy(process, BackupStore, *backup_arguments))
    return backup_store, history_store


def check_keys(settings: Settings, *, backups: bool = True) -> None:
    """Begin to check that this process has the archive keys of what its stores hold, `backups` included. Raises
    `SettingsError` where they are local; remote ones are asked from a thread, in another process."""
    process = StoreProcess(settings.log_level)
    backup_store, history_store = build_stores(settings, apart=True, process=process)
    stores: dict[str, Listing] = {"conversations": history_store}
    if backups:
        stores["backups"] = backup_store
    remote = is_remote(settings.history_location()) or (backups and is_remote(settings.backups_location()))
    KeyCheck(stores, ArchiveKeys(settings.archive_key)).begin(at_once=not remote, done=process.end)
