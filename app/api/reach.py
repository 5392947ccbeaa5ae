"""What the calls into workspaces share: how they get there, and the slot that each holds."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from app.api.current import core, request_id
from app.api.request_fields import QueryFlag, Strict
from app.api.security import caller
from app.api.tenant_limits import Kind, hold
from app.core.reach import Reach
from app.core.sessions.model import Record

ERRORS = (404, 409, 503, 504)
"""The statuses of their problem documents."""


class ReachQuerySchema(Strict):
    wake = QueryFlag(
        load_default=True, metadata={"description": "`false`: a session that sleeps is left so, and the answer is 409"}
    )


def reach_of(query: Mapping[str, Any]) -> Reach:
    """How this request gets to the workspace. Who may change nothing wakes none."""
    return Reach(query["wake"] and caller().may_change, core().settings.wait_default, request_id())


def held(record: Record, seconds: float = 0.0) -> AbstractContextManager[None]:
    """One of the caller's waiting calls, or of its calls to agents."""
    return hold(Kind.WAIT if seconds else Kind.AGENT, record.user_id, record.uuid)
