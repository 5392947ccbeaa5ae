"""Every alert: when it fires, how urgent it is, what users notice. docs/operations-monitoring.md has a section for
each, under its name, that says what to do.

Figures that web reads from Redis are the same at each replica: their `max`. What a process counts itself is added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.agent.protocol import FAULTS
from scripts.lib.processes import MANAGER
from scripts.monitoring.objectives import API, FAST, SLOW, WAKE

PROCESSES = MANAGER
"""Those that show metrics. The job of the scrape is `sessions-` and the name."""

Severity = Literal["page", "warning"]


@dataclass(frozen=True)
class Alert:
    """`lasting`: how long `expr` must hold. `page`: somebody is woken."""

    name: str
    severity: Severity
    expr: str
    lasting: str
    summary: str


def _share(part: str, whole: str, limit: str) -> str:
    return f"{part}\n/ {whole}\n> {limit}"


def _increase(metric: str, window: str) -> str:
    return f"max by (namespace) (increase({metric}[{window}]))"


_BACKUPS_FAILED = _increase('sessions_action_failures_total{action="backup"}', "1h")
_BACKUPS_DONE = _increase('sessions_action_seconds_count{action="backup",phase="total"}', "1h")
_REDIS = "max by (namespace) (sessions_redis_used_bytes) / max by (namespace) (sessions_redis_max_bytes)"

_MODEL = 'sum by (namespace) (increase(gateway_requests_total{endpoint=~"llm[.].+"%s}[%s]))'


def _model_errors(window: str, share: str) -> str:
    errors = _MODEL % (',status=~"5.."', window)
    return f"{errors} >= 5\nand {errors} > {share} * {_MODEL % ('', window)}"


_REASONS = "|".join(sorted(FAULTS))
_PROMPTS_FAILED = (
    "sum by (namespace) (max by (namespace, reason) "
    f'(increase(sessions_prompts_failed_total{{reason=~"{_REASONS}"}}[15m])))'
)
_PROMPTS_ANSWERED = _increase("sessions_prompt_seconds_count", "15m")

_CLAIM = 'persistentvolumeclaim=~"user-[0-9a-z]{8}(-[0-9]+)?"'
_OWN = 'namespace="fresh-system"'


def _free(claims: str) -> str:
    """The share of volumes that is free."""
    return f"kubelet_volume_stats_available_bytes{{{claims}}} / kubelet_volume_stats_capacity_bytes{{{claims}}}"


def _free_files(claims: str) -> str:
    """The share of the files that they may still have."""
    return f"kubelet_volume_stats_inodes_free{{{claims}}} / kubelet_volume_stats_inodes{{{claims}}}"


# Prometheus keeps an exporter's own label `namespace`, or calls it `exported_namespace`, as it is told. The value is 0
# for a certificate that was never issued (cert-manager 1.21, internal/collectors/certificate_collector.go).
_EXPIRES = "certmanager_certificate_expiration_timestamp_seconds"
_LEFT = (
    f'min by (name) (\n  {_EXPIRES}{{namespace="fresh-system"}}\n'
    f'  or {_EXPIRES}{{exported_namespace="fresh-system"}}\n) - time()'
)
_DAY = 86_400

ALERTS = (
    Alert(
        name="SessionsApiBurnFast",
        severity="page",
        expr=API.burns(FAST),
        lasting="1m",
        summary="Calls of the API fail: users can't create, open or wake their sessions, or only at the second try.",
    ),
    Alert(
        name="SessionsApiBurnSlow",
        severity="warning",
        expr=API.burns(SLOW),
        lasting="1h",
        summary="A few calls of the API fail, more than the 0.1 % allowed: some users have to try again.",
    ),
    Alert(
        name="SessionsWakeBurnFast",
        severity="page",
        expr=WAKE.burns(FAST),
        lasting="1m",
        summary="Many wakes fail or take more than 5 s: users wait in front of a workspace that does not open.",
    ),
    Alert(
        name="SessionsWakeBurnSlow",
        severity="warning",
        expr=WAKE.burns(SLOW),
        lasting="1h",
        summary="More than 1 % of the wakes fail or take more than 5 s: some users wait.",
    ),
    Alert(
        name="SessionsFailed",
        severity="warning",
        expr=f"{_increase('sessions_failed_total', '1h')} > 0",
        lasting="0m",
        summary="A session failed: its user has a workspace that does not open. Its files are kept.",
    ),
    Alert(
        name="SessionsModelDown",
        severity="page",
        expr=f"max by (namespace) (sessions_model_up) == 0\nor\n({_model_errors('5m', '0.5')})",
        lasting="3m",
        summary="The model's API does not answer: every prompt fails.",
    ),
    Alert(
        name="SessionsModelErrors",
        severity="warning",
        expr=_model_errors("30m", "0.05"),
        lasting="5m",
        summary="Over 5 % of the agents' requests to the model fail: prompts take long, and some fail.",
    ),
    Alert(
        name="SessionsPromptsFailing",
        severity="warning",
        expr=(
            f"{_PROMPTS_FAILED} >= 3\n"
            f"and {_PROMPTS_FAILED}\n> 0.2 * ({_PROMPTS_FAILED} + ({_PROMPTS_ANSWERED} or 0 * {_PROMPTS_FAILED}))"
        ),
        lasting="5m",
        summary="Over a fifth of the prompts fail, and not by their users' doing: users read an error, and no answer.",
    ),
    Alert(
        name="SessionsBackupFailed",
        severity="warning",
        expr=f"{_BACKUPS_FAILED} > 0",
        lasting="0m",
        summary="A backup failed: its user has no copy of the newest files, and a delete of the session is refused.",
    ),
    Alert(
        name="SessionsBackupsFailing",
        severity="page",
        expr=f"{_BACKUPS_FAILED} >= 3\nand {_BACKUPS_FAILED} > ({_BACKUPS_DONE} or 0 * {_BACKUPS_FAILED})",
        lasting="5m",
        summary="Most backups fail: no user's newest files are safe, and sessions can't be deleted.",
    ),
    Alert(
        name="SessionsRestorePointsLate",
        severity="warning",
        expr="max by (namespace) (sessions_points_oldest_seconds) > 900",
        lasting="5m",
        summary="Restore points are over 15 minutes late: if a volume were lost now, its user would lose more work.",
    ),
    Alert(
        name="SessionsBackupsOld",
        severity="warning",
        expr=(
            "max by (namespace) (sessions_backups_oldest_seconds) > 900\n"
            "or max by (namespace) (sessions_points_overdue_seconds) > 900"
        ),
        lasting="5m",
        summary="Copies of users' files get old: a backup is over 15 minutes late, or nobody asks for restore points.",
    ),
    Alert(
        name="SessionsDrillFailed",
        severity="warning",
        expr=f"{_increase('sessions_drills_failed_total', '1h')} > 0",
        lasting="0m",
        summary="A restore point was broken: had the volume been lost before the next one, its user had lost work.",
    ),
    Alert(
        name="SessionsDrillsLate",
        severity="warning",
        expr="max by (namespace) (sessions_drills_late) > 0",
        lasting="5m",
        summary="Restore points are not proven any more: whether users can have their files back is not known.",
    ),
    Alert(
        name="SessionsDeadLetters",
        severity="warning",
        expr="max by (namespace) (sessions_dead_letters_kept) > 0",
        lasting="1m",
        summary="A task was given up: the session of a user is failed, or a backup that he asked for was not made.",
    ),
    Alert(
        name="SessionsObserverSilent",
        severity="page",
        expr=(
            "max by (namespace) (sessions_observer_age_seconds) > 30\n"
            "or 0 * max by (namespace) (sessions_redis_used_bytes)"
            " unless max by (namespace) (sessions_observer_age_seconds)"
        ),
        lasting="1m",
        summary="No observer reports: new and woken sessions don't become active, and their users wait.",
    ),
    Alert(
        name="SessionsObserverLag",
        severity="warning",
        expr="min by (namespace) (observer_lag_seconds) > 60",
        lasting="2m",
        summary="The observer reports, but sees the workspaces late: users see states that are a minute old.",
    ),
    Alert(
        name="SessionsQueueOld",
        severity="page",
        expr='max by (namespace, queue) (sessions_queue_oldest_seconds{queue=~"wake|deliver"}) > 30',
        lasting="1m",
        summary="Tasks of the queue {{ $labels.queue }} wait for over 30 s, and users for their workspace or answer.",
    ),
    Alert(
        name="SessionsBackgroundQueueOld",
        severity="warning",
        expr='max by (namespace, queue) (sessions_queue_oldest_seconds{queue!~"wake|deliver"}) > 900',
        lasting="1m",
        summary="Tasks of the queue {{ $labels.queue }} wait for over 15 minutes: sleeps or backups come late.",
    ),
    Alert(
        name="SessionsRedisFilling",
        severity="warning",
        expr=f"{_REDIS} > 0.7",
        lasting="5m",
        summary="Redis is {{ $value | humanizePercentage }} full. When it is full, new sessions are refused.",
    ),
    Alert(
        name="SessionsRedisFull",
        severity="page",
        expr=f"{_REDIS} > 0.9",
        lasting="1m",
        summary="Redis is {{ $value | humanizePercentage }} full: new sessions and prompts soon are refused (507).",
    ),
    Alert(
        name="SessionsVolumeFull",
        severity="warning",
        expr=f"count by (namespace) (\n  {_free(_CLAIM)} < 0.05\n  or {_free_files(_CLAIM)} < 0.05\n) > 0",
        lasting="15m",
        summary="{{ $value }} workspaces' volumes are over 95 % full: their users soon can save nothing.",
    ),
    Alert(
        name="SessionsServiceVolumeFull",
        severity="page",
        expr=f"min by (namespace, persistentvolumeclaim) (\n  {_free(_OWN)}\n) < 0.1",
        lasting="5m",
        summary=(
            "The volume {{ $labels.persistentvolumeclaim }} of the service is over 90 % full. When it is full, nothing "
            "is stored there: backups, conversations, or Redis' log."
        ),
    ),
    Alert(
        name="SessionsCertificateLate",
        severity="warning",
        expr=f"{_LEFT} < {14 * _DAY}",
        lasting="1h",
        summary="The certificate {{ $labels.name }} was not renewed in time: it ends within two weeks.",
    ),
    Alert(
        name="SessionsCertificateExpires",
        severity="page",
        expr=f"{_LEFT} < {2 * _DAY}",
        lasting="1h",
        summary="The certificate {{ $labels.name }} ends within two days, or has ended: then browsers open nothing.",
    ),
    Alert(
        name="SessionsForwardAuthErrors",
        severity="page",
        expr=_share(
            'sum by (namespace) (rate(forward_auth_decisions_total{decision="error"}[5m]))',
            "sum by (namespace) (rate(forward_auth_decisions_total[5m]))",
            "0.05",
        ),
        lasting="2m",
        summary="Over 5 % of the requests to workspaces can't be decided: editors and terminals show errors.",
    ),
    Alert(
        name="SessionsProcessDown",
        severity="page",
        expr='max by (namespace, job) (up{job=~"sessions-.+"}) == 0',
        lasting="2m",
        summary="No {{ $labels.job }} answers. What users notice is in the runbook's table of processes.",
    ),
    Alert(
        name="SessionsReplicaDown",
        severity="warning",
        expr=(
            'min by (namespace, job) (up{job=~"sessions-.+"}) == 0\n'
            'and max by (namespace, job) (up{job=~"sessions-.+"}) == 1'
        ),
        lasting="15m",
        summary="A replica of {{ $labels.job }} does not answer. Users notice nothing as long as another does.",
    ),
    Alert(
        name="SessionsScrapeMissing",
        severity="page",
        expr="\nor ".join(f'absent(up{{job="sessions-{name}"}})' for name in PROCESSES),
        lasting="10m",
        summary="Prometheus has no target {{ $labels.job }}: the process is gone, or nobody would hear of its faults.",
    ),
    Alert(
        name="SessionsBeatSilent",
        severity="warning",
        expr="time() - max by (namespace) (beat_last_sent_timestamp_seconds) > 300",
        lasting="1m",
        summary="Beat has sent no sweep for over 5 minutes: idle sessions stay awake, and cost what they cost.",
    ),
)
