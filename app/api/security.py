"""Who is calling, and what they may see: API keys, their roles, and the users they are bound to.

Only the SHA-256 of a key is stored. A key of 128 random bits needs no slow hash: it can't be guessed.
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

from app.api.blueprint import route_rules
from app.api.context import core
from app.core.access.tokens import AccessToken, AccessTokens, Kind
from app.core.backups.index import Backup
from app.core.backups.store import NAME_PATTERN
from app.core.errors import BackupNotFound, SessionNotFound
from app.core.sessions.model import UUID_PATTERN, Record, Status
from app.problems import Problem
from app.settings import Settings, SettingsError

HEADER = "X-API-Key"
ADMIN = "admin"
SERVICE = "service"
METRICS = "metrics"
"""The role of a key for Prometheus, which opens /metrics and nothing else."""

SESSION = "session"
"""The role of a caller with a session token; no key has it."""

SCHEME = "Bearer "
CHALLENGE = {"WWW-Authenticate": 'ApiKey realm="sessions", Bearer'}
CATEGORIES = ("create", "wake", "chat", "delete", "default")
"""The kinds of requests with rate limits of their own."""

KEY_LENGTH = 16
"""Characters of API_KEY at least; `scripts/run` and `manifests/make-secrets` make longer ones."""

DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")
KEY_FIELDS = frozenset({"name", "sha256", "role", "user_prefix", "limits", "held_at_once", "budget"})


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A caller with a key, or (`held`) with a session token.

    It may act for users whose id begins with `user_prefix`, "" for all. `limits` are the key's own rates by category.
    `held_at_once` is its concurrency limit in each process, for waits, streams and calls to agents each (0: none)."""

    name: str
    digest: str
    role: str
    user_prefix: str = ""
    limits: Mapping[str, str] = field(default_factory=dict)
    held_at_once: int = 0
    held: AccessToken | None = None

    def may_see(self, user_id: str) -> bool:
        return self.role != METRICS and user_id.startswith(self.user_prefix)

    @property
    def lists_everything(self) -> bool:
        """Whether the caller may list across users."""
        return self.role == ADMIN and not self.user_prefix


class Keyring:
    """All keys that are valid now."""

    def __init__(self, principals: Sequence[Principal]) -> None:
        self._principals = tuple(principals)

    def find(self, key: str) -> Principal | None:
        """The owner of a key, in constant time: every key is compared."""
        digest = hashlib.sha256(key.encode("latin-1", "replace")).hexdigest()
        found = None
        for principal in self._principals:
            if hmac.compare_digest(principal.digest, digest):
                found = principal
        return found


def read_keyring(settings: Settings) -> Keyring:
    """The keys of the settings; raises `SettingsError` if one is malformed or none is set."""
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
        raise SettingsError("No API key is configured: set API_KEY or API_KEYS.")
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
    """One entry of API_KEYS. Errors name its place in the list, never its values."""
    if not isinstance(entry, dict) or not entry.keys() <= KEY_FIELDS:
        raise SettingsError(f"API_KEYS, entry {number} must be an object with only {', '.join(sorted(KEY_FIELDS))}.")
    name, digest, role = (entry.get(field_name) for field_name in ("name", "sha256", "role"))
    prefix, limits = entry.get("user_prefix", ""), entry.get("limits", {})
    if not isinstance(name, str) or not name or not isinstance(prefix, str):
        raise SettingsError(f"API_KEYS, entry {number}: name and user_prefix must be text.")
    if not isinstance(digest, str) or not DIGEST_PATTERN.fullmatch(digest.lower()):
        raise SettingsError(f"API_KEYS, entry {number}: sha256 must be the 64 hex digits of the key's SHA-256.")
    if role not in (ADMIN, SERVICE, METRICS):
        raise SettingsError(f"API_KEYS, entry {number}: role must be {ADMIN}, {SERVICE} or {METRICS}.")
    if not isinstance(limits, dict) or not limits.keys() <= set(CATEGORIES):
        raise SettingsError(f"API_KEYS, entry {number}: limits must be an object with only {', '.join(CATEGORIES)}.")
    for category, rate in limits.items():
        check_rate(f"API_KEYS, entry {number}, {category}", rate)
    held = entry.get("held_at_once", 0)
    if not isinstance(held, int) or isinstance(held, bool) or held < 0:
        raise SettingsError(f"API_KEYS, entry {number}: held_at_once must be a whole number, 0 for no limit.")
    check_budget(f"API_KEYS, entry {number}", entry.get("budget", 0))
    return Principal(name=name, digest=digest.lower(), role=role, user_prefix=prefix, limits=limits, held_at_once=held)


def check_budget(where: str, budget: Any) -> None:
    """Raises `SettingsError` unless `budget` is a number of dollars."""
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not 0 <= budget < 1e9:
        raise SettingsError(f"{where}: budget must be dollars a month, 0 for no limit.")


def check_rate(where: str, rate: Any) -> None:
    """Raises `SettingsError` unless `rate` is one limit such as `100/minute`."""
    try:
        good = isinstance(rate, str) and len(parse_many(rate)) == 1
    except ValueError:
        good = False
    if not good:
        raise SettingsError(f"{where}: a rate must look like 100/minute.")


def identify(keyring: Keyring, access_tokens: AccessTokens) -> None:
    """Set `g.principal`, the caller, None without a valid key or token. Runs before rate limits count."""
    key, token = request.headers.get(HEADER), request.headers.get("Authorization", "")
    if key:
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
        return f"ip:{request.remote_addr or 'local'}"
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
    """Raises a 403 unless the caller may list with these filters."""
    if user_id is not None:
        check_user(user_id)
    elif uuid is None and not caller().lists_everything:
        raise Problem(403, "forbidden", "This key may list one user at a time: add user_id.")
