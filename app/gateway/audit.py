"""Audits requests that the gateway refuses: tokens that have ended or are invalid.

Other requests are not audited: they are a workspace's daily work. No proxy stands between a workspace and this process,
so the address is the connection's.
"""

from __future__ import annotations

from collections.abc import Mapping

from flask import Flask, Response, g, request

from app.core.access.addresses import address_of
from app.core.access.agent_credentials import claimed_by
from app.core.access.audit import ANONYMOUS, REFUSED, UNKNOWN, Act
from app.gateway.identity import Caller, shown_token
from app.gateway.parts import gateway
from app.http.problems import PROBLEM_TYPE

WORKSPACE = "workspace"
"""The role of a caller with a workspace token, which may have ended."""

ACTIONS: Mapping[str, str] = {"llm": "model", "agents": "report", "conversations": "conversation"}
"""The action of a refused call, by its blueprint."""


def register_audit(app: Flask) -> None:
    """Audit the refusals of `app`. Register it after the tarpit, and before what makes answers."""
    app.after_request(_note_refusal)


def _note_refusal(response: Response) -> Response:
    # Other errors come from the model's provider, unchanged.
    if response.status_code in REFUSED and response.mimetype == PROBLEM_TYPE:
        gateway().core.audit.note(_act(response), repeatable=True)
    return response


def _act(response: Response) -> Act:
    caller: Caller | None = g.get("principal")
    by, role = (f"{WORKSPACE}:{caller.uuid}", WORKSPACE) if caller else (ANONYMOUS, ANONYMOUS)
    answer = response.get_json(silent=True)
    return Act(
        action=ACTIONS.get(request.blueprint or "", UNKNOWN),
        by=by,
        role=role,
        # A token without a valid signature still claims a uuid.
        uuid=caller.uuid if caller else claimed_by(shown_token()),
        user_id=caller.user_id if caller else "",
        address=address_of(request.remote_addr or ""),
        status=response.status_code,
        reason=str(answer.get("error", "")) if isinstance(answer, dict) else "",
        request_id=g.get("request_id", ""),
    )
