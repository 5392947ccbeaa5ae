"""Who is calling, and what they may see: by an API key (`app/core/access/keyring.py`), by a session token, or signed in
at the dashboard.
"""

from __future__ import annotations

import hashlib
import time
from typing import cast

from flask import g, request

from app.api.blueprint import route_rules
from app.api.current import core
from app.core.access.addresses import counted_as
from app.core.access.keyring import METRICS, READ, SESSION, SIGNED_IN, Keyring, Principal
from app.core.access.tokens import AccessToken, AccessTokens, Kind
from app.core.backups.index import Backup
from app.core.backups.store import NAME_PATTERN
from app.core.errors import BackupNotFound, SessionNotFound
from app.core.restore_points.names import parse
from app.core.sessions.model import UUID_PATTERN, Record, Status
from app.http.problems import Problem

HEADER = "X-API-Key"
SCHEME = "Bearer "
CHALLENGE = {"WWW-Authenticate": 'ApiKey realm="sessions", Bearer'}
READING = frozenset({"GET", "HEAD"})


def identify(keyring: Keyring, access_tokens: AccessTokens) -> None:
    """Set `g.principal`, the caller, None without a valid key or token. Runs before rate limits count."""
    key, token = request.headers.get(HEADER), request.headers.get("Authorization", "")
    if SIGNED_IN in request.environ:
        g.principal = request.environ[SIGNED_IN]
    elif key:
        g.principal = keyring.find(key)
    else:
        bearer = token.removeprefix(SCHEME) if token.startswith(SCHEME) else ""
        held = access_tokens.read(Kind.TOKEN, bearer, time.time())
        g.principal = _scraper(keyring, bearer) if held is None else _holder(held)


def _scraper(keyring: Keyring, bearer: str) -> Principal | None:
    """The owner of a key that Prometheus shows. Other keys are not taken in this header: they come in X-API-Key."""
    found = keyring.find(bearer) if bearer else None
    return found if found is not None and found.role == METRICS else None


def _holder(held: AccessToken) -> Principal:
    """The caller with a session token: its limits and idempotency keys are the session's."""
    name = f"session:{held.uuid}"
    return Principal(name=name, digest=hashlib.sha256(name.encode()).hexdigest(), role=SESSION, held=held)


def tarpit_name() -> str:
    """The name by which the tarpit counts a caller: the session's or the client's address. "" for a caller with a key:
    the product's own servers have no thread to spare for a delayed answer."""
    principal: Principal | None = g.get("principal")
    if principal is None:
        return counted_as(request.remote_addr)
    return principal.name if principal.held else ""


def require_key() -> None:
    """Refuse a request without a valid key or token, unless its route is anonymous."""
    principal: Principal | None = g.principal
    if route_rules().anonymous:
        return
    if principal is None:
        text = f"Send an API key in {HEADER}, or a session token in Authorization."
        if HEADER in request.headers:
            text = "The API key is not valid."
        elif "Authorization" in request.headers:
            text = explained(request.headers["Authorization"])
        raise Problem(401, "unauthorized", text, headers=CHALLENGE)
    if principal.role == METRICS and not route_rules().metrics_key:
        raise Problem(403, "forbidden", "This key reads /metrics and opens nothing else.")
    if principal.role == READ and (request.method not in READING or route_rules().audit):
        raise Problem(403, "forbidden", "This key may look and change nothing: its role is `read`.")
    if principal.held is not None:
        _check_token(principal.held)


def explained(shown: str) -> str:
    """Why the Authorization header is refused."""
    if shown.startswith(SCHEME) and shown.count(".") == 2:
        return "The session token is invalid or has expired."
    return f"The Authorization header holds no session token. Send an API key in {HEADER}."


def _check_token(held: AccessToken) -> None:
    """Refuse a session token on routes that don't take it, for another session, and after a revocation."""
    if not route_rules().session_token:
        raise Problem(403, "forbidden", "This call needs an API key; a session token does not open it.")
    uuid = (request.view_args or {})["uuid"]
    if uuid != held.uuid:
        raise SessionNotFound(uuid)
    record = visible_session(uuid)
    if record.access_epoch != held.access_epoch or record.status is Status.TERMINATED:
        raise Problem(401, "unauthorized", "The session token was revoked.", headers=CHALLENGE)


def has_key() -> bool:
    """Whether the caller has a valid API key, or is signed in at the dashboard: no stranger, and no session token."""
    return g.principal is not None and g.principal.held is None


def sees_the_service() -> bool:
    """Whether the caller may be told of the service as a whole: with a key that is bound to no users."""
    return has_key() and (not caller().user_prefix or caller().role == METRICS)


def caller() -> Principal:
    """The caller; only on routes that are not anonymous."""
    return cast(Principal, g.principal)


def check_uuid(uuid: str) -> None:
    """Raises `SessionNotFound` for a malformed uuid, which would be no safe part of a Redis key."""
    if not UUID_PATTERN.fullmatch(uuid):
        raise SessionNotFound(uuid)


def visible_session(uuid: str) -> Record:
    """The session as it was when the request came; raises `SessionNotFound` if there is none or the caller may not
    see it."""
    check_uuid(uuid)
    hashed = g.get("session_hash")
    record = Record.from_hash(hashed) if hashed else core().sessions.get(uuid)
    if not caller().may_see(record.user_id):
        raise SessionNotFound(uuid)
    return record


def visible_past(uuid: str) -> Record:
    """The session or, if its record has expired, a record made from its newest backup; raises `SessionNotFound` if
    there is neither or the caller may not see it."""
    try:
        return visible_session(uuid)
    except SessionNotFound:
        backup = core().backups.newest_of(uuid) if UUID_PATTERN.fullmatch(uuid) else None
        if backup is None or not caller().may_see(backup.user_id):
            raise
        return Record(**vars(backup.origin), status=Status.TERMINATED)


def user_of_remains(uuid: str) -> str:
    """Whose session it is, or was as far as its record, a backup or the cost ledger tell; "" if only a conversation is
    left. Raises `SessionNotFound` if nothing is, or the caller may not see it."""
    check_uuid(uuid)
    if core().store.find([uuid]):
        return visible_session(uuid).user_id
    backup, payer = core().backups.newest_of(uuid), core().ledger.payer(uuid)
    user_id = backup.user_id if backup else payer.user_id if payer else ""
    if user_id:
        seen = caller().may_see(user_id)
    else:
        seen = not caller().user_prefix and core().history_store.last_written(uuid) is not None
    if not seen:
        raise SessionNotFound(uuid)
    return user_id


def check_session(uuid: str) -> None:
    """Raises `SessionNotFound` unless there may be such a session and it is the caller's to see."""
    check_uuid(uuid)
    if caller().user_prefix:
        visible_session(uuid)


def visible_backup(name: str) -> Backup:
    """The backup; raises `BackupNotFound` when there is none or it is not the caller's to see."""
    if not NAME_PATTERN.fullmatch(name):
        raise BackupNotFound(name)
    backup = core().backups.get(name)
    g.backup = backup  # for the audit
    if not caller().may_see(backup.user_id):
        raise BackupNotFound(name)
    return backup


def check_source(restore_from: str) -> None:
    """Raises `BackupNotFound` unless the backup or the restore point may exist and is the caller's to see."""
    point = parse(restore_from)
    if point is None:
        visible_backup(restore_from)
        return
    try:
        record = core().sessions.get(point[0])
    except SessionNotFound as error:
        raise BackupNotFound(restore_from) from error
    if not caller().may_see(record.user_id):
        raise BackupNotFound(restore_from)


def check_user(user_id: str) -> None:
    """Raises a 403 unless the caller may act for this user."""
    if not caller().may_see(user_id):
        raise Problem(403, "forbidden", "This key may not act for that user.")


def check_listing(user_id: str | None, uuid: str | None = None) -> None:
    """Raises a 403 unless the caller may list with these filters."""
    if user_id is not None:
        check_user(user_id)
    elif uuid is None and not caller().lists_everything:
        raise Problem(403, "forbidden", "This key may list one user at a time: add user_id.")


def check_operator() -> None:
    """Raises a 403 unless the caller may list across users; what changes something a key of the role `read` is
    refused before."""
    if not caller().lists_everything:
        raise Problem(403, "forbidden", "This call is open only to admin and read keys that are bound to no users.")
