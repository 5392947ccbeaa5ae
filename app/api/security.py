"""Who is calling, and what they may see: API keys, their roles, and the users they are bound to.

A key is known by its SHA-256 only. A key of 128 random bits needs no slow hash: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from flask import g, request
from limits import parse_many

from app.api.context import core
from app.problems import Problem
from app.sessions.backup_files import NAME_PATTERN
from app.sessions.backups import Backup
from app.sessions.errors import BackupNotFound, SessionNotFound
from app.sessions.model import UUID_PATTERN, Record, Status
from app.sessions.passes import Kind, Pass, Passes
from app.settings import Settings, SettingsError

HEADER = "X-API-Key"
ADMIN = "admin"
SERVICE = "service"
SESSION = "session"
"""The role of who has a session token; no key has it."""

SCHEME = "Bearer "
CHALLENGE = {"WWW-Authenticate": 'ApiKey realm="sessions", Bearer'}
CATEGORIES = ("create", "wake", "chat", "delete", "default")
"""The kinds of requests that have rate limits of their own."""

KEY_LENGTH = 16
"""Characters of API_KEY at least; what `scripts/run` and `manifests/make-secrets` make has more."""

DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")
KEY_FIELDS = frozenset({"name", "sha256", "role", "user_prefix", "limits", "held_at_once"})

ANONYMOUS = frozenset(
    {
        *("probes.livez", "probes.readyz", "system.health", "docs.openapi", "docs.page", "docs.asset"),
        "return.again",
    }
)
"""The endpoints that need no key; each is public by the contract."""

BY_TOKEN = frozenset(
    {
        *("sessions.get", "sessions.status", "sessions.events", "sessions.wake", "sessions.sleep"),
        *("messages.chat", "messages.conversation", "messages.message"),
    }
)
"""What a session token opens, for its own session."""


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A caller: the holder of one key. `user_prefix` is how the users it may act for begin, "" for all;
    `limits` are rate limits of its own by category, `held_at_once` how many waits, streams and calls to agents each it
    may hold of a process (0: as many as its users may), `held` the session token of a caller who has that instead."""

    name: str
    digest: str
    role: str
    user_prefix: str = ""
    limits: Mapping[str, str] = field(default_factory=dict)
    held_at_once: int = 0
    held: Pass | None = None

    def may_see(self, user_id: str) -> bool:
        return user_id.startswith(self.user_prefix)

    @property
    def lists_everything(self) -> bool:
        """Whether it may list across users."""
        return self.role == ADMIN and not self.user_prefix


class Keyring:
    """All keys that are valid now."""

    def __init__(self, principals: Sequence[Principal]) -> None:
        self._principals = tuple(principals)

    def find(self, key: str) -> Principal | None:
        """Whose key this is. Every key is compared whole, so the time taken tells nothing."""
        digest = hashlib.sha256(key.encode("latin-1", "replace")).hexdigest()
        found = None
        for principal in self._principals:
            if hmac.compare_digest(principal.digest, digest):
                found = principal
        return found


def read_keyring(settings: Settings) -> Keyring:
    """The keys of the settings; raises `SettingsError` when one is malformed or there is none at all."""
    principals = [_principal(number, entry) for number, entry in enumerate(_listed(settings.api_keys), 1)]
    if settings.api_key:
        if len(settings.api_key) < KEY_LENGTH:
            raise SettingsError(
                f"API_KEY must have {KEY_LENGTH} characters or more, or it can be guessed. Make one with: "
                "openssl rand -hex 24"
            )
        digest = hashlib.sha256(settings.api_key.encode()).hexdigest()
        principals.append(Principal(name="api_key", digest=digest, role=ADMIN))
    if not principals:
        raise SettingsError("No key is configured, so nobody could call the API: set API_KEY or API_KEYS.")
    return Keyring(principals)


def _listed(text: str) -> list[Any]:
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise SettingsError("API_KEYS is not valid JSON.") from error
    if not isinstance(entries, list):
        raise SettingsError("API_KEYS must be a JSON list of objects.")
    return entries


def _principal(number: int, entry: Any) -> Principal:
    """One entry of API_KEYS. The messages name its place in the list, never what it holds."""
    if not isinstance(entry, dict) or not entry.keys() <= KEY_FIELDS:
        raise SettingsError(f"API_KEYS, entry {number}: an object with {', '.join(sorted(KEY_FIELDS))} is expected.")
    name, digest, role = (entry.get(field_name) for field_name in ("name", "sha256", "role"))
    prefix, limits = entry.get("user_prefix", ""), entry.get("limits", {})
    if not isinstance(name, str) or not name or not isinstance(prefix, str):
        raise SettingsError(f"API_KEYS, entry {number}: name and user_prefix must be text.")
    if not isinstance(digest, str) or not DIGEST_PATTERN.fullmatch(digest.lower()):
        raise SettingsError(f"API_KEYS, entry {number}: sha256 must be the 64 hex digits of the key's SHA-256.")
    if role not in (ADMIN, SERVICE):
        raise SettingsError(f"API_KEYS, entry {number}: role must be {ADMIN} or {SERVICE}.")
    if not isinstance(limits, dict) or not limits.keys() <= set(CATEGORIES):
        raise SettingsError(f"API_KEYS, entry {number}: limits are for {', '.join(CATEGORIES)}.")
    for category, rate in limits.items():
        check_rate(f"API_KEYS, entry {number}, {category}", rate)
    held = entry.get("held_at_once", 0)
    if not isinstance(held, int) or isinstance(held, bool) or held < 0:
        raise SettingsError(f"API_KEYS, entry {number}: held_at_once must be a number, 0 for no bound.")
    return Principal(name=name, digest=digest.lower(), role=role, user_prefix=prefix, limits=limits, held_at_once=held)


def check_rate(where: str, rate: Any) -> None:
    """Raises `SettingsError` unless `rate` is one limit such as `100/minute`."""
    try:
        good = isinstance(rate, str) and len(parse_many(rate)) == 1
    except ValueError:
        good = False
    if not good:
        raise SettingsError(f"{where}: a rate looks like 100/minute.")


def identify(keyring: Keyring, passes: Passes) -> None:
    """Note whose request this is, before its rate limit is counted."""
    key, token = request.headers.get(HEADER), request.headers.get("Authorization", "")
    if key:
        g.principal = keyring.find(key)
    else:
        held = passes.read(Kind.TOKEN, token.removeprefix(SCHEME), time.time()) if token.startswith(SCHEME) else None
        g.principal = None if held is None else _holder(held)


def _holder(held: Pass) -> Principal:
    """Who shows a session token: limits and repeated requests are counted by the session."""
    name = f"session:{held.uuid}"
    return Principal(name=name, digest=hashlib.sha256(name.encode()).hexdigest(), role=SESSION, held=held)


def stranger() -> str:
    """Which session's token or unknown client's address it is, "" for the holder of a key: the product's own servers
    have no thread to spare for an answer that is held back."""
    principal: Principal | None = g.get("principal")
    if principal is None:
        return f"ip:{request.remote_addr or 'local'}"
    return principal.name if principal.held else ""


def require_key() -> None:
    """Refuse a request whose endpoint needs a key and that brought no valid one."""
    principal: Principal | None = g.principal
    if request.endpoint is None or request.endpoint in ANONYMOUS:
        return
    if principal is None:
        text = f"An API key is needed, in {HEADER}, or for one session its token, in Authorization."
        if HEADER in request.headers:
            text = "The API key is not valid."
        elif "Authorization" in request.headers:
            text = explained(request.headers["Authorization"])
        raise Problem(401, "unauthorized", text, headers=CHALLENGE)
    if principal.held is not None:
        _check_token(principal.held)


def explained(shown: str) -> str:
    """Why what came in Authorization opens nothing."""
    if shown.startswith(SCHEME) and shown.count(".") == 2:
        return "The session token is not valid, or not any more."
    return f"What came in Authorization is not a session token. Send an API key in {HEADER}."


def _check_token(held: Pass) -> None:
    """Refuse a session token where it opens nothing, and one that was taken back."""
    if request.endpoint not in BY_TOKEN:
        raise Problem(403, "forbidden", "A session token does not open this; an API key may.")
    uuid = (request.view_args or {})["uuid"]
    if uuid != held.uuid:
        raise SessionNotFound(uuid)
    record = visible_session(uuid)
    if record.door != held.door or record.status is Status.TERMINATED:
        raise Problem(401, "unauthorized", "The session token was taken back.", headers=CHALLENGE)


def caller() -> Principal:
    """Who called; only where a key is required."""
    return cast(Principal, g.principal)


def check_uuid(uuid: str) -> None:
    """Raises `SessionNotFound` for what can't be a session's name, and would be no safe part of a Redis key."""
    if not UUID_PATTERN.fullmatch(uuid):
        raise SessionNotFound(uuid)


def visible_session(uuid: str) -> Record:
    """The session as it was when the request came; raises `SessionNotFound` when there is none or it is not
    the caller's to see."""
    check_uuid(uuid)
    hashed = g.get("session_hash")
    record = Record.from_hash(hashed) if hashed else core().sessions.get(uuid)
    if not caller().may_see(record.user_id):
        raise SessionNotFound(uuid)
    return record


def visible_past(uuid: str) -> Record:
    """The session, or, when its record has expired, what its newest backup tells of it; raises `SessionNotFound`
    when there is neither or it is not the caller's to see."""
    try:
        return visible_session(uuid)
    except SessionNotFound:
        backup = core().backups.newest_of(uuid) if UUID_PATTERN.fullmatch(uuid) else None
        if backup is None or not caller().may_see(backup.user_id):
            raise
        return Record(**vars(backup.origin), status=Status.TERMINATED)


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


def check_user(user_id: str) -> None:
    """Raises a 403 unless the caller may act for this user."""
    if not caller().may_see(user_id):
        raise Problem(403, "forbidden", "This key may not act for that user.")


def check_listing(user_id: str | None, uuid: str | None = None) -> None:
    """Raises a 403 unless the caller may list what these filters leave."""
    if user_id is not None:
        check_user(user_id)
    elif uuid is None and not caller().lists_everything:
        raise Problem(403, "forbidden", "This key may list one user at a time: add user_id.")
