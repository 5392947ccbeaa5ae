"""Every setting of the service, once: its default, its unit, and why it has that value.

A setting is read from the environment variable of the same name in capitals. Importing this
module reads nothing; each process calls `Settings.from_env()` once, at its start.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from environs import Env, EnvError

from app.process.redis_address import NAMES, AddressError, address
from app.process.secret_keys import Purpose, keys_for, trouble_with

ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9-]+\.)*[A-Za-z0-9-]+(?::\d{1,5})?")
"""An origin that is safe in a Content-Security-Policy: it can't begin another source or directive."""

PAGE = re.compile(ORIGIN.pattern + r'(?:[/?][!"$-~]*)?')
"""An address to redirect browsers to, to which a query can be added: no fragment, no credentials."""

WAY_BACK = re.compile(PAGE.pattern + r"(?:#[!-~]*)?")
"""An address for a link."""

ROLES: Mapping[str, tuple[re.Pattern[str], str]] = {
    "s3": (re.compile(r"arn:[a-z-]+:iam::\d*:role/[\w+=,.@/-]+"), "arn:aws:iam::123456789012:role/archive"),
    "gs": (re.compile(r"[a-z0-9-]+@[a-z0-9.:-]+"), "archive@project.iam.gserviceaccount.com"),
}
"""What a Job's credential comes from, by the store's protocol: its form, and an example."""

PLAIN_PLACE = re.compile(r"[A-Za-z0-9._/-]+")
"""A bucket and a path in it, without what has a meaning in a policy."""

COLOR = re.compile(r"#[0-9a-fA-F]{6}")
"""A colour that is safe in a style sheet."""


class SettingsError(Exception):
    """A setting has a value the service can't start with; the text names the setting and says what to do."""


def setting(default: Any, unit: str, why: str, *, secret: bool = False) -> Any:
    """A field of `Settings`: its default, the unit of its value, and the reason for both. A `secret` is never shown."""
    return dataclasses.field(default=default, metadata={"unit": unit, "why": why, "secret": secret})


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
    redis_password: str = setting("", "text", "taken literally; in a URL it would have to be encoded", secret=True)
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
    bind: str = setting("127.0.0.1", "address", "loopback, so that other machines do not reach the service by default")

    # Who may call
    api_key: str = setting(
        "", "text", "one admin key in the clear; `scripts/run` makes one when this is empty", secret=True
    )
    api_keys: str = setting(
        "[]",
        "JSON",
        'more keys: a list of {"name", "sha256", "role": "admin"|"service"|"read"|"metrics", "user_prefix"?, '
        '"limits"?: {"create": "1000/minute"}, "budget"?: 500}; two valid at once is how a key is rotated; '
        "a `read` key sees everything and changes nothing; a `metrics` key reads /metrics alone, and Prometheus sends "
        "it as `Authorization: Bearer`",
        secret=True,
    )
    trusted_proxies: int = setting(0, "proxies", "our own proxies: so many last hops of X-Forwarded-For are trusted")
    rate_limit_create: str = setting("100/minute", "rate", "creating a session costs a volume")
    rate_limit_wake: str = setting("50/minute", "rate", "a wake costs a start")
    rate_limit_chat: str = setting("100/minute", "rate", "a prompt costs model tokens")
    rate_limit_delete: str = setting("50/minute", "rate", "a delete costs a whole backup")
    rate_limit_work: str = setting("600/minute", "rate", "commands, and calls on files, of one key in one session")
    rate_limit_input: str = setting(
        "3000/minute", "rate", "what is typed into terminals, by one key in one session: a piece in 20 ms"
    )
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
    file_max_bytes: int = setting(
        5_368_709_120,
        "bytes",
        "of a file or an archive that a call writes; as many as a workspace's volume has by default",
    )
    files_at_once: int = setting(
        4,
        "files",
        "of more than 2 MiB, and archives of folders, of one user, that pass a process of web at a time; each holds up "
        "to 6 MB",
    )
    max_sessions_per_user: int = setting(10, "sessions", "of one user, terminated ones not counted")

    body_budget_bytes: int = setting(
        134_217_728,
        "bytes",
        "of requests and agents' answers in a process of web or the gateway at a time; more is 503",
    )

    # Who may open a workspace
    cookie_ttl: float = setting(43_200.0, "s", "a browser's cookie expires this long (12 h) after its last use")
    login_url: str = setting(
        "",
        "URL",
        "your product's sign-in page: people who open a workspace without a valid cookie or link are redirected there, "
        "with `workspace` and `return_to`; empty: they get an error page",
    )

    ports_per_session: int = setting(
        16, "ports", "of a session that are opened at a time, 1 to 16; in a cluster each has a rule at the ingress"
    )
    public_wakes_per_hour: int = setting(
        6, "wakes", "of a session by visitors of its public ports; 0: they wake none. Who may open it always does"
    )
    public_port_max: float = setting(2_592_000.0, "s", "a port can be opened to everybody for so long (30 days)")

    # The dashboard
    dashboard_url: str = setting(
        "",
        "URL",
        "of the dashboard, on a name of its own, served by web; in local mode http://dashboard.localhost:PORT, "
        "unless the domain is another; else, and if it is `off`, there is none",
    )
    dashboard_session: float = setting(
        43_200.0, "s", "a person who is signed in and does nothing is signed out after this (12 h), a working day"
    )

    oidc_issuer: str = setting(
        "", "URL", "of an OpenID Connect provider, by which people sign in at the dashboard; empty: by API keys alone"
    )
    oidc_client_id: str = setting(
        "", "text", "the dashboard's client there; its redirect URI is DASHBOARD_URL/sign-in/back"
    )
    oidc_client_secret: str = setting(
        "", "text", "of that client; empty for a public client, which PKCE protects", secret=True
    )
    oidc_scopes: str = setting("openid email profile", "words", "asked for; add what brings the claim with the roles")
    oidc_name_claim: str = setting(
        "email", "claim", "the person's name, after `oidc:` in the audit; else, or unverified, `sub`"
    )
    oidc_role_claim: str = setting("groups", "claim", "its values give a person a role; an email counts if verified")
    oidc_admins: str = setting("", "values", "of that claim, separated by commas, with the role `admin`")
    oidc_readers: str = setting("", "values", "of that claim, separated by commas, with the role `read`")

    # What people see
    product_name: str = setting(
        "Workspaces", "text", "on the pages people meet, and the dashboard; 60 characters at most"
    )
    product_url: str = setting(
        "", "URL", "where the pages' way back leads: your product's list of workspaces; empty: they have none"
    )
    product_logo: str = setting(
        "",
        "path or data: URL",
        "an SVG or PNG image of 32,768 bytes at most, which becomes part of each page and stands beside "
        "the name: a square one fits best; empty: the built-in mark",
    )
    product_color: str = setting(
        "",
        "#rrggbb",
        "of the mark and the buttons; text and progress are in the nearest shade that can be read (WCAG AA); empty: "
        "#4f46e5, in the dark #8b85ff",
    )

    # A session's life
    runtime: str = setting("local", "local | kubernetes", "where workspaces run")
    idle_timeout: float = setting(900.0, "s", "a session that is unused for this long sleeps; 0 never")
    activity_windows: str = setting(
        "{}",
        "JSON",
        'how long an activity signal of docs/lifecycle.md counts (s), as {"browser": 300}; 0: ignored; without an '
        "entry, the idle timeout",
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
    awake_hours: str = setting("", "hours", "no idle session is put to sleep in these, in UTC, as Mon-Fri 08:00-18:00")
    keepalive_max: float = setting(
        28_800.0, "s", "the longest time that a keepalive call, or `keep` in a terminal, may ask for: a working day"
    )
    quiet_job_max: float = setting(
        7_200.0,
        "s",
        "how long a job in the foreground of a terminal keeps its session awake after it last used CPU or its "
        "terminal; 0 not at all",
    )
    session_ttl: float = setting(
        86_400.0,
        "s",
        "unused for this long, a sleeping session is archived: its volume goes, and the next wake restores its files; "
        "0 never, and then the session has no end either",
    )
    archive_retention: float = setting(
        7_776_000.0,
        "s",
        "unused for this long (90 days), or for its own `ttl` if that is longer, a session is backed up and deleted; "
        "0 never",
    )
    archives_at_once: int = setting(
        4, "sessions", "archived at a time: each is read whole, and stored data is read back, beside users' wakes"
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
    wait_default: float = setting(
        25.0, "s", "how long a call waits by default, for the end state or a worker; below a proxy's usual 30 s"
    )
    wait_max: float = setting(60.0, "s", "the longest `Prefer: wait` of a caller")

    # The agent and its prompts
    secret_key: str = setting(
        "",
        "text",
        "the keys that sign workspace tokens, cookies and session tokens are derived from it; `scripts/run` and "
        "`manifests/make-secrets` make one; 32 characters or more. Several, separated by commas, during a "
        "rotation: the "
        "first signs, all verify. Or single derived keys, as purpose=key, for a process that needs no others",
        secret=True,
    )
    prompt_max_bytes: int = setting(100_000, "bytes", "a longer prompt is 413; a file belongs into the workspace")
    inbox_limit: int = setting(100, "prompts", "in the queue of one session; one more is 429")
    session_prompt_bytes: int = setting(
        4_194_304, "bytes", "of Redis for the prompts and kept answers of a session: 40 of the longest; more is 429"
    )
    user_prompt_bytes: int = setting(
        16_777_216, "bytes", "the same for all sessions of a user: a sixtieth of a Redis of 1 GiB; more is 429"
    )
    prompt_ttl: float = setting(
        600.0, "s", "how long an answered prompt has a state; the history keeps the conversation"
    )
    agent_program: str = setting(
        "",
        "command line",
        "a program in the workspace's image, or with RUNTIME=local on this machine, that works on prompts in place of "
        "the service's agent, as docs/own-agent.md says",
    )
    agent_turn_timeout: float = setting(900.0, "s", "a longer turn is ended; a long test suite fits in")
    agent_max_steps: int = setting(50, "calls of the model", "in a turn; more is probably a loop")
    agent_max_tokens: int = setting(
        1_000_000, "tokens", "in a turn, with each step's whole prompt counted, as it is billed: about a hundred steps"
    )
    agent_command_timeout: float = setting(120.0, "s", "a command of the agent is killed after this")
    exec_timeout: float = setting(3_600.0, "s", "a command that a call runs is ended after this; a long build fits in")
    execs_at_once: int = setting(16, "commands", "of calls, that run in a workspace at a time; one more is 429")
    services_per_session: int = setting(16, "services", "that a workspace may have, 1 to 16; one more is 409")
    exec_output_bytes: int = setting(
        16_777_216, "bytes", "kept of each stream of such a command; of a longer one the end is kept beside them"
    )
    undo_points: int = setting(
        20, "each", "undo points in a workspace: so many of its last prompts can be undone in seconds; 0 for none"
    )
    undo_max_bytes: int = setting(
        1_073_741_824, "bytes", "of a volume for its undo points, the oldest go first; a larger project has none"
    )
    checkpoint_interval: float = setting(
        180.0, "s", "between copies to the history store: the most a lost volume can cost"
    )
    history_url: str = setting(
        "", "URL", "the history store of conversations, any fsspec URL; by default `archive` in the data folder"
    )
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
    gateway_connections_per_peer: int = setting(
        64, "connections", "of one workspace's address to a gateway process; 0 for no bound"
    )
    gateway_grace: int = setting(3, "s", "for streams to end when the gateway stops; below the 4 s of scripts/run")
    gateway_calls_per_session: int = setting(8, "requests", "of one session at a time")
    llm_base_url: str = setting("", "URL", "an OpenAI-compatible API, up to and with its /v1; empty: no model, no chat")
    llm_api_key: str = setting("", "text", "the key of that API; it never leaves the gateway", secret=True)
    llm_model: str = setting("", "name", "the model for all workspaces; empty: each request names its own")
    llm_tokens_per_day: int = setting(
        2_000_000, "tokens", "of one user a day (UTC); further requests are refused with 429; 0 no limit"
    )
    llm_timeout: float = setting(120.0, "s", "to the first byte of an answer; a long prompt on a small machine")

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
    backup_role: str = setting(
        "",
        "ARN or e-mail address",
        "of the AWS role (s3://) or the Google service account (gs://) from which each Job is given a short-lived "
        "credential for its own session's part of the backup store; it has no other",
    )
    backup_role_limit: float = setting(
        3_600.0,
        "s",
        "the longest credential that BACKUP_ROLE gives; an hour is what both clouds allow by default, and all that AWS "
        "allows a worker whose own credential is a role's",
    )

    # Backups
    backup_retention: float = setting(
        7_776_000.0, "s", "older backups (90 days) are deleted, but never the newest one of a session that exists"
    )
    restore_max_bytes: int = setting(
        21_474_836_480, "bytes", "20 GiB, four times a workspace's volume; a larger one is not backed up either"
    )
    restore_max_entries: int = setting(2_000_000, "files", "more would exhaust a volume's inodes")

    archive_key: str = setting(
        "",
        "32 bytes in base64",
        "encrypts what the stores hold, by keys derived for each session; the first of several encrypts, all decrypt. "
        "Empty: backups and conversations are stored unencrypted, and there are no restore points; `scripts/run` and "
        "`manifests/make-secrets` make one",
        secret=True,
    )

    # Restore points
    restore_point_interval: float = setting(
        3_600.0, "s", "between restore points of a session that is awake: the most a lost volume costs; 0 for none"
    )
    restore_point_keep: str = setting(
        '{"last": 3, "hourly": 24, "daily": 7, "weekly": 4}',
        "JSON",
        "how many points stay: the newest, and the last one of each hour, day and week, for so many of these with one; "
        "what it leaves out stays as it is",
    )
    restore_point_check_interval: float = setting(
        86_400.0, "s", "between two full looks at a session's files and at the stored data of its restore points"
    )
    restore_points_at_once: int = setting(
        4, "points", "made at a time in the whole service; the volume's reads and the Jobs are the cost"
    )
    drill_cycle: float = setting(
        604_800.0, "s", "within which each session's newest restore point is restored for a proof; 0 for no drills"
    )
    restic: str = setting("restic", "path", "the program that makes restore points, restic 0.14 or newer")
    volume_lost_after: float = setting(
        300.0, "s", "that a volume may be out of reach before the newest restore point replaces it"
    )

    # Costs
    prices: str = setting(
        '{"vcpu_hour": 0.0445, "gib_hour": 0.0049225, "disk_gib_month": {"*": 0.1}, "backup_gib_month": 0.02, '
        '"million_tokens": {"gpt-5": [1.25, 10], "gpt-5-mini": [0.25, 2], "gpt-4.1": [2, 8], '
        '"gpt-4.1-mini": [0.4, 1.6], "*": [1.25, 10]}}',
        "JSON",
        "$; replace them by those you pay; what it leaves out stays as it is. `vcpu_hour` and `gib_hour`: a vCPU and a "
        "GiB of memory that a pod requests, for an hour, GKE Autopilot's list price for general-purpose pods, "
        "us-central1 (cloud.google.com/kubernetes-engine/pricing, 2025). `disk_gib_month`: a GiB of a workspace's "
        "volume, for 730 hours, by `STORAGE_CLASS`, `*` for all others, pd-balanced, us-central1 "
        "(cloud.google.com/compute/disks-image-pricing, 2025). `backup_gib_month`: a GiB of backups and restore "
        "points, for 730 hours, Cloud Storage, Standard, us-central1 (cloud.google.com/storage/pricing, 2025). "
        "`million_tokens`: what a model reads and writes, by model, OpenAI's list prices, without discounts for cached "
        "ones (openai.com/api/pricing, March 2026); `*` is for all other models, which the ledger doesn't tell apart, "
        "and which workspaces may not choose where there is a budget",
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
    reconcile_interval: float = setting(60.0, "s", "between searches for workspaces without a record")
    retention_interval: float = setting(3_600.0, "s", "between searches for old backups and tombstones")
    long_task_limit: float = setting(3_600.0, "s", "backup, restore and teardown are killed after this")

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
    web_workers: int = setting(2, "processes", "one a core; scripts/run starts one unless this is set")
    max_concurrent_per_session: int = setting(
        16, "each", "event streams, waiting calls, and calls to its agent of one session at a time, in each web process"
    )
    max_concurrent_per_user: int = setting(64, "each", "the same for all sessions of a user")
    max_streams: int = setting(4_096, "streams", "event streams of each web process; some 50 KB each")
    log_level: str = setting("INFO", "level", "of the JSON logs")

    # Metrics
    metrics_port: int = setting(
        0,
        "TCP port",
        "each process but web answers Prometheus on this port, without a key: on loopback in local mode, in a cluster "
        "to those whom the network policies admit; 0: on no port, and the gateway answers on its own, to every "
        "workspace. `scripts/run` gives each process its own port with MONITORING=1",
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

    @property
    def drill_interval(self) -> float:
        """s between two sweeps for drills: 40 in a cycle, but at most 300 s and at least 1 s."""
        return min(max(self.drill_cycle / 40, 1.0), 300.0) if self.drill_cycle else 300.0

    def points_kept(self) -> tuple[int, int, int, int]:
        """How many restore points stay: the last, hourly, daily and weekly ones. Raises `SettingsError`."""
        kept = self.family("restore_point_keep")
        if any(number < 0 for number in kept.values()):
            raise SettingsError("RESTORE_POINT_KEEP must have no negative number.")
        return kept["last"], kept["hourly"], kept["daily"], kept["weekly"]

    def family(self, name: str, number: Callable[[str], Any] | None = None) -> dict[str, Any]:
        """A setting that is a JSON object, merged over its default; `number` reads the numbers in it. Raises
        `SettingsError` for a name that the default lacks, and for a value of another type."""
        default: dict[str, Any] = _json(getattr(type(self), name), number)
        variable = name.upper()
        try:
            given = _json(getattr(self, name), number)
        except ValueError as error:
            raise SettingsError(f"{variable} is not valid JSON: {error}.") from error
        if not isinstance(given, dict):
            raise SettingsError(f"{variable} must be a JSON object, such as {getattr(type(self), name)}.")
        for each, value in given.items():
            if each not in default:
                raise SettingsError(f"{variable} has the unknown name {each!r}; it may have {', '.join(default)}.")
            if type(value) is not type(default[each]):
                kind = KINDS.get(type(default[each]), "a number")
                raise SettingsError(f"{variable}: {each} must be {kind}.")
        return default | given

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

    def workspace_url(self, uuid: str, port: int | str = 0) -> str:
        """The workspace's address for browsers, or that of one of its ports. Each is an origin."""
        at = f":{self.workspace_port}" if self.workspace_port else ""
        return f"{self.workspace_scheme}://{self.workspace_host(uuid, port)}{at}"

    def workspace_host(self, uuid: str, port: int | str = 0) -> str:
        """The host name of the workspace, or of one of its ports: one label below the domain, for its certificate."""
        return f"{f'{port}--' if port else ''}vs-code-{uuid}.{self.workspace_domain}"

    def agents_host(self) -> str:
        """The host name whose /chat/{uuid}/ leads to agents, "" for none."""
        return self.api_host or (f"api.{self.workspace_domain}" if self.runtime == "local" else "")

    def dashboard_location(self) -> str:
        """The dashboard's address, without a slash at the end; "" for none."""
        if self.dashboard_url or self.runtime != "local":
            return self.dashboard_url.rstrip("/").removesuffix("off")
        derived = f"http://dashboard.{self.workspace_domain}:{self.port}"
        return derived if _is_safe(derived) else ""

    def allowed_origins(self) -> frozenset[str]:
        """The origins of `cors_origins`."""
        return frozenset(text for part in self.cors_origins.split(",") if (text := part.strip().rstrip("/")))

    def embedding_origins(self) -> tuple[str, ...]:
        """The origins of `embed_origins`, in its order."""
        parts = (part.strip().rstrip("/") for part in self.embed_origins.split(","))
        return tuple(dict.fromkeys(part for part in parts if part))

    def nginx_says_why(self) -> bool:
        """Whether nginx tells forward auth where it leads a request, and its redirect (`auth-signin`) carries
        `Workspace-Next`, which must be the first header that nginx takes from forward auth's answer."""
        parts = ("service=$service_name", "next=$authHeader0", '"Workspace-Next,')
        return all(part in self.ingress_forward_auth for part in parts)

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
            raise SettingsError(f"{error}. See the table of settings in docs/settings.md.") from error
        try:
            values["redis_url"] = address({name: env.str(name, "") for name in NAMES})
        except AddressError as error:
            raise SettingsError(str(error)) from None
        # The URL has it; a second copy could leak.
        values["redis_password"] = ""
        # The name in version 3 of the API.
        values["workspace_image"] = values["workspace_image"] or env.str("USER_POD_IMAGE", "")
        return cls(**values).checked()

    def checked(self) -> Settings:
        """These settings; raises `SettingsError` if some of them contradict each other."""
        if self.runtime == "kubernetes" and not self.workspace_image:
            raise SettingsError("WORKSPACE_IMAGE must be set when RUNTIME is kubernetes: it is what a workspace runs.")
        if self.runtime == "kubernetes" and self.ingress_forward_auth.strip() in ("", "{}"):
            raise SettingsError(
                "INGRESS_FORWARD_AUTH must be set when RUNTIME is kubernetes: by these annotations the ingress asks "
                "forward auth who gets into a workspace. The components traefik and nginx of manifests/ set it. "
                "If your ingress asks forward auth for all hosts by itself, set any annotation of your own."
            )
        if trouble := self._trouble_with_backup_role():
            raise SettingsError(f"BACKUP_ROLE: {trouble}")
        if self.scaler not in ("direct", "keda"):
            raise SettingsError(f"SCALER is {self.scaler!r}; it is one of: direct, keda.")
        if trouble := trouble_with(self.secret_keys()):
            raise SettingsError(f"SECRET_KEY: {trouble}")
        if any(urlsplit(each).netloc == "" or urlsplit(each).path for each in self.allowed_origins()):
            raise SettingsError("CORS_ORIGINS: an origin looks like https://app.example.com, without a path.")
        if not all(ORIGIN.fullmatch(each) for each in self.embedding_origins()):
            raise SettingsError("EMBED_ORIGINS: an origin looks like https://app.example.com, without a path.")
        for name, origins in (("EMBED_ORIGINS", self.embedding_origins()), ("CORS_ORIGINS", self.allowed_origins())):
            if any(map(self._is_of_workspaces, origins)):
                raise SettingsError(f"{name}: no origin of a workspace or of the agents: tenants write its pages.")
        if self.login_url and not PAGE.fullmatch(self.login_url):
            raise SettingsError("LOGIN_URL: an address looks like https://app.example.com/sign-in, without a fragment.")
        if "auth-signin" in self.ingress_forward_auth and not self.nginx_says_why():
            raise SettingsError(
                "INGRESS_FORWARD_AUTH: auth-url must have service=$service_name, auth-signin must end in "
                "?next=$authHeader0, and auth-response-headers must begin with Workspace-Next, as in "
                "manifests/components/nginx/settings.env."
            )
        if trouble := self._trouble_with_dashboard():
            raise SettingsError(f"DASHBOARD_URL: {trouble}")
        if trouble := self._trouble_with_oidc():
            raise SettingsError(f"OIDC_ISSUER: {trouble}")
        if not self.product_name.strip() or len(self.product_name) > 60 or not self.product_name.isprintable():
            raise SettingsError("PRODUCT_NAME must be a name of 1 to 60 characters in one line.")
        if self.product_url and not WAY_BACK.fullmatch(self.product_url):
            raise SettingsError("PRODUCT_URL: an address looks like https://app.example.com/home.")
        if self.product_color and not COLOR.fullmatch(self.product_color):
            raise SettingsError("PRODUCT_COLOR: a colour looks like #4f46e5: a # and six hexadecimal digits.")
        if self.llm_base_url and urlsplit(self.llm_base_url).scheme not in ("http", "https"):
            raise SettingsError("LLM_BASE_URL must begin with http:// or https://.")
        if trouble := self._trouble_with_program():
            raise SettingsError(f"AGENT_PROGRAM: {trouble}")
        if not 1 <= self.services_per_session <= 16:
            raise SettingsError("SERVICES_PER_SESSION must be 1 to 16.")
        if not 1 <= self.ports_per_session <= 16:
            raise SettingsError("PORTS_PER_SESSION must be 1 to 16.")
        if self.session_prompt_bytes < self.prompt_max_bytes + 65_536:
            raise SettingsError(
                "SESSION_PROMPT_BYTES must be 65536 above PROMPT_MAX_BYTES: one prompt and one answer must fit in."
            )
        self.points_kept()
        negative = [
            spec.name.upper()
            for spec in dataclasses.fields(self)
            if isinstance(value := getattr(self, spec.name), int | float) and value < 0
        ]
        if negative:
            raise SettingsError(f"{', '.join(negative)} must not be negative.")
        return self

    def _trouble_with_program(self) -> str:
        """What is wrong with the command line of the agent's program, "" for nothing."""
        try:
            words = shlex.split(self.agent_program)
        except ValueError as error:
            return f"it is no command line: {error}."
        # It starts in /, and what is looked for in PATH there is the image's.
        if words and "/" in words[0] and not words[0].startswith("/"):
            return f"{words[0]!r} is relative; name the program by its whole path, or by its name in PATH."
        return "" if words or not self.agent_program else "it is blank; leave it empty for the service's own agent."

    def _trouble_with_backup_role(self) -> str:
        """What is wrong with the role of Jobs, "" for nothing."""
        location = self.backups_location()
        scheme, _, place = location.partition("://") if "://" in location else ("file", "", location)
        if self.runtime != "kubernetes":
            return "it is for Jobs, which only RUNTIME=kubernetes has." if self.backup_role else ""
        if scheme == "file":
            return "it is for buckets; a Job sees its part of a volume anyway." if self.backup_role else ""
        if scheme not in ROLES:
            return (
                "in a cluster, BACKUP_URL must begin with file://, s3:// or gs://: a Job needs a credential of its own."
            )
        pattern, example = ROLES[scheme]
        if not self.backup_role:
            return f"it must be set for {scheme}://, as Jobs have no other credential. It looks like {example}."
        if not pattern.fullmatch(self.backup_role):
            return f"for {scheme}:// it looks like {example}."
        if not PLAIN_PLACE.fullmatch(place):
            return "BACKUP_URL may have letters, digits and . _ - / only, as it becomes part of a policy."
        if not 900 <= self.backup_role_limit <= 43_200:
            return "BACKUP_ROLE_LIMIT must be 900 to 43200 (s)."
        return ""

    def _trouble_with_dashboard(self) -> str:
        """What is wrong with the dashboard's address, "" for nothing."""
        location = self.dashboard_location()
        if not location:
            return ""
        if not ORIGIN.fullmatch(location):
            return "an address looks like https://dashboard.example.com, without a path; `off` for no dashboard."
        if not _is_safe(location):
            return "it must begin with https://: browsers keep the dashboard's cookie only for that, and for localhost."
        if self._is_of_workspaces(location):
            return "the dashboard needs a name of its own, on which no workspace serves anything."
        return ""

    def _is_of_workspaces(self, url: str) -> bool:
        """Whether the host of a URL is a workspace's, or that of the agents."""
        host = urlsplit(url).hostname or ""
        return host == self.agents_host().lower() or re.match(r"vs-code-[0-9a-z]{8}\.", host) is not None

    def _trouble_with_oidc(self) -> str:
        """What is wrong with the sign-in by OpenID Connect, "" for nothing."""
        if not self.oidc_issuer:
            return ""
        if not PAGE.fullmatch(self.oidc_issuer) or not _is_safe(self.oidc_issuer):
            return "it must begin with https://; http:// is for localhost only."
        if not self.oidc_client_id:
            return "OIDC_CLIENT_ID must be set too: the id of the dashboard's client at the provider."
        if not self.oidc_admins and not self.oidc_readers:
            return "OIDC_ADMINS or OIDC_READERS must be set too, or nobody who signs in may see anything."
        return ""


def _json(text: str, number: Callable[[str], Any] | None) -> Any:
    return json.loads(text, parse_float=number, parse_int=number)


def _is_safe(url: str) -> bool:
    """Whether a URL is encrypted, or leads to this machine."""
    host = urlsplit(url).hostname or ""
    return url.startswith("https:") or host in ("localhost", "127.0.0.1") or host.endswith(".localhost")


KINDS: Mapping[type, str] = {dict: "a JSON object", int: "a whole number"}
"""The words for the types in `Settings.family`; all others are numbers."""

READERS: Mapping[str, str] = {"str": "str", "int": "int", "float": "float", "Path": "path"}
"""The `environs` method for each type of field."""
