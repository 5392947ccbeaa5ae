"""Every setting of the service, once: its default, its unit, and why it has that value.

A setting is read from the environment variable of the same name in capitals. Importing this
module reads nothing; each process calls `Settings.from_env()` once, at its start.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from environs import Env, EnvError

from app.redis_address import NAMES, AddressError, address
from app.secret_keys import Purpose, keys_for, trouble_with

ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9-]+\.)*[A-Za-z0-9-]+(?::\d{1,5})?")
"""As a Content-Security-Policy takes it: nothing in it may begin another source, or another directive."""

PAGE = re.compile(ORIGIN.pattern + r'(?:[/?][!"$-~]*)?')
"""An address that a browser may be sent to, to which a query can be added: no fragment, nobody's password."""


class SettingsError(Exception):
    """A setting has a value the service can't start with; the text names it and says what to do."""


def setting(default: Any, unit: str, why: str) -> Any:
    """A field of `Settings`: its default, the unit of its value, and the reason for both."""
    return dataclasses.field(default=default, metadata={"unit": unit, "why": why})


@dataclass(frozen=True)
class Settings:
    """All settings. A default of "" means: derived from another setting, as its reason says."""

    # Where things are
    data_dir: Path = setting(Path(".data"), "path", "everything the local mode keeps; back this folder up")
    redis_url: str = setting(
        "redis://127.0.0.1:6379/0",
        "URL",
        "records, queues and rate limits; must have AOF on and evict nothing; `rediss://` is TLS",
    )
    redis_host: str = setting(
        "", "host", "with the next four, for those who have no URL: makes up what it does not say"
    )
    redis_port: str = setting("", "TCP port", "6379 when neither says it")
    redis_db: str = setting("", "number", "0 when neither says it; in local mode the next one is used as well")
    redis_username: str = setting("", "text", "the Redis user (ACL); empty: `default`")
    redis_password: str = setting("", "text", "any characters, as they are; in a URL they would have to be encoded")
    redis_ca_file: str = setting(
        "", "path", "PEM, of who signed Redis' certificate, which is always verified; empty: the system's authorities"
    )
    backup_url: str = setting("", "URL", "where backups go, any fsspec URL; by default `backups` in the data folder")
    port: int = setting(8000, "TCP port", "the API")
    redis_max_bytes: int = setting(
        536_870_912,
        "bytes",
        "of the Redis that `scripts/run` starts: 20,000 sessions and the budgets of 20 users; 0 no limit",
    )
    redis_reserve: float = setting(
        0.1,
        "share",
        "of Redis' maxmemory that no new session or prompt gets, so that sleeps and deletions work when it is full",
    )
    bind: str = setting("127.0.0.1", "address", "loopback, so that nothing is reachable before someone decides it")

    # Who may call
    api_key: str = setting("", "text", "one admin key in the clear; `scripts/run` makes one when this is empty")
    api_keys: str = setting(
        "[]",
        "JSON",
        'more keys: a list of {"name", "sha256", "role": "admin"|"service", "user_prefix"?, '
        '"limits"?: {"create": "1000/minute"}}; two valid at once is how a key is rotated',
    )
    trusted_proxies: int = setting(0, "proxies", "how many of the last X-Forwarded-For hops are ours")
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
        "of web pages that may hold a workspace in an iframe, separated by commas; empty: none; a workspace's editor "
        "hears of a change at its next start",
    )
    max_sessions_per_user: int = setting(10, "sessions", "a user's workspaces that are not terminated")
    max_body_bytes: int = setting(
        1_048_576, "bytes", "a larger request is 413 before it is read; all but prompts may have 65,536 at most"
    )

    body_budget_bytes: int = setting(
        134_217_728,
        "bytes",
        "of requests, and of agents' answers, that a process of web or the gateway holds at a time; more is 503",
    )

    # Who may open a workspace
    link_ttl: float = setting(30.0, "s", "a link opens a workspace once, and only this soon: it is for a redirect")
    cookie_ttl: float = setting(43_200.0, "s", "a browser stays let in this long (12 h) after its last visit")
    token_ttl: float = setting(900.0, "s", "a session token; a page asks its own backend for another one")
    login_url: str = setting(
        "",
        "URL",
        "of your product: who opens a workspace without being let in is sent there, with `workspace` and `return_to`; "
        "empty: a page says no",
    )

    # A session's life
    runtime: str = setting("local", "local | kubernetes", "what runs the workspaces")
    idle_timeout: float = setting(900.0, "s", "unused this long, a session sleeps; 0 never")
    signal_windows: str = setting(
        "{}",
        "JSON",
        'how long a signal counts (s) where it is not the session\'s idle timeout, as {"browser": 300}: prompt, turn, '
        "browser, editor, terminal, jobs; 0: not at all",
    )
    max_awake: float = setting(
        43_200.0,
        "s",
        "this long after a person last did something, nothing else keeps a session up: a build over night fits in; "
        "0 no limit",
    )
    wake_grace: float = setting(30.0, "s", "up at least this long once it came up: a browser that waited has loaded")
    idle_warning: float = setting(
        60.0, "s", "a sleep is announced this long before, at most a third of the idle timeout; 0 not at all"
    )
    awake_hours: str = setting("", "hours", "in which no session sleeps by itself, in UTC, as Mon-Fri 08:00-18:00")
    keepalive_max: float = setting(28_800.0, "s", "the most a call may ask to be kept up for: a working day")
    session_ttl: float = setting(2_592_000.0, "s", "unused this long (30 days), it is backed up and deleted; 0 never")
    start_timeout: float = setting(60.0, "s", "an editor that runs and has not answered for this long is a failure")
    progress_timeout: float = setting(
        180.0,
        "s",
        "a start that waits for a machine, its volume or its image, and came no further for this long, is a failure; "
        "a cloud adds a machine in 1 to 3 minutes",
    )
    stop_grace: float = setting(10.0, "s", "from SIGTERM to SIGKILL; VS Code needs 15 ms")
    tombstone_ttl: float = setting(86_400.0, "s", "a terminated session can be asked about this long")
    wait_default: float = setting(
        25.0, "s", "how long a call waits for the end state, or a worker's answer; below a proxy's usual 30 s"
    )
    wait_max: float = setting(60.0, "s", "the most a caller may ask for with Prefer: wait")
    idempotency_ttl: float = setting(86_400.0, "s", "the same Idempotency-Key replays its answer this long")
    idempotency_kept: int = setting(
        500,
        "answers",
        "of one session, or of an API key's creations, each 2 KB at most; older ones are forgotten early",
    )

    # The agent and its prompts
    secret_key: str = setting(
        "",
        "text",
        "what workspaces' tokens, cookies and session tokens are signed with, by keys that follow from it; "
        "`scripts/run` and `manifests/make-secrets` make one; 32 characters or more, several separated by commas while "
        "one is rotated: the first signs, all are taken; or single keys, as purpose=key, where no others are needed",
    )
    message_max_bytes: int = setting(100_000, "bytes", "a longer prompt is 413; a file belongs into the workspace")
    inbox_limit: int = setting(100, "prompts", "waiting for one session; one more is 429")
    session_prompt_bytes: int = setting(
        4_194_304, "bytes", "of Redis for the prompts and kept answers of a session: 40 of the longest; one more is 429"
    )
    user_prompt_bytes: int = setting(
        16_777_216, "bytes", "the same of all sessions of a user: a sixtieth of a Redis of 1 GiB; one more is 429"
    )
    session_event_bytes: int = setting(
        1_048_576, "bytes", "of Redis for the events of a session, the oldest go: 1,000 of a kilobyte"
    )
    message_kept: float = setting(600.0, "s", "the state of an answered prompt; the conversation is in the history")
    user_pod_port: int = setting(1111, "TCP port", "the agent, in a workspace's pod")
    agent_timeout: float = setting(10.0, "s", "any request to an agent; none of them waits for a model")
    leave_timeout: float = setting(
        15.0,
        "s",
        "of a stop for all that is asked of the agent before: what is at risk, the end of its turn, its conversation",
    )
    agent_turn_timeout: float = setting(900.0, "s", "a turn that takes longer is ended; a long test suite fits in")
    agent_max_steps: int = setting(50, "calls of the model", "in a turn; more is most likely a circle")
    agent_max_tokens: int = setting(
        1_000_000, "tokens", "in a turn, each step's prompt counted as it is billed: about a hundred steps"
    )
    agent_command_timeout: float = setting(120.0, "s", "a command the agent runs is killed after this")
    checkpoint_interval: float = setting(180.0, "s", "the most of a conversation a lost volume can cost")
    archive_url: str = setting(
        "", "URL", "where conversations go, any fsspec URL; by default `archive` in the data folder"
    )
    archive_key: str = setting("", "Fernet key", "conversations are stored encrypted with it; empty: in the clear")
    history_max_bytes: int = setting(
        268_435_456, "bytes", "kept of one conversation; one that is longer is stale, and its status says so"
    )
    history_retention: float = setting(7_776_000.0, "s", "a conversation is kept this long (90 days) after its session")

    # Who gets into workspaces
    forward_auth_port: int = setting(8002, "TCP port", "where the ingress asks who gets in; on loopback in local mode")
    forward_auth_workers: int = setting(1, "processes", "one answers some 700 visits a second")

    # The gateway, and the model behind it
    gateway_port: int = setting(8001, "TCP port", "the gateway, which workspaces call")
    gateway_url: str = setting("", "URL", "the gateway as workspaces reach it; by default its port on loopback")
    gateway_workers: int = setting(
        1, "processes", "one carries 2,000 streams with a tenth of a core; of more, each has figures of its own"
    )
    gateway_connections: int = setting(
        8_192, "connections", "of each gateway process; a stream of the model holds one, an agent keeps another"
    )
    gateway_connections_per_peer: int = setting(
        64, "connections", "of one workspace's address to a gateway process; 0 for no bound"
    )
    gateway_grace: int = setting(
        3, "s", "in which streams may end by themselves when it is told to; below the 4 s scripts/respawn gives it"
    )
    llm_max_body_bytes: int = setting(
        8_388_608, "bytes", "a prompt with its conversation; a million tokens are 4 MB of text"
    )
    gateway_calls_per_session: int = setting(8, "requests", "of one session at a time")
    llm_base_url: str = setting("", "URL", "an OpenAI-compatible API, up to and with its /v1; empty: no model, no chat")
    llm_api_key: str = setting("", "text", "the key of that API; it never leaves the gateway")
    llm_model: str = setting("", "name", "the model every workspace gets; empty: the one it asks for")
    llm_tokens_per_day: int = setting(
        2_000_000, "tokens", "of one user and day (UTC); one more prompt is 429; 0 no limit"
    )
    llm_timeout: float = setting(120.0, "s", "to the first byte of an answer; a long prompt on a small machine")
    llm_stream_timeout: float = setting(120.0, "s", "between two bytes of an answer")
    llm_retries: int = setting(3, "retries", "of a request the model's API refused for now, before the first byte")

    # Workspaces' addresses
    workspace_domain: str = setting("localhost", "host", "workspaces live at vs-code-{uuid}.<domain>")
    workspace_scheme: str = setting("http", "http | https", "of the workspace URL")
    workspace_port: int = setting(0, "TCP port", "of the workspace URL; 0 leaves it out")
    code_server: str = setting("", "path", "the editor's program; by default the one on PATH")

    # Kubernetes
    workspace_namespace: str = setting(
        "fresh-workspaces", "namespace", "of the workspaces; apart from the service's own"
    )
    workspace_image: str = setting("", "image", "what a workspace runs; needed when RUNTIME is kubernetes")
    workspace_sizes: str = setting(
        '{"small": ["250m", "500m", "256Mi", "512Mi"], "standard": ["250m", "1", "256Mi", "1Gi"], '
        '"large": ["500m", "2", "1Gi", "4Gi"]}',
        "JSON",
        "CPU request and limit, memory request and limit; an editor with one page open counts 478 MB",
    )
    ephemeral_storage: str = setting(
        '["128Mi", "1Gi"]',
        "JSON",
        "request and limit of the node's disk of each container in a workspace's pod, /tmp and what it prints; a pod "
        "that takes more is ended and comes up again",
    )
    volume_size: str = setting("5Gi", "quantity", "of a workspace's volume")
    storage_class: str = setting("", "name", "of the workspaces' volumes; by default the cluster's own default")
    ingress_class: str = setting("traefik", "name", "of the ingress controller; empty for the cluster's default")
    api_host: str = setting(
        "",
        "host",
        "of the API: its /chat/{uuid} leads to the agent, so its user could serve pages there; empty: nowhere, "
        "in local mode api.<domain>, which serves nothing else",
    )
    ingress_annotations: str = setting("{}", "JSON", "on every workspace's Ingress, as a controller wants them")
    ingress_door: str = setting(
        "{}", "JSON", "annotations by which the controller asks the door who gets in; its component sets them"
    )
    ingress_tls_secret: str = setting("", "name", "a certificate for *.<domain>; empty leaves TLS to the controller")
    priority_class: str = setting(
        "", "name", "of the workspaces' pods: a PriorityClass below the manager's own; empty for the cluster's default"
    )
    runtime_class: str = setting("", "name", "of the workspaces' pods: gvisor, kata")
    node_selector: str = setting("{}", "JSON", "labels a node must have to run workspaces")
    tolerations: str = setting("[]", "JSON", "taints a workspace puts up with")
    spot_label: str = setting(
        "", "label", "selects and tolerates nodes that may be taken away, as cloud.google.com/gke-spot; empty for none"
    )
    scaler: str = setting("direct", "direct | keda", "who else may scale a workspace; keda also wakes it when we can't")
    keda_polling_interval: int = setting(
        10, "s", "N workspaces cost N / this many reads of Redis a second; no part of the time of a wake"
    )
    keda_cooldown: int = setting(300, "s", "with an empty queue this long, KEDA puts a workspace down")
    keda_authentication: str = setting("redis", "name", "the TriggerAuthentication that carries Redis's password")
    backup_pvc: str = setting("backups", "name", "the claim backups are kept on when BACKUP_URL is a path")
    archive_service_account: str = setting("default", "name", "of the backup Jobs; for an object store's credential")
    kube_timeout: float = setting(10.0, "s", "any request to the API server, which normally answers in 0.01 s")

    # Backups
    backup_retention: float = setting(
        7_776_000.0, "s", "backups older than this (90 days) go, but never a living session's newest"
    )
    restore_max_bytes: int = setting(
        21_474_836_480, "bytes", "20 GiB: four times the volume of a workspace; what has more is not backed up either"
    )
    restore_max_entries: int = setting(2_000_000, "files", "more would exhaust a volume's inodes")

    # Workers
    lease_ttl: float = setting(15.0, "s", "a killed worker's session is free again after this; renewed at a third")
    stale_after: float = setting(10.0, "s", "an intent nobody carried out is enqueued again after this")
    sweep_interval: float = setting(1.0, "s", "idle, expiry and stale sweeps; one range read each")
    reconcile_interval: float = setting(60.0, "s", "between looks for workspaces without a record")
    retention_interval: float = setting(3_600.0, "s", "between looks for old backups and tombstones")
    short_task_limit: float = setting(
        80.0, "s", "provision, wake, sleep and sweeps are killed after this; a sleep in which all hangs takes 66 s"
    )
    long_task_limit: float = setting(3_600.0, "s", "backup, restore and teardown are killed after this")
    visibility_timeout: float = setting(
        7_200.0, "s", "above every task limit, else Redis hands a running task out again"
    )
    max_deliveries: int = setting(5, "deliveries", "a task that died this often is put aside as a dead letter")

    heartbeat_file: str = setting(
        "", "path", "touched by worker, archiver, courier, watcher and beat while they do their work; empty: none"
    )
    heartbeat_limit: float = setting(
        90.0, "s", "a process whose heartbeat is older is started anew; one that waits for Redis tries every 60 s"
    )

    # The audit
    audit_retention: float = setting(
        7_776_000.0, "s", "who did what is kept this long (90 days), if there is room; 0 as long as there is"
    )
    audit_bytes: int = setting(
        33_554_432,
        "bytes",
        "of Redis for it, the oldest go: 24 MiB for what keys and the service do, 8 MiB for refusals and tenants",
    )

    # The web process
    web_workers: int = setting(2, "processes", "one a core")
    web_connections: int = setting(
        8_192, "connections", "of each web process; a waiting call or a stream holds one, a proxy keeps others"
    )
    held_per_session: int = setting(
        16, "each", "event streams, waiting calls, and calls to its agent that a session has of a web process at a time"
    )
    held_per_user: int = setting(64, "each", "the same of all sessions of a user")
    max_streams: int = setting(4_096, "streams", "event streams of each web process; some 50 KB each")
    redis_timeout: float = setting(1.0, "s", "any Redis command; Redis down is a 503 within 2 s")
    log_level: str = setting("INFO", "level", "of the JSON logs")

    @property
    def routes_url(self) -> str:
        """The Redis database of Traefik's routes: the one after the service's own, because Traefik walks all
        of a database at each change of a route, and the records are many."""
        url = urlsplit(self.redis_url)
        return url._replace(path=f"/{int(url.path.strip('/') or 0) + 1}").geturl()

    def backups_location(self) -> str:
        """The URL backups are stored under."""
        return self.backup_url or f"file://{self.data_dir.resolve()}/backups"

    def archive_location(self) -> str:
        """The URL conversations are stored under."""
        return self.archive_url or f"file://{self.data_dir.resolve()}/archive"

    def gateway_location(self) -> str:
        """Where workspaces reach the gateway, without a slash at the end."""
        return (self.gateway_url or f"http://127.0.0.1:{self.gateway_port}").rstrip("/")

    def secret_keys(self) -> tuple[str, ...]:
        """What all keys are made of, and the keys that were given for one purpose; none where nothing is signed."""
        return tuple(key.strip() for key in self.secret_key.split(",") if key.strip())

    def keys_for(self, purpose: Purpose) -> tuple[str, ...]:
        """The keys of this process for one purpose; the first one signs."""
        return keys_for(purpose, self.secret_keys())

    def workspace_url(self, uuid: str) -> str:
        """Where a browser finds the workspace."""
        port = f":{self.workspace_port}" if self.workspace_port else ""
        return f"{self.workspace_scheme}://{self.workspace_host(uuid)}{port}"

    def workspace_host(self, uuid: str) -> str:
        """The host name of the workspace."""
        return f"vs-code-{uuid}.{self.workspace_domain}"

    def agents_host(self) -> str:
        """The host name whose /chat/{uuid}/ leads to agents, "" where there is none."""
        return self.api_host or (f"api.{self.workspace_domain}" if self.runtime == "local" else "")

    def allowed_origins(self) -> frozenset[str]:
        """The origins of `cors_origins`."""
        return frozenset(text for part in self.cors_origins.split(",") if (text := part.strip().rstrip("/")))

    def embedding_origins(self) -> tuple[str, ...]:
        """The origins of `embed_origins`, in its order."""
        parts = (part.strip().rstrip("/") for part in self.embed_origins.split(","))
        return tuple(dict.fromkeys(part for part in parts if part))

    def nginx_says_why(self) -> bool:
        """Whether nginx, where it leads a visitor away (`auth-signin`), says why: the first header it takes of an
        answer of forward-auth's."""
        return "next=$authHeader0" in self.ingress_door and '"Workspace-Next,' in self.ingress_door

    @classmethod
    def variables(cls) -> list[str]:
        """The environment variables that are read, in the order of the settings."""
        return [spec.name.upper() for spec in dataclasses.fields(cls)]

    @classmethod
    def from_env(cls) -> Settings:
        """Read every setting from the environment; raises `SettingsError` naming the one that is wrong."""
        env = Env()
        try:
            values = {
                spec.name: getattr(env, READERS[str(spec.type)])(spec.name.upper(), spec.default)
                for spec in dataclasses.fields(cls)
            }
        except EnvError as error:
            raise SettingsError(f"{error}. See the table of settings in README.md.") from error
        try:
            values["redis_url"] = address({name: env.str(name, "") for name in NAMES})
        except AddressError as error:
            raise SettingsError(str(error)) from None
        # It stands in the URL, and in one place is enough.
        values["redis_password"] = ""
        return cls(**values).checked()

    def checked(self) -> Settings:
        """These settings, or `SettingsError` when two of them can't hold together."""
        longest = max(self.short_task_limit, self.long_task_limit)
        if self.visibility_timeout <= longest:
            raise SettingsError(
                f"VISIBILITY_TIMEOUT ({self.visibility_timeout:.0f} s) must be above every task limit "
                f"({longest:.0f} s), or Redis delivers a task that is still running a second time."
            )
        if self.runtime == "kubernetes" and not self.workspace_image:
            raise SettingsError("WORKSPACE_IMAGE must be set when RUNTIME is kubernetes: it is what a workspace runs.")
        if self.runtime == "kubernetes" and self.ingress_door.strip() in ("", "{}"):
            raise SettingsError(
                "INGRESS_DOOR must be set when RUNTIME is kubernetes: by these annotations the ingress asks "
                "forward-auth who gets into a workspace. The components traefik and nginx of manifests/ set it. "
                "An ingress that asks for all hosts by itself needs none: then say so in an annotation of your own."
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
        if self.login_url and "auth-signin" in self.ingress_door and not self.nginx_says_why():
            raise SettingsError(
                "INGRESS_DOOR: for LOGIN_URL, auth-signin must end in ?next=$authHeader0 and auth-response-headers "
                "must begin with Workspace-Next, as in manifests/components/nginx/settings.env."
            )
        if self.llm_base_url and urlsplit(self.llm_base_url).scheme not in ("http", "https"):
            raise SettingsError("LLM_BASE_URL must begin with http:// or https://.")
        if self.redis_reserve >= 1:
            raise SettingsError("REDIS_RESERVE must be below 1: it is a share of Redis' memory.")
        if self.session_prompt_bytes < self.message_max_bytes + 65_536:
            raise SettingsError(
                "SESSION_PROMPT_BYTES must be 65536 above MESSAGE_MAX_BYTES: one prompt and one answer must fit in."
            )
        negative = [
            spec.name.upper()
            for spec in dataclasses.fields(self)
            if isinstance(value := getattr(self, spec.name), int | float) and value < 0
        ]
        if negative:
            raise SettingsError(f"{', '.join(negative)} must not be negative.")
        return self


READERS: Mapping[str, str] = {"str": "str", "int": "int", "float": "float", "Path": "path"}
"""From a field's type to the `environs` method that reads it."""
