"""API keys and their owners: what each may do, and for which users.

Only the SHA-256 of a key is stored. A key of 128 random bits needs no slow hash: it can't be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from limits import parse_many

from app.core.access.tokens import AccessToken
from app.process.settings import Settings, SettingsError

ADMIN = "admin"
SERVICE = "service"
READ = "read"
"""The role of a key that sees what an admin's sees, and changes nothing."""

METRICS = "metrics"
"""The role of a key for Prometheus, which opens /metrics and nothing else."""

SESSION = "session"
"""The role of a caller with a session token; no key has it."""

ROLES = (ADMIN, SERVICE, READ, METRICS)
WORK, INPUT = "work", "input"
"""Requests for work in a workspace, which count for each session apart."""

CATEGORIES = ("create", "wake", "chat", "delete", WORK, INPUT, "default")
"""The kinds of requests with rate limits of their own."""

SIGNED_IN = "workspaces.principal"
"""The key of the WSGI environment in which the dashboard, in this process, passes the person who is signed in. No
header of a request can set it."""

OF_PROVIDER = "oidc:"
"""What the name begins with of a person who signs in by OpenID Connect, and no key's: people may choose theirs at the
provider, and the audit and budgets know callers by name."""

KEY_LENGTH = 16
"""Characters of API_KEY at least; `scripts/run` and `manifests/make-secrets` make longer ones."""

DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")
KEY_FIELDS = frozenset({"name", "sha256", "role", "user_prefix", "limits", "max_concurrent", "budget"})


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A caller with a key, or (`held`) with a session token.

    It may act for users whose id begins with `user_prefix`, "" for all. `limits` are the key's own rates by category.
    `max_concurrent` is its concurrency limit in each process, for waits, streams and calls to agents each (0: none)."""

    name: str
    digest: str
    role: str
    user_prefix: str = ""
    limits: Mapping[str, str] = field(default_factory=dict)
    max_concurrent: int = 0
    held: AccessToken | None = None

    def may_see(self, user_id: str) -> bool:
        return self.role != METRICS and user_id.startswith(self.user_prefix)

    @property
    def may_change(self) -> bool:
        """Whether the caller may change anything at all."""
        return self.role in (ADMIN, SERVICE, SESSION)

    @property
    def lists_everything(self) -> bool:
        """Whether the caller may list across users."""
        return self.role in (ADMIN, READ) and not self.user_prefix


class Keyring:
    """All keys that are valid now."""

    def __init__(self, principals: Sequence[Principal]) -> None:
        self._principals = tuple(principals)

    def __iter__(self) -> Iterator[Principal]:
        return iter(self._principals)

    def find(self, key: str) -> Principal | None:
        """The owner of a key, in constant time: every key is compared."""
        return self.by_digest(digest_of(key))

    def by_digest(self, digest: str) -> Principal | None:
        """The owner of the key with this SHA-256, None once the key is no longer valid."""
        found = None
        for principal in self._principals:
            if hmac.compare_digest(principal.digest, digest):
                found = principal
        return found


def digest_of(key: str) -> str:
    """The SHA-256 of a key as text of 64 hex digits."""
    return hashlib.sha256(key.encode("latin-1", "replace")).hexdigest()


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
    if name.startswith(OF_PROVIDER):
        raise SettingsError(f"API_KEYS, entry {number}: name must not begin with {OF_PROVIDER}, as people's do.")
    if not isinstance(digest, str) or not DIGEST_PATTERN.fullmatch(digest.lower()):
        raise SettingsError(f"API_KEYS, entry {number}: sha256 must be the 64 hex digits of the key's SHA-256.")
    if role not in ROLES:
        raise SettingsError(f"API_KEYS, entry {number}: role must be one of {', '.join(ROLES)}.")
    if not isinstance(limits, dict) or not limits.keys() <= set(CATEGORIES):
        raise SettingsError(f"API_KEYS, entry {number}: limits must be an object with only {', '.join(CATEGORIES)}.")
    for category, rate in limits.items():
        check_rate(f"API_KEYS, entry {number}, {category}", rate)
    most = entry.get("max_concurrent", 0)
    if not isinstance(most, int) or isinstance(most, bool) or most < 0:
        raise SettingsError(f"API_KEYS, entry {number}: max_concurrent must be a whole number, 0 for no limit.")
    check_budget(f"API_KEYS, entry {number}", entry.get("budget", 0))
    return Principal(
        name=name, digest=digest.lower(), role=role, user_prefix=prefix, limits=limits, max_concurrent=most
    )


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
