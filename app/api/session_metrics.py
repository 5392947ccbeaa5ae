"""What one session uses: CPU, memory, disk, the time of its answers, tokens."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

from flask import Response

from app.api.blueprint import Blueprint
from app.api.current import core, reply
from app.api.security import visible_session
from app.api.session_metrics_schemas import SessionMetricsSchema
from app.core.prompts.token_usage import TokenUsage
from app.core.sessions.model import iso
from app.core.sessions.resources import MINUTE, Sample, hour, present

blp = Blueprint("session_metrics", __name__, description="What a session uses.")


@blp.route("/session/<session:uuid>/metrics", methods=["GET"])
@blp.response(200, SessionMetricsSchema)
@blp.operation("getSessionMetrics", 404)
def session_metrics(uuid: str) -> Response:
    """Show what the session's workspace uses now and used in the last hour, as it reports it once a minute, how long
    its prompts took, and its tokens. Asleep it uses its disk only. It is for looking at: nobody is billed by it."""
    record, now = visible_session(uuid), time.time()
    known, tokens = core().resources.read(uuid), TokenUsage(core().redis).of_session(uuid)
    body = {
        "uuid": uuid,
        "now": shown(present(known, record, now)),
        "hour": [{"at": iso(minute * MINUTE), **shown(sample)} for minute, sample in hour(known, record, now)],
        "chat_ms": percentiles(core().inbox.answer_times(uuid)),
        "tokens": {"prompt": tokens.prompt, "completion": tokens.completion},
        "timestamp": iso(now),
    }
    return reply(body)


def shown(sample: Sample) -> dict[str, Any]:
    """A sample in the answer."""
    return {"cpu": sample.cpu, "memory_bytes": sample.memory_bytes, "disk_bytes": sample.disk_bytes}


def percentiles(seconds: Sequence[float]) -> dict[str, int | None]:
    """The median and the 95th percentile, in ms."""
    if not seconds:
        return {"p50": None, "p95": None}
    ms = sorted(1000 * each for each in seconds)
    return {"p50": round(statistics.median(ms)), "p95": round(ms[-(-95 * len(ms) // 100) - 1])}
