"""The call for an operator's charts: how the service was over time."""

from __future__ import annotations

import time
from typing import Any

from flask import Response

from app.api.blueprint import Blueprint
from app.api.current import core, reply
from app.api.overview_schemas import HistoryQuerySchema, HistorySchema
from app.api.security import check_operator
from app.core.operations.overview import history, quantile
from app.core.redis.task_queue import QUEUES
from app.core.sessions.model import Status, iso
from app.core.sessions.samples import Sample

blp = Blueprint("overview", __name__, description="The service over time.")


@blp.route("/overview/history", methods=["GET"])
@blp.arguments(HistoryQuerySchema, location="query")
@blp.response(200, HistorySchema)
@blp.operation("overviewHistory", 400)
def show(query: dict[str, int]) -> Response:
    """Show samples of the service, oldest first: one a minute for up to 24 hours, else one an hour, for up to 30 days.
    `sessions`, `queues` and `dead_letters` are as they were at that time, in samples of an hour the mean and the
    greatest; all else happened since the sample before. For admin and read keys that are bound to no users."""
    check_operator()
    now = time.time()
    found, interval = history(core(), query["hours"], now)
    return reply({"samples": [shown(each) for each in found], "interval_seconds": interval, "timestamp": iso(now)})


def shown(sample: Sample) -> dict[str, Any]:
    """A sample in an answer; durations are null where nothing was started."""
    return {
        "at": iso(sample.at),
        "sessions": {str(status): sample.sessions.get(status, 0) for status in Status},
        "wakes": sum(sample.wakes),
        "wake_p50_ms": quantile(sample.wakes, 0.5),
        "wake_p95_ms": quantile(sample.wakes, 0.95),
        "creates": sum(sample.creates),
        "create_p50_ms": quantile(sample.creates, 0.5),
        "create_p95_ms": quantile(sample.creates, 0.95),
        "cost_dollars": round(sample.cost, 6),
        "saved_dollars": round(sample.saved, 6),
        "failures": dict(sample.failures),
        "queues": {queue: sample.queues.get(queue, 0) for queue in QUEUES},
        "dead_letters": sample.dead_letters,
    }
