"""Whose request it is: the workspace's token, the record of its session, and a place among that session's requests."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from flask import Flask, Response, g, request

from app.gateway.context import gateway
from app.places import Places
from app.problems import Problem
from app.sessions import queue
from app.sessions.errors import SessionNotFound
from app.sessions.model import UP, Record, Status
from app.sessions.secrets import Named

log = logging.getLogger(__name__)

OPEN = frozenset({"system.livez", "system.readyz", "system.metrics"})
"""The endpoints that need no token; none of them tells anything of a session."""

SCHEME = "Bearer "


@dataclass(frozen=True)
class Caller:
    """Who is named in the log line of a request: the session."""

    name: str


def register_identity(app: Flask, calls_per_session: int) -> None:
    """Refuse a request without a good token, and one more than a session may have at a time."""
    places = Places()

    def identify() -> None:
        if request.endpoint in OPEN:
            return
        named = _named_by_token()
        uuid = named.uuid
        g.principal = Caller(uuid)
        if not places.take(uuid, calls_per_session):
            text = f"A session may have {calls_per_session} requests at a time here."
            raise Problem(429, "too_many_calls", text, headers={"Retry-After": "1"})
        g.place = uuid
        record = _record(uuid)
        if record.status is Status.TERMINATED:
            raise Problem(403, "session_terminated", f"Session {uuid} is terminated; its token is no longer good.")
        if named.epoch != record.epoch:
            # Whoever stole it is not to take the agent's places.
            places.give_back(g.pop("place"))
            g.principal = Caller(f"{uuid}:ended")
        _check_epoch(record, named.epoch)
        g.session = record

    def leave(response: Response) -> Response:
        uuid = g.pop("place", None)
        if uuid is not None:
            # When the last byte is out, however the request ends.
            response.call_on_close(lambda: places.give_back(uuid))
        return response

    app.before_request(identify)
    app.after_request(leave)


def who_asks() -> str:
    """The session, or for want of a good token the address."""
    caller: Caller | None = g.get("principal")
    return caller.name if caller else f"ip:{request.remote_addr or 'local'}"


def _record(uuid: str) -> Record:
    try:
        return gateway().core.sessions.get(uuid)
    except SessionNotFound as error:
        # No 404, which says that there is no conversation: an agent would begin anew and overwrite the one there is.
        text = f"Session {uuid} is not known here now. Its record may come back; try again."
        raise Problem(503, "session_not_found", text, headers={"Retry-After": "2"}) from error


def _check_epoch(record: Record, epoch: int) -> None:
    """Refuse a token that has ended. Whoever brings one may be the session's own agent, whose file was not written anew
    yet, or no more: so that is seen to, whatever was lost before."""
    parts = gateway()
    if epoch == record.epoch:
        if not epoch and parts.old_tokens.due(record.uuid, parts.ticks()):
            log.warning("token of an earlier release; it is good until the session sleeps", extra={"uuid": record.uuid})
        return
    if record.status in UP and parts.renewals.due(record.uuid, parts.ticks()):
        parts.core.tasks.send(queue.TOKEN_ENDED, record.uuid, request_id=g.request_id)
    text = (
        f"This token of session {record.uuid} has ended: it was revoked, or the workspace was put to sleep since. "
        "The workspace's own agent finds another in its token file; nobody else gets one."
    )
    raise Problem(401, "token_ended", text, headers={"WWW-Authenticate": "Bearer", "Retry-After": "1"})


def _named_by_token() -> Named:
    header = request.headers.get("Authorization", "")
    token = header.removeprefix(SCHEME) if header.startswith(SCHEME) else ""
    named = gateway().core.secrets.named_by(token)
    if named is None:
        text = "The token is not valid." if token else "A workspace's token is needed, in Authorization: Bearer."
        raise Problem(401, "unauthorized", text, headers={"WWW-Authenticate": "Bearer"})
    return named
