"""Schemas of the calls on the service itself."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.answers import Items, Number, Object, Part, Text, Time, Whole
from app.api.health import Health
from app.api.metrics import Metrics
from app.api.openapi import VERSION
from app.core.redis.heartbeats import Policies
from app.core.redis.memory import Fill
from app.core.sessions.model import Status

POLICIES_WARNING = (
    "The cluster does not enforce NetworkPolicies: pods reach one another's ports, and workspaces reach every address. "
    "Install a network plugin that enforces them."
)


def percent_of(fill: Fill) -> float | None:
    """How full Redis is; None if it has no limit."""
    return None if fill.share is None else round(100 * fill.share, 1)


class RedisMemorySchema(Schema):
    state = Text(enum=["ok", "filling", "full", "unlimited"])
    percent = Number(of=percent_of, null=True)
    used_bytes = Whole(of="used")
    max_bytes = Whole(of="limit")


def redis_of(health: Health) -> str:
    return "connected" if health.redis else "disconnected"


def kubernetes_of(health: Health) -> str:
    if not health.redis:
        return "unknown"
    return "connected" if health.watched else "disconnected"


def memory_of(health: Health) -> Fill | None:
    return health.fill if health.told else None


def policies_of(health: Health) -> Policies | None:
    return health.isolation if health.told else None


def warnings_of(health: Health) -> list[str]:
    return [POLICIES_WARNING] if policies_of(health) is Policies.NOT_ENFORCED else []


def observer_age_of(health: Health) -> float | None:
    """To the millisecond."""
    return None if health.observer_age is None else round(health.observer_age, 3)


class HealthSchema(Schema):
    status = Text(enum=["healthy", "degraded", "unhealthy"])
    version = Text(of=lambda _: VERSION)
    redis = Text(of=redis_of, enum=["connected", "disconnected"])
    redis_memory = Part(RedisMemorySchema, of=memory_of, null=True)
    kubernetes = Text(of=kubernetes_of, enum=["connected", "disconnected", "unknown"])
    workers = Whole()
    runtime = Text()
    network_policies = Text(of=policies_of, null=True, enum=["enforced", "not_enforced", "unknown", None])
    warnings = Items(fields.String(), of=warnings_of)
    observer_age_seconds = Number(of=observer_age_of, null=True)
    timestamp = Time(of="read_at")


def count_field(status: Status) -> Whole:
    """The number of sessions in a state."""

    def count(metrics: Metrics) -> int:
        return metrics.sessions[status]

    return Whole(of=count)


class MetricsSchema(Schema):
    total_sessions = Whole(of="living")
    created_sessions = count_field(Status.CREATED)
    active_sessions = count_field(Status.ACTIVE)
    sleeping_sessions = count_field(Status.SLEEPING)
    waking_sessions = count_field(Status.WAKING)
    terminating_sessions = count_field(Status.TERMINATING)
    terminated_sessions = count_field(Status.TERMINATED)
    failed_sessions = count_field(Status.FAILED)
    archived_sessions = Whole("without a volume; they also count by their state", of="archived")
    dead_letters = Whole()
    queue_backlog = Object(values=fields.Integer(), of="backlog")
    workers = Whole()
    observer_age_seconds = Number(of="observer_age", null=True)
    backups = Whole()
    redis_used_bytes = Whole(of="fill.used")
    redis_max_bytes = Whole(of="fill.limit")
    counters = Object(values=fields.Integer())
    timestamp = Time(of="read_at")
