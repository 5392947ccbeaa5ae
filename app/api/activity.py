"""Activity of a session: why it is awake, keeping it awake, and the work that a stop would put at risk."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.api.activity_schemas import ActivitySchema, Explained, KeepAliveSchema, KeptSchema, RiskSchema
from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.security import check_session, visible_session
from app.api.tenant_limits import Kind, hold
from app.core.errors import AgentUnavailable
from app.core.sessions.idle_policy import idle_verdict
from app.core.sessions.model import Record, Status

log = logging.getLogger(__name__)

blp = Blueprint("activity", __name__, description="Why a workspace is awake, and keeping it awake.")


@blp.route("/session/<session:uuid>/activity", methods=["GET"])
@blp.response(200, ActivitySchema)
@blp.operation("getActivity", 404)
def activity(uuid: str) -> Explained:
    """Explain why a session is awake, or when it will sleep, by the rules of the idle sweep."""
    record, now = visible_session(uuid), time.time()
    return Explained(record, idle_verdict(record, core().policy, now), now)


@blp.route("/session/<session:uuid>/keepalive", methods=["POST"])
@blp.arguments(KeepAliveSchema, example={"seconds": 3600})
@blp.response(200, KeptSchema)
@blp.operation("keepSessionUp", 404, body=True, audit="keepalive")
def keep_up(wanted: dict[str, Any], uuid: str) -> Record:
    """Keep a session awake for `seconds`, `until` a time, or in some `hours` of the week. It does not wake a session.
    The last call counts, and the answer's `until` shows the result; 0 seconds, or empty hours, end it."""
    check_session(uuid)
    if "hours" in wanted:
        return core().sessions.keep_up_in(uuid, wanted["hours"])
    seconds = wanted["seconds"] if "seconds" in wanted else seconds_to(wanted["until"])
    return core().sessions.keep_up(uuid, seconds)


@blp.route("/session/<session:uuid>/risk", methods=["GET"])
@blp.response(200, RiskSchema)
@blp.operation("getRisk", 404)
def risk(uuid: str) -> dict[str, Any]:
    """Show the work that a stop would put at risk: asked of the workspace now if it is awake, else as it was when last
    stopped. `known` is false while it is awake and does not answer within seconds."""
    record = visible_session(uuid)
    found: Mapping[str, Any] | None = record.unsaved_work
    if record.status is Status.ACTIVE:
        with hold(Kind.AGENT, record.user_id, uuid):
            found = asked_risk(uuid)
    return {"uuid": uuid, "status": record.status, "known": found is not None, "unsaved_work": found}


def asked_risk(uuid: str) -> Mapping[str, Any] | None:
    """What the workspace's agent says is at risk; None if it does not say."""
    agent = core().inbox.agent(uuid)
    try:
        return None if agent is None else core().agents.unsaved_work(agent)
    except AgentUnavailable as error:
        log.info("the agent did not say what is unsaved: %s", error, extra={"uuid": uuid})
        return None


def seconds_to(moment: datetime) -> float:
    """Seconds from now to a time, 0 for a time in the past."""
    return max(0.0, moment.timestamp() - time.time())
