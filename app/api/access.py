"""Access to a session: login links, session tokens, and their revocation."""

from __future__ import annotations

import time
from typing import Any

from app.api.access_schemas import OpenedSchema, OpenSchema, RevokeSchema, TokenSchema
from app.api.blueprint import Blueprint
from app.api.current import core, request_id
from app.api.idempotency import answer_has_secret
from app.api.security import check_session, visible_session
from app.api.session_schemas import ActionSchema
from app.core.access.landing_path import PARAMETER, with_parameter
from app.core.access.login_links import LINK_TTL
from app.core.access.tokens import Kind
from app.core.errors import IllegalState
from app.core.sessions.model import GONE, Record
from app.http.problems import RETRY_WHEN_CONFIGURED, Problem

blp = Blueprint("access", __name__, description="Access to a workspace: links, tokens, revocation.")


@blp.route("/session/<session:uuid>/open", methods=["POST"])
@blp.arguments(OpenSchema, required=False)
@blp.response(200, OpenedSchema)
@blp.operation("openSession", 404, body=True, audit="open")
def open_workspace(wanted: dict[str, Any], uuid: str) -> dict[str, Any]:
    """Make a single-use login link for a browser, which leads to `path` and expires after 30 s. The same
    Idempotency-Key makes another link: secrets are not stored."""
    record = existing(visible_session(uuid))
    require_keys()
    answer_has_secret()
    url = link_to(record, wanted.get("path", "/"))
    return {"uuid": uuid, "url": url, "expires_at": time.time() + LINK_TTL}


@blp.route("/session/<session:uuid>/token", methods=["POST"])
@blp.response(200, TokenSchema)
@blp.operation("makeToken", 404, body=True, audit="token")
def token(uuid: str) -> dict[str, Any]:
    """Make a session token: as `Authorization: Bearer` it opens this session's own calls, and its workspace.
    The same Idempotency-Key makes another token: secrets are not stored."""
    record = existing(visible_session(uuid))
    require_keys()
    answer_has_secret()
    text, issued = core().access_tokens.issue(Kind.TOKEN, uuid, record.access_epoch, time.time())
    return {"uuid": uuid, "token": text, "expires_at": issued.expires_at}


@blp.route("/session/<session:uuid>/revoke", methods=["POST"])
@blp.arguments(RevokeSchema, required=False)
@blp.response(200, ActionSchema)
@blp.operation("revokeAccess", 404, body=True, audit="revoke")
def revoke(wanted: dict[str, Any], uuid: str) -> dict[str, Any]:
    """Revoke every cookie, link and token of this session. Open connections end seconds later; where the editor does
    not confirm that, the workspace is started again. `restart` does so in any case: it also ends what a stranger has
    left running. Files stay."""
    check_session(uuid)
    core().sessions.revoke(uuid, request_id(), restart=wanted["restart"])
    return {"uuid": uuid, "action": "revoke", "status": "success"}


def link_to(record: Record, path: str = "/", port: int = 0) -> str:
    """The URL of a new login link to a path of the workspace, or of a port of it. The answer that holds it must not be
    stored."""
    secret = core().login_links.make(record.uuid, record.access_epoch, port)
    return core().settings.workspace_url(record.uuid, port) + with_parameter(path, PARAMETER + secret)


def existing(record: Record) -> Record:
    """The record; raises `IllegalState` if its session is deleted or being deleted."""
    if record.status in GONE:
        raise IllegalState(f"Session {record.uuid} is {record.status}; its workspace can't be opened.")
    return record


def require_keys() -> None:
    """Raises a 503 if there is no key to sign access tokens with."""
    if not core().access_tokens.can_sign(Kind.TOKEN):
        text = "Workspaces can't be opened: start the service with SECRET_KEY set."
        raise Problem(503, "forward_auth_not_configured", text, retry_after=RETRY_WHEN_CONFIGURED)
