"""The call for an operator's charts: how the service was over time."""

from __future__ import annotations

import time
from typing import Any

from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.overview_schemas import HistoryQuerySchema, HistorySchema
from app.api.security import check_operator
from app.core.operations.overview import history

blp = Blueprint("overview", __name__, description="The service over time.")


@blp.route("/overview/history", methods=["GET"])
@blp.arguments(HistoryQuerySchema, location="query")
@blp.response(200, HistorySchema)
@blp.operation("overviewHistory", 400)
def show(query: dict[str, int]) -> dict[str, Any]:
    """Show samples of the service, oldest first: one a minute for up to 24 hours, else one an hour, for up to 30 days.
    `sessions`, `queues` and `dead_letters` are as they were at that time, in samples of an hour the mean and the
    greatest; all else happened since the sample before. For admin and read keys that are bound to no users."""
    check_operator()
    now = time.time()
    samples, interval = history(core(), query["hours"], now)
    return {"samples": samples, "interval_seconds": interval, "timestamp": now}
