"""The calls on sessions. Each view checks the caller's rights, calls the service, and shapes the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Response, g

from app.api.access import link_to, require_keys
from app.api.answers import Answer
from app.api.blueprint import Blueprint
from app.api.current import core, request_id
from app.api.event_schemas import STREAM, stream_of
from app.api.event_streams import event_stream
from app.api.idempotency import answer_has_secret, answer_names, name_of_request
from app.api.prefer import wait_for, waiting, wanted_wait
from app.api.request_fields import label_pairs
from app.api.security import (
    caller,
    check_listing,
    check_session,
    check_source,
    check_user,
    user_of_remains,
    visible_session,
)
from app.api.session_schemas import (
    ActionSchema,
    CreatedSessionSchema,
    DeletedSchema,
    DeleteQuerySchema,
    NewSessionSchema,
    SessionListSchema,
    SessionsQuerySchema,
    SessionStatusSchema,
)
from app.core.erasures import pseudonym_of
from app.core.errors import BackupIncomplete, SessionError, Superseded
from app.core.redis.paging import Page
from app.core.restore_points.index import RestorePoint
from app.core.service import NewSession
from app.core.sessions.model import Record, Status
from app.http.problems import Problem, to_problem

blp = Blueprint("sessions", __name__, description="Workspaces: create, wake, put to sleep, watch, delete.")

COMING_UP = frozenset({Status.CREATED, Status.WAKING})
DELETED = "Session and all resources deleted"
ERASED = "Session erased, with its backups, restore points and conversation"


@dataclass(frozen=True)
class Created:
    """A session that was created: with its login link, if one was asked for, and where it was forked, if it was."""

    record: Record
    open_url: str = ""
    forked_at: RestorePoint | None = None


@blp.route("/session/create", methods=["POST"])
@blp.arguments(NewSessionSchema, example={"user_id": "ada@example.com", "labels": {"course": "python-101"}})
@blp.response(201, CreatedSessionSchema, headers={"Location": {"schema": {"type": "string"}}})
@blp.operation("createSession", 404, 507, body=True, rate="create", audit="create", creates=True)
def create(wanted: dict[str, Any]) -> Answer:
    """Create a session; its workspace starts at once. With `open`, the answer has a login link, which shows the
    progress of the start; the same Idempotency-Key then makes another link to the same session."""
    linked = wanted.pop("open", False)
    check_user(wanted["user_id"])
    if "restore_from" in wanted:
        check_source(wanted["restore_from"])
    if linked:
        require_keys()
        answer_has_secret()
    with waiting(wanted["user_id"]):
        return created(
            core().sessions.create(NewSession(**wanted), request_id(), name_of_request(), made_by=caller().name),
            linked=linked,
        )


@blp.route("/sessions", methods=["GET"])
@blp.arguments(SessionsQuerySchema, location="query")
@blp.response(200, SessionListSchema)
@blp.operation("listSessions", 400)
def list_all(query: dict[str, Any]) -> Page[Record]:
    """List sessions, newest first; terminated ones only with `status=terminated`. With `label`, `q` or `tier` one call
    compares at most 2,000 sessions, so a page may have fewer than `limit`, or none: `next_cursor` goes on until it is
    null."""
    check_listing(query.get("user_id"))
    labels = label_pairs(query.pop("label"))
    return core().sessions.page(labels=labels, search=query.pop("q"), **query)


@blp.route("/session/<session:uuid>", methods=["GET"])
@blp.response(200, SessionStatusSchema)
@blp.operation("getSession", 404, session_token=True)
def get(uuid: str) -> Record:
    """Show a session."""
    return visible_session(uuid)


@blp.route("/session/<session:uuid>/status", methods=["GET"])
@blp.response(200, SessionStatusSchema)
@blp.operation("getSessionStatus", 404, session_token=True)
def status(uuid: str) -> Record:
    """Show a session; the same as without `/status`."""
    return visible_session(uuid)


@blp.route("/session/<session:uuid>/wake", methods=["POST"])
@blp.response(200, ActionSchema)
@blp.operation("wakeSession", 404, body=True, session_token=True, rate="wake", audit="wake")
def wake(uuid: str) -> Answer:
    """Wake a session; answers at once unless asked to wait."""
    with waiting(visible_session(uuid).user_id, uuid):
        record = up_or_problem(wait_for(core().sessions.wake(uuid, request_id(), asked=True), settled_up))
    return action(record, "wake", "active" if record.status is Status.ACTIVE else "waking")


@blp.route("/session/<session:uuid>/sleep", methods=["POST"])
@blp.response(200, ActionSchema)
@blp.operation("sleepSession", 404, body=True, session_token=True, audit="sleep")
def sleep(uuid: str) -> Answer:
    """Put a session to sleep; answers at once unless asked to wait."""
    with waiting(visible_session(uuid).user_id, uuid):
        record = down_or_problem(wait_for(core().sessions.sleep(uuid, request_id()), settled_down))
    return action(record, "sleep", record.status, "Pod is asleep" if settled_down(record) else "Pod queued for sleep")


@blp.route("/session/<session:uuid>/scale-up", methods=["POST"])
@blp.response(200, ActionSchema)
@blp.alt_response(202, schema=ActionSchema, description="The wait ran out; `status` is the present state.")
@blp.operation("scaleUpSession", 404, body=True, rate="wake", audit="scale_up")
def scale_up(uuid: str) -> Answer:
    """Wake a session and wait until its workspace answers."""
    with waiting(visible_session(uuid).user_id, uuid, core().settings.wait_default):
        record = wait_for(
            core().sessions.wake(uuid, request_id(), asked=True), settled_up, core().settings.wait_default
        )
    if up_or_problem(record).status in COMING_UP:
        return action(record, "scale_up", record.status, "Pod is starting", 202)
    return action(record, "scale_up", "success", "Pod scaled up")


@blp.route("/session/<session:uuid>/scale-down", methods=["POST"])
@blp.response(200, ActionSchema)
@blp.alt_response(202, schema=ActionSchema, description="The wait ran out; `status` is the present state.")
@blp.operation("scaleDownSession", 404, body=True, audit="scale_down")
def scale_down(uuid: str) -> Answer:
    """Put a session to sleep and wait until its processes have ended."""
    with waiting(visible_session(uuid).user_id, uuid, core().settings.wait_default):
        record = wait_for(core().sessions.sleep(uuid, request_id()), settled_down, core().settings.wait_default)
    if not settled_down(down_or_problem(record)):
        return action(record, "scale_down", record.status, "Pod is stopping", 202)
    return action(record, "scale_down", "success", "Pod scaled down")


@blp.route("/session/<session:uuid>", methods=["DELETE"])
@blp.arguments(DeleteQuerySchema, location="query")
@blp.response(200, DeletedSchema)
@blp.alt_response(202, schema=DeletedSchema, description="The wait ran out; the deletion goes on.")
@blp.operation("deleteSession", 400, 404, 409, rate="delete", audit="delete")
def delete(query: dict[str, Any], uuid: str) -> Answer:
    """Delete a session, after a verified backup of its files, and wait for the end. `backup=partial` accepts a backup
    without the files that can't be read, and lists those. `erase=true` leaves nothing of it: no backup, restore point,
    conversation or event, also if it was deleted before; the audit and the cost ledger keep a pseudonym for its
    user."""
    if query["erase"]:
        return erase(uuid)
    backup, partial = query["backup"] != "false", query["backup"] == "partial"
    with waiting(visible_session(uuid).user_id, uuid, core().settings.wait_default):
        asked = core().sessions.delete(uuid, backup=backup, partial=partial, request_id=request_id())
        record = wait_for(asked, settled_gone, core().settings.wait_default)
    if record.status is Status.FAILED:
        raise Problem(409, _teardown_code(record), record.reason or "The session could not be deleted.")
    gone = record.status is Status.TERMINATED
    message = DELETED if gone else "Session is being deleted"
    return vars(record) | {"message": message}, 200 if gone else 202


def erase(uuid: str) -> Answer:
    """Erase a session, and wait for the end."""
    user_id = user_of_remains(uuid)
    g.audited_session = (uuid, pseudonym_of(uuid))
    with waiting(user_id, uuid, core().settings.wait_default):
        core().sessions.erase(uuid, request_id())
        record, erased = core().sessions.wait_for_erasure(uuid, wanted_wait(core().settings.wait_default))
    if record is not None and record.status is Status.FAILED:
        raise Problem(409, _teardown_code(record), record.reason or "The session could not be deleted.")
    body = {
        "uuid": uuid,
        "status": Status.TERMINATED if erased else Status.TERMINATING,
        "message": ERASED if erased else "Session is being erased",
        "backup": "",
        "unsaved_work": None,
    }
    return body, 200 if erased else 202


@blp.route("/session/<session:uuid>/events", methods=["GET"])
@blp.response(200, stream_of("SessionEvents"), description="Server-sent events.", content_type=STREAM)
@blp.operation("followSession", 400, 404, session_token=True)
def events(uuid: str) -> Response:
    """Follow a session's events; `Last-Event-ID` resumes after that event."""
    check_session(uuid)
    return event_stream(uuid)


def _teardown_code(record: Record) -> str:
    """The error code of a failed deletion. Unreadable files have their own: `backup=partial` is a way on."""
    return record.reason_code if record.reason_code == BackupIncomplete.code else "teardown_failed"


def settled_up(record: Record) -> bool:
    """Whether a wait for the session to be awake is over."""
    return record.status not in COMING_UP


def settled_down(record: Record) -> bool:
    """Whether a wait for the session to be asleep is over."""
    return record.status is not Status.SLEEPING or record.settled == record.generation


def settled_gone(record: Record) -> bool:
    """Whether a wait for the session to be deleted is over."""
    return record.status in (Status.TERMINATED, Status.FAILED)


def up_or_problem(record: Record) -> Record:
    """The record; raises unless the session is awake or on its way."""
    if record.status is Status.FAILED:
        raise Problem(409, "start_failed", record.reason or "The workspace did not start.")
    if record.status not in COMING_UP and record.status is not Status.ACTIVE:
        raise Superseded(f"Session {record.uuid} is {record.status}: a newer request replaced this one.")
    return record


def down_or_problem(record: Record) -> Record:
    """The record; raises unless the session is asleep."""
    if record.status is Status.FAILED:
        raise Problem(409, "stop_failed", record.reason or "The workspace did not stop.")
    if record.status is not Status.SLEEPING:
        raise Superseded(f"Session {record.uuid} is {record.status}: a newer request replaced this one.")
    return record


def action(record: Record, name: str, outcome: str, message: str = "", status: int = 200) -> Answer:
    """The answer to an action on a session."""
    body = {"uuid": record.uuid, "action": name, "status": outcome}
    return body | ({"message": message} if message else {}), status


def created(asked: Record, *, linked: bool = False, forked_at: RestorePoint | None = None) -> Answer:
    """The answer to a creation, after the caller's wait. If the session did not start, the problem names it, as it
    exists all the same. `linked` adds a login link, made after the wait."""
    answer_names(asked.uuid)
    record = wait_for(asked, settled_up)
    if wanted_wait(0.0):
        try:
            up_or_problem(record)
        except (Problem, Superseded) as error:
            raise named(to_problem(error), record) from error
    return Created(record, opened(record) if linked else "", forked_at), 201, location(record)


def opened(record: Record) -> str:
    """The login link in the answer to a creation; a problem names the session, which exists all the same."""
    try:
        return link_to(record)
    except SessionError as error:
        raise named(to_problem(error), record) from error


def named(problem: Problem, record: Record) -> Problem:
    """The problem, with the session's uuid and location."""
    problem.more["uuid"] = record.uuid
    problem.headers |= location(record)
    return problem


def location(record: Record) -> dict[str, str]:
    """The header with a session's path."""
    return {"Location": f"/session/{record.uuid}"}
