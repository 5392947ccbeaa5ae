"""The calls that go back: a session in place to an earlier moment, or a new session with the files of one."""

from __future__ import annotations

from app.api.answers import Answer
from app.api.blueprint import Blueprint
from app.api.current import core, request_id
from app.api.going_back_schemas import ForkedSessionSchema, ForkSchema, RollbackSchema
from app.api.idempotency import name_of_request
from app.api.prefer import wait_for, waiting, wanted_wait
from app.api.security import caller, check_user, visible_session
from app.api.session_schemas import SessionStatusSchema
from app.api.sessions import created, settled_down, settled_up
from app.core.sessions.model import Record, Status
from app.http.problems import Problem

blp = Blueprint("going_back", __name__, description="Going back: roll a session back, fork it.")


@blp.route("/session/<session:uuid>/rollback", methods=["POST"])
@blp.arguments(RollbackSchema, example={"restore_point": "p0123456789abcde"})
@blp.response(200, SessionStatusSchema)
@blp.alt_response(202, schema=SessionStatusSchema, description="The wait ran out; the rollback goes on.")
@blp.operation("rollBackSession", 404, 504, body=True, rate="wake", audit="rollback")
def roll_back(wanted: dict[str, str], uuid: str) -> Answer:
    """Roll a session back in place, to a restore point or to before a message, after a restore point of the present
    state, and wait for the end. Prompts that ended later, or have not ended, are marked `rolled_back_at` and never run
    again; the conversation is cut at the same moment. A session that is up is stopped for a restore point, and started
    again. A message is undone in the running workspace; where its agent noted nothing before it, the newest restore
    point from before it takes its place, and `restored` in `rolled_back` says so. If the present state is not saved
    within the wait, a message is not undone: 504 `restore_point_late`, and a repeated call uses that restore point."""
    record, default = visible_session(uuid), core().settings.wait_default
    with waiting(record.user_id, uuid, default):
        message_id = wanted.get("message_id", "")
        if message_id:
            undone = core().going_back.undo(uuid, message_id, wanted_wait(default) or default, request_id())
            if undone is not None:
                return undone, 200
            point_id = core().going_back.before(record, message_id).id
        else:
            point_id = wanted["restore_point"]
        asked = core().going_back.roll_back(uuid, point_id, request_id())
        record = wait_for(asked, _over, default)
    if record.rollback_to or record.generation != asked.generation:
        return record, 202
    if error := record.rolled_back.get("error"):
        raise Problem(409, "rollback_failed", f"The session was not rolled back, its files are as before: {error}")
    if record.status is Status.FAILED:
        raise Problem(409, "start_failed", record.reason or "The workspace did not start.")
    return record, 200 if _over(record) else 202


@blp.route("/session/<session:uuid>/fork", methods=["POST"])
@blp.arguments(ForkSchema, required=False, example={})
@blp.response(201, ForkedSessionSchema, headers={"Location": {"schema": {"type": "string"}}})
@blp.operation("forkSession", 404, 504, 507, body=True, rate="create", audit="fork", creates=True)
def fork(wanted: dict[str, str], uuid: str) -> Answer:
    """Create a session with the files of another one's restore point: the one that is named, the newest from before a
    message, or else one of now. For the same user HOME and the conversation come along, cut at the same moment; for
    another user neither does."""
    source = visible_session(uuid)
    user_id = wanted.get("user_id", source.user_id)
    check_user(user_id)
    going_back = core().going_back
    with waiting(user_id):
        if "restore_point" in wanted:
            point = going_back.usable(uuid, wanted["restore_point"])
        elif "message_id" in wanted:
            point = going_back.before(source, wanted["message_id"])
        else:
            point = going_back.newest(source, core().settings.wait_default, request_id())
        made = going_back.fork(source, point, user_id, request_id(), name_of_request(), made_by=caller().name)
        return created(made, forked_at=point)


def _over(record: Record) -> bool:
    """Whether a wait for the rollback is over."""
    if record.rolled_back.get("error") or record.status is Status.FAILED:
        return True
    return not record.rollback_to and settled_up(record) and settled_down(record)
