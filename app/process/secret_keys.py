"""A signing key for each purpose, so that a process with one key can't sign for other purposes.

All keys are derived from SECRET_KEY. On one machine every process has it. In a cluster no process has it:
`manifests/make-secrets` derives the keys that each process needs, and its SECRET_KEY holds only these (`purpose=key`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

SHORTEST = 32
"""Characters of a key: 128 random bits in hexadecimal."""

GIVEN = re.compile(r"([a-z]{1,16})=(.*)")
"""A key for one purpose in SECRET_KEY; any other part is one to derive keys from."""


class Purpose(StrEnum):
    """What a key signs: workspace tokens, agent secrets, editor secrets, orders to disconnect, cookies, session tokens,
    and the observer's probe tokens."""

    WORKSPACE = "workspace"
    AGENT = "agent"
    EDITOR = "editor"
    DISCONNECT = "disconnect"
    COOKIE = "cookie"
    SESSION = "session"
    PROBE = "probe"


LABELS: Mapping[Purpose, str] = {
    Purpose.WORKSPACE: "secret:workspace",
    Purpose.AGENT: "secret:agent",
    Purpose.EDITOR: "secret:editor",
    Purpose.DISCONNECT: "secret:disconnect",
    Purpose.COOKIE: "pass:workspace",
    Purpose.SESSION: "pass:session",
    Purpose.PROBE: "pass:probe",
}
"""The text whose HMAC under SECRET_KEY is a purpose's key; `manifests/make-secrets` has the same texts."""


def keys_for(purpose: Purpose, keys: Sequence[str]) -> tuple[str, ...]:
    """The keys for a purpose from the parts of SECRET_KEY, in order: the first signs, all verify."""
    found = []
    for key in keys:
        given = GIVEN.fullmatch(key)
        if given is None:
            found.append(_derived(key, purpose))
        elif given[1] == purpose:
            found.append(given[2])
    return tuple(found)


def trouble_with(keys: Sequence[str]) -> str:
    """What is wrong with SECRET_KEY, "" for nothing; the text holds no key."""
    known = {str(each) for each in Purpose}
    for key in keys:
        given = GIVEN.fullmatch(key)
        if given is not None and given[1] not in known:
            return f"the word before = must be the purpose of the key after it: {', '.join(sorted(known))}."
        if len(given[2] if given else key) < SHORTEST:
            return f"each key must have {SHORTEST} characters or more."
    return ""


def _derived(key: str, purpose: Purpose) -> str:
    return hmac.new(key.encode(), LABELS[purpose].encode(), hashlib.sha256).hexdigest()
