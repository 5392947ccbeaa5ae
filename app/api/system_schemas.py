"""Schemas of the calls on the service itself."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.schemas import time_field


class RedisMemorySchema(Schema):
    state = fields.String(required=True, metadata={"enum": ["ok", "filling", "full", "unlimited"]})
    percent = fields.Float(required=True, allow_none=True)
    used_bytes = fields.Integer(required=True)
    max_bytes = fields.Integer(required=True)


class HealthSchema(Schema):
    status = fields.String(required=True, metadata={"enum": ["healthy", "degraded", "unhealthy"]})
    version = fields.String(required=True)
    redis = fields.String(required=True, metadata={"enum": ["connected", "disconnected"]})
    redis_memory = fields.Nested(RedisMemorySchema, required=True, allow_none=True)
    kubernetes = fields.String(required=True, metadata={"enum": ["connected", "disconnected", "unknown"]})
    workers = fields.Integer(required=True)
    runtime = fields.String(required=True)
    network_policies = fields.String(
        required=True, allow_none=True, metadata={"enum": ["enforced", "not_enforced", "unknown", None]}
    )
    warnings = fields.List(fields.String(), required=True)
    observer_age_seconds = fields.Float(required=True, allow_none=True)
    timestamp = time_field(required=True)


class MetricsSchema(Schema):
    total_sessions = fields.Integer(required=True)
    created_sessions = fields.Integer(required=True)
    active_sessions = fields.Integer(required=True)
    sleeping_sessions = fields.Integer(required=True)
    waking_sessions = fields.Integer(required=True)
    terminating_sessions = fields.Integer(required=True)
    terminated_sessions = fields.Integer(required=True)
    failed_sessions = fields.Integer(required=True)
    archived_sessions = fields.Integer(
        required=True, metadata={"description": "without a volume; they also count by their state"}
    )
    dead_letters = fields.Integer(required=True)
    queue_backlog = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    workers = fields.Integer(required=True)
    observer_age_seconds = fields.Float(required=True, allow_none=True)
    backups = fields.Integer(required=True)
    redis_used_bytes = fields.Integer(required=True)
    redis_max_bytes = fields.Integer(required=True)
    counters = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    timestamp = time_field(required=True)
