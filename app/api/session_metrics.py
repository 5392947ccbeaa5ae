"""What one session uses: CPU, memory, disk, the time of its answers, tokens."""

from __future__ import annotations

import time
from typing import Any

from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.security import visible_session
from app.api.session_metrics_schemas import SessionMetricsSchema
from app.core.prompts.token_usage import TokenUsage
from app.core.sessions.resources import MINUTE, hour, present

blp = Blueprint("session_metrics", __name__, description="What a session uses.")


@blp.route("/session/<session:uuid>/metrics", methods=["GET"])
@blp.response(200, SessionMetricsSchema)
@blp.operation("getSessionMetrics", 404)
def session_metrics(uuid: str) -> dict[str, Any]:
    """Show what the session's workspace uses now and used in the last hour, as it reports it once a minute, how long
    its prompts took, and its tokens. Asleep it uses its disk only. It is for looking at: nobody is billed by it."""
    record, now = visible_session(uuid), time.time()
    known = core().resources.read(uuid)
    return {
        "uuid": uuid,
        "now": present(known, record, now),
        "hour": [{"at": minute * MINUTE, **vars(sample)} for minute, sample in hour(known, record, now)],
        "chat_ms": core().inbox.answer_times(uuid),
        "tokens": TokenUsage(core().redis).of_session(uuid),
        "timestamp": now,
    }
