"""Which session a request is from: the workspace token, the session's record, and its concurrency limit."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask, Response, g, request

from app.core.access.addresses import counted_as
from app.core.access.agent_credentials import TokenOwner
from app.core.errors import SessionNotFound
from app.core.limit_errors import Owner, TooManyCalls
from app.core.redis import task_queue
from app.core.sessions.model import UP, Record, Status
from app.gateway.parts import gateway
from app.http.concurrency import ConcurrencyLimit
from app.http.problems import RETRY_AFTER, Problem

OPEN = frozenset({"system.livez", "system.readyz", "system.metrics"})
"""The endpoints that need no token; they reveal nothing about sessions."""

SCHEME = "Bearer "


@dataclass(frozen=True)
class Caller:
    """A caller with a correctly signed token. `name` stands in the log line and counts refusals; `user_id` is ""
    without a record."""

    name: str
    uuid: str
    user_id: str = ""


def register_identity(app: Flask, calls_per_session: int) -> None:
    """Refuse requests without a valid token, and those above a session's concurrency limit."""
    limit = ConcurrencyLimit()

    def identify() -> None:
        if request.endpoint in OPEN:
            return
        named = _named_by_token()
        uuid = named.uuid
        g.principal = Caller(uuid, uuid)
        if not limit.acquire(uuid, calls_per_session):
            raise TooManyCalls(Owner.SESSION, uuid, most=calls_per_session)
        g.slot = uuid
        record = _record(uuid)
        g.principal = Caller(uuid, uuid, record.user_id)
        if record.status is Status.TERMINATED:
            raise Problem(403, "session_terminated", f"Session {uuid} is terminated; its token is no longer valid.")
        if named.epoch != record.epoch:
            # A thief of the old token must not use up the agent's limit.
            limit.release(g.pop("slot"))
            g.principal = Caller(f"{uuid}:ended", uuid, record.user_id)
        _check_epoch(record, named.epoch)
        g.session = record

    def leave(response: Response) -> Response:
        uuid = g.pop("slot", None)
        if uuid is not None:
            # Released with the last byte, however the request ends.
            response.call_on_close(lambda: limit.release(uuid))
        return response

    app.before_request(identify)
    app.after_request(leave)


def who_asks() -> str:
    """The session, or without a valid token the address."""
    caller: Caller | None = g.get("principal")
    return caller.name if caller else counted_as(request.remote_addr)


def _record(uuid: str) -> Record:
    try:
        return gateway().core.sessions.get(uuid)
    except SessionNotFound as error:
        # Not a 404: an agent would conclude that no conversation is stored, and overwrite it.
        text = f"Session {uuid} is unknown at present. Its record may be restored; retry later."
        raise Problem(503, "session_not_found", text, retry_after=RETRY_AFTER) from error


def _check_epoch(record: Record, epoch: int) -> None:
    """Refuse a token that has ended, and have the token file written again: the caller may be the session's own agent,
    whose new token is late or was lost."""
    parts = gateway()
    if epoch == record.epoch:
        return
    if record.status in UP and parts.renewals.due(record.uuid, parts.ticks()):
        parts.core.tasks.send(task_queue.TOKEN_ENDED, record.uuid, request_id=g.request_id)
    text = (
        f"This token of session {record.uuid} has ended: it was revoked, or the workspace was put to sleep since. "
        "The workspace's agent finds a new one in its token file."
    )
    raise Problem(401, "token_ended", text, headers={"WWW-Authenticate": "Bearer"}, retry_after=1)


def shown_token() -> str:
    """The request's bearer token, "" for none."""
    header = request.headers.get("Authorization", "")
    return header.removeprefix(SCHEME) if header.startswith(SCHEME) else ""


def _named_by_token() -> TokenOwner:
    token = shown_token()
    named = gateway().core.credentials.owner_of(token)
    if named is None:
        text = "The token is invalid." if token else "Send a workspace token, in Authorization: Bearer."
        raise Problem(401, "unauthorized", text, headers={"WWW-Authenticate": "Bearer"})
    return named
