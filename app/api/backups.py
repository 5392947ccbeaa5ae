"""The calls on backups, which outlive their sessions."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from app.api.answers import Answer
from app.api.backup_schemas import BackupListSchema, BackupsQuerySchema, RestoreSchema
from app.api.blueprint import Blueprint
from app.api.current import core, request_id
from app.api.idempotency import name_of_request
from app.api.prefer import wait_for, waiting
from app.api.request_fields import PageQuerySchema
from app.api.security import caller, check_listing, check_user, check_uuid, visible_backup, visible_session
from app.api.session_schemas import ActionSchema, CreatedSessionSchema
from app.api.sessions import action, created
from app.core.backups.index import Backup
from app.core.redis.paging import Page
from app.core.sessions.model import GONE
from app.http.problems import Problem

blp = Blueprint("backups", __name__, description="Backups: make, list, restore, download, delete.")

ZIP_DOC = {"type": "string", "format": "binary"}


@blp.route("/backups", methods=["GET"])
@blp.arguments(BackupsQuerySchema, location="query")
@blp.response(200, BackupListSchema)
@blp.operation("listBackups", 400)
def list_all(query: dict[str, Any]) -> Page[Backup]:
    """List backups, newest first."""
    check_listing(query.get("user_id"), query.get("uuid"))
    return listed(**query)


@blp.route("/session/<session:uuid>/backups", methods=["GET"])
@blp.arguments(PageQuerySchema, location="query")
@blp.response(200, BackupListSchema)
@blp.operation("listSessionBackups", 400, 404)
def list_of_session(query: dict[str, Any], uuid: str) -> Page[Backup]:
    """List a session's backups, newest first, as long as the session or one of its backups exists."""
    check_uuid(uuid)
    newest = core().backups.newest_of(uuid)
    if newest is None or not caller().may_see(newest.user_id):
        visible_session(uuid)
    return listed(uuid=uuid, **query)


@blp.route("/session/<session:uuid>/backup", methods=["POST"])
@blp.response(202, ActionSchema)
@blp.alt_response(200, schema=ActionSchema, description="The backup was made within the wait.")
@blp.operation("backUpSession", 404, 409, body=True, audit="backup")
def back_up(uuid: str) -> Answer:
    """Back a session up, without interrupting it; answers at once unless asked to wait."""
    with waiting(visible_session(uuid).user_id, uuid):
        asked = core().sessions.request_backup(uuid, request_id())
        ended = wait_for(asked, lambda record: record.status in GONE or record.backup_ended >= asked.backup_asked)
    if ended.backup_ended < asked.backup_asked:
        return action(ended, "backup", "queued", status=202)
    if ended.backup_error:
        raise Problem(409, "backup_failed", ended.backup_error)
    return {"uuid": uuid, "action": "backup", "status": "done", "backup": ended.backup}, 200


@blp.route("/backups/<name>/restore", methods=["POST"])
@blp.arguments(RestoreSchema, required=False)
@blp.response(201, CreatedSessionSchema, headers={"Location": {"schema": {"type": "string"}}})
@blp.operation("restoreBackup", 404, 507, body=True, rate="create", audit="restore", creates=True)
def restore(wanted: dict[str, str], name: str) -> Answer:
    """Create a session with the files of a backup, for the same user or another."""
    backup = visible_backup(name)
    user_id = wanted.get("user_id", backup.user_id)
    check_user(user_id)
    with waiting(user_id):
        return created(core().sessions.restore(name, user_id, request_id(), name_of_request(), made_by=caller().name))


@blp.route("/backups/<name>/download", methods=["GET"])
@blp.response(200, ZIP_DOC, content_type="application/zip", description="The zip; ranges are answered with 206.")
@blp.alt_response(206, schema=ZIP_DOC, content_type="application/zip", description="A part of the zip.")
@blp.alt_response(304, description="The caller has it: its ETag is in If-None-Match.")
@blp.operation("downloadBackup", 404, 416, audit="download")
def download(name: str) -> Response:
    """Download a backup's zip."""
    backup = visible_backup(name)
    response = Response(mimetype="application/zip", direct_passthrough=True)
    response.set_etag(backup.sha256)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.content_length = backup.size
    # Before the backup store is asked, which may take seconds.
    response.make_conditional(request, accept_ranges=True, complete_length=backup.size)
    if response.status_code in (200, 206) and request.method != "HEAD":
        part = response.content_range
        body = core().backup_access.open(name, part.start or 0, part.stop or backup.size)
        response.response = body
        response.call_on_close(body.close)
    return response


@blp.route("/backups/<name>", methods=["DELETE"])
@blp.response(204, description="The backup is deleted.")
@blp.operation("deleteBackup", 404, 409, rate="delete", audit="delete_backup")
def delete(name: str) -> Response:
    """Delete a backup; refused while a session is being restored from it."""
    core().backup_access.delete(visible_backup(name).name)
    return Response(status=204)


def listed(**query: Any) -> Page[Backup]:
    """A page of the backups the caller may see."""
    return core().backups.page(user_prefix=caller().user_prefix, **query)
