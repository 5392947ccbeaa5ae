"""The calls that let somebody into a session, or lock everybody out: links, session tokens, and their end."""

from __future__ import annotations

import time
from typing import Any

from flask import Response

from app.api.blueprint import Blueprint
from app.api.context import core, reply, request_id
from app.api.idempotency import answer_has_secret
from app.api.landing import PARAMETER, with_parameter
from app.api.schemas import ActionSchema, OpenedSchema, OpenSchema, TokenSchema
from app.api.security import check_session, visible_session
from app.problems import Problem
from app.sessions.errors import IllegalState
from app.sessions.model import GONE, Record, iso
from app.sessions.passes import Kind

blp = Blueprint("access", __name__, description="Getting into a workspace, and being locked out of it.")


@blp.route("/session/<session:uuid>/open", methods=["POST"])
@blp.arguments(OpenSchema, required=False)
@blp.response(200, OpenedSchema)
@blp.operation("openSession", 404, body=True)
def open_workspace(wanted: dict[str, Any], uuid: str) -> Response:
    """Make a link that logs a browser into the workspace, once, within `LINK_TTL`, and leads to `path`. The same
    Idempotency-Key makes another one: secrets are not kept."""
    record = lasting(visible_session(uuid))
    require_keys()
    answer_has_secret()
    url = link_to(record, wanted.get("path", "/"))
    expires_at = iso(time.time() + core().settings.link_ttl)
    return reply({"uuid": uuid, "url": url, "expires_at": expires_at})


@blp.route("/session/<session:uuid>/token", methods=["POST"])
@blp.response(200, TokenSchema)
@blp.operation("makeToken", 404, body=True)
def token(uuid: str) -> Response:
    """Make a session token: as `Authorization: Bearer` it opens this session's own calls, and its workspace.
    The same Idempotency-Key makes another one: secrets are not kept."""
    record = lasting(visible_session(uuid))
    require_keys()
    answer_has_secret()
    text, issued = core().passes.issue(Kind.TOKEN, uuid, record.door, time.time())
    return reply({"uuid": uuid, "token": text, "expires_at": iso(issued.expires_at)})


@blp.route("/session/<session:uuid>/revoke", methods=["POST"])
@blp.response(200, ActionSchema)
@blp.operation("revokeAccess", 404, body=True)
def revoke(uuid: str) -> Response:
    """Take back every cookie, link and token of this session. Connections that are open end seconds later."""
    check_session(uuid)
    core().sessions.revoke(uuid, request_id())
    return reply({"uuid": uuid, "action": "revoke", "status": "success"})


def link_to(record: Record, path: str = "/") -> str:
    """The URL of a new link to a path of the workspace. An answer that holds it is not to be kept."""
    secret = core().links.make(record.uuid, record.door)
    return core().settings.workspace_url(record.uuid) + with_parameter(path, PARAMETER + secret)


def lasting(record: Record) -> Record:
    """The record, unless its session is over."""
    if record.status in GONE:
        raise IllegalState(f"Session {record.uuid} is {record.status}; nobody can be let in.")
    return record


def require_keys() -> None:
    """Raises a 503 where there is nothing to sign with."""
    if not core().passes.can_sign(Kind.TOKEN):
        text = "Workspaces can't be opened: start the service with SECRET_KEY set."
        raise Problem(503, "door_not_configured", text, headers={"Retry-After": "60"})
