"""Every setting of the service, once: its default, its unit, and why it has that value.

A setting is read from the environment variable of the same name in capitals. Importing this
module reads nothing; each process calls `Settings.from_env()` once, at its start.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from environs import Env, EnvError

from app.redis_address import NAMES, AddressError, address
from app.secret_keys import Purpose, keys_for, trouble_with

log = logging.getLogger(__name__)

ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9-]+\.)*[A-Za-z0-9-]+(?::\d{1,5})?")
"""An origin that is safe in a Content-Security-Policy: it can't begin another source or directive."""

PAGE = re.compile(ORIGIN.pattern + r'(?:[/?][!"$-~]*)?')
"""An address to redirect browsers to, to which a query can be added: no fragment, no credentials."""


class SettingsError(Exception):
    """A setting has a value the service can't start with; the text names the setting and says what to do."""


def setting(default: Any, unit: str, why: str) -> Any:
    """A field of `Settings`: its default, the unit of its value, and the reason for both."""
    return dataclasses.field(default=default, metadata={"unit": unit, "why": why})


@dataclass(frozen=True)
class Settings:
    """All settings. A default of "" means: derived from another setting, as its reason says."""

    # Where things are
    data_dir: Path = setting(Path(".data"), "path", "all data of the local mode; back this folder up")
    redis_url: str = setting(
        "redis://127.0.0.1:6379/0",
        "URL",
        "records, queues and rate limits; must have AOF on and evict nothing; `rediss://` is TLS",
    )
    redis_host: str = setting(
        "", "host", "with the next four, an alternative to REDIS_URL; they fill in what the URL leaves out"
    )
    redis_port: str = setting("", "TCP port", "6379 if neither this nor the URL names it")
    redis_db: str = setting("", "number", "0 if neither this nor the URL names it; local mode also uses the next one")
    redis_username: str = setting("", "text", "the Redis user (ACL); empty: `default`")
    redis_password: str = setting("", "text", "taken literally; in a URL it would have to be encoded")
    redis_ca_file: str = setting(
        "", "path", "PEM of the CA that signed Redis' certificate, which is always verified; empty: the system's CAs"
    )
    backup_url: str = setting("", "URL", "the backup store, any fsspec URL; by default `backups` in the data folder")
    port: int = setting(8000, "TCP port", "the API")
    redis_max_bytes: int = setting(
        536_870_912,
        "bytes",
        "of the Redis that `scripts/run` starts: 20,000 sessions and the budgets of 20 users; 0 no limit",
    )
    redis_reserve: float = setting(
        0.1,
        "share",
        "of Redis' maxmemory, closed to new sessions and prompts, so that sleeps and deletions work when Redis is full",
    )
    bind: str = setting("127.0.0.1", "address", "loopback, so that other machines do not reach the service by default")

    # Who may call
    api_key: str = setting("", "text", "one admin key in the clear; `scripts/run` makes one when this is empty")
    api_keys: str = setting(
        "[]",
        "JSON",
        'more keys: a list of {"name", "sha256", "role": "admin"|"service"|"metrics", "user_prefix"?, '
        '"limits"?: {"create": "1000/minute"}, "budget"?: 500}; two valid at once is how a key is rotated; '
        "a `metrics` key reads /metrics alone, and Prometheus sends it as `Authorization: Bearer`",
    )
    trusted_proxies: int = setting(0, "proxies", "our own proxies: so many last hops of X-Forwarded-For are trusted")
    rate_limit_create: str = setting("100/minute", "rate", "creating a session costs a volume")
    rate_limit_wake: str = setting("50/minute", "rate", "a wake costs a start")
    rate_limit_chat: str = setting("100/minute", "rate", "a prompt costs model tokens")
    rate_limit_delete: str = setting("50/minute", "rate", "a delete costs a whole backup")
    rate_limit_default: str = setting("100/minute", "rate", "everything else")
    cors_origins: str = setting(
        "", "origins", "of web pages that may call the API with a session token, separated by commas; empty: none"
    )
    embed_origins: str = setting(
        "",
        "origins",
        "of web pages that may show a workspace in an iframe, separated by commas; empty: none; an editor learns "
        "of a change at its next start",
    )
    max_sessions_per_user: int = setting(10, "sessions", "of one user, terminated ones not counted")
    max_body_bytes: int = setting(
        1_048_576, "bytes", "a larger request is 413 before it is read; requests other than prompts: 65,536"
    )

    body_budget_bytes: int = setting(
        134_217_728,
        "bytes",
        "of requests and agents' answers in a process of web or the gateway at a time; more is 503",
    )

    # Who may open a workspace
    login_link_ttl: float = setting(30.0, "s", "a login link expires after this; it is meant for an immediate redirect")
    cookie_ttl: float = setting(43_200.0, "s", "a browser's cookie expires this long (12 h) after its last use")
    token_ttl: float = setting(900.0, "s", "a session token expires after this; a page asks its backend for another")
    login_url: str = setting(
        "",
        "URL",
        "your product's sign-in page: people who open a workspace without a valid cookie or link are redirected there, "
        "with `workspace` and `return_to`; empty: they get an error page",
    )

    # A session's life
    runtime: str = setting("local", "local | kubernetes", "where workspaces run")
    idle_timeout: float = setting(900.0, "s", "a session that is unused for this long sleeps; 0 never")
    activity_windows: str = setting(
        "{}",
        "JSON",
        'how long each activity signal counts (s), as {"browser": 300}; without an entry, the idle timeout. Signals: '
        "prompt, turn, browser, editor, terminal, jobs; 0: ignored",
    )
    max_awake: float = setting(
        43_200.0,
        "s",
        "this long after a person's last activity, no other signal keeps a session awake; a build over night fits in; "
        "0 no limit",
    )
    wake_grace: float = setting(
        30.0, "s", "a session stays awake at least this long after its start: a waiting browser loads"
    )
    idle_warning: float = setting(
        60.0, "s", "a sleep is announced this long ahead, at most a third of the idle timeout; 0 not at all"
    )
    awake_hours: str = setting("", "hours", "no idle session is put to sleep in these, in UTC, as Mon-Fri 08:00-18:00")
    keepalive_max: float = setting(28_800.0, "s", "the longest time a keepalive call may ask for: a working day")
    session_ttl: float = setting(
        2_592_000.0, "s", "unused for this long (30 days), a session is backed up and deleted; 0 never"
    )
    start_timeout: float = setting(60.0, "s", "a start fails if the editor runs and does not answer for this long")
    progress_timeout: float = setting(
        180.0,
        "s",
        "a start that waits for a machine, its volume or its image fails without progress for this long; a cloud "
        "adds a "
        "machine in 1 to 3 minutes",
    )
    stop_grace: float = setting(10.0, "s", "from SIGTERM to SIGKILL; VS Code needs 15 ms")
    tombstone_ttl: float = setting(86_400.0, "s", "how long the API still shows a terminated session")
    wait_default: float = setting(
        25.0, "s", "how long a call waits by default, for the end state or a worker; below a proxy's usual 30 s"
    )
    wait_max: float = setting(60.0, "s", "the longest `Prefer: wait` of a caller")
    idempotency_ttl: float = setting(86_400.0, "s", "how long an Idempotency-Key replays its first answer")
    idempotency_kept: int = setting(
        500,
        "answers",
        "kept for one session, or for the sessions an API key creates, 2 KB each at most; the oldest are dropped",
    )

    # The agent and its prompts
    secret_key: str = setting(
        "",
        "text",
        "the keys that sign workspace tokens, cookies and session tokens are derived from it; `scripts/run` and "
        "`manifests/make-secrets` make one; 32 characters or more. Several, separated by commas, during a "
        "rotation: the "
        "first signs, all verify. Or single derived keys, as purpose=key, for a process that needs no others",
    )
    prompt_max_bytes: int = setting(100_000, "bytes", "a longer prompt is 413; a file belongs into the workspace")
    inbox_limit: int = setting(100, "prompts", "in the queue of one session; one more is 429")
    session_prompt_bytes: int = setting(
        4_194_304, "bytes", "of Redis for the prompts and kept answers of a session: 40 of the longest; more is 429"
    )
    user_prompt_bytes: int = setting(
        16_777_216, "bytes", "the same for all sessions of a user: a sixtieth of a Redis of 1 GiB; more is 429"
    )
    session_event_bytes: int = setting(
        1_048_576, "bytes", "of Redis for the events of a session: 1,000 of a kilobyte; the oldest are dropped"
    )
    prompt_ttl: float = setting(
        600.0, "s", "how long an answered prompt has a state; the history keeps the conversation"
    )
    user_pod_port: int = setting(1111, "TCP port", "the agent, in a workspace's pod")
    agent_timeout: float = setting(10.0, "s", "any request to an agent; none of them waits for a model")
    agent_shutdown_timeout: float = setting(
        15.0, "s", "before a stop, for all requests to the agent: unsaved work, the end of its turn, its conversation"
    )
    agent_turn_timeout: float = setting(900.0, "s", "a longer turn is ended; a long test suite fits in")
    agent_max_steps: int = setting(50, "calls of the model", "in a turn; more is probably a loop")
    agent_max_tokens: int = setting(
        1_000_000, "tokens", "in a turn, with each step's whole prompt counted, as it is billed: about a hundred steps"
    )
    agent_command_timeout: float = setting(120.0, "s", "a command of the agent is killed after this")
    checkpoint_interval: float = setting(
        180.0, "s", "between copies to the history store: the most a lost volume can cost"
    )
    history_url: str = setting(
        "", "URL", "the history store of conversations, any fsspec URL; by default `archive` in the data folder"
    )
    history_key: str = setting("", "Fernet key", "encrypts stored conversations; empty: they are stored unencrypted")
    history_max_bytes: int = setting(
        268_435_456, "bytes", "stored of one conversation; of a longer one the copy is stale, and its status says so"
    )
    history_retention: float = setting(7_776_000.0, "s", "a conversation is kept this long (90 days) after its session")

    # Forward auth
    forward_auth_port: int = setting(8002, "TCP port", "forward auth, for the ingress; on loopback in local mode")
    forward_auth_workers: int = setting(1, "processes", "one answers some 700 requests a second")

    # The gateway, and the model behind it
    gateway_port: int = setting(8001, "TCP port", "the gateway, which workspaces call")
    gateway_url: str = setting("", "URL", "the gateway as workspaces reach it; by default its port on loopback")
    gateway_workers: int = setting(1, "processes", "one carries 2,000 streams with a tenth of a core")
    gateway_connections: int = setting(
        8_192, "connections", "of each gateway process; a stream of the model holds one, an agent keeps another"
    )
    gateway_connections_per_peer: int = setting(
        64, "connections", "of one workspace's address to a gateway process; 0 for no bound"
    )
    gateway_grace: int = setting(3, "s", "for streams to end when the gateway stops; below the 4 s of scripts/respawn")
    llm_max_body_bytes: int = setting(
        8_388_608, "bytes", "of a request to the model, with its conversation; a million tokens are 4 MB of text"
    )
    gateway_calls_per_session: int = setting(8, "requests", "of one session at a time")
    llm_base_url: str = setting("", "URL", "an OpenAI-compatible API, up to and with its /v1; empty: no model, no chat")
    llm_api_key: str = setting("", "text", "the key of that API; it never leaves the gateway")
    llm_model: str = setting("", "name", "the model for all workspaces; empty: each request names its own")
    llm_tokens_per_day: int = setting(
        2_000_000, "tokens", "of one user a day (UTC); further requests are refused with 429; 0 no limit"
    )
    llm_timeout: float = setting(120.0, "s", "to the first byte of an answer; a long prompt on a small machine")
    llm_stream_timeout: float = setting(120.0, "s", "between two bytes of an answer")
    llm_retries: int = setting(3, "retries", "of a request that failed with a temporary error before the first byte")

    # Workspaces' addresses
    workspace_domain: str = setting("localhost", "host", "workspaces live at vs-code-{uuid}.<domain>")
    workspace_scheme: str = setting("http", "http | https", "of the workspace URL")
    workspace_port: int = setting(0, "TCP port", "of the workspace URL; 0 leaves it out")
    code_server: str = setting("", "path", "the editor's program; by default the one on PATH")

    # Kubernetes
    workspace_namespace: str = setting(
        "fresh-workspaces", "namespace", "of the workspaces; apart from the service's own"
    )
    workspace_image: str = setting("", "image", "of the workspaces' pods; required when RUNTIME is kubernetes")
    workspace_sizes: str = setting(
        '{"small": ["250m", "500m", "256Mi", "512Mi"], "standard": ["250m", "1", "256Mi", "1Gi"], '
        '"large": ["500m", "2", "1Gi", "4Gi"]}',
        "JSON",
        "CPU request and limit, memory request and limit; an editor with one page open counts 478 MB",
    )
    ephemeral_storage: str = setting(
        '["128Mi", "1Gi"]',
        "JSON",
        "request and limit of the node's disk for each container of a workspace's pod, for /tmp and its logs; a "
        "pod that "
        "takes more is evicted and started again",
    )
    volume_size: str = setting("5Gi", "quantity", "of a workspace's volume")
    storage_class: str = setting("", "name", "of the workspaces' volumes; by default the cluster's own default")
    ingress_class: str = setting("traefik", "name", "of the ingress controller; empty for the cluster's default")
    api_host: str = setting(
        "",
        "host",
        "of the API; its /chat/{uuid} leads to the agent, so a workspace's user could serve pages there. Empty: "
        "no agents "
        "by the ingress, in local mode api.<domain>, which serves nothing else",
    )
    ingress_annotations: str = setting("{}", "JSON", "annotations of every workspace's Ingress, for its controller")
    ingress_forward_auth: str = setting(
        "{}", "JSON", "annotations that make the ingress ask forward auth; its component sets them"
    )
    ingress_tls_secret: str = setting("", "name", "a certificate for *.<domain>; empty leaves TLS to the controller")
    priority_class: str = setting(
        "", "name", "of the workspaces' pods: a PriorityClass below the manager's own; empty for the cluster's default"
    )
    runtime_class: str = setting("", "name", "of the workspaces' pods: gvisor, kata")
    node_selector: str = setting("{}", "JSON", "labels a node must have to run workspaces")
    tolerations: str = setting("[]", "JSON", "taints workspaces tolerate")
    spot_label: str = setting(
        "", "label", "label and taint of preemptible nodes to use, as cloud.google.com/gke-spot; empty for none"
    )
    scaler: str = setting("direct", "direct | keda", "keda also scales workspaces, and wakes them if the service can't")
    keda_polling_interval: int = setting(
        10, "s", "between KEDA's reads of Redis for each workspace; no part of the time of a wake"
    )
    keda_cooldown: int = setting(300, "s", "KEDA scales a workspace down if its queue is empty for this long")
    keda_authentication: str = setting("redis", "name", "the TriggerAuthentication that carries Redis's password")
    backup_pvc: str = setting("backups", "name", "the claim backups are kept on when BACKUP_URL is a path")
    backup_service_account: str = setting("default", "name", "of the backup Jobs; for access to an object store")
    kube_timeout: float = setting(10.0, "s", "any request to the API server, which normally answers in 0.01 s")

    # Backups
    backup_retention: float = setting(
        7_776_000.0, "s", "older backups (90 days) are deleted, but never the newest one of a session that exists"
    )
    restore_max_bytes: int = setting(
        21_474_836_480, "bytes", "20 GiB, four times a workspace's volume; a larger one is not backed up either"
    )
    restore_max_entries: int = setting(2_000_000, "files", "more would exhaust a volume's inodes")

    # Costs
    price_vcpu_hour: float = setting(
        0.0445,
        "$",
        "a vCPU that a pod requests, for an hour: GKE Autopilot's list price for general-purpose pods, us-central1 "
        "(cloud.google.com/kubernetes-engine/pricing, 2025); replace the prices by those you pay",
    )
    price_gib_hour: float = setting(
        0.0049225, "$", "a GiB of memory that a pod requests, for an hour: the same list (2025)"
    )
    price_disk_gib_month: float = setting(
        0.10,
        "$",
        "a GiB of a workspace's volume, for 730 hours: pd-balanced, us-central1 "
        "(cloud.google.com/compute/disks-image-pricing, 2025)",
    )
    price_backup_gib_month: float = setting(
        0.020,
        "$",
        "a GiB of backups, for 730 hours: Cloud Storage, Standard, us-central1 "
        "(cloud.google.com/storage/pricing, 2025)",
    )
    price_tokens: str = setting(
        '{"gpt-5": [1.25, 10], "gpt-5-mini": [0.25, 2], "gpt-4.1": [2, 8], "gpt-4.1-mini": [0.4, 1.6], '
        '"*": [1.25, 10]}',
        "JSON",
        "$ a million tokens that a model reads and writes, by model: OpenAI's list prices, without discounts for "
        "cached ones (openai.com/api/pricing, March 2026); `*` is for all other models, which the ledger doesn't tell "
        "apart",
    )
    budget_per_user: float = setting(
        0.0,
        "$",
        "what all sessions of a user may cost in a calendar month (UTC); then creations, wakes, prompts and calls of "
        "the model are 403; 0 no limit; a key's own is its `budget` in API_KEYS",
    )

    # Workers
    lease_ttl: float = setting(15.0, "s", "a killed worker's session is free for others after this; renewed at a third")
    stale_after: float = setting(10.0, "s", "an intent that no worker carried out is enqueued again after this")
    sweep_interval: float = setting(1.0, "s", "between idle, expiry and stale sweeps; one range read each")
    reconcile_interval: float = setting(60.0, "s", "between searches for workspaces without a record")
    retention_interval: float = setting(3_600.0, "s", "between searches for old backups and tombstones")
    short_task_limit: float = setting(
        80.0, "s", "provision, wake, sleep and sweeps are killed after this; the slowest sleep takes 66 s"
    )
    long_task_limit: float = setting(3_600.0, "s", "backup, restore and teardown are killed after this")
    visibility_timeout: float = setting(
        7_200.0, "s", "must be above every task limit, or Redis delivers a running task again"
    )
    max_deliveries: int = setting(5, "deliveries", "a task that crashed its worker this often becomes a dead letter")

    heartbeat_file: str = setting(
        "", "path", "touched by worker, backup worker, delivery worker, observer and beat while they work; empty: none"
    )
    heartbeat_limit: float = setting(
        90.0, "s", "a process with an older heartbeat is restarted; one that waits for Redis tries every 60 s"
    )

    # The audit
    audit_retention: float = setting(
        7_776_000.0, "s", "audit entries are kept this long (90 days), within AUDIT_BYTES; 0: no end"
    )
    audit_bytes: int = setting(
        33_554_432,
        "bytes",
        "of Redis for the audit, the oldest go: 24 MiB for keys and the service, 8 MiB for refusals and tenants",
    )

    # The web process
    web_workers: int = setting(2, "processes", "one a core")
    web_connections: int = setting(
        8_192, "connections", "of each web process; a waiting call or a stream holds one, a proxy keeps more open"
    )
    held_per_session: int = setting(
        16, "each", "event streams, waiting calls, and calls to its agent of one session at a time, in each web process"
    )
    held_per_user: int = setting(64, "each", "the same for all sessions of a user")
    max_streams: int = setting(4_096, "streams", "event streams of each web process; some 50 KB each")
    redis_timeout: float = setting(1.0, "s", "any Redis command; Redis down is a 503 within 2 s")
    log_level: str = setting("INFO", "level", "of the JSON logs")

    # Metrics
    metrics_port: int = setting(
        0,
        "TCP port",
        "where each process but web answers Prometheus, without a key: on loopback in local mode, in a cluster for "
        "whom its network policies let in; 0: nowhere, and the gateway shows its own to all it serves. `scripts/run` "
        "gives each process its own with MONITORING=1",
    )
    prometheus_multiproc_dir: str = setting(
        "",
        "path",
        "of files in which the processes of one program count together; emptied at its start; empty: each process "
        "shows its own counts only",
    )

    @property
    def routes_url(self) -> str:
        """The Redis database of Traefik's routes: the one after the service's own, because Traefik reads a whole
        database at each change of a route, and there are many records."""
        url = urlsplit(self.redis_url)
        return url._replace(path=f"/{int(url.path.strip('/') or 0) + 1}").geturl()

    def backups_location(self) -> str:
        """The URL backups are stored under."""
        return self.backup_url or f"file://{self.data_dir.resolve()}/backups"

    def history_location(self) -> str:
        """The URL conversations are stored under."""
        return self.history_url or f"file://{self.data_dir.resolve()}/archive"

    def gateway_location(self) -> str:
        """Where workspaces reach the gateway, without a slash at the end."""
        return (self.gateway_url or f"http://127.0.0.1:{self.gateway_port}").rstrip("/")

    def secret_keys(self) -> tuple[str, ...]:
        """The parts of SECRET_KEY: keys to derive others from, and keys for one purpose."""
        return tuple(key.strip() for key in self.secret_key.split(",") if key.strip())

    def keys_for(self, purpose: Purpose) -> tuple[str, ...]:
        """The keys of this process for one purpose; the first one signs."""
        return keys_for(purpose, self.secret_keys())

    def workspace_url(self, uuid: str) -> str:
        """The workspace's address for browsers."""
        port = f":{self.workspace_port}" if self.workspace_port else ""
        return f"{self.workspace_scheme}://{self.workspace_host(uuid)}{port}"

    def workspace_host(self, uuid: str) -> str:
        """The host name of the workspace."""
        return f"vs-code-{uuid}.{self.workspace_domain}"

    def agents_host(self) -> str:
        """The host name whose /chat/{uuid}/ leads to agents, "" for none."""
        return self.api_host or (f"api.{self.workspace_domain}" if self.runtime == "local" else "")

    def allowed_origins(self) -> frozenset[str]:
        """The origins of `cors_origins`."""
        return frozenset(text for part in self.cors_origins.split(",") if (text := part.strip().rstrip("/")))

    def embedding_origins(self) -> tuple[str, ...]:
        """The origins of `embed_origins`, in its order."""
        parts = (part.strip().rstrip("/") for part in self.embed_origins.split(","))
        return tuple(dict.fromkeys(part for part in parts if part))

    def nginx_says_why(self) -> bool:
        """Whether nginx's redirect (`auth-signin`) carries `Workspace-Next`: it must be the first header that nginx
        takes from forward auth's answer."""
        return "next=$authHeader0" in self.ingress_forward_auth and '"Workspace-Next,' in self.ingress_forward_auth

    @classmethod
    def variables(cls) -> list[str]:
        """The environment variables that are read, in the order of the settings."""
        return [spec.name.upper() for spec in dataclasses.fields(cls)]

    @classmethod
    def from_env(cls) -> Settings:
        """Read every setting from the environment; raises `SettingsError` naming the one that is wrong."""
        env = Env()
        for name, earlier in EARLIER_NAMES.items():
            if earlier in os.environ and name not in os.environ:
                log.warning("%s is called %s now; the old name works for this version only", earlier, name)
        try:
            values = {
                spec.name: getattr(env, READERS[str(spec.type)])(_variable(spec.name), spec.default)
                for spec in dataclasses.fields(cls)
            }
        except EnvError as error:
            raise SettingsError(f"{error}. See the table of settings in docs/settings.md.") from error
        try:
            values["redis_url"] = address({name: env.str(name, "") for name in NAMES})
        except AddressError as error:
            raise SettingsError(str(error)) from None
        # The URL has it; a second copy could leak.
        values["redis_password"] = ""
        return cls(**values).checked()

    def checked(self) -> Settings:
        """These settings; raises `SettingsError` if some of them contradict each other."""
        longest = max(self.short_task_limit, self.long_task_limit)
        if self.visibility_timeout <= longest:
            raise SettingsError(
                f"VISIBILITY_TIMEOUT ({self.visibility_timeout:.0f} s) must be above every task limit "
                f"({longest:.0f} s), or Redis delivers a task that is still running a second time."
            )
        if self.runtime == "kubernetes" and not self.workspace_image:
            raise SettingsError("WORKSPACE_IMAGE must be set when RUNTIME is kubernetes: it is what a workspace runs.")
        if self.runtime == "kubernetes" and self.ingress_forward_auth.strip() in ("", "{}"):
            raise SettingsError(
                "INGRESS_FORWARD_AUTH must be set when RUNTIME is kubernetes: by these annotations the ingress asks "
                "forward auth who gets into a workspace. The components traefik and nginx of manifests/ set it. "
                "If your ingress asks forward auth for all hosts by itself, set any annotation of your own."
            )
        if self.scaler not in ("direct", "keda"):
            raise SettingsError(f"SCALER is {self.scaler!r}; it is one of: direct, keda.")
        if trouble := trouble_with(self.secret_keys()):
            raise SettingsError(f"SECRET_KEY: {trouble}")
        if any(urlsplit(each).netloc == "" or urlsplit(each).path for each in self.allowed_origins()):
            raise SettingsError("CORS_ORIGINS: an origin looks like https://app.example.com, without a path.")
        if not all(ORIGIN.fullmatch(each) for each in self.embedding_origins()):
            raise SettingsError("EMBED_ORIGINS: an origin looks like https://app.example.com, without a path.")
        if self.login_url and not PAGE.fullmatch(self.login_url):
            raise SettingsError("LOGIN_URL: an address looks like https://app.example.com/sign-in, without a fragment.")
        if self.login_url and "auth-signin" in self.ingress_forward_auth and not self.nginx_says_why():
            raise SettingsError(
                "INGRESS_FORWARD_AUTH: for LOGIN_URL, auth-signin must end in ?next=$authHeader0 and "
                "auth-response-headers must begin with Workspace-Next, as in manifests/components/nginx/settings.env."
            )
        if self.llm_base_url and urlsplit(self.llm_base_url).scheme not in ("http", "https"):
            raise SettingsError("LLM_BASE_URL must begin with http:// or https://.")
        if self.redis_reserve >= 1:
            raise SettingsError("REDIS_RESERVE must be below 1: it is a share of Redis' memory.")
        if self.session_prompt_bytes < self.prompt_max_bytes + 65_536:
            raise SettingsError(
                "SESSION_PROMPT_BYTES must be 65536 above PROMPT_MAX_BYTES: one prompt and one answer must fit in."
            )
        negative = [
            spec.name.upper()
            for spec in dataclasses.fields(self)
            if isinstance(value := getattr(self, spec.name), int | float) and value < 0
        ]
        if negative:
            raise SettingsError(f"{', '.join(negative)} must not be negative.")
        return self


def _variable(field: str) -> str:
    """The environment variable of a field: its earlier name if only that is set."""
    name = field.upper()
    earlier = EARLIER_NAMES.get(name, "")
    return earlier if earlier in os.environ and name not in os.environ else name


EARLIER_NAMES: Mapping[str, str] = {
    "HISTORY_URL": "ARCHIVE_URL",
    "HISTORY_KEY": "ARCHIVE_KEY",
    "BACKUP_SERVICE_ACCOUNT": "ARCHIVE_SERVICE_ACCOUNT",
    "INGRESS_FORWARD_AUTH": "INGRESS_DOOR",
    "PROMPT_MAX_BYTES": "MESSAGE_MAX_BYTES",
    "PROMPT_TTL": "MESSAGE_KEPT",
    "ACTIVITY_WINDOWS": "SIGNAL_WINDOWS",
    "LOGIN_LINK_TTL": "LINK_TTL",
    "AGENT_SHUTDOWN_TIMEOUT": "LEAVE_TIMEOUT",
    "WORKSPACE_IMAGE": "USER_POD_IMAGE",
}
"""Settings and their names in the release before. An earlier name works, with a warning, for one version."""

READERS: Mapping[str, str] = {"str": "str", "int": "int", "float": "float", "Path": "path"}
"""The `environs` method for each type of field."""
