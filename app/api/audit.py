"""What callers do, noted for the audit as their answers go out, and the call that shows it.

One table says which endpoints are noted and as what. Reads are not, but for downloads; whoever is refused is, whatever
was asked. An answer that never went out, as the process was told to stop, is noted too: what was asked may be done.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from flask import Flask, Response, g, request

from app.api.audit_schemas import AuditQuerySchema, AuditSchema
from app.api.blueprint import Blueprint
from app.api.context import core, reply
from app.api.idempotency import REPLAYED
from app.api.security import SESSION, Principal, caller
from app.problems import Problem
from app.sessions.audit import REFUSED, Act, Entry
from app.sessions.backup_files import NAME_PATTERN
from app.sessions.model import UUID_PATTERN, iso

blp = Blueprint("audit", __name__, description="Who did what to which session, from where, and why.")

ACTIONS: Mapping[str, str] = {
    "access.open_workspace": "open",
    "access.revoke": "revoke",
    "access.token": "token",
    "activity.keep_up": "keepalive",
    "backups.delete": "delete_backup",
    "backups.download": "download",
    "backups.restore": "restore",
    "messages.chat": "prompt",
    "sessions.back_up": "backup",
    "sessions.create": "create",
    "sessions.delete": "delete",
    "sessions.scale_down": "scale_down",
    "sessions.scale_up": "scale_up",
    "sessions.sleep": "sleep",
    "sessions.wake": "wake",
}
"""The endpoints whose every call has an entry, and what it is called there."""

READ = "read"
UNKNOWN = "unknown"
"""What a refused call is called that has no action of its own, and one of no endpoint there is."""

ANONYMOUS = "anonymous"
VISITOR = "visitor"
"""Who brought nothing that says who it is; who came to a workspace's address. Both are their own role."""

MADE = frozenset({"sessions.create", "backups.restore"})
"""Whose answers tell which session it is."""

UNREACHABLE = "state_unavailable"
PART = 206


@blp.route("/audit", methods=["GET"])
@blp.arguments(AuditQuerySchema, location="query")
@blp.response(200, AuditSchema)
@blp.operation("listAudit", 400)
def list_all(query: dict[str, Any]) -> Response:
    """Who did what, newest first; for admin keys that are bound to no users. The same thing asked again within a
    minute, by a tenant or by who is refused, is one entry with a `count`."""
    if not caller().lists_everything:
        raise Problem(403, "forbidden", "The audit is for admin keys that are bound to no users.")
    query["by"] = query.pop("key", "")
    page = core().audit.page(**query)
    return reply({"entries": [shown(entry) for entry in page.entries], "next_cursor": page.next_cursor})


def register_audit(app: Flask) -> None:
    """Note what is asked of `app`. Register it after what holds answers back, and before what makes them."""
    app.after_request(_note_answer)
    app.teardown_request(_note_silence)


def _note_answer(response: Response) -> Response:
    g.noted = True
    endpoint = request.endpoint or ""
    refused = response.status_code in REFUSED
    if (endpoint in ACTIONS and request.method != "HEAD") or refused:
        answer = _read(response) if response.status_code >= 400 or endpoint in MADE else {}
        code = str(answer.get("error", "")) if response.status_code >= 400 else ""
        replayed = "replayed" if REPLAYED in response.headers else ""
        _note(
            _act(response.status_code, _reason(code, replayed), answer if endpoint in MADE else {}),
            reachable=code != UNREACHABLE,
        )
    return response


def _note_silence(error: BaseException | None) -> None:
    """The process ends, and this request with it, after it may have been carried out."""
    if error is not None and not g.get("noted") and request.endpoint in ACTIONS and g.get("principal"):
        _note(_act(0, _reason("no_answer"), {}))


def _note(act: Act, *, reachable: bool = True) -> None:
    """What tenants do, and what is refused, may come without end; a download may come in any number of pieces."""
    repeatable = act.status in REFUSED or act.role in (ANONYMOUS, SESSION) or act.status == PART
    core().audit.note(act, repeatable=repeatable, reachable=reachable and not g.get("redis_down"))


def _act(status: int, reason: str, made: Mapping[str, Any]) -> Act:
    principal: Principal | None = g.get("principal")
    backup, named = g.get("backup"), request.view_args or {}
    uuid, user_id = str(named.get("uuid", "")), str(g.get("session_hash", {}).get("user_id", ""))
    if backup is not None and request.endpoint != "sessions.create":
        uuid, user_id = backup.uuid, backup.user_id
    elif match := NAME_PATTERN.fullmatch(str(named.get("name", ""))):
        uuid = match["uuid"]
    uuid, user_id = str(made.get("uuid") or uuid), str(made.get("user_id") or user_id)
    return Act(
        action=ACTIONS.get(request.endpoint or "", READ if request.endpoint else UNKNOWN),
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
    """The codes, which backup it is about, and what a deletion does without."""
    backup = g.get("backup")
    chosen = request.args.get("backup", "") if request.endpoint == "sessions.delete" else ""
    how = f"backup={chosen}" if chosen in ("false", "partial") else ""
    return ", ".join(filter(None, (*codes, how, backup.name if backup is not None else "")))


def _read(response: Response) -> Mapping[str, Any]:
    """The JSON object that is the answer; a stream is left alone."""
    body = None if response.is_streamed else response.get_json(silent=True)
    return body if isinstance(body, dict) else {}


def address_of(text: str) -> str:
    """The address as it is written everywhere, "" for what is none."""
    try:
        return str(ip_address(text.strip().strip("[]")))
    except ValueError:
        return ""


def shown(entry: Entry) -> dict[str, Any]:
    """An entry in an answer; null for what it has not."""
    act = entry.act
    return {
        "id": entry.id,
        "at": iso(entry.at),
        "action": act.action,
        "uuid": act.uuid or None,
        "user_id": act.user_id or None,
        "by": act.by,
        "role": act.role,
        "address": act.address or None,
        "status": act.status or None,
        "reason": act.reason or None,
        "request_id": act.request_id or None,
        "count": entry.count,
    }
