"""What is signed with what: a key for each purpose, so that whoever needs one can't do what the others are for.

All of them follow from SECRET_KEY. A process that has that can do everything, as on one machine. In a cluster none
has it: `manifests/make-secrets` makes the keys of each process, and its SECRET_KEY holds those, as `purpose=key`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

SHORTEST = 32
"""Characters of a key: 128 random bits in hexadecimal, and no word someone made up."""

GIVEN = re.compile(r"([a-z]{1,16})=(.*)")
"""A key for one purpose, as SECRET_KEY may hold it; what else it holds all keys are made of."""


class Purpose(StrEnum):
    """What a key is for: a workspace's token; what opens its agent's door, and its editor's; a visitor's cookie; a
    session token; the manager's own visits. `EARLIER` is for what an earlier release signed with SECRET_KEY itself, for
    one version."""

    WORKSPACE = "workspace"
    AGENT = "agent"
    EDITOR = "editor"
    COOKIE = "cookie"
    SESSION = "session"
    PROBE = "probe"
    EARLIER = "earlier"


LABELS: Mapping[Purpose, str] = {
    Purpose.WORKSPACE: "secret:workspace",
    Purpose.AGENT: "secret:agent",
    Purpose.EDITOR: "secret:editor",
    Purpose.COOKIE: "pass:workspace",
    Purpose.SESSION: "pass:session",
    Purpose.PROBE: "pass:probe",
}
"""What is hashed, under SECRET_KEY, for the key of a purpose; `manifests/make-secrets` has the same words."""


def keys_for(purpose: Purpose, keys: Sequence[str]) -> tuple[str, ...]:
    """The keys for this purpose in those of SECRET_KEY, in their order: the first signs, all verify."""
    found = []
    for key in keys:
        given = GIVEN.fullmatch(key)
        if given is None:
            found.append(_derived(key, purpose))
        elif given[1] == purpose:
            found.append(given[2])
    return tuple(found)


def trouble_with(keys: Sequence[str]) -> str:
    """What is wrong with the keys of SECRET_KEY, "" for nothing; without any of them in the text."""
    known = {str(each) for each in Purpose}
    for key in keys:
        given = GIVEN.fullmatch(key)
        if given is not None and given[1] not in known:
            return f"what stands before a = is what the key after it is for, one of {', '.join(sorted(known))}."
        if len(given[2] if given else key) < SHORTEST:
            return f"each key must have {SHORTEST} characters or more."
    return ""


def _derived(key: str, purpose: Purpose) -> str:
    if purpose is Purpose.EARLIER:
        return key
    return hmac.new(key.encode(), LABELS[purpose].encode(), hashlib.sha256).hexdigest()
