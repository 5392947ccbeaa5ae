"""Writes what callers do to the audit as their answers go out, and the call that shows it.

A route's rules name its action in the audit. Of reads, only downloads have one; a refused call is audited whatever its
route. A call whose answer never went out, because the process was stopped, is audited too: it may have been carried
out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, g, request

from app.api.audit_schemas import AuditQuerySchema, AuditSchema
from app.api.blueprint import Blueprint, route_rules
from app.api.current import core
from app.api.idempotency import REPLAYED
from app.api.security import caller
from app.core.access.addresses import address_of
from app.core.access.audit import ANONYMOUS, REFUSED, UNKNOWN, Act, Page
from app.core.access.keyring import SESSION, Principal
from app.core.backups.store import NAME_PATTERN
from app.core.sessions.model import UUID_PATTERN
from app.http.problems import Problem

blp = Blueprint("audit", __name__, description="Who did what to which session, from where, and why.")

READ = "read"
"""The action of a refused call whose route names none."""

VISITOR = "visitor"
"""The name and role of a caller at a workspace's address."""

UNREACHABLE = "state_unavailable"
PART = 206


@blp.route("/audit", methods=["GET"])
@blp.arguments(AuditQuerySchema, location="query")
@blp.response(200, AuditSchema)
@blp.operation("listAudit", 400)
def list_all(query: dict[str, Any]) -> Page:
    """Who did what, newest first; for admin keys that are bound to no users. Repetitions within a minute, by a tenant
    or a refused caller or of a sign-in, are one entry with a `count`."""
    if not caller().lists_everything:
        raise Problem(403, "forbidden", "The audit is open only to admin keys that are bound to no users.")
    query["by"] = query.pop("key", "")
    return core().audit.page(**query)


def register_audit(app: Flask) -> None:
    """Audit the calls of `app`. Register it after the tarpit, and before what makes answers."""
    app.after_request(_note_answer)
    app.teardown_request(_note_unanswered)


def _note_answer(response: Response) -> Response:
    g.noted = True
    rules, failed = route_rules(), response.status_code >= 400
    if (rules.audit and request.method != "HEAD") or response.status_code in REFUSED:
        answer = _read(response) if failed or rules.creates else {}
        code = str(answer.get("error", "")) if failed else ""
        replayed = "replayed" if REPLAYED in response.headers else ""
        source = str(answer.get("forked_from", ""))
        act = _act(response.status_code, _reason(code, replayed, source), answer if rules.creates else {})
        _note(act, reachable=code != UNREACHABLE)
    return response


def _note_unanswered(error: BaseException | None) -> None:
    """Audit a request that ends with the process: it may have been carried out."""
    if error is not None and not g.get("noted") and route_rules().audit and g.get("principal"):
        _note(_act(0, _reason("no_answer"), {}))


def _note(act: Act, *, reachable: bool = True) -> None:
    """Write an entry. Tenants' calls, refused calls and parts of a download may be repeated without end."""
    repeatable = act.status in REFUSED or act.role in (ANONYMOUS, SESSION) or act.status == PART
    core().audit.note(act, repeatable=repeatable, reachable=reachable and not g.get("redis_down"))


def _act(status: int, reason: str, created: Mapping[str, Any]) -> Act:
    principal: Principal | None = g.get("principal")
    backup, named = g.get("backup"), request.view_args or {}
    uuid, user_id = str(named.get("uuid", "")), str(g.get("session_hash", {}).get("user_id", ""))
    uuid, user_id = g.get("audited_session", (uuid, user_id))
    if backup is not None and request.endpoint != "sessions.create":
        uuid, user_id = backup.uuid, backup.user_id
    elif not uuid and (match := NAME_PATTERN.fullmatch(str(named.get("name", "")))):
        uuid = match["uuid"]
    uuid, user_id = str(created.get("uuid") or uuid), str(created.get("user_id") or user_id)
    return Act(
        action=route_rules().audit or (READ if request.endpoint else UNKNOWN),
        uuid=uuid if UUID_PATTERN.fullmatch(uuid) else "",
        user_id=user_id,
        by=principal.name if principal else ANONYMOUS,
        role=principal.role if principal else ANONYMOUS,
        address=address_of(request.remote_addr or ""),
        status=status,
        reason=reason,
        request_id=g.get("request_id", ""),
    )


def _reason(*codes: str) -> str:
    """The codes, the source of a fork, the parameters of a deletion, the port and whether everybody may see it, and the
    backup's name."""
    backup = g.get("backup")
    asked = request.args if request.endpoint == "sessions.delete" else {}
    chosen = asked.get("backup", "")
    how = f"backup={chosen}" if chosen in ("false", "partial") else ""
    erased = "erase" if asked.get("erase", "").lower() == "true" else ""
    port = (request.view_args or {}).get("port")
    opened = () if port is None else (f"port {port}", "public" if g.get("public_port") else "")
    return ", ".join(filter(None, (*codes, how, erased, *opened, backup.name if backup is not None else "")))


def _read(response: Response) -> Mapping[str, Any]:
    """The answer's JSON object; empty for any other answer, and for a stream."""
    body = None if response.is_streamed else response.get_json(silent=True)
    return body if isinstance(body, dict) else {}
